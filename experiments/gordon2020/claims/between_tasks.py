"""The claims that set one task against another; each speaks only where a ledger has such tasks."""

import itertools

from experiments.gordon2020.analysis import scoring
from experiments.gordon2020.claims import judging
from experiments.gordon2020.claims.judging import Series
from prunejax.report import statistics, tables

GLUE = 'glue/'
ALIKE = 0.05  # share of what a task has learned within which two falls are alike


def glue_tasks(data):
  """The learned tasks of GLUE, each with all the labels that the ledger has for it."""
  return [
    task for task in scoring.tasks_of(data.scores) if GLUE in task and not task.partition('@')[1]
  ]


def fewer_labels(data):
  """{(task, the same task with fewer labels)} of the learned tasks, sorted."""
  tasks = scoring.tasks_of(data.scores)
  return [(task, few) for task in tasks for few in tasks if few.startswith(f'{task}@')]


def tasks_fall_at_different_rates(data):
  """The share of what dense has learned that pruned loses from 0.5 on, between tasks of GLUE.

  A fall is (dense - pruned) / (dense - floor), so that accuracy and a correlation can be compared.
  It is averaged over the sparsities that all seeds of both tasks have. Reproduced: for one pair of
  tasks the interval of the difference, over seeds, leaves out zero (level 1 - 0.01 / pairs). Not
  reproduced: for every pair the interval lies within 0.05 of zero.
  """
  falls = {task: _falls(data, (task,))[task] for task in glue_tasks(data)}
  falls = {task: fall_of for task, fall_of in falls.items() if fall_of}
  pairs = list(itertools.combinations(sorted(falls), 2))
  apart = {}
  for pair in pairs:
    both = _falls(data, pair)
    more = statistics.paired(*(both[task] for task in pair))
    apart[pair] = {(pair, seed): d for seed, d in more.items()}
  level = judging.share(pairs)
  differ = any(judging.side(numbers, 0.0, level) for numbers in apart.values())
  alike = bool(apart) and all(
    judging.side(numbers, -ALIKE) > 0 and judging.side(numbers, ALIKE) < 0
    for numbers in apart.values()
  )
  known = [pair for pair in pairs if apart[pair]]
  most = max(known, key=lambda pair: abs(judging.estimate(apart[pair]).mean), default=None)
  shown = tuple(
    (task, judging.interval({(task, seed): fall for seed, fall in fall_of.items()}))
    for task, fall_of in sorted(falls.items())
  )
  head = ('task', 'lost of what dense has learned (%)')
  names = ' - '.join(most) if most else ''
  return judging.verdict(
    data,
    'tasks_fall_at_different_rates',
    'Tasks fall at different rates as weights are pruned.',
    differ,
    alike and not differ,
    number=f'{judging.interval(apart[most])} % of what is learned, {names}' if most else '',
    evidence=(tables.Table('Each task', head, shown),) if shown else (),
    rule=f'alike within {100 * ALIKE:g} % of what is learned; the pair that is farthest apart',
  )


def recovery_is_largest_with_much_data(data):
  """Deleted minus pruned, a task with its labels less the same task with fewer, from 0.7 on.

  Reproduced: the average over sparsities lies clear above zero. Not reproduced: below. Undecided as
  well where one sparsity contradicts the average (level 1 - 0.05 / k).
  """
  gains = judging.against(data, 'deleted', 'pruned', lambda s: s >= judging.HIGH)
  more = {}
  for s, gain in gains.items():
    for task, few in fewer_labels(data):
      for seed in sorted({seed for _, seed in gain}):
        if (task, seed) in gain and (few, seed) in gain:
          more.setdefault(s, {})[few, seed] = gain[task, seed] - gain[few, seed]
  up, down = judging.agreed(more, 0.0)
  return judging.verdict(
    data,
    'recovery_is_largest_with_much_data',
    'Deleted weights that may train again recover most on tasks with much data.',
    up,
    down,
    number=judging.average(more, 'points'),
    evidence=judging.by_sparsity(
      Series('deleted - pruned, all labels less few (points)', more),
      Series('deleted - pruned, every task (points)', gains),
    ),
  )


def _falls(data, tasks):
  """{task: {seed: share of what dense has learned that pruned loses, from 0.5 on}}.

  Of the seeds that have all of the tasks, over the sparsities that all of these have.
  """
  dense = data.scores.get(('dense', 0.0), {})
  diffs = judging.against(data, 'pruned', 'dense', lambda s: s >= judging.MEDIUM)
  seeds = set.intersection(
    *({seed for d in diffs.values() for name, seed in d if name == task} for task in tasks)
  )
  compared = {
    s: {p: v for p, v in d.items() if p[0] in tasks and p[1] in seeds} for s, d in diffs.items()
  }
  levels = judging.everywhere(compared)
  lost = judging.over_sparsities({s: d for s, d in compared.items() if s in levels})
  falls = {task: {} for task in tasks}
  for (task, seed), d in lost.items():
    falls[task][seed] = -d / (dense[task, seed] - data.floors[task])
  return falls
