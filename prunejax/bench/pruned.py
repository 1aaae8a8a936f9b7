"""What a pruned BERT is worth on this machine: the bytes of each form, the milliseconds of each, and what it computes.

All forms are timed in one process, in turn, encoder and pooler from ids to hidden states; a ratio is to the dense
model of the same rounds (see `measure`). What takes no less than the dense model is said to have no gain, what did not
in a quarter of the rounds to be undecided.
"""

import datetime
import json
import pathlib
import tempfile
import time

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from prunejax import files
from prunejax.bench import encoders, measure, table
from prunejax.bench import run as benches
from prunejax.compress import deep, sparse_file
from prunejax.models import bert
from prunejax.train import console, export, program, saved_model

GAIN = 0.97  # of the dense model; less than three parts in a hundred is no gain
ROWS = 128  # held-out examples that outputs are compared on


def run(where, *, batches=(1, 8), length=None, rounds=25, out=None, say=console.say):
  """Measures the model of `where`, a work directory or a Hugging Face folder, and returns the results.

  batches: examples at a time. length: tokens an example, None for the longest of the model. out: the JSON file to
  write, its table in Markdown beside it; default runs/bench/<name>-<machine>.json. Raises ValueError for another
  model than a BERT and for numbers that cannot be.
  """
  began = time.perf_counter()
  found = saved_model.load(where)
  saved_model.widths(found.size)
  longest = found.size.max_position_embeddings
  length = longest if length is None else length
  if not 1 <= length <= longest:
    raise ValueError(f'--length={length}: the model has 1 to {longest} positions')
  for key, value in (('batches', min(batches)), ('rounds', rounds)):
    if value < 1:
      raise ValueError(f'--{key}={value}: at least 1')
  name, machine = pathlib.Path(where).name or 'model', measure.machine()
  out = pathlib.Path(out or f'runs/bench/{name}-{machine["kind"]}.json')
  results = {'machine': machine, 'size': name, 'benches': {}}

  def part(bench, rows):
    spent = round(time.perf_counter() - began, 1)
    about = {
      'date': datetime.datetime.now(datetime.UTC).date().isoformat(),
      'commit': benches.commit(),
    }
    command = (
      f'python -m prunejax bench {name} --batches={",".join(map(str, batches))} --length={length}'
    )
    results['benches'][bench] = {
      'command': command,
      **about,
      'seconds': spent,
      'rows': rows,
      'figures': [],
    }
    files.write(out, json.dumps(results, indent=1) + '\n')
    files.write(out.with_suffix('.md'), table.markdown(results))

  leaves = {
    path: np.asarray(jax.device_get(leaf), np.float32) for path, leaf in found.leaves.items()
  }
  small = export.shrunk(found)
  say(f'{found.what} of {where}: {_zeros(leaves):.3f} of the encoder is zero')
  with tempfile.TemporaryDirectory() as scratch:
    forms, lacking = encoders.forms(leaves, found.size, small, pathlib.Path(scratch))
    part('bytes', _bytes(leaves, small[0], forms))
    outputs, how = _outputs(found, leaves, length, forms)
    for rows in batches:
      part(f'batch {rows}', _times(forms, lacking, outputs, found.size, rows, length, rounds, how))
  say(table.text(results))
  say(f'written: {out} and {out.with_suffix(".md").name}')
  return results


