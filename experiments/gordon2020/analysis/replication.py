"""How alike the (task, seed) pairs of one seed are, and so what stands behind an interval."""

import math

from experiments.gordon2020.claims import judging
from prunejax.report import statistics, tables

# What is compared: (arm, other arm or the dense model).
COMPARED = (
  ('pruned', 'dense'),
  ('deleted', 'pruned'),
  ('after', 'pruned'),
  ('pruned', 'random'),
)


def table(grid):
  """The intraclass correlation of the differences that verdicts rest on, a line a comparison."""
  lines = []
  for arm, other in COMPARED:
    diffs = judging.against(grid, arm, other, lambda s: s > 0)
    pairs = {pair for numbers in diffs.values() for pair in numbers}
    tasks = sorted({task for task, _ in pairs})
    correlation = statistics.intraclass([_by_seed(numbers, tasks) for numbers in diffs.values()])
    if math.isfinite(correlation):
      seeds = {seed for _, seed in pairs}
      lines.append((f'{arm} - {other}', str(len(pairs)), str(len(seeds)), f'{correlation:.2f}'))
  note = (
    'Intraclass correlation of the tasks of a seed, ICC(3, 1) pooled over sparsities: 0 where they '
    'are as independent as seeds, 1 where a second task adds nothing. Verdicts rest on the means '
    'of the seeds. A seed varies the order of the text, the masked words, the new heads and the '
    'order of the examples; where all seeds start from one checkpoint, a verdict is about it.'
  )
  head = ('difference', 'pairs', 'seeds', 'intraclass correlation')
  return tables.Table('Units of replication', head, tuple(lines), note)


def _by_seed(numbers, tasks):
  """[seeds, tasks] of {(task, seed): number}, of the seeds that have every task."""
  seeds = sorted({seed for _, seed in numbers})
  whole = [seed for seed in seeds if all((task, seed) in numbers for task in tasks)]
  return [[numbers[task, seed] for task in tasks] for seed in whole]
