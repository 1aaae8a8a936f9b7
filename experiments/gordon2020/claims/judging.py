"""How a claim is judged: which numbers count, what is clear of a threshold, what stays undecided.

Every check compares a number with a threshold through `statistics.cautious` (the wider of the
bootstrap and Student's 99 % interval) over (task, seed) pairs, and says *undecided* unless at
least two seeds stand behind it and the interval lies clear of the threshold on one side. 99 and
not 95, because a dozen claims are judged at once. Tasks of one seed share a checkpoint and are not
independent, so the 90 % interval over the means of the seeds alone must be clear as well.
Tasks that the dense model has not learned are left out: a model that learned nothing has nothing
to delete. Where a claim speaks of several sparsities, a refutation by one among k of them needs
the level 1 - 0.01 / k, so that a long list finds none by luck.
"""

import math
from typing import NamedTuple

from experiments.gordon2020.analysis import arms, scoring
from prunejax.report import ledger, statistics
from prunejax.report.verdicts import NOT_REPRODUCED, REPRODUCED, UNDECIDED, Verdict

LEVEL = 0.99  # of every interval a verdict rests on
SEED_LEVEL = 0.9  # of the interval over the means of the seeds, which must agree
MARGIN = 0.02  # what counts as no loss of accuracy; the paper's AVG loses 0.005 at 0.4
LEARNED = 0.02  # how far above its floor a dense model must be for its task to count
FIT = 0.05  # nats of train loss within which a model fits as well as a dense one
LOW, MEDIUM, HIGH = 0.4, 0.5, 0.7  # the paper's regimes (section 4)
NOTHING = 'a model that learned nothing has nothing to delete'
ZERO = 'zero'  # in the place of an arm's name, see `against`


class Grid(NamedTuple):
  """The quantities of a whole grid that claims, tables and figures read.

  rows: every finished ledger row.
  standard: the rows of the paper's own arms, dense and fresh among them.
  comparable: those, at learning rates that all arms and sparsities of the task have.
  learned: those, without the tasks that the dense model has not learned.
  chance: {task: score of the constant answer}, where the rows tell it.
  scores: {(arm, sparsity): {(task, seed): dev score}}, learned tasks only.
  train: as scores: loss over the training set.
  losses: {(arm, sparsity): {('pretrain', seed): held-out loss}}, of MLM + NSP or of the next token.
  floors: {task: the better of chance and the mean of the fresh models}.
  left_out: {task not learned: why}.
  probes: the rows of stage 'probe'.
  corpus: the rows of the arms 'corpus:SHARE'.
  """

  rows: tuple
  standard: tuple
  comparable: tuple
  learned: tuple
  chance: dict
  scores: dict
  train: dict
  losses: dict
  floors: dict
  left_out: dict
  probes: tuple
  corpus: tuple


def grid(rows, chance=None):
  """Computes the quantities of a grid from its ledger rows.

  Args:
    rows: finished rows of one experiment and preset.
    chance: {task: score of a constant answer}; by default the rows tell it.
  """
  rows = ledger.one_grid(list(rows))
  if chance is None:
    chance = {
      row['task']: row['metrics']['majority']
      for row in rows
      if 'majority' in row.get('metrics', {})
    }
  standard = arms.standard(rows)
  # The best of four learning rates is no match for the best of one.
  comparable = scoring.comparable(standard)
  scores = scoring.points(comparable)
  floors, left_out = {}, {}
  for task in scoring.tasks_of(scores):
    floors[task], reason = _floor(scores, task, chance.get(task))
    if reason:
      left_out[task] = reason

  def learned(table):
    kept = {
      key: {p: v for p, v in place.items() if p[0] not in left_out} for key, place in table.items()
    }
    return {key: place for key, place in kept.items() if place}

  return Grid(
    rows=tuple(rows),
    standard=tuple(standard),
    comparable=tuple(comparable),
    learned=tuple(row for row in comparable if row.get('task') not in left_out),
    chance=chance,
    scores=learned(scores),
    train=learned(scoring.points(comparable, scoring.train_loss)),
    losses=scoring.pretrain(comparable),
    floors=floors,
    left_out=left_out,
    probes=tuple(row for row in rows if row['stage'] == 'probe'),
    corpus=tuple(row for row in rows if row['arm'].startswith('corpus:')),
  )


