"""The claims that set the dev scores of two arms against each other."""

from experiments.gordon2020.claims import judging
from experiments.gordon2020.claims.judging import Series
from prunejax.report import statistics

POINTS = '(points)'


def low_sparsity_is_free(data):
  """Pruned minus dense at every sparsity up to 0.4, against a loss of MARGIN.

  Reproduced: at each of them the interval lies above -MARGIN, and 0.3 or more is among them.
  Not reproduced: at one of them it lies below -MARGIN (level 1 - 0.01 / k).
  """
  diffs = judging.against(data, 'pruned', 'dense', lambda s: 0 < s <= judging.LOW)
  every = (
    bool(diffs)
    and max(diffs) >= 0.3
    and all(judging.side(d, -judging.MARGIN) > 0 for d in diffs.values())
  )
  broken = any(judging.side(d, -judging.MARGIN, judging.share(diffs)) < 0 for d in diffs.values())
  lowest = min(
    diffs,
    key=lambda s: judging.estimate(diffs[s]).low,
    default=None,
  )
  return judging.verdict(
    data,
    'low_sparsity_is_free',
    'Pruning 30 to 40 % of the weights costs no accuracy downstream.',
    every and not broken,
    broken,
    number=judging.at(diffs, lowest, 'points'),
    evidence=judging.by_sparsity(Series(f'pruned - dense {POINTS}', diffs)),
    rule=f'margin {100 * judging.MARGIN:g} points; decided by the lowest interval',
  )


def accuracy_falls(data):
  """Pruned minus dense at the highest sparsity of at least 0.7, against a loss of MARGIN.

  Reproduced: the interval lies below -MARGIN. Not reproduced: it lies above.
  """
  diffs = judging.against(data, 'pruned', 'dense', lambda s: s >= judging.HIGH)
  highest = max(diffs, default=None)
  side = judging.side(diffs[highest], -judging.MARGIN) if diffs else 0
  return judging.verdict(
    data,
    'accuracy_falls',
    'At high sparsity accuracy downstream falls.',
    side < 0,
    side > 0,
    number=judging.at(diffs, highest, 'points'),
    evidence=judging.by_sparsity(Series(f'pruned - dense {POINTS}', diffs)),
    rule=f'margin {100 * judging.MARGIN:g} points, judged at the highest sparsity',
  )


def magnitude_beats_random(data):
  """Pruned minus random at equal sparsities of at least 0.3, averaged over them, against zero.

  Reproduced: the interval lies above zero. Not reproduced: it lies below. Undecided as well where
  one sparsity contradicts the average (level 1 - 0.05 / k).
  """
  diffs = judging.against(data, 'pruned', 'random', lambda s: s >= 0.3)
  up, down = judging.agreed(diffs, 0.0)
  loss = {
    s: statistics.paired(data.losses.get(('random', s), {}), data.losses['pruned', s])
    for s in diffs
    if ('pruned', s) in data.losses
  }
  return judging.verdict(
    data,
    'magnitude_beats_random',
    'At equal sparsity, pruning by magnitude keeps more accuracy than pruning at random.',
    up,
    down,
    number=judging.average(diffs, 'points'),
    evidence=judging.by_sparsity(
      Series(f'pruned - random {POINTS}', diffs),
      Series('random - pruned, pre-train loss (nats)', loss, 1),
    ),
  )


def finetuning_first_does_not_help(data):
  """Pruned after fine-tuning minus pruned in pre-training, averaged from 0.5 on, against +0.01.

  Where little is pruned, nothing is lost that could be saved; pairs that both stand at the floor of
  their task say nothing either. Reproduced: the interval lies below +0.01, and so does the mean at
  each sparsity. Not reproduced: it lies above. Undecided as well where one sparsity contradicts the
  average (level 1 - 0.05 / k).
  """
  medium = lambda s: s >= judging.MEDIUM
  measured = judging.against(data, 'after', 'pruned', medium)
  diffs = judging.against(data, 'after', 'pruned', medium, alive=True)
  up, down = judging.agreed(diffs, 0.01, measured)
  down = down and all(statistics.mean(d.values()) < 0.01 for d in diffs.values())
  return judging.verdict(
    data,
    'finetuning_first_does_not_help',
    'Fine-tuning before pruning does not make a model easier to prune.',
    down,
    up,
    number=judging.average(diffs, 'points', measured=measured),
    evidence=judging.by_sparsity(Series(f'after - pruned {POINTS}', diffs)),
    rule='threshold +1 point',
  )


def deletion_recovers(data):
  """Information deletion minus pruned at sparsities of at least 0.7, averaged, against zero.

  Reproduced: the interval lies above zero. Not reproduced: it lies below. Undecided as well where
  one sparsity contradicts the average (level 1 - 0.05 / k).
  """
  diffs = judging.against(data, 'deleted', 'pruned', lambda s: s >= judging.HIGH)
  up, down = judging.agreed(diffs, 0.0)
  return judging.verdict(
    data,
    'deletion_recovers',
    'At high sparsity, deleted weights that may train again recover part of the accuracy.',
    up,
    down,
    number=judging.average(diffs, 'points'),
    evidence=judging.by_sparsity(Series(f'deleted - pruned {POINTS}', diffs)),
  )
