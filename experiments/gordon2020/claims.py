"""The paper's claims as named checks over ledger rows, each with a verdict and its numbers.

Every check compares a number with a threshold through `statistics.cautious` (the wider of the
bootstrap and Student's 99 % interval) over (task, seed) pairs, and says *undecided* unless at
least two seeds stand behind it and the interval lies clear of the threshold on one side. 99 and
not 95, because seven claims are judged at once. Tasks of one seed share a checkpoint and are not
independent, so the 90 % interval over the means of the seeds alone must be clear as well.
Tasks that the dense model has not learned are left out: a model that learned nothing has nothing
to delete. Where a claim speaks of several sparsities, a refutation by one among k of them needs
the level 1 - 0.01 / k, so that a long list finds none by luck.
"""

import math
from typing import NamedTuple

from prunejax.analysis import statistics

REPRODUCED, NOT_REPRODUCED, UNDECIDED = 'reproduced', 'not reproduced', 'undecided'
LEVEL = 0.99  # of every interval a verdict rests on
SEED_LEVEL = 0.9  # of the interval over the means of the seeds, which must agree
MARGIN = 0.02  # what counts as no loss of accuracy; the paper's AVG loses 0.005 at 0.4
LEARNED = 0.02  # how far above its floor a dense model must be for its task to count
LOW, MEDIUM, HIGH = 0.4, 0.5, 0.7  # the paper's regimes (section 4)
NOTHING = 'a model that learned nothing has nothing to delete'


class Verdict(NamedTuple):
  """A claim of the paper, what our ledger says to it, and the numbers that say so."""
  name: str
  claim: str
  verdict: str
  evidence: str
  figures: tuple = ()


class Grid(NamedTuple):
  """What the checks read: scores and losses by (arm, sparsity), and the tasks left out."""
  scores: dict  # {(arm, sparsity): {(task, seed): dev score}}, learned tasks only
  losses: dict  # {(arm, sparsity): {('pretrain', seed): held-out MLM + NSP loss}}
  floors: dict  # {task: the better of chance and the mean of the fresh models}
  left_out: dict  # {task: why}


def grid(rows, chance=None):
  """Sorts ledger rows for the checks; chance: {task: score of a constant answer}, if known."""
  rows = statistics.one_grid(rows)
  scores = statistics.points(rows)
  floors, left_out = {}, {}
  for task in statistics.tasks_of(scores):
    floor, reason = _floor(scores, task, (chance or {}).get(task))
    floors[task] = floor
    if reason:
      left_out[task] = reason
  kept = {key: {pair: value for pair, value in place.items() if pair[0] not in left_out}
          for key, place in scores.items()}
  return Grid({key: place for key, place in kept.items() if place},
              statistics.pretrain(rows), floors, left_out)


def check(rows, chance=None):
  """The seven verdicts over all learned tasks together."""
  data = grid(rows, chance)
  return [claim(data) for claim in CLAIMS]


def by_task(rows, chance=None):
  """{task: verdicts} of the claims that speak of tasks, each task by itself."""
  rows = list(rows)
  tasks = sorted({row['task'] for row in rows if row['stage'] == 'finetune'})
  one = lambda task: grid([row for row in rows if row.get('task') in (task, None)], chance)
  return {task: [claim(data) for claim in CLAIMS if claim is not loss_rises]
          for task in tasks for data in [one(task)]}


def low_sparsity_is_free(data):
  """Pruned minus dense at every sparsity up to 0.4, against a loss of MARGIN.

  Reproduced: at each of them the interval lies above -MARGIN, and 0.3 or more is among them.
  Not reproduced: at one of them it lies below -MARGIN (level 1 - 0.01 / k).
  """
  diffs = _against(data, 'pruned', 'dense', lambda s: 0 < s <= LOW)
  every = bool(diffs) and max(diffs) >= 0.3 and all(_side(d, -MARGIN) > 0 for d in diffs.values())
  broken = any(_side(d, -MARGIN, _share(diffs)) < 0 for d in diffs.values())
  return _verdict(data, 'low_sparsity_is_free', 'Pruning up to 0.4 of the weights costs no '
                  'accuracy downstream.', every and not broken, broken,
                  _listed('pruned - dense', diffs, 100), f'margin {100 * MARGIN:g} points')


def loss_rises(data):
  """Held-out pre-train loss along dense, then pruned at each sparsity, paired by seed.

  Reproduced: three sparsities or more, one of them at least 0.5; the loss at the highest lies
  clear above dense; no step down in the mean of more than 1 % of the dense loss. Not reproduced:
  the highest lies clear below dense, or one step falls clear of that 1 % (level 1 - 0.01 / k).
  """
  levels = sorted(s for arm, s in data.losses if arm == 'pruned' and s > 0)
  path = [data.losses.get(('dense', 0.0), {})] + [data.losses['pruned', s] for s in levels]
  slack = 0.01 * abs(statistics.mean(path[0].values())) if path[0] else 0.0
  steps = {s: statistics.paired(b, a) for s, a, b in zip(levels, path, path[1:], strict=False)}
  rise = {s: statistics.paired(place, path[0])
          for s, place in zip(levels, path[1:], strict=True)}
  top = _side(rise[levels[-1]], 0.0) if levels else 0
  even = all(statistics.mean(step.values()) >= -slack for step in steps.values())
  broken = top < 0 or any(_side(step, -slack, _share(steps)) < 0 for step in steps.values())
  shown = len(levels) >= 3 and levels[-1] >= MEDIUM and top > 0 and even
  return _verdict(data, 'loss_rises', 'Pre-training loss rises with sparsity.',
                  shown and not broken, broken, _listed('loss - dense loss', rise, 1), '',
                  figures=('pretrain_loss',), of_tasks=False)


