"""Writes the model of a run, or of a Hugging Face folder, in another form or in less space."""

import copy
import functools
import pathlib
import tempfile
from types import MappingProxyType
from typing import Any

import jax
import numpy as np
from flax import traverse_util

from prunejax import files
from prunejax.compress import (
  deep_compression,
  onnx_bert,
  onnx_gpt2,
  onnx_graph,
  shrink,
  sparse_file,
)
from prunejax.models.hf import folder as hf_directory
from prunejax.models.hf import stored_masks
from prunejax.train import console, families, saved_model, specs


def export(
  folder, out, dtype: str = 'float32', to: str = 'hf', max_shard_size=None, say=console.say
):
  """Writes a model in another form; pruned weights are zeros.

  Args:
    folder: a work directory, a Hugging Face folder, or a sparse file of a model.
    out: the folder or file to write.
    dtype: of the weights of a folder, or of the values of a sparse file.
    to: 'hf', a Hugging Face folder, in which the layers of a shrunk model are padded to one width;
      'shrunk', a folder without the idle heads and inner neurons, which only this project reads;
      'sparse', 'deep-compression' or 'onnx', one file. The first two of these files are read back
      and compared before they are delivered. A sparse file holds the config and the vocabulary,
      so that `init` and export read it as a model.
    max_shard_size: of a folder, bytes of weights in a file, or such as '5GB'; None for 5 GB.
    say: prints a line.

  Raises:
    FileNotFoundError: the folder holds neither a model nor a checkpoint.
    FileExistsError: `out` exists.
    ValueError: a wrong form or dtype; a form that does not hold this model.
  """
  if to not in FORMS:
    raise ValueError(f'--to={to}{specs.suggest(to, FORMS)}: expected one of {", ".join(FORMS)}')
  write, dtypes = FORMS[to]
  if max_shard_size is not None:
    if to not in FOLDERS:
      raise ValueError(f'--max-shard-size={max_shard_size}: --to={to} writes one file')
    hf_directory.bytes_of(max_shard_size)
    write = functools.partial(write, most=max_shard_size)
  if dtype not in dtypes:
    raise ValueError(f'--dtype={dtype!r}: expected one of {list(dtypes)} with --to={to}')
  out = files.path(out)
  if to in FOLDERS and files.names(out):
    raise FileExistsError(f'--out={str(out)!r} is not empty: nothing was written')
  if to not in FOLDERS and files.exists(out):
    raise FileExistsError(f'--out={str(out)!r} is there already: nothing was written')
  model = saved_model.load(folder)
  kind = model.size.model_type
  if to == 'shrunk' and kind in WHOLE:
    raise ValueError(f'--to=shrunk: the layers of a {kind!r} cannot be cut')
  if to == 'onnx' and 'spans/kernel' in model.leaves:
    raise ValueError('--to=onnx: the model has a span head, which this form does not hold')
  more = write(model, out, dtype)
  if model.masks and (to != 'hf' or _has_idle(model.size)):
    more = '; '.join(filter(None, [more, f'{stored_masks.NAME} is left out']))
  say(f'{model.what} of {folder} is in {out} as {dtype}' + (f'; {more}' if more else ''))


def shrunk(model: saved_model.Saved) -> tuple[dict, Any]:
  """Returns the leaves and the size of a model without its idle heads and inner neurons."""
  parts = saved_model.widths(model.size)
  leaves = {name: np.asarray(jax.device_get(leaf)) for name, leaf in model.leaves.items()}
  leaves, heads, inner = shrink.shrink(
    leaves, parts[0][1], saved_model.activation(model.size), families.group(model.size)
  )
  size = copy.deepcopy(model.size)
  size.heads_per_layer, size.intermediate_per_layer = heads, inner
  _set_inner(size, max(*inner, 1))
  return leaves, size


def _set_inner(size, inner):
  """Sets the number of inner neurons of a model whose layers are alike."""
  setattr(size, families.of_size(size).names['intermediate_size'], inner)


def _hf(model, out, dtype, **how):
  size, params, more = model.size, model.params, ''
  if _has_idle(size):
    parts = saved_model.widths(size)
    inner = max(*(part[2] for part in parts), 1)
    leaves = shrink.pad(
      model.leaves, parts[0][1], size.num_attention_heads, inner, families.group(size)
    )
    params, size = traverse_util.unflatten_dict(leaves, sep='/'), copy.deepcopy(size)
    size.heads_per_layer = size.intermediate_per_layer = None
    _set_inner(size, inner)
    more = (
      f'its layers are padded with zeros to {size.num_attention_heads} heads and {inner} inner'
      ' neurons'
    )
  elif model.masks is not None:
    how['beside'] = {
      stored_masks.NAME: stored_masks.encode(model.masks),
      stored_masks.RECORD: model.record,
    }
  return '; '.join(filter(None, [more, _save(model, out, params, size, dtype, **how)]))


