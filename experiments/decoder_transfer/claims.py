"""Judge what the first paper says of BERT on a decoder that was pruned in one shot.

The unit of replication is a seed, which draws the calibration segments, the head, the labels and
their order. All differences are within a seed, and every task has to show them.
"""

from prunejax.report import verdicts

FREE = 0.02  # a loss of score up to this counts as none
HALF = 0.5  # of what pruning cost; what is deleted is more than this
LOW, MEDIUM, HIGH = 0.3, 0.5, 0.7  # the sparsities of the claims


def scores(rows: list[dict], task: str, arm: str, sparsity: float, metric: str = 'score') -> dict:
  """Pick a metric of an arm: {seed: value}.

  Args:
    rows: of the ledger.
    task: a task of the rows.
    arm: 'dense', 'held' or 'free'.
    sparsity: 0 for 'dense'.
    metric: 'score', 'train_loss' or 'dev_loss'.
  """
  return {
    row['seed']: row['metrics'][metric]
    for row in rows
    if (row['task'], row['arm'], row['sparsity']) == (task, arm, sparsity)
  }


def claims(rows: list[dict]) -> list[verdicts.Verdict]:
  """Judge every claim, in points of the score."""
  tasks = sorted({row['task'] for row in rows})

  def cost(task, arm, sparsity, metric='score'):
    """The dense value minus that of an arm, by seed."""
    dense, other = (
      scores(rows, task, 'dense', 0.0, metric),
      scores(rows, task, arm, sparsity, metric),
    )
    return {seed: dense[seed] - other[seed] for seed in dense if seed in other}

  def recovered(task, sparsity):
    """Half of what pruning cost, minus what free zeros win back, by seed."""
    held, free = cost(task, 'held', sparsity), cost(task, 'free', sparsity)
    return [HALF * held[s] - (held[s] - free[s]) for s in held if s in free]

  def deletes(name, claim, sparsity):
    """The verdict on what free zeros win back. Without a clear cost there is nothing to win."""
    place = lambda task: f'on {task} at {sparsity:g}'
    compared = {t: of(f'of the score {place(t)}', recovered(t, sparsity)) for t in tasks}
    fell = {t: verdicts.side(costs(t, 'held', sparsity)) > 0 for t in tasks}
    sides = [verdicts.supports(compared[t]) if fell[t] else 0 for t in tasks]
    notes = [
      f'zeros held are not clear below dense {place(t)}'
      for t in tasks
      if compared[t].values and not fell[t]
    ]
    return _judged(name, claim, list(compared.values()), verdicts.all_of(sides), notes=notes)

  of = verdicts.Comparison
  costs = lambda task, arm, x: list(cost(task, arm, x).values())
  fits = lambda task: [-gap for gap in cost(task, 'free', HIGH, 'train_loss').values()]
  return [
    _judged(
      'low_is_free',
      f'30 % of the weights go for free: the score falls by less than {FREE:g}',
      [of(f'of the score on {t} at {LOW:g}', costs(t, 'held', LOW), FREE, False) for t in tasks],
    ),
    _judged(
      'high_costs',
      'At 70 % the fine-tuned model is worse than the dense one',
      [of(f'of the score on {t} at {HIGH:g}', costs(t, 'held', HIGH)) for t in tasks],
    ),
    deletes(
      'medium_deletes',
      'At 50 % the loss is deletion: free zeros win back less than half of what pruning cost',
      MEDIUM,
    ),
    deletes(
      'high_deletes',
      'At 70 %, too, free zeros win back less than half of what pruning cost',
      HIGH,
    ),
    _judged(
      'deleted_fit',
      'A model with deleted weights fits the labels as well as the dense one: its train loss is'
      ' higher by less than 0.05 nats',
      [of(f'nats on {t} at {HIGH:g}', fits(t), 0.05, False) for t in tasks],
      figures=('loss',),
    ),
  ]


def _judged(name, claim, compared, word='', *, notes=(), figures=('score',)):
  """The verdict `word`, of all comparisons by default, with notes in its evidence."""
  shown = [f'{c.what}: {verdicts.shown(c.values)}' for c in compared if list(c.values)]
  return verdicts.Verdict(
    name,
    claim,
    word or verdicts.all_hold(compared),
    '; '.join([*shown, *notes]) or 'no rows',
    figures,
    verdicts.decided_by(compared),
  )