def accuracy_falls(data):
  """Pruned minus dense at the highest sparsity of at least 0.7, against a loss of MARGIN.

  Reproduced: the interval lies below -MARGIN. Not reproduced: it lies above.
  """
  diffs = _against(data, 'pruned', 'dense', lambda s: s >= HIGH)
  side = _side(diffs[max(diffs)], -MARGIN) if diffs else 0
  return _verdict(data, 'accuracy_falls', 'At high sparsity accuracy downstream falls.', side < 0,
                  side > 0, _listed('pruned - dense', diffs, 100),
                  f'margin {100 * MARGIN:g} points, judged at the highest sparsity')


def deletion_follows_loss(data):
  """One line a task through (pre-train loss, deletion accuracy), seeds averaged at each sparsity.

  Needs two seeds, four sparsities with dense among them, and a loss that moves by 2 %.
  Reproduced: on every task the interval of the slope lies below zero and r <= -0.8. Not
  reproduced: on one task the slope lies clear above zero (level 1 - 0.01 / tasks).
  """
  tasks = statistics.tasks_of(data.scores)
  lines = {task: _line(data, task, LEVEL) for task in tasks}
  known = {task: line for task, line in lines.items() if line}
  every = bool(tasks) and len(known) == len(tasks) and all(
      line.high < 0 and line.r <= -0.8 for line in known.values())
  broken = any(_line(data, task, _share(known)).low > 0 for task in known)
  text = '; '.join(f'{task}: {100 * line.slope:+.2f} points a nat '
                   f'[{100 * line.low:+.2f}, {100 * line.high:+.2f}], r {line.r:+.3f}, '
                   f'{line.n} sparsities' for task, line in known.items())
  missing = [task for task in tasks if task not in known]
  return _verdict(data, 'deletion_follows_loss', 'Accuracy after information deletion is linear '
                  'in pre-training loss, task by task.',
                  every and not broken, broken, text,
                  f'no line for {", ".join(missing)}: two seeds, four sparsities and a loss that '
                  'moves are needed' if missing else '',
                  figures=('figure2a',))


def magnitude_beats_random(data):
  """Pruned minus random at equal sparsities of at least 0.3, averaged over them, against zero.

  Reproduced: the interval lies above zero. Not reproduced: it lies below. Undecided as well when
  one sparsity contradicts the average (level 1 - 0.05 / k).
  """
  diffs = _against(data, 'pruned', 'random', lambda s: s >= 0.3)
  up, down = _agreed(diffs, 0.0)
  loss = {s: statistics.paired(data.losses.get(('random', s), {}), data.losses['pruned', s])
          for s in diffs if ('pruned', s) in data.losses}
  return _verdict(data, 'magnitude_beats_random', 'At equal sparsity, pruning by magnitude keeps '
                  'more accuracy than pruning at random.', up, down,
                  _listed('pruned - random', diffs, 100), _listed('random - pruned loss', loss, 1))


def finetuning_first_does_not_help(data):
  """Pruned after fine-tuning minus pruned in pre-training, averaged over sparsities, against +0.01.

  Pairs that both stand at their task's floor say nothing and are left out. Reproduced: the
  interval lies below +0.01. Not reproduced: above. Undecided as well when one sparsity
  contradicts the average (level 1 - 0.05 / k).
  """
  diffs = _against(data, 'after', 'pruned', lambda s: s > 0, alive=True)
  up, down = _agreed(diffs, 0.01)
  return _verdict(data, 'finetuning_first_does_not_help', 'Fine-tuning before pruning does not '
                  'make a model easier to prune.', down, up,
                  _listed('after - pruned', diffs, 100), 'threshold +1 point')


def deletion_recovers(data):
  """Information deletion minus pruned at sparsities of at least 0.7, averaged, against zero.

  Reproduced: the interval lies above zero. Not reproduced: it lies below. Undecided as well when
  one sparsity contradicts the average (level 1 - 0.05 / k).
  """
  diffs = _against(data, 'deleted', 'pruned', lambda s: s >= HIGH)
  up, down = _agreed(diffs, 0.0)
  return _verdict(data, 'deletion_recovers', 'At high sparsity, deleted weights that may train '
                  'again recover part of the accuracy.', up, down,
                  _listed('deleted - pruned', diffs, 100), '')


