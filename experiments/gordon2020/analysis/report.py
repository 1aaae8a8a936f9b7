"""The tables and figures of the report, in their order, beside the numbers of the paper."""

from experiments.gordon2020 import paper
from experiments.gordon2020.analysis import (
  as_dense,
  beside_paper,
  controls,
  learning_rates,
  probe_tables,
  regime_figure,
  regimes,
  replication,
  score_figures,
  scoring,
  table1,
  two_ledgers,
)
from experiments.gordon2020.claims import by_task
from prunejax import files
from prunejax.report import tables

CAPTIONS = {
  **score_figures.CAPTIONS,
  'regimes': regime_figure.CAPTION,
  'prunability': 'The sparsity at which the pre-train loss has risen by a tenth of a nat, against '
  'the share of the corpus that the model was pre-trained on. Bars are 95 % intervals.',
  **probe_tables.CAPTIONS,
}


def tables_of(grid):
  """Every table that the rows can fill, Table 1 first."""
  shown = [table1.table(grid.comparable)]
  if learning_rates.several(grid.standard):
    shown.append(learning_rates.table(grid.standard))
  shown += [
    task_by_task(grid),
    replication.table(grid),
    as_dense.table(grid.learned),
    regimes.table(grid.learned, paper.TABLE1, paper.REGIMES),
    beside_paper.differences(grid.comparable, paper.TABLE1),
    beside_paper.by_task(grid.comparable, paper.TABLE1),
    beside_paper.slopes(grid.learned, paper.TABLE1, paper.LINES),
    controls.switches(grid.rows),
    controls.others(grid.rows),
    controls.corpus(grid.rows),
  ]
  return [table for table in shown if table.rows] + probe_tables.shown(grid.rows, grid.learned)


def figures_of(grid):
  """{name: PNG} of every figure that the rows can fill, Figure 1 first."""
  chance = scoring.chance(grid.comparable, grid.chance)
  drawn = score_figures.standard(grid.comparable, chance=chance) if grid.comparable else {}
  drawn['regimes'] = regime_figure.figure(grid.learned, paper.TABLE1)
  drawn |= probe_tables.figures(grid.rows, grid.learned)
  drawn['prunability'] = controls.prunability(grid.rows)
  return {name: png for name, png in drawn.items() if png}


def differences(a, b):
  """(tables, figures, captions) of two grids, A and B."""
  shown = [
    two_ledgers.settings(a.rows, b.rows),
    two_ledgers.differences(a.rows, b.rows),
    *(
      table1.table(grid.standard)._replace(title=f'Table 1 of {name}')
      for name, grid in (('A', a), ('B', b))
    ),
  ]
  return shown, two_ledgers.figures(a.rows, b.rows), two_ledgers.CAPTIONS


def task_by_task(grid):
  """The verdicts on the claims about tasks, a line a claim, a column a task."""
  checks = by_task(grid)
  lines = zip(*checks.values(), strict=True)
  return tables.records(
    'Verdicts task by task',
    [
      {'claim': line[0].claim, **{task: v.verdict for task, v in zip(checks, line, strict=True)}}
      for line in lines
    ],
    'Fewer pairs stand behind each than behind the verdicts over all tasks.',
  )


def who_pays(rows, folder):
  """[table] of what pruning took from each leaf in the sparsest cell; [] without its file."""
  pruned = [row for row in rows if row['arm'] == 'pruned' and row['stage'] == 'pretrain']
  for row in sorted(pruned, key=lambda row: -row['sparsity']):
    path = files.path(folder) / 'cells' / row['cell'] / 'who_pays_weights.json'
    if files.exists(path):
      saved = files.read_json(path)
      title = f'Who pays at sparsity {row["sparsity"]}'
      return [tables.records(title, [*saved['leaves'], saved['total']])]
  return []
