"""The claims that speak of losses: in pre-training, on the training set, and what follows from them."""

from experiments.gordon2020 import judging
from prunejax.analysis import statistics


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
  top = judging.side(rise[levels[-1]], 0.0) if levels else 0
  even = all(statistics.mean(step.values()) >= -slack for step in steps.values())
  broken = top < 0 or any(judging.side(step, -slack, judging.share(steps)) < 0 for step in steps.values())
  shown = len(levels) >= 3 and levels[-1] >= judging.MEDIUM and top > 0 and even
  return judging.verdict(
      data, 'loss_rises', 'Pre-training loss rises with sparsity.',
      shown and not broken, broken, judging.listed('loss - dense loss', rise, 1), '',
      figures=('pretrain_loss',), of_tasks=False)


def deletion_follows_loss(data):
  """One line a task through (pre-train loss, deletion accuracy), seeds averaged at each sparsity.

  Needs two seeds, four sparsities with dense among them, and a loss that moves by 2 %.
  Reproduced: on every task the interval of the slope lies below zero and r <= -0.8. Not
  reproduced: on one task the slope lies clear above zero (level 1 - 0.01 / tasks).
  """
  tasks = statistics.tasks_of(data.scores)
  lines = {task: _line(data, task, judging.LEVEL) for task in tasks}
  known = {task: line for task, line in lines.items() if line}
  every = bool(tasks) and len(known) == len(tasks) and all(
      line.high < 0 and line.r <= -0.8 for line in known.values())
  broken = any(_line(data, task, judging.share(known)).low > 0 for task in known)
  text = '; '.join(f'{task}: {100 * line.slope:+.2f} points a nat '
                   f'[{100 * line.low:+.2f}, {100 * line.high:+.2f}], r {line.r:+.3f}, '
                   f'{line.n} sparsities' for task, line in known.items())
  missing = [task for task in tasks if task not in known]
  return judging.verdict(
      data, 'deletion_follows_loss', 'Accuracy after information deletion is linear '
      'in pre-training loss, task by task.',
      every and not broken, broken, text,
      f'no line for {", ".join(missing)}: two seeds, four sparsities and a loss that '
      'moves are needed' if missing else '',
      figures=('figure2a',))


def deletion_explains_the_middle(data):
  """Deleted minus pruned at sparsities from 0.5 to 0.6, averaged: the same fall, to within MARGIN?

  Says nothing unless pruned lies clear below dense there. Reproduced: the interval of the difference lies within
  +-MARGIN. Not reproduced: it lies outside on one side.
  """
  middle = lambda s: judging.MEDIUM <= s < judging.HIGH
  falls = judging.against(data, 'pruned', 'dense', middle)
  diffs = judging.against(data, 'deleted', 'pruned', middle)
  fell = judging.agreed(falls, 0.0)[1]
  over_low, _ = judging.agreed(diffs, -judging.MARGIN)
  _, under_high = judging.agreed(diffs, judging.MARGIN)
  above, below = judging.agreed(diffs, judging.MARGIN)[0], judging.agreed(diffs, -judging.MARGIN)[1]
  note = '' if fell or not falls else '. Pruned is not clear below dense there: no fall to explain'
  return judging.verdict(
      data, 'deletion_explains_the_middle', 'At medium sparsity the models that may train their zeros again fall by '
      'as much as the pruned ones: the loss of information is the main cause.',
      fell and over_low and under_high, fell and (above or below), judging.listed('deleted - pruned', diffs, 100),
      judging.listed('pruned - dense', falls, 100) + f'; margin {100 * judging.MARGIN:g} points' + note)


def deletion_fits_but_does_not_transfer(data):
  """Deleted minus dense at sparsities of at least 0.7: fit to the training set, and dev score.

  The claim is about models trained until they fit as well as dense ones, so it says nothing unless the train loss,
  averaged over these sparsities, is clear below dense + FIT. Reproduced: then the dev score lies clear below
  dense - MARGIN / 2. Not reproduced: then it lies clear above that.
  """
  fits = judging.against(data, 'deleted', 'dense', lambda s: s >= judging.HIGH, of=data.train)
  diffs = judging.against(data, 'deleted', 'dense', lambda s: s >= judging.HIGH)
  fit = judging.agreed(fits, judging.FIT)[1]
  up, down = judging.agreed(diffs, -judging.MARGIN / 2)
  note = '' if fit or not fits else '. They are not known to fit as well as dense: more steps may be needed'
  return judging.verdict(
      data, 'deletion_fits_but_does_not_transfer', 'Deleted models reach the train loss of dense ones, and still not '
      'their accuracy on new examples.', fit and down, fit and up, judging.listed('deleted - dense', diffs, 100),
      judging.listed('train loss, deleted - dense', fits, 1) + f'; fit to within {judging.FIT:g} nats' + note)


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
