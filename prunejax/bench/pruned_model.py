"""Measures the gain of a pruned BERT on this machine: the bytes and the time of each form.

All forms are timed in one process, in turn, encoder and pooler from ids to hidden states. A ratio
is to the dense model of the same rounds (see `measure`). A form that takes no less than the dense
model is marked "no gain"; one that does so in a quarter of the rounds, "undecided".
"""

import pathlib
import tempfile
from collections.abc import Callable, Sequence
from os import PathLike

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from prunejax.bench import encoders, measure, results, table
from prunejax.compress import deep_compression, sparse_file
from prunejax.models import bert
from prunejax.train import console, export, program, saved_model

GAIN = 0.97  # of the dense model; a smaller difference is no gain
ROWS = 128  # held-out examples on which outputs are compared


def run(
  where: PathLike | str,
  *,
  batches: Sequence[int] = (1, 8),
  length: int | None = None,
  rounds: int = 25,
  out: PathLike | str | None = None,
  say: Callable[[str], None] = console.say,
) -> dict:
  """Measures a saved model.

  Args:
    where: a work directory or a Hugging Face folder.
    batches: examples at a time.
    length: tokens an example; None for the longest of the model.
    rounds: how often each form is timed.
    out: the JSON file to write, with a table in Markdown beside it; None for
      runs/bench/<name>-<machine>.json. What it already holds stays until it is measured anew.
    say: prints one line.

  Returns:
    The results, as in the file.

  Raises:
    ValueError: no BERT; a number out of range; an `out` that does not end in .json, or has results
      of another machine, model or versions. OSError: there is no model.
  """
  model = saved_model.load(where)
  if model.size.model_type != 'bert':
    raise ValueError(f'{str(where)!r} is a {model.size.model_type!r}: bench measures a bert')
  longest = model.size.max_position_embeddings
  length = longest if length is None else length
  if not 1 <= length <= longest:
    raise ValueError(f'--length={length}: the model has 1 to {longest} positions')
  for key, value in (('batches', min(batches)), ('rounds', rounds)):
    if value < 1:
      raise ValueError(f'--{key}={value}: at least 1')
  name, machine = pathlib.Path(where).name or 'model', measure.machine()
  out = pathlib.Path(out or f'runs/bench/{name}-{machine["kind"]}.json')
  kept = results.opened(out, machine, name)
  command = (
    f'python -m prunejax bench {name} --batches={",".join(map(str, batches))} --length={length}'
    f' --rounds={rounds}'
  )

  def save(part, rows):
    for row in rows:
      part.add(row)
    part.end()

  leaves = {
    path: np.asarray(jax.device_get(leaf), np.float32) for path, leaf in model.leaves.items()
  }
  small = export.shrunk(model)
  say(f'{model.what} of {where}: {_zeros(leaves):.3f} of the encoder is zero')
  with tempfile.TemporaryDirectory() as scratch:
    part = results.Part(out, kept, 'bytes', command)
    forms, missing = encoders.forms(leaves, model.size, small, pathlib.Path(scratch))
    save(part, _bytes(leaves, small[0], forms))
    outputs, compared_on = _outputs(model, leaves, length, forms)
    for rows in batches:
      part = results.Part(out, kept, f'batch {rows}', command)
      timed = _times(forms, outputs, _random(model.size, rows, length), rounds)
      timed += [measure.row(name, None, '', detail=reason) for name, reason in missing]
      timed[0]['detail'] += f'; batch {rows} x {length}; outputs compared on {compared_on}'
      save(part, timed)
  say(table.text(kept))
  say(f'written: {out} and {out.with_suffix(".md").name}')
  return kept


