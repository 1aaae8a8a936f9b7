"""Table 1 of the paper, with intervals, from ledger rows."""

from experiments.gordon2020.analysis import arms, scoring
from prunejax.report import ledger, statistics, tables


def table(rows, *, level=0.95, seed=0):
  """The paper's Table 1: arm x sparsity; pre-train loss, each task 'accuracy | train loss', AVG.

  Scores are in points of 100 as the paper prints them; +- is half the bootstrap interval.
  """
  rows = scoring.comparable(ledger.one_grid(rows))
  scores = scoring.points(rows)
  train = scoring.points(rows, scoring.train_loss)
  losses = scoring.pretrain(rows)
  tasks = scoring.tasks_of(scores)
  mean_scores, mean_train = scoring.averages(scores), scoring.averages(train)
  estimate = lambda values: statistics.bootstrap(values, level=level, seed=seed)

  def cell(score, loss):
    return f'{tables.points(estimate(score))} | {tables.number(estimate(loss))}'

  def line(arm, sparsity):
    key = arm, sparsity
    source = arms.SOURCE.get(arm, arm)
    own = sparsity or source not in arms.CURVES  # else what the 0 of a pruned arm started from
    place = losses.get((source, sparsity), {}) if own else scoring.zero(losses, source)
    # Pruned after fine-tuning: its checkpoint was dense, so no pre-train loss at this sparsity.
    loss = [] if arm == 'after' else place.values()
    per_task = [cell(_of(scores, key, task), _of(train, key, task)) for task in tasks]
    average = cell(mean_scores.get(key, {}).values(), mean_train.get(key, {}).values())
    seeds = {k[1] for k in scores.get(key) or losses.get(key, {})}
    return (
      arms.name(arm),
      f'{sparsity:g}',
      str(len(seeds)),
      tables.number(estimate(loss)),
      *per_task,
      average,
    )

  keys = sorted(set(scores) | set(losses), key=arms.order)
  names = sorted({(row['task'], scoring.metric_of(row)) for row in scoring.select(rows)})
  unlike = [f'{task}: {metric}' for task, metric in names if metric != 'accuracy']
  apart = sorted(set(tasks) - set(scoring.averaged(scores)))
  note = (
    f'Score in points of 100 | loss over the training set; mean ± half of the '
    f'{level:.0%} bootstrap interval over seeds, - where there are too few ({statistics.FEW}). '
    'Learning rates: the best dev score of each task, arm, sparsity and seed, of those rates that all arms and '
    'sparsities of the task have.'
  )
  return tables.Table(
    'Table 1: sparsity, pre-train loss, dev score and train loss',
    ('arm', 'sparsity', 'seeds', 'pre-train loss', *tasks, 'AVG'),
    tuple(line(*key) for key in keys),
    note
    + (f' Scores other than accuracy: {", ".join(unlike)}.' if unlike else '')
    + (f' Not in AVG, since most places lack it: {", ".join(apart)}.' if apart else ''),
  )


def _of(table, key, task):
  return [v for (name, _), v in table.get(key, {}).items() if name == task]