def _bytes(leaves, small, forms):
  """Rows of what each form takes on a disk."""
  dense = sum(leaf.nbytes for leaf in leaves.values())
  compact = deep.encode(leaves)
  again = deep.decode(compact)
  far = max(float(np.max(np.abs(again[path] - leaf), initial=0)) for path, leaf in leaves.items())
  cut = sum(leaf.nbytes for leaf in small.values())
  found = [
    ('dense, float32', dense, 'the weights alone'),
    ('dense, bfloat16', dense // 2, 'the weights alone'),
    ('sparse file, float32', len(sparse_file.encode(leaves)), 'exact'),
    ('sparse file, bfloat16', len(sparse_file.encode(leaves, 'bfloat16')), 'values rounded'),
    ('sparse file, int8', len(sparse_file.encode(leaves, 'int8')), 'values rounded'),
    (
      'Deep Compression',
      len(compact),
      f'five bits a weight, weights differ by at most {far:.2g}; not trained after',
    ),
    ('shrunk, float32', cut, 'exact'),
    ('shrunk, bfloat16', cut // 2, 'values rounded'),
    ('shrunk, sparse file, float32', len(sparse_file.encode(small)), 'exact'),
  ]
  found += [(form.name, form.size, form.note) for form in forms if form.size]
  return [
    measure.row(
      name, size / dense, 'of dense', '', f'{size:,} bytes; {note}' + _verdict(size / dense, name)
    )
    for name, size, note in found
  ]


def _times(forms, lacking, outputs, size, rows, length, rounds, how):
  """Rows of how long each form takes for `rows` examples of `length` tokens."""
  batch = _random(size, rows, length)
  times = measure.interleaved(
    {form.name: lambda f=form: f.call(batch) for form in forms}, rounds, seconds=60
  )
  found = []
  for form in forms:
    ratio = measure.ratio(times[form.name], times[forms[0].name])
    low, high = np.quantile(
      np.divide(times[form.name].rounds, times[forms[0].name].rounds), (0.25, 0.75)
    )
    spread = (
      '' if form is forms[0] else f', half of the rounds from {low:.2f} to {high:.2f} of dense'
    )
    detail = f'{times[form.name]}{spread}; {form.note}; {outputs[form.name]}{_verdict(ratio, form.name, high)}'
    found.append(measure.row(form.name, ratio, 'of dense', '', detail))
  found += [measure.row(name, None, '', detail=why) for name, why in lacking]
  found[0]['detail'] += f'; batch {rows} x {length}; outputs compared on {how}'
  return found


def _outputs(found, leaves, length, forms):
  """({form: what its output is beside the dense one's}, on what)."""
  batch, how = _held_out(found, length)
  given = {key: batch[key] for key in ('input_ids', 'segment_ids', 'valid')}
  logits = jax.jit(_head(found.size, leaves))
  said, dense = {}, None
  for form in forms:
    sequence, pooled = form.call(given)
    values = np.asarray(logits(jnp.asarray(sequence), jnp.asarray(pooled)))
    dense = values if dense is None else dense
    seen = given['valid'] if values.ndim == 3 else slice(None)
    top = values.argmax(-1)
    text = f'logits differ by at most {np.abs(values - dense)[seen].max():.2g}'
    text += f', same first choice at {np.mean((top == dense.argmax(-1))[seen]):.4f}'
    if 'targets' in batch and values.ndim == 3:
      told = np.take_along_axis(top, batch['positions'], 1) == batch['targets']
      text += f', MLM accuracy {np.sum(told * batch["weights"]) / np.sum(batch["weights"]):.4f}'
    said[form.name] = text
  return said, how


def _held_out(found, length):
  """(a batch of held-out text where the run has some of this kind, else of random pieces; in words)."""
  if found.config is not None and not found.config.data.task:
    _, data = program.read_inputs(found.config)
    batches, rows = [], 0
    for batch in data.held_out():
      batches.append(batch)
      rows += len(batch['input_ids'])
      if rows >= ROWS:
        break
    joined = {
      key: np.concatenate([np.asarray(b[key]) for b in batches])[:ROWS] for key in batches[0]
    }
    return joined, f'{len(joined["input_ids"])} held-out examples'
  return _random(found.size, 16, length), '16 examples of random pieces'


def _random(size, rows, length):
  rng = np.random.default_rng(0)
  ids, segments = (
    rng.integers(0, most, (rows, length)).astype(np.int32) for most in (size.vocab_size, 2)
  )
  return {
    'input_ids': ids,
    'segment_ids': segments % size.type_vocab_size,
    'valid': np.ones((rows, length), bool),
  }


def _head(size, leaves):
  """(sequence, pooled) -> logits of the first head the model has, or the pooled state; always the dense one's."""
  params = traverse_util.unflatten_dict(leaves, sep='/')
  if 'mlm' in params:
    words = params['embeddings']['word']['embedding']
    head = bert.MlmHead(size, jnp.float32, jax.nn.initializers.zeros)
    return lambda sequence, _: head.apply(
      {'params': params['mlm']}, sequence, lambda x: x @ words.T
    )
  name = next((name for name in ('classifier', 'nsp') if name in params), None)
  if name is None:
    return lambda _, pooled: pooled
  return lambda _, pooled: pooled @ params[name]['kernel'] + params[name]['bias']


def _zeros(leaves):
  kernels = [
    leaf
    for path, leaf in leaves.items()
    if path.startswith('encoder/') and path.endswith('/kernel')
  ]
  return sum(int(np.sum(leaf == 0)) for leaf in kernels) / max(
    sum(leaf.size for leaf in kernels), 1
  )


def _verdict(ratio, name, high=0.0):
  """What a ratio is worth in words; high: its upper quartile over the rounds."""
  if name in ('dense', 'dense, float32'):
    return ''
  if ratio >= GAIN:
    return '; no gain'
  return '; undecided: the machine was too busy to tell' if high >= GAIN else ''
