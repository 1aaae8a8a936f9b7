"""The report of a ledger of this experiment: what is shown, in which order, beside which numbers of the paper."""

from experiments.gordon2020 import claims, judging, paper, probe_report
from prunejax import files
from prunejax.report import (
  arms,
  beside,
  controls,
  document,
  equivalence,
  figures,
  ledger,
  rates,
  regime_figure,
  regimes,
  statistics,
  tables,
)
from prunejax.report import compare as two
from prunejax.report import cost as took
from prunejax.train import grid, log

TITLE = 'Compressing BERT: weight pruning and transfer'
SOURCE = 'Gordon, Duh & Andrews 2020, arXiv:2002.08307'
CAPTIONS = {
  'regimes': regime_figure.CAPTION,
  'prunability': 'The sparsity at which the pre-train loss has risen by a tenth of a nat, against the share of the '
  'corpus that the model was pre-trained on; bars are 95 % intervals.',
  **getattr(probe_report, 'CAPTIONS', {}),
}


def write_report(folder, say=log.say):
  """The report of a work directory, written into it, from its ledger and nothing else but what its cells left."""
  folder = files.path(folder)
  return redraw(folder / 'ledger.jsonl', folder, work=folder, say=say)


def redraw(path, out, *, work=None, say=log.say):
  """Every table, figure and verdict of the ledger at `path`, and report.html and report.md, into the folder `out`.

  work: the work directory, if there is one; then what pruning took from each leaf and what the grid cost are shown too.
  Raises ValueError when the ledger holds no finished cell.
  """
  every = ledger.read(path)
  rows = [row for row in every if not row.get('failed')]
  if not rows:
    raise ValueError(f'{str(path)!r} holds no finished cell: nothing to report yet')
  chance = chances(rows)
  verdicts = claims.check(rows, chance)
  shown = shown_tables(rows, chance, [row for row in every if row.get('failed')])
  standard = statistics.comparable(arms.standard(rows))
  tables_of_probes, figures_of_probes = probe_report.shown(rows, learned_only(standard, chance))
  shown += tables_of_probes
  if work is not None:
    shown += of_work(work, rows, say)
  level = sum(chance.values()) / len(chance) if chance else None
  drawn = figures.standard(standard, chance=level) if standard else {}
  if ends := regime_figure.figure(learned_only(standard, chance), paper.TABLE1):
    drawn['regimes'] = ends
  drawn |= figures_of_probes
  if prunable := controls.prunability(rows):
    drawn['prunability'] = prunable
  written = document.write(
    out,
    rows,
    verdicts,
    title=TITLE,
    tables=shown,
    figures=drawn,
    captions=CAPTIONS,
    meta={'paper': SOURCE, 'preset': rows[-1]['preset']},
  )
  if shown:
    say(tables.text(shown[0]))
  for verdict in verdicts:
    say(f'{verdict.verdict:<15} {verdict.name}: {verdict.claim}')
  say(f'report: {written["report.html"]}')
  return written


def compare(first, second, out, say=log.say):
  """Two ledgers or work directories of this experiment side by side, as one report in the folder `out`."""
  rows = [two.read(where) for where in (first, second)]
  checks = [claims.check(side, chances(side)) for side in rows]
  names = [files.path(where).name for where in (first, second)]
  named = [f'{name} ({side[-1]["preset"]})' for name, side in zip(names, rows, strict=True)]
  lists = [
    ('Verdicts', [two.verdicts(*checks)]),
    ('Differences', [two.settings(*rows), two.differences(*rows)]),
  ]
  written = document.write(
    out,
    [],
    [],
    title=f'{TITLE}: two ledgers',
    meta={'paper': SOURCE, 'A': named[0], 'B': named[1]},
    lists=lists,
    tables=[
      tables.table1(arms.standard(side))._replace(title=f'Table 1 of {name}')
      for name, side in zip('AB', rows, strict=True)
    ],
    figures=two.figures(*rows),
    captions={
      'figure1': 'Average dev score and train loss against sparsity, A full and B broken lines; 95 % bootstrap '
      'intervals over seeds.',
      'pretrain_loss': 'Held-out pre-train loss against sparsity, A full and B broken lines.',
    },
  )
  say(tables.text(two.settings(*rows)))
  for a, b in zip(*checks, strict=True):
    say(f'{a.verdict:<15} {b.verdict:<15} {a.name}')
  say(f'report: {written["report.html"]}')
  return written


def chances(rows):
  """{task: score of the constant answer}, where the rows tell it."""
  return {
    row['task']: row['metrics']['majority'] for row in rows if 'majority' in row.get('metrics', {})
  }


def shown_tables(rows, chance, failed=()):
  """Every table that the rows can fill, Table 1 first."""
  every = arms.standard(rows)
  known = statistics.comparable(every)  # the best of four rates is no match for the best of one
  learned = learned_only(known, chance)
  shown = [tables.table1(known)]
  shown += [rates.table(every)] if rates.several(every) else []
  shown.append(task_by_task(rows, chance))
  shown += [
    equivalence.table(learned),
    regimes.table(learned, paper.TABLE1, paper.REGIMES),
    beside.differences(known, paper.TABLE1),
    beside.by_task(known, paper.TABLE1),
    beside.slopes(learned, paper.TABLE1, paper.LINES),
    controls.switches(rows),
    controls.others(rows),
    controls.corpus(rows),
  ]
  if failed:
    shown.append(
      tables.records(
        'Cells that failed', [{'cell': grid.describe(r), 'why': r['failed']} for r in failed]
      )
    )
  return [table for table in shown if table.rows]


def task_by_task(rows, chance):
  """The verdicts of the claims that speak of tasks, each task by itself: a line a claim, a column a task."""
  found = claims.by_task(rows, chance)
  lines = zip(*found.values(), strict=True)
  return tables.records(
    'Verdicts task by task',
    [
      {'claim': line[0].claim, **{task: v.verdict for task, v in zip(found, line, strict=True)}}
      for line in lines
    ],
    'Fewer pairs stand behind each than behind the verdicts over all tasks.',
  )


def learned_only(rows, chance):
  """The rows without the tasks that the dense model has not learned: those have nothing to delete."""
  left_out = judging.grid(rows, chance).left_out
  return [row for row in rows if row.get('task') not in left_out]


def of_work(folder, rows, say=log.say):
  """Tables of what a work directory holds beside its ledger: who pays, and what the grid took."""
  pays, spent = who_pays(folder, rows), took.read(folder)
  shown = [pays] if pays else []
  if spent:
    before = took.measured(files.path(__file__).parent / 'cost.jsonl', rows[-1]['preset'])
    shown.append(took.table(spent, before))
    say(tables.text(shown[-1]))
  return shown


def who_pays(folder, rows):
  """The saved report of the sparsest pruned cell as a table, or None."""
  pruned = [row for row in rows if row['arm'] == 'pruned' and row['stage'] == 'pretrain']
  for row in sorted(pruned, key=lambda row: -row['sparsity']):
    path = files.path(folder) / 'cells' / row['cell'] / 'who_pays_weights.json'
    if files.exists(path):
      saved = files.read_json(path)
      return tables.records(
        f'Who pays at sparsity {row["sparsity"]}', [*saved['leaves'], saved['total']]
      )
  return None