def _has_idle(size):
  """Whether heads or inner neurons were cut out of the layers of a model."""
  return any(getattr(size, f'{name}_per_layer', None) for name in ('heads', 'intermediate'))


def _shrunk(model, out, dtype, **how):
  leaves, size = shrunk(model)
  params = traverse_util.unflatten_dict(leaves, sep='/')
  lost = _save(model, out, params, size, dtype, **how)
  now, before = (sum(map(np.size, tree.values())) for tree in (leaves, model.leaves))
  kept = f'heads {size.heads_per_layer}, inner neurons {size.intermediate_per_layer}'
  gain = ': no gain, no head and no neuron is idle' if now == before else ''
  more = f'{kept}, {now:,} parameters of {before:,}{gain}'
  return '; '.join(filter(None, [more, lost]))


def _save(model, out, params, size, dtype, beside=MappingProxyType({}), **how):
  """Writes a folder. Returns in words how many weights `dtype` has made zero, or ''.

  `beside` has more of its files, {name: content}; one without content is left out.
  """
  how |= {'carried': model.carried}

  def write(here):
    lost = families.save(here, params, size, model.tokenizer, dtype, **how)
    for name, data in beside.items():
      if data:
        files.write(here / name, data)
    return lost

  lost = files.deliver(out, write)
  weights = sum(map(np.size, jax.tree.leaves(params)))
  return lost and f'{lost:,} of {weights:,} weights were not zero and are zero as {dtype}'


def _sparse(model, out, dtype):
  leaves = _arrays(model)
  texts = families.texts(model.params, model.size, model.tokenizer)
  data = sparse_file.encode(leaves, dtype, texts={**texts, **model.carried})
  return _delivered(
    out, data, leaves, sparse_file.read_sparse.decode(data), exact=dtype == 'float32'
  )


def _deep(model, out, dtype):
  del dtype
  leaves = _arrays(model)
  data = deep_compression.encode(leaves)
  return _delivered(out, data, leaves, deep_compression.decode(data), exact=False)


def _delivered(out, data, leaves, again, exact):
  """Writes `data` once what it decodes to has been compared with the leaves."""
  if again.keys() != leaves.keys():
    raise ValueError(
      f'{out}: {sorted(again.keys() ^ leaves.keys())[:4]} were lost on the way: nothing was written'
    )
  far = max(float(np.max(np.abs(again[name] - leaf), initial=0)) for name, leaf in leaves.items())
  revived = [name for name, leaf in leaves.items() if np.any(again[name][leaf == 0])]
  if revived or (exact and far):
    raise ValueError(
      f'{out}: read back, weights differ by {far} and zeros of {revived} are none: nothing was'
      ' written'
    )
  files.write(out, data)
  dense = sum(leaf.nbytes for leaf in leaves.values())
  more = ''
  if lost := sum(int(np.sum((leaf != 0) & (again[name] == 0))) for name, leaf in leaves.items()):
    more = f', but {lost:,} weights that were not zero became zero'
  return (
    f'{len(data):,} bytes of {dense:,}; read back, weights differ by at most {far:.3g} and zeros'
    f' are zeros{more}'
  )


def _onnx(model, out, dtype):
  del dtype
  if model.size.model_type not in ('bert', 'gpt2'):
    raise ValueError(
      f'--to=onnx: the model is of model_type {model.size.model_type!r}: expected bert or gpt2'
    )
  parts = saved_model.widths(model.size)
  with tempfile.TemporaryDirectory() as scratch:
    here = pathlib.Path(scratch) / 'model.onnx'
    name, size = saved_model.activation(model.size), model.size
    if size.model_type == 'gpt2':
      graph = onnx_gpt2.build(_arrays(model), parts, name, size.layer_norm_epsilon)
    else:
      graph = onnx_bert.build(_arrays(model), parts, name, size.layer_norm_eps)
    onnx_graph.write(here, graph)
    files.write(out, files.read(here, most=here.stat().st_size))
  return ''


def _arrays(model):
  return {name: np.asarray(jax.device_get(leaf), np.float32) for name, leaf in model.leaves.items()}


WHOLE = ('roberta', 'modernbert', 'xlnet')  # families whose layers have one width
# How each form is written, and what it can hold.
_FLOATS = ('float32', 'bfloat16', 'float16')
FORMS = {
  'hf': (_hf, _FLOATS),
  'shrunk': (_shrunk, _FLOATS),
  'sparse': (_sparse, tuple(sparse_file.VALUES)),
  'deep-compression': (_deep, ('float32',)),
  'onnx': (_onnx, ('float32',)),
}
FOLDERS = ('hf', 'shrunk')
