"""Table 1 and the figures of the scores."""

import struct

import pytest
import synthetic_ledger as synthetic

from experiments.gordon2020.analysis import arms, score_figures, scoring, table1

ROWS = synthetic.make(seeds=2, sparsities=(0.3, 0.5, 0.7, 0.9), tasks=('pydoc/order', 'pydoc/who'))


PNG = b'\x89PNG\r\n\x1a\n'


def test_table1_has_the_papers_columns_and_numbers():
  table = table1.table(ROWS)
  assert table.head == (
    'arm',
    'sparsity',
    'seeds',
    'pre-train loss',
    'pydoc/order',
    'pydoc/who',
    'AVG',
  )
  lines = {line[:2]: line for line in table.rows}
  assert len(lines) == 2 + 4 * 4
  scores = scoring.points(ROWS)['pruned', 0.7]
  got = lines['pruned in pre-training', '0.7']
  mean = 50 * (scores['pydoc/who', 0] + scores['pydoc/who', 1])
  half = 50 * abs(scores['pydoc/who', 0] - scores['pydoc/who', 1])
  assert got[2] == '2' and got[5].startswith(f'{mean:.1f} ± {half:.1f} | ')
  # Deletion starts from the pruned checkpoint; pruning after fine-tuning has none at its sparsity.
  assert lines['information deletion', '0.7'][3] == got[3] != '-'
  assert lines['pruned after fine-tuning', '0.7'][3] == '-'


def test_one_seed_shows_no_interval():
  table = table1.table([row for row in ROWS if row['seed'] == 0])
  assert all('± -' in line[-1] for line in table.rows)


def test_scores_other_than_accuracy_are_named():
  rows = [
    {**row, 'metrics': {'pearson': 0.5}} if row.get('task') == 'pydoc/who' else row for row in ROWS
  ]
  assert 'pydoc/who: pearson' in table1.table(rows).note


@pytest.mark.parametrize(
  'draw',
  [
    lambda rows: score_figures.figure1(rows, chance=0.5),
    score_figures.figure2a,
    score_figures.pretrain_loss,
  ],
)
@pytest.mark.parametrize('rows', [ROWS, ROWS[:5], []], ids=['grid', 'few', 'none'])
def test_figures_are_pngs_of_a_readable_size(draw, rows):
  data = draw(rows)
  width, height = struct.unpack('>II', data[16:24])
  assert data.startswith(PNG) and width >= 900 and height >= 600


def test_figures_depend_on_the_rows_and_nothing_else():
  assert (
    score_figures.figure2a(ROWS)
    == score_figures.figure2a(ROWS)
    != score_figures.figure2a(ROWS[:30])
  )


def test_every_curve_has_its_own_colour_and_mark():
  assert len(set(arms.COLOURS.values())) == len(arms.COLOURS)
  assert len(set(arms.MARKERS.values())) == len(arms.CURVES)
