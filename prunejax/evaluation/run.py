"""Evaluates a model on a text or a task. What was measured is kept, so a killed run goes on."""

import hashlib
import json
import math
from typing import Any, NamedTuple

import numpy as np

import prunejax
from prunejax import files
from prunejax.data import content, corpus, text_files, wikitext
from prunejax.evaluation import glue, perplexity
from prunejax.models import parts
from prunejax.train import console, saved_model
from prunejax.train.recipe import DTYPES

WINDOW = 2048
KINDS = ('wikitext:FILE', 'text:FOLDER', 'glue/TASK', 'lm-eval/TASK')


class On(NamedTuple):
  """What a model is evaluated on: a kind, and the file, folder or task after it."""

  kind: str
  name: str


def _check_window(window):
  if window is not None and window < 2:
    raise ValueError(f'--window={window}: expected at least 2 tokens')


def _check_stride(stride, window):
  if stride is not None and not 1 <= stride <= window:
    raise ValueError(f'--stride={stride}: expected a number from 1 to the window of {window}')


def parsed(on: str) -> On:
  """Parses 'wikitext:FILE', 'text:FOLDER', 'glue/sst2' or 'lm-eval/arc_easy,piqa'.

  Raises:
    ValueError: it is none of them.
  """
  kind, colon, name = on.partition(':')
  if colon and kind in ('wikitext', 'text') and name:
    return On(kind, name)
  if on.startswith('lm-eval/') and len(on) > len('lm-eval/'):
    return On('lm-eval', on.removeprefix('lm-eval/'))
  if '/' in on and not colon:
    return On('task', on)
  raise ValueError(f'--on={on!r}: expected {", ".join(KINDS)}')


def evaluate(
  where: str,
  on: str,
  *,
  window: int | None = None,
  stride: int | None = None,
  most: int | None = None,
  out: str = '',
  data: str = '',
  dtype: str = 'float32',
  cache: str | None = None,
  say=console.say,
) -> dict[str, Any]:
  """Evaluates a model.

  Args:
    where: a Hugging Face folder, a GGUF file, an installed package that carries one of them, a work
      directory, or a sparse file.
    on: see `parsed`.
    window: tokens of a window, None for 2,048, or the positions of the model if it has fewer; with
      a task tokens of an example, None for those of the run, or else for 128 at most.
    stride: tokens from one window to the next, None for `window`.
    most: how many windows are read, from the first; None for all.
    out: a file of JSON lines that holds what was measured, one window a line; '' keeps it in the
      cache until the run is done.
    data: the folder that holds glue/, or one with tasks of the harness.
    dtype: of the computation, 'float32' or 'bfloat16'.
    cache: the folder of caches.
    say: prints a line.

  Returns:
    What was measured: for a text 'perplexity', 'loss' and 'standard_error' (of the loss, over
    windows), 'windows', 'tokens'; for a task its metrics; see `harness.evaluate`.

  Raises:
    ValueError, OSError: a wrong argument; a model, text or task that cannot be read or do not fit;
      `out` holds another evaluation.
  """
  what = parsed(on)
  if dtype not in DTYPES:
    raise ValueError(f'--dtype={dtype!r}: expected one of {list(DTYPES)}')
  if most is not None and most < 1:
    raise ValueError(f'--windows={most}: expected at least 1')
  if what.kind in ('task', 'lm-eval'):
    if stride is not None or most is not None or out:
      raise ValueError('--stride, --windows and --out belong to a text, not to a task')
    if what.kind == 'lm-eval':
      _check_window(window)
      from prunejax.evaluation import harness  # needs the extra lm-eval

      return harness.evaluate(where, what.name.split(','), data, window, dtype, say)
    return glue.evaluate(where, what.name, data, window, DTYPES[dtype], say)
  _check_window(window)
  _check_stride(stride, window or WINDOW)
  text = _text(what)
  model = saved_model.load(where)
  kind = model.size.model_type
  if kind not in parts.FAMILIES:
    raise ValueError(
      f'{str(where)!r} is of model_type {kind!r}, which predicts no next token: expected one of'
      f' {", ".join(parts.FAMILIES)}, or a task, --on=glue/TASK'
    )
  if model.tokenizer is None:
    raise ValueError(
      f'{str(where)!r} has no vocabulary: expected tokenizer.json beside config.json'
    )
  if 'classifier' in model.params:
    raise ValueError(f'{str(where)!r} has a classifier and no head: expected --on=glue/TASK')
  positions = model.size.max_position_embeddings
  if window is not None and window > positions:
    raise ValueError(f'--window={window}: the model has {positions} positions')
  window = min(WINDOW, positions) if window is None else window
  _check_stride(stride, window)
  tokens = np.array(model.tokenizer.encode(text).ids, np.int32)
  windows = perplexity.windows(len(tokens), window, stride)
  chosen = windows[:most]
  plan = {
    'version': prunejax.__version__,
    'model': content.of_arrays(leaf for _, leaf in sorted(model.leaves.items())),
    'text': hashlib.sha256(tokens.tobytes()).hexdigest()[:16],
    'window': window,
    'stride': stride or window,
    'dtype': dtype,
  }
  place = files.path(out) if out else _cached(plan, cache)
  rows = _read(place, plan, bool(out))
  say(
    f'{len(tokens):,} tokens, {len(chosen)} of {len(windows)} windows of {window:,}'
    + (f'; {len(rows)} were measured before' if rows else '')
  )
  rows = _measure(model, tokens, chosen, window, dtype, rows, place, plan, say)
  if not out:
    files.remove(place)
  return _result(rows, chosen, window, say)


