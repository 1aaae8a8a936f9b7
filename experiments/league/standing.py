"""From ledger rows to the standing of each method: scores, losses, weights kept, what it costs, ranks."""

from typing import NamedTuple

from experiments.league import arms
from prunejax.pruning.links import low_rank
from prunejax.report import statistics

DENSE = 'dense'
# The packaged BERT: weights in the kernels that are pruned, and all that its folder holds.
PRUNED, WHOLE = 393_216, 570_882
SHAPES = {(128, 128): 8, (128, 512): 2, (512, 128): 2}  # of the kernels, and how many there are
PRICED = 0.9  # the sparsity at which seconds and bytes are measured, see prices.py


class Place(NamedTuple):
  """A method at a sparsity. score, loss, kept: {seed: value}; family: of the method."""

  score: dict
  loss: dict
  kept: dict
  family: str


class Price(NamedTuple):
  """moving: seconds that all moves of the masks of a run take; more: by what share each other step is longer than a
  dense one; file_bytes: of the model as a file, or None.
  """

  moving: float
  more: float
  file_bytes: int | None


def places(rows):
  """{(method, sparsity): Place}. A seed has a score once all tasks of the ledger have one."""
  rows = [row for row in rows if row['stage'] != 'price']
  tasks = {row['task'] for row in rows if row['stage'] == 'finetune'}
  found, parts = {}, {}
  models = {row.get('cell'): row for row in rows if row['stage'] == 'pretrain'}
  # A method that is one of fine-tuning only has the loss and the weights of the model that it starts from.
  shared = {
    row['cell']: row['parent']
    for row in rows
    if row['method'] == arms.TAUGHT and row['parent'] in models
  }
  own = ('method', 'family', 'sparsity', 'seed')
  rows = [
    *rows,
    *(
      {**models[parent], **{k: row[k] for k in own}}
      for row in rows
      if (parent := shared.get(row.get('cell'))) and row['task'] == min(tasks)
    ),
  ]
  for row in rows:
    key = row['method'], row['sparsity']
    place = found.setdefault(key, Place({}, {}, {}, arms.family(row['method'])))
    if row['stage'] == 'pretrain':
      place.loss[row['seed']] = row['metrics']['loss']
      place.kept[row['seed']] = numbers(*key, row['metrics']['sparsity'])
    else:
      parts.setdefault((key, row['seed']), {})[row['task']] = row['metrics']['accuracy']
  for (key, seed), each in parts.items():
    if set(each) == tasks:
      found[key].score[seed] = statistics.mean(each.values())
  return found


def prices(rows):
  """{method: Price} of the rows that `prices` measured."""
  found = {}
  for row in rows:
    if row['stage'] == 'price':
      m = row['metrics']
      still = m.get('still_step', m['dense_step'])
      moving = m['moves'] * (m['moving_step'] - still) if m['moves'] else 0.0
      found[row['method']] = Price(moving, still / m['dense_step'] - 1, m.get('file_bytes'))
  return found


def numbers(method, asked, sparsity):
  """Non-zeros of the kernels at the sparsity that was found in them, or the numbers of their factors."""
  if method != 'low_rank':
    return round((1 - sparsity) * PRUNED)
  return sum(
    many * int(low_rank.rank_for(shape, asked)) * sum(shape) for shape, many in SHAPES.items()
  )


def levels(found):
  """The sparsities of a league, dense not among them."""
  return sorted({s for name, s in found if name != DENSE})


def behind(found, method, sparsity, other, what='score'):
  """[method - other] seed by seed at one sparsity; `what` is 'score' or 'loss'."""
  mine, theirs = (found.get((name, sparsity)) for name in (method, other))
  if mine is None or theirs is None:
    return []
  return list(statistics.paired(getattr(mine, what), getattr(theirs, what)).values())


def ranks(found, at, what='score'):
  """{method: mean rank over the sparsities `at`}, 1 the best, for methods that were run at all of them.

  The mean over the seeds is ranked; equals share a rank.
  """
  sign = -1 if what == 'score' else 1
  names = [
    name
    for name in dict.fromkeys(n for n, _ in found)
    if name != DENSE and all(getattr(found.get((name, s)), what, None) for s in at)
  ]
  out = {}
  for name in names:
    each = []
    for s in at:
      mine, *others = (
        sign * statistics.mean(getattr(found[n, s], what).values()) for n in (name, *names)
      )
      each.append(1 + sum(o < mine for o in others) + (sum(o == mine for o in others) - 1) / 2)
    out[name] = statistics.mean(each)
  return out