def _floor(scores, task, chance):
  pick = lambda arm: {p: v for p, v in scores.get((arm, 0.0), {}).items() if p[0] == task}
  dense, fresh = pick('dense'), pick('fresh')
  bars = ([chance] if chance is not None else []) + (
    [statistics.mean(fresh.values())] if fresh else []
  )
  if not bars:
    return math.nan, 'neither a fresh model nor chance to compare with'
  if len(dense) < 2:
    return max(bars), f'{len(dense)} dense seed(s), two needed to know it was learned'
  above = [{p: v - bar for p, v in dense.items()} for bar in bars]
  if any(statistics.bootstrap(d.values()).low <= LEARNED for d in above):
    return max(bars), (
      f'dense {statistics.mean(dense.values()):.3f} is not clear above {max(bars):.3f}'
    )
  return max(bars), ''


def against(data, arm, other, wanted, *, alive=False, of=None):
  """{sparsity: {(task, seed): arm - other}} at the sparsities wanted; dense is the same model at every one.

  other: an arm; ZERO is the arm's own 0, a dense model trained as long as the arm, or `dense` where there is none.
  of: data.scores by default, or data.train. alive: without the pairs that both stand at their task's floor.
  """
  table, result = data.scores if of is None else of, {}
  for name, s in sorted(table):
    if name != arm or not wanted(s):
      continue
    theirs = (
      scoring.zero(table, arm)
      if other == ZERO
      else table.get((other, 0.0 if other == 'dense' else s), {})
    )
    ours = table[arm, s]
    diffs = statistics.paired(ours, theirs)
    if alive:
      diffs = {
        p: d for p, d in diffs.items() if max(ours[p], theirs[p]) > data.floors[p[0]] + LEARNED
      }
    if diffs:
      result[s] = diffs
  return result


def side(diffs, threshold, level=LEVEL):
  """+1 clear above, -1 clear below, 0 when an interval straddles or the seeds are too few.

  Tasks of one seed share a checkpoint, so the means of the seeds must be clear by themselves as well.
  """
  seeds = sorted({seed for _, seed in diffs})
  if len(seeds) < 2 or len(diffs) < 4 and max(diffs.values()) == min(diffs.values()) != threshold:
    return 0  # two or three numbers that happen to be equal tell nothing of how far others may lie
  means = [statistics.mean([d for pair, d in diffs.items() if pair[1] == seed]) for seed in seeds]
  both = (
    statistics.cautious(diffs.values(), level=level),
    statistics.cautious(means, level=SEED_LEVEL),
  )
  above, below = (all(e.low > threshold for e in both), all(e.high < threshold for e in both))
  return int(above) - int(below)


def agreed(diffs, threshold):
  """(clear above, clear below) of the average over sparsities, unless one of them contradicts."""
  pairs = {p for d in diffs.values() for p in d}
  means = {p: statistics.mean([d[p] for d in diffs.values() if p in d]) for p in pairs}
  mean = side(dict(sorted(means.items())), threshold)
  each = [side(d, threshold, share(diffs, 0.05)) for d in diffs.values()]  # doubt comes cheap
  return mean > 0 and -1 not in each, mean < 0 and 1 not in each


def share(parts, error=1 - LEVEL):
  """The level at which one among so many parts may be found by luck no oftener than `error`."""
  return 1 - error / max(len(parts), 1)


def listed(what, diffs, scale):
  """The mean at each sparsity with its interval as text; pairs and seeds once, where they are the same at each."""
  form = '+.1f' if scale == 100 else '+.3f'
  diffs = {s: place for s, place in diffs.items() if place}
  counts = [
    f'{len(place)} pairs, {len({seed for _, seed in place})} seeds' for place in diffs.values()
  ]
  same = len(set(counts)) == 1
  parts = []
  for count, (s, place) in zip(counts, diffs.items(), strict=True):
    e = statistics.cautious(place.values(), level=LEVEL)
    reach = f' [{scale * e.low:{form}}, {scale * e.high:{form}}]' if math.isfinite(e.low) else ''
    parts.append(f'{s:g}: {scale * e.mean:{form}}{reach}' + ('' if same else f' ({count})'))
  over = f' over {counts[0]}' if same else ''
  return f'{what}, {LEVEL:.0%} interval{over}, at ' + ', '.join(parts) if parts else ''


def verdict(data, name, claim, yes, no, evidence, note, *, figures=('figure1',), of_tasks=True):
  """The Verdict; a claim about tasks stays undecided where no task was learned."""
  word = REPRODUCED if yes else NOT_REPRODUCED if no else UNDECIDED
  if of_tasks and not data.scores:
    word, evidence = UNDECIDED, NOTHING if data.left_out else ''
  left = '; '.join(f'{task} left out: {why}' for task, why in data.left_out.items())
  said = [
    evidence or 'no rows to compare',
    note if evidence not in ('', NOTHING) else '',
    left if of_tasks else '',
  ]
  return Verdict(name, claim, word, '. '.join(part for part in said if part) + '.', figures)
