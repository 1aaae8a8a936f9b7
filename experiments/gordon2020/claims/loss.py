"""The claims about losses, in pre-training and on the training set."""

import itertools

from experiments.gordon2020.analysis import scoring
from experiments.gordon2020.claims import judging
from experiments.gordon2020.claims.judging import Series
from prunejax.report import statistics, tables


def loss_rises(data):
  """Held-out pre-train loss along dense, then pruned at each sparsity, paired by seed.

  Reproduced: three sparsities or more, one of them at least 0.5; the loss at the highest lies
  clear above dense; no step down in the mean of more than 1 % of the dense loss. Not reproduced:
  the highest lies clear below dense, or one step falls clear of that 1 % (level 1 - 0.01 / k).
  """
  levels = sorted(s for arm, s in data.losses if arm == 'pruned' and s > 0)
  path = [data.losses.get(('dense', 0.0), {})] + [data.losses['pruned', s] for s in levels]
  slack = 0.01 * abs(statistics.mean(path[0].values())) if path[0] else 0.0
  pairs = zip(levels, itertools.pairwise(path), strict=True)
  steps = {s: statistics.paired(b, a) for s, (a, b) in pairs}
  rise = {s: statistics.paired(losses, path[0]) for s, losses in zip(levels, path[1:], strict=True)}
  top = judging.side(rise[levels[-1]], 0.0) if levels else 0
  even = all(statistics.mean(step.values()) >= -slack for step in steps.values())
  broken = top < 0 or any(
    judging.side(step, -slack, judging.share(steps)) < 0 for step in steps.values()
  )
  shown = len(levels) >= 3 and levels[-1] >= judging.MEDIUM and top > 0 and even
  return judging.verdict(
    data,
    'loss_rises',
    'Pre-training loss rises with sparsity.',
    shown and not broken,
    broken,
    number=judging.at(rise, levels[-1], 'nats', 1) if levels else '',
    evidence=judging.by_sparsity(Series('pruned - dense, pre-train loss (nats)', rise, 1)),
    figures=('pretrain_loss',),
    of_tasks=False,
  )


def deletion_follows_loss(data):
  """One line a task through (pre-train loss, deletion accuracy), seeds averaged at each sparsity.

  Needs two seeds, four sparsities with dense among them, and a loss that moves by 2 %.
  Reproduced: on every task the interval of the slope lies below zero and r <= -0.8. That is no test
    of a straight line:
  the paper's own CoLA has -0.88 with all its points, and so has a step; r stands beside the
  verdict. Not reproduced: on one task the slope lies clear above zero (level 1 - 0.01 / tasks).
  """
  tasks = scoring.tasks_of(data.scores)
  known = {task: line for task in tasks for line in [_line(data, task, judging.LEVEL)] if line}
  every = (
    bool(tasks)
    and len(known) == len(tasks)
    and all(line.high < 0 and line.r <= -0.8 for line in known.values())
  )
  broken = any(_line(data, task, judging.share(known)).low > 0 for task in known)
  lines = tuple(
    (
      task,
      f'{100 * line.slope:+.2f} {tables.span(line.low, line.high, 100, "+.2f")}',
      f'{line.r:+.3f}',
      str(line.n),
    )
    for task, line in known.items()
  )
  head = ('task', f'points a nat [{judging.LEVEL:.0%} interval]', 'r', 'sparsities')
  weakest = max(known, key=lambda task: known[task].r, default=None)
  missing = [task for task in tasks if task not in known]
  return judging.verdict(
    data,
    'deletion_follows_loss',
    'Accuracy after information deletion falls with pre-training loss, task by task.',
    every and not broken,
    broken,
    number=judging.weakest_line(known, weakest, 'points a nat', '+.2f'),
    evidence=(tables.Table('A line a task', head, lines),) if lines else (),
    rule='r at most -0.8 and a slope below zero'
    + (
      f'; no line for {", ".join(missing)}, '
      'which needs two seeds, four sparsities and a loss that moves'
      if missing
      else ''
    ),
    figures=('figure2a',),
  )