CLAIMS = (low_sparsity_is_free, loss_rises, accuracy_falls, deletion_follows_loss,
          magnitude_beats_random, finetuning_first_does_not_help, deletion_recovers)


def _floor(scores, task, chance):
  pick = lambda arm: {p: v for p, v in scores.get((arm, 0.0), {}).items() if p[0] == task}
  dense, fresh = pick('dense'), pick('fresh')
  bars = ([chance] if chance is not None else []) + ([statistics.mean(fresh.values())]
                                                     if fresh else [])
  if not bars:
    return math.nan, 'neither a fresh model nor chance to compare with'
  if len(dense) < 2:
    return max(bars), f'{len(dense)} dense seed(s), two needed to know it was learned'
  above = [{p: v - bar for p, v in dense.items()} for bar in bars]
  if any(statistics.bootstrap(d.values()).low <= LEARNED for d in above):
    return max(bars), (f'dense {statistics.mean(dense.values()):.3f} is not clear above '
                       f'{max(bars):.3f}')
  return max(bars), ''


def _against(data, arm, other, wanted, alive=False):
  # {sparsity: {(task, seed): difference}}; dense is the same model at every sparsity.
  result = {}
  for name, s in sorted(data.scores):
    if name != arm or not wanted(s):
      continue
    ours, theirs = data.scores[arm, s], data.scores.get((other, 0.0 if other == 'dense' else s), {})
    diffs = statistics.paired(ours, theirs)
    if alive:
      diffs = {p: d for p, d in diffs.items()
               if max(ours[p], theirs[p]) > data.floors[p[0]] + LEARNED}
    if diffs:
      result[s] = diffs
  return result


def _side(diffs, threshold, level=LEVEL):
  # +1 clear above, -1 clear below, 0 when an interval straddles or the seeds are too few. Tasks of
  # one seed share a checkpoint, so the means of the seeds must be clear by themselves as well.
  seeds = sorted({seed for _, seed in diffs})
  if len(seeds) < 2:
    return 0
  means = [statistics.mean([d for pair, d in diffs.items() if pair[1] == seed]) for seed in seeds]
  both = (statistics.cautious(diffs.values(), level=level),
          statistics.cautious(means, level=SEED_LEVEL))
  above, below = (all(e.low > threshold for e in both), all(e.high < threshold for e in both))
  return int(above) - int(below)


def _agreed(diffs, threshold):
  # (clear above, clear below) of the average over sparsities, unless one of them contradicts.
  pairs = {p for d in diffs.values() for p in d}
  means = {p: statistics.mean([d[p] for d in diffs.values() if p in d]) for p in pairs}
  side = _side(dict(sorted(means.items())), threshold)
  each = [_side(d, threshold, _share(diffs, 0.05)) for d in diffs.values()]  # doubt comes cheap
  return side > 0 and -1 not in each, side < 0 and 1 not in each


def _share(parts, error=1 - LEVEL):
  return 1 - error / max(len(parts), 1)


def _line(data, task, level):
  x, y, seeds = [], [], []
  for arm, s in sorted(data.scores):
    if arm != 'deleted' and (arm, s) != ('dense', 0.0):
      continue
    losses = data.losses.get(('dense' if arm == 'dense' else 'pruned', s), {})
    both = [(losses['pretrain', seed], score, seed)
            for (name, seed), score in data.scores[arm, s].items()
            if name == task and ('pretrain', seed) in losses]
    if both:
      x.append(statistics.mean([b[0] for b in both]))
      y.append(statistics.mean([b[1] for b in both]))
      seeds.append(len({b[2] for b in both}))
  enough = len(x) >= 4 and min(seeds) >= 2 and ('dense', 0.0) in data.scores
  enough = enough and max(x) - min(x) > 0.02 * max(x)  # where the loss stands still is no line
  return statistics.fit(x, y, level=level) if enough else None


def _listed(what, diffs, scale):
  # Average and each sparsity with interval, pairs and seeds, as text.
  form = '+.1f' if scale == 100 else '+.3f'
  parts = []
  for s, place in diffs.items():
    e = statistics.cautious(place.values(), level=LEVEL)
    reach = (f' [{scale * e.low:{form}}, {scale * e.high:{form}}]' if math.isfinite(e.low) else '')
    seeds = len({seed for _, seed in place})
    parts.append(f'{s:g}: {scale * e.mean:{form}}{reach} ({e.n} pairs, {seeds} seeds)')
  return f'{what}, {LEVEL:.0%} interval, at ' + ', '.join(parts) if parts else ''


def _verdict(data, name, claim, yes, no, evidence, note, *, figures=('figure1',), of_tasks=True):
  verdict = REPRODUCED if yes else NOT_REPRODUCED if no else UNDECIDED
  if of_tasks and not data.scores:
    verdict, evidence = UNDECIDED, NOTHING
  left = '; '.join(f'{task} left out: {why}' for task, why in data.left_out.items())
  said = [evidence or 'no rows to compare', note if evidence != NOTHING else '',
          left if of_tasks else '']
  return Verdict(name, claim, verdict, '. '.join(part for part in said if part) + '.', figures)
