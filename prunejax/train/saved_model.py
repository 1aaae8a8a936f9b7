"""Reads the model of a run, or of a Hugging Face folder: weights, size, vocabulary."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from flax import traverse_util

import prunejax
from prunejax import files
from prunejax.data import gguf_metadata
from prunejax.models import bert, gguf_file, installed, llama
from prunejax.models.hf import carried_texts, stored, stored_masks
from prunejax.models.hf import folder as hf_directory
from prunejax.train import (
  checkpoint,
  configs,
  families,
  layers,
  optimizer,
  program,
  recipe,
  sharding,
  unpacked,
)


class Saved(NamedTuple):
  """A model that was read.

  Attributes:
    params: its parameters; pruned weights are zeros.
    size: its size, a config of transformers.
    tokenizer: None for a folder without one.
    recipe: the `recipe.Recipe` of the run; None for a folder.
    what: what was read, in words.
    carried: what the folder says for programs that run the model, see `hf.carried_texts`.
    masks: {path: bool array or `stored.Leaf`, True = kept}, those that the folder stores; None for
      one that stores none.
    record: its pruning.json beside masks, b'' without one.
  """

  params: Any
  size: Any
  tokenizer: Any
  recipe: Any
  what: str
  carried: Mapping[str, str] = MappingProxyType({})
  masks: Mapping[str, Any] | None = None
  record: bytes = b''

  @property
  def leaves(self) -> dict:
    """The parameters as {path: array}."""
    return traverse_util.flatten_dict(self.params, sep='/')


def load(where, parts: bool = False) -> Saved:
  """Reads the model of a work directory or of a Hugging Face folder.

  Args:
    where: the folder; a sparse file or a GGUF file; or the name of an installed package that
      carries a folder or a GGUF file. Of a run that is not finished the newest checkpoint is read.
    parts: leave the weights in their files, as `stored.Leaf`s, where that can be done: in a local
      folder or a GGUF file, of a family that is read so.

  Raises:
    FileNotFoundError: there is no model.
  """
  folder = files.path(where)
  if not files.exists(folder) and (carried := installed.find(str(where))):
    folder = files.path(carried)
  if files.is_file(folder):
    if gguf_file.is_gguf(folder):
      return _gguf(folder, parts)
    return _folder(unpacked.folder(folder), None, 'the model')
  if not files.exists(folder / 'config.json'):
    raise FileNotFoundError(
      f'{str(folder)!r} holds no run: expected the --workdir of a train command, a Hugging Face'
      ' folder, or a sparse file'
    )
  plain = files.read_json(folder / 'config.json')
  if 'steps' not in plain:
    return _folder(files.local(folder), None, 'the model', parts)
  run = recipe.resolve(configs.stored(plain))
  if files.exists(folder / 'model' / 'config.json'):
    return _folder(files.local(folder / 'model'), run, 'the finished model', parts)
  return _checkpoint(run, folder)


def widths(size) -> list[tuple[int, int, int]]:
  """Returns (heads, width of a head, inner neurons) of each layer of a model."""
  return families.of_size(size).widths(size)


def activation(size) -> str:
  """Returns the activation of a model, a key of `bert.ACTIVATIONS` or of `llama.ACTIVATIONS`."""
  name = getattr(size, families.of_size(size).activation)
  return name if size.model_type in llama.MODEL_TYPES else bert.activation(name)


def _gguf(path, parts):
  kind = families.in_folder(path)
  params, size = kind.files.load(path, parts=parts)
  tokenizer, carried = kind.words.load(path), carried_texts.read(path)
  gguf_metadata.forget()
  return Saved(params, size, tokenizer, None, 'the model', carried)


def _folder(folder, run, what, parts=False):
  kind = families.in_folder(folder)
  optional = ('pooler',)  # which nothing but NSP and a classifier reads
  if run is None:
    classes = hf_directory.read_config(folder).get('architectures') or ()
    heads = next(
      (heads for heads, known in kind.files.ARCHITECTURES.items() if _among(known, classes)),
      kind.heads,
    )
    optional += () if classes else heads
  else:
    heads = families.heads(kind, run.data.task)
  # A copy of a folder in a store is removed once it was read.
  scratch = isinstance(folder, files.Scratch)
  parts = parts and not scratch
  params, size = families.load(kind, folder, parts=parts, heads=heads, optional=optional)
  if parts:
    hf_directory.check(folder)
  tokenizer = None if hf_directory.read_vocab(folder) is None else kind.words.load(folder)
  masks = stored_masks.leaves(folder)
  if masks is not None:
    _check_masks(masks, params, folder)
    masks = {path: stored.whole(mask) for path, mask in masks.items()} if scratch else masks
  record = files.path(folder) / stored_masks.RECORD
  record = files.read(record) if masks is not None and files.exists(record) else b''
  return Saved(params, size, tokenizer, run, what, carried_texts.read(folder), masks, record)


def _check_masks(masks, params, folder):
  """Raises ValueError where stored masks are not those of the model beside them."""
  leaves = traverse_util.flatten_dict(params, sep='/')
  for path, mask in masks.items():
    there = leaves[path].shape if path in leaves else None
    if mask.shape != there:
      raise ValueError(
        f'{files.path(folder) / stored_masks.NAME} has a mask {mask.shape} of {path!r}, which is'
        f' {there or "no leaf"} in the model'
      )


def _among(known, classes):
  """Whether a class of transformers, or one of several, is among those that a config.json names."""
  return not set(classes).isdisjoint([known] if isinstance(known, str) else known)


def _checkpoint(run, folder):
  """The model of the newest checkpoint that can be read."""
  if not files.exists(folder / 'checkpoints'):
    raise FileNotFoundError(f'{str(folder)!r} holds no finished model and no checkpoint')
  source, data = program.read_inputs(run)
  tx = optimizer.make(run, source.pruned)
  functions = program.build(run, source, data, tx)
  abstract = program.abstract_state(run, functions, tx)
  shardings = sharding.shard(abstract, sharding.make_mesh(), ())
  manager = checkpoint.reader(folder / 'checkpoints')  # the run may be saving the next one
  state, damaged = checkpoint.restore(manager, abstract, shardings)
  manager.close()
  if state is None:
    raise FileNotFoundError(f'no checkpoint of {str(folder)!r} can be read {damaged or ""}')
  masks = prunejax.get_masks(state['opt_state'], state['params'], unpruned=True)
  params = layers.unstacked(run.model, functions.view(state['params'], masks))
  step = int(state['step'])
  return Saved(
    params,
    families.with_classes(source.size, data.task and data.task.classes),
    source.tokenizer,
    run,
    f'the checkpoint of step {step} of {run.steps}',
    source.carried,
  )
