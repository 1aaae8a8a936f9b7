"""From ledger rows to the standing of each method: scores, losses, weights kept, bytes, seconds, ranks."""

from typing import NamedTuple

from prunejax.analysis import statistics

DENSE = 'dense'
# The packaged BERT: weights in the kernels that are pruned, and all that its folder holds.
PRUNED, WHOLE = 393_216, 570_882


class Place(NamedTuple):
  """A method at a sparsity. score, loss, kept, seconds: {seed: value}; family: of the method."""

  score: dict
  loss: dict
  kept: dict
  seconds: dict
  family: str


def places(rows):
  """{(method, sparsity): Place}. A seed has a score once all tasks of the ledger have one."""
  tasks = {row['task'] for row in rows if row['stage'] == 'finetune'}
  found, parts, spent = {}, {}, {}
  for row in rows:
    key = row['method'], row['sparsity']
    place = found.setdefault(key, Place({}, {}, {}, {}, row['family']))
    spent.setdefault((key, row['seed']), []).append(row['seconds'])
    if row['stage'] == 'pretrain':
      place.loss[row['seed']] = row['metrics']['loss']
      place.kept[row['seed']] = round((1 - row['metrics']['sparsity']) * PRUNED)
    else:
      parts.setdefault((key, row['seed']), {})[row['task']] = row['metrics']['accuracy']
  for (key, seed), each in parts.items():
    if set(each) == tasks:
      found[key].score[seed] = statistics.mean(each.values())
      found[key].seconds[seed] = sum(spent[key, seed])
  return found


def size(kept):
  """Bytes of a file with one bit a pruned weight, four bytes a kept one, and everything else as it is."""
  return PRUNED // 8 + 4 * kept + 4 * (WHOLE - PRUNED)


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
  names = [name for name in dict.fromkeys(n for n, _ in found) if name != DENSE
           and all(getattr(found.get((name, s)), what, None) for s in at)]
  out = {}
  for name in names:
    each = []
    for s in at:
      mine, *others = (sign * statistics.mean(getattr(found[n, s], what).values()) for n in (name, *names))
      each.append(1 + sum(o < mine for o in others) + (sum(o == mine for o in others) - 1) / 2)
    out[name] = statistics.mean(each)
  return out