def deletion_explains_the_middle(data):
  """How much of the fall of pruned is left at 0.5 and 0.6 where the zeros may train again?

  Each arm falls from its own 0. Says nothing unless pruned lies clear below dense there.
  Reproduced: more than half of the fall is left, that is (deleted - its 0) - (pruned - dense) / 2,
  averaged, is clear below zero. Not reproduced: it is clear above.
  """
  middle = lambda s: judging.MEDIUM <= s < judging.HIGH
  falls = judging.against(data, 'pruned', 'dense', middle)
  left = judging.against(data, 'deleted', judging.ZERO, middle)
  halves = {s: {pair: half / 2 for pair, half in diffs.items()} for s, diffs in falls.items()}
  rests = {s: statistics.paired(diffs, halves.get(s, {})) for s, diffs in left.items()}
  rests = {s: diffs for s, diffs in rests.items() if diffs}
  fell = judging.agreed(falls, 0.0)[1]
  above, below = judging.agreed(rests, 0.0)
  note = '' if fell or not falls else 'pruned is not clear below dense there: no fall to explain'
  return judging.verdict(
    data,
    'deletion_explains_the_middle',
    'At medium sparsity most of the fall is left in models that may train '
    'their zeros again: the loss of information is the main cause.',
    fell and below,
    fell and above,
    number=judging.average(rests, 'points'),
    evidence=judging.by_sparsity(
      Series('deleted - its own 0 % (points)', left),
      Series('pruned - dense (points)', falls),
      Series('the first less half of the second (points)', rests),
    ),
    rule=note,
  )


def deletion_fits_but_does_not_transfer(data):
  """Deleted minus its own 0 at sparsities of at least 0.7: fit to the training set, and dev score.

  The claim is about models trained until they fit as well as dense ones, so only those sparsities
  count at which the train loss is clear below that of the 0 + FIT. Reproduced: there the dev score
  lies, averaged, clear below that of the 0 - MARGIN / 2. Not reproduced: it lies clear above.
  Undecided where neither a 0 of this arm nor 'dense' was fine-tuned for as many steps: a dense
  model of fewer steps is no match.
  """
  own = ('deleted', 0.0) in data.scores or _steps(data, 'deleted') == _steps(data, 'dense')
  high = lambda s: own and s >= judging.HIGH
  fits = judging.against(data, 'deleted', judging.ZERO, high, scores=data.train)
  diffs = judging.against(data, 'deleted', judging.ZERO, high)
  fit = [s for s in diffs if s in fits and judging.side(fits[s], judging.FIT) < 0]
  up, down = (
    judging.agreed({s: diffs[s] for s in fit}, -judging.MARGIN / 2) if fit else (False, False)
  )
  levels = ', '.join(f'{s:g}' for s in fit)
  note = f'they fit at {levels}' if fit else 'they are not known to fit at any of them'
  return judging.verdict(
    data,
    'deletion_fits_but_does_not_transfer',
    'Deleted models reach the train loss of dense ones, and still not '
    'their accuracy on new examples.',
    down,
    up,
    number=judging.average({s: diffs[s] for s in fit}, 'points')
    or judging.at(fits, min(fits, default=None), 'nats of train loss', 1),
    evidence=judging.by_sparsity(
      Series('deleted - its own 0 % (points)', diffs),
      Series('train loss, deleted - its own 0 % (nats)', fits, 1),
    ),
    rule=f'fit to within {judging.FIT:g} nats; {note}'
    if own
    else 'the ledger has no 0 % that was fine-tuned for as many steps as deleted',
    alone=True,
  )


def _steps(data, arm):
  """The numbers of steps for which an arm was fine-tuned."""
  return {row.get('steps') for row in data.learned if row['arm'] == arm and row.get('task')}


def _line(data, task, level):
  x, y, seeds = [], [], []
  by_sparsity = {s: numbers for (arm, s), numbers in data.scores.items() if arm == 'deleted' and s}
  for s, numbers in sorted({0.0: scoring.zero(data.scores, 'deleted'), **by_sparsity}.items()):
    losses = data.losses.get(('pruned', s), {}) if s else scoring.zero(data.losses, 'pruned')
    both = [
      (losses['pretrain', seed], score, seed)
      for (name, seed), score in numbers.items()
      if name == task and ('pretrain', seed) in losses
    ]
    if both:
      x.append(statistics.mean([b[0] for b in both]))
      y.append(statistics.mean([b[1] for b in both]))
      seeds.append(len({b[2] for b in both}))
  enough = len(x) >= 4 and min(seeds) >= 2 and ('dense', 0.0) in data.scores
  enough = enough and max(x) - min(x) > 0.02 * max(x)  # where the loss stands still is no line
  return statistics.fit(x, y, level=level) if enough else None
