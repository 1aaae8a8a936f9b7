"""Compute each method's standing from ledger rows: scores, losses, weights kept, cost and ranks."""

from collections.abc import Sequence
from typing import NamedTuple

from experiments.league import arms
from prunejax.pruning.links import low_rank
from prunejax.report import statistics

DENSE = 'dense'
# The packaged BERT: weights in the kernels that are pruned, and in all leaves.
PRUNED, WHOLE = 393_216, 570_882
SHAPES = {(128, 128): 8, (128, 512): 2, (512, 128): 2}  # {shape of a kernel: how many}
PRICED = 0.9  # sparsity at which seconds and bytes are measured, see prices.py


class Result(NamedTuple):
  """Results of a method at a sparsity.

  Attributes:
    score: {seed: accuracy, mean of the tasks}.
    loss: {seed: held-out pre-training loss in nats}.
    kept: {seed: weights kept in the kernels}.
    family: of the method.
  """

  score: dict
  loss: dict
  kept: dict
  family: str


class Price(NamedTuple):
  """What a method costs.

  Attributes:
    moving: seconds that all mask updates of a run take.
    more: how much longer another step is than a dense one, as a fraction.
    file_bytes: of the model's file, or None.
  """

  moving: float | None
  more: float | None
  file_bytes: int | None


def results(rows: list[dict]) -> dict[tuple, Result]:
  """Group the rows: {(method, sparsity): Result}.

  A seed has a score once all tasks of the ledger have one. A method that is fine-tuned only has the
  loss and the weights of the model that it starts from.
  """
  rows = [row for row in rows if row['stage'] != 'price']
  tasks = {row['task'] for row in rows if row['stage'] == 'finetune'}
  models = {row.get('cell'): row for row in rows if row['stage'] == 'pretrain'}
  labels = ('method', 'family', 'sparsity', 'seed')
  borrowed = [
    {**models[row['parent']], **{label: row[label] for label in labels}}
    for row in rows
    if row['method'] == arms.TAUGHT and row['parent'] in models and row['task'] == min(tasks)
  ]
  grouped, accuracies = {}, {}
  for row in [*rows, *borrowed]:
    key, seed = (row['method'], row['sparsity']), row['seed']
    result = grouped.setdefault(key, Result({}, {}, {}, arms.family(row['method'])))
    if row['stage'] == 'pretrain':
      result.loss[seed] = row['metrics']['loss']
      result.kept[seed] = numbers_kept(*key, row['metrics']['sparsity'])
    else:
      accuracies.setdefault((key, seed), {})[row['task']] = row['metrics']['accuracy']
  for (key, seed), by_task in accuracies.items():
    if set(by_task) == tasks:
      grouped[key].score[seed] = statistics.mean(by_task.values())
  return grouped


def prices(rows: list[dict]) -> dict[str, Price]:
  """Read the rows of stage 'price': {method: Price}."""
  by_method = {}
  for row in rows:
    if row['stage'] == 'price':
      metrics = row['metrics']
      dense = metrics['dense_step']
      still = metrics.get('still_step', dense)
      moving = metrics['moves'] * (metrics['moving_step'] - still) if metrics['moves'] else 0.0
      by_method[row['method']] = Price(moving, still / dense - 1, metrics.get('file_bytes'))
  return by_method


def numbers_kept(method: str, asked: float, sparsity: float) -> int:
  """Count the numbers that are left of the kernels.

  Args:
    method: name of the method.
    asked: sparsity that the method was asked for.
    sparsity: sparsity that was measured in the kernels.

  Returns:
    Non-zero weights; under `low_rank` the numbers of the factors.
  """
  if method != 'low_rank':
    return round((1 - sparsity) * PRUNED)
  return sum(
    count * int(low_rank.rank_for(shape, asked)) * sum(shape) for shape, count in SHAPES.items()
  )


def levels(results: dict) -> list[float]:
  """List the sparsities of a league, without dense."""
  return sorted({sparsity for name, sparsity in results if name != DENSE})


def differences(
  results: dict, method: str, sparsity: float, other: str, measure: str = 'score'
) -> list[float]:
  """Subtract another method's value from a method's, seed by seed.

  Args:
    results: of `results`.
    method, other: names.
    sparsity: of both.
    measure: 'score' or 'loss'.
  """
  first, second = (results.get((name, sparsity)) for name in (method, other))
  if first is None or second is None:
    return []
  return list(statistics.paired(getattr(first, measure), getattr(second, measure)).values())


def ranks(results: dict, sparsities: Sequence[float], measure: str = 'score') -> dict[str, float]:
  """Rank the methods that were run at all `sparsities`: {method: mean rank}, 1 the best.

  The mean over seeds is ranked. Equal means share a rank.
  """
  sign = -1 if measure == 'score' else 1
  names = [
    name
    for name in dict.fromkeys(name for name, _ in results)
    if name != DENSE and all(getattr(results.get((name, s)), measure, None) for s in sparsities)
  ]
  mean_ranks = {}
  for name in names:
    by_sparsity = []
    for s in sparsities:
      value, *others = (
        sign * statistics.mean(getattr(results[n, s], measure).values()) for n in (name, *names)
      )
      better, equal = sum(o < value for o in others), sum(o == value for o in others)
      by_sparsity.append(1 + better + (equal - 1) / 2)
    mean_ranks[name] = statistics.mean(by_sparsity)
  return mean_ranks