def _bytes(leaves, small, forms):
  """Rows of the bytes of each form on disk."""
  dense = sum(leaf.nbytes for leaf in leaves.values())
  coded = deep_compression.encode(leaves)
  decoded = deep_compression.decode(coded)
  error = max(
    float(np.max(np.abs(decoded[path] - leaf), initial=0)) for path, leaf in leaves.items()
  )
  shrunk = sum(leaf.nbytes for leaf in small.values())
  files_of = [
    ('dense, float32', dense, 'the weights alone'),
    ('dense, bfloat16', dense // 2, 'the weights alone'),
    ('sparse file, float32', len(sparse_file.encode(leaves)), 'exact'),
    ('sparse file, bfloat16', len(sparse_file.encode(leaves, 'bfloat16')), 'values rounded'),
    ('sparse file, int8', len(sparse_file.encode(leaves, 'int8')), 'values rounded'),
    (
      'Deep Compression',
      len(coded),
      f'five bits a weight, weights differ by at most {error:.2g}; not trained after',
    ),
    ('shrunk, float32', shrunk, 'exact'),
    ('shrunk, bfloat16', shrunk // 2, 'values rounded'),
    ('shrunk, sparse file, float32', len(sparse_file.encode(small)), 'exact'),
  ]
  files_of += [(form.name, form.size, form.note) for form in forms if form.size]
  return [
    measure.row(
      name, size / dense, 'of dense', '', f'{size:,} bytes; {note}' + _verdict(size / dense, name)
    )
    for name, size, note in files_of
  ]


def _times(forms, outputs, batch, rounds):
  """Rows of the time that each form takes for a batch."""
  calls = {form.name: lambda form=form: form.call(batch) for form in forms}
  times = measure.interleaved(calls, rounds, seconds=60)
  dense = times[forms[0].name]
  rows = []
  for form in forms:
    ratio = measure.ratio(times[form.name], dense)
    low, high = np.quantile(np.divide(times[form.name].rounds, dense.rounds), (0.25, 0.75))
    spread = f', half of the rounds from {low:.2f} to {high:.2f} of dense'
    detail = f'{times[form.name]}{"" if form is forms[0] else spread}'
    detail += f'; {form.note}; {outputs[form.name]}{_verdict(ratio, form.name, high)}'
    rows.append(measure.row(form.name, ratio, 'of dense', '', detail))
  return rows


def _outputs(model, leaves, length, forms):
  """({form: how its output compares with the dense one's}, the examples in words)."""
  batch, examples = _held_out(model, length)
  arrays = {key: batch[key] for key in ('input_ids', 'segment_ids', 'valid')}
  logits = jax.jit(_head(model.size, leaves))
  comparisons, dense = {}, None
  for form in forms:
    sequence, pooled = form.call(arrays)
    values = np.asarray(logits(jnp.asarray(sequence), jnp.asarray(pooled)))
    dense = values if dense is None else dense
    compared = arrays['valid'] if values.ndim == 3 else slice(None)
    top = values.argmax(-1)
    text = f'logits differ by at most {np.abs(values - dense)[compared].max():.2g}'
    text += f', same first choice at {np.mean((top == dense.argmax(-1))[compared]):.4f}'
    if 'targets' in batch and values.ndim == 3:
      right = np.take_along_axis(top, batch['positions'], 1) == batch['targets']
      text += f', MLM accuracy {np.sum(right * batch["weights"]) / np.sum(batch["weights"]):.4f}'
    comparisons[form.name] = text
  return comparisons, examples


def _held_out(model, length):
  """(batch, its examples in words): held-out text of a pre-training run, else random pieces."""
  if model.recipe is not None and not model.recipe.data.task:
    _, data = program.read_inputs(model.recipe)
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
  return _random(model.size, 16, length), '16 examples of random pieces'


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
  """(sequence, pooled) -> logits of the first head of the dense model, or the pooled state."""
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
  """Sparsity of the encoder's kernels."""
  kernels = [
    leaf
    for path, leaf in leaves.items()
    if path.startswith('encoder/') and path.endswith('/kernel')
  ]
  return sum(int(np.sum(leaf == 0)) for leaf in kernels) / max(
    sum(leaf.size for leaf in kernels), 1
  )


def _verdict(ratio, name, high=0.0):
  """A ratio in words; `high` is its upper quartile over the rounds."""
  if name in ('dense', 'dense, float32'):
    return ''
  if ratio >= GAIN:
    return '; no gain'
  return '; undecided: the rounds differ too much' if high >= GAIN else ''
