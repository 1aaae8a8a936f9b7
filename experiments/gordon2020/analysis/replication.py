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
    groups = [_groups(numbers) for numbers in diffs.values()]
    correlation = statistics.intraclass([g for g in groups if len(g) > 1])
    if math.isfinite(correlation):
      seeds = {seed for _, seed in pairs}
      lines.append((f'{arm} - {other}', str(len(pairs)), str(len(seeds)), f'{correlation:.2f}'))
  note = (
    'Intraclass correlation of the tasks of a seed (one-way, pooled over sparsities): 0 where they '
    'are as independent as seeds, 1 where a second task adds nothing. Verdicts rest on the means '
    'of the seeds. A seed varies the order of the text, the masked words, the new heads and the '
    'order of the examples; where all seeds start from one checkpoint, a verdict is about it.'
  )
  head = ('difference', 'pairs', 'seeds', 'intraclass correlation')
  return tables.Table('Units of replication', head, tuple(lines), note)


def _groups(numbers):
  """[[numbers of a seed]] of {(task, seed): number}."""
  groups = {}
  for (_, seed), number in numbers.items():
    groups.setdefault(seed, []).append(number)
  return list(groups.values())