def _text(what):
  if what.kind == 'wikitext':
    return wikitext.text(what.name)
  documents = [text.strip('\n') for text in text_files.documents(what.name)]
  return '\n\n'.join(documents)


def _cached(plan, cache):
  return files.path(corpus.cache_dir(cache)) / 'evaluate' / f'{content.of(plan)}.jsonl'


def _read(place, plan, is_named):
  """{number of a window: (sum, count)} in a file; {} if there is none."""
  if not files.exists(place):
    return {}
  try:
    first, *rows = [json.loads(line) for line in files.read(place).splitlines()]
    if not isinstance(first, dict):
      raise ValueError('its first line is no object')
    other = [key for key in plan if first.get(key) != plan[key]]
    rows = {int(row['window']): (float(row['loss']), int(row['tokens'])) for row in rows}
  except (ValueError, KeyError, TypeError) as error:
    if not is_named:
      return {}
    raise ValueError(f'--out={str(place)!r} is no file of evaluate: {error!r:.200}') from None
  if other:
    raise FileExistsError(
      f'--out={str(place)!r} holds another evaluation ({", ".join(other)} differ): nothing was'
      ' written'
    )
  return rows


def _write(place, plan, rows):
  lines = [plan] + [{'window': i, 'loss': x, 'tokens': n} for i, (x, n) in sorted(rows.items())]
  files.write(place, ''.join(json.dumps(line) + '\n' for line in lines))


def _measure(model, tokens, chosen, window, dtype, rows, place, plan, say):
  """Scores the windows that are not in `rows` and appends them to the file."""
  left = [i for i in range(len(chosen)) if i not in rows]
  if not left:
    return rows
  score = perplexity.scorer(perplexity.running(model.size, model.params, DTYPES[dtype]))
  pace, silence = console.Pace(0, len(left)), console.Silence()
  for done, i in enumerate(left, 1):
    rows[i] = next(perplexity.losses(score, tokens, [chosen[i]], window))
    _write(place, plan, rows)
    if done == 1 and len(left) > 1:
      pace = console.Pace(1, len(left))  # the first window compiles
    if silence.over() or done in (2, len(left)):
      rate = pace.rate(done)
      speed = ''
      if rate:
        left_over = console.clock((len(left) - done) / rate)
        speed = f'{rate * window:,.0f} tokens/s  left {left_over}  '
      so_far = perplexity.perplexity(rows.values())
      say(f'window {done} of {len(left)}  {speed}perplexity {so_far:.4f}')
  return rows


def _result(rows, chosen, window, say):
  kept = [rows[i] for i in range(len(chosen))]
  value, error = perplexity.perplexity(kept), perplexity.interval(kept)
  total = sum(count for _, count in kept)
  loss = sum(nats for nats, _ in kept) / total
  more = '' if math.isnan(error) else f', standard error of its logarithm {error:.4f}'
  say(f'perplexity {value:.4f} over {len(kept)} windows of {window:,} tokens{more}')
  return {
    'perplexity': value,
    'loss': loss,
    'standard_error': error,
    'windows': len(kept),
    'tokens': total,
  }
