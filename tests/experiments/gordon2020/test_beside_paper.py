"""Tables beyond Table 1: beside the paper, both ways of rates, switches, controls, corpus."""

import numpy as np
import pytest
import synthetic_ledger as synthetic

from experiments.gordon2020 import paper
from experiments.gordon2020.analysis import arms, beside_paper, controls, learning_rates, table1

ROWS = synthetic.make(seeds=2, sparsities=(0.3, 0.5, 0.7, 0.9), tasks=('glue/cola', 'pydoc/who'))


def lines_of(table, keys=2):
  return {line[:keys]: line for line in table.rows}


def test_differences_stand_beside_the_papers_at_equal_sparsity():
  lines = lines_of(beside_paper.differences(ROWS, paper.TABLE1))
  assert set(lines) == {
    (arms.NAMES[arm], f'{s:g}') for arm in paper.TABLE1 for s in (0.3, 0.5, 0.7, 0.9)
  }
  got = lines['information deletion', '0.9']
  assert (
    got[3] == '-9.4' and got[6] == '+4.01' and got[9] == '+0.04'
  )  # 77.9 - 87.3, 5.83 - 1.82, .157 - .116
  assert float(got[2].split()[0]) == pytest.approx(-21.6, abs=0.5)
  assert float(got[5].split()[0]) == pytest.approx(1.8, abs=0.02)
  assert float(got[4]) == pytest.approx(float(got[2].split()[0]) + 9.4, abs=0.06)
  after = lines['pruned after fine-tuning', '0.9']
  assert after[3] == '-15.4' and after[5:8] == ('-', '-', '-')
  odd = beside_paper.differences(
    ROWS, {arm: {0.0: lines[0.0]} for arm, lines in paper.TABLE1.items()}
  )
  assert all(line[3] == line[6] == line[9] == '-' for line in odd.rows)


def test_a_task_of_the_paper_stands_beside_its_own_numbers():
  lines = lines_of(beside_paper.by_task(ROWS, paper.TABLE1), 3)
  assert {key[0] for key in lines} == {'glue/cola'}
  got = lines['glue/cola', 'pruned in pre-training', '0.9']
  assert got[4] == '69.1' and got[7] == '-10.0' and got[10] == '0.61'
  ours = np.mean(
    [
      row['metrics']['accuracy']
      for row in ROWS
      if row.get('task') == 'glue/cola' and row['arm'] == 'pruned' and row['sparsity'] == 0.9
    ]
  )
  assert float(got[5]) == pytest.approx(100 * ours - 69.1, abs=0.06)
  assert (
    lines['glue/cola', 'dense', '0'][4] == '79.1' and lines['glue/cola', 'dense', '0'][6] == '-'
  )
  assert beside_paper.task_of('tfds/glue/sst2') == beside_paper.task_of('glue/sst2@500') == 'SST-2'
  assert beside_paper.task_of('pydoc/cola') is None is beside_paper.task_of('glue/unknown')


def test_slopes_are_least_squares_beside_the_papers():
  lines = lines_of(beside_paper.slopes(ROWS, paper.TABLE1, paper.LINES), 1)
  x, y = [], []
  for s in (0.0, 0.3, 0.5, 0.7, 0.9):
    pick = lambda stage, arm, name, s=s: np.mean(
      [
        row['metrics'][name]
        for row in ROWS
        if row['stage'] == stage
        and row['sparsity'] == s
        and row['arm'] == (arm if s else 'dense')
        and row.get('task') in (None, 'pydoc/who')
      ]
    )
    x.append(pick('pretrain', 'pruned', 'loss'))
    y.append(100 * pick('finetune', 'deleted', 'accuracy'))
  assert float(lines['pydoc/who',][1]) == pytest.approx(np.polyfit(x, y, 1)[0], abs=0.006)
  assert float(lines['pydoc/who',][3]) == pytest.approx(np.corrcoef(x, y)[0, 1], abs=0.0006)
  assert (
    lines['glue/cola',][5] == '-6.54' and lines['glue/cola',][7] == '-0.986'
  )  # PAPERS: CoLA without 90 %
  assert lines['MNLI',][5] == '-2.48' and lines['MNLI',][1] == '-'
  assert float(lines['glue/cola',][9]) == pytest.approx(
    float(lines['glue/cola',][1]) + 6.54, abs=0.011
  )


def test_both_ways_of_rates_by_hand():
  # Dense: 0.8 at rate 1, 0.7 at 2. Pruned, seed 0: 0.6 and 0.7; seed 1: 0.6 and 0.5.
  scores = {('dense', 0.0): [(0.8, 0.7), (0.8, 0.7)], ('pruned', 0.5): [(0.6, 0.7), (0.6, 0.5)]}
  rows = [
    synthetic.row('finetune', arm, s, seed, {'accuracy': v}, task='t', learning_rate=rate)
    for (arm, s), seeds in scores.items()
    for seed, pair in enumerate(seeds)
    for rate, v in zip((1.0, 2.0), pair, strict=True)
  ]
  assert (
    learning_rates.fixed(rows) == {'t': 1.0}
    and learning_rates.several(rows)
    and not learning_rates.several(rows[::2])
  )
  table = learning_rates.table(rows)
  line = lines_of(table)['pruned in pre-training', '0.5']
  assert (
    line[2].startswith('65.0 ± 63.5 | 60.0')
    and line[3].startswith('65.0')
    and line[4].startswith('60.0')
  )
  assert line[5].startswith('+5.0') and line[6:8] == ('-15.0', '-20.0') and line[8] == '-25%'
  assert lines_of(table)['dense', '0'][8] == '-' and '(1)' in table.note


def test_tasks_without_a_common_rate_have_one_each():
  rows = [
    synthetic.row('finetune', 'dense', 0.0, 0, {'accuracy': v}, task=task, learning_rate=rate)
    for task, rate, v in (('a', 1.0, 0.5), ('a', 3.0, 0.6), ('b', 2.0, 0.5))
  ]
  assert learning_rates.fixed(rows) == {'a': 3.0, 'b': 2.0} and learning_rates.fixed([]) == {}
  assert 'a 3, b 2' in learning_rates.table(rows).note


def renamed(rows, arm, score=0.0, loss=0.0, reached=None):
  """The pruned rows under another name, their numbers shifted."""
  found = []
  for row in rows:
    if row['arm'] == 'pruned':
      metrics = dict(row['metrics'])
      metrics.update({k: v + score for k, v in metrics.items() if k == 'accuracy'})
      metrics.update({k: v + loss for k, v in metrics.items() if k == 'loss'})
      metrics.update({'sparsity': reached} if reached else {})
      found.append({**row, 'cell': f'{arm}{row["cell"]}', 'arm': arm, 'metrics': metrics})
  return found


def test_a_switch_is_paired_with_the_standard_arm():
  table = controls.switches(ROWS + renamed(ROWS, 'switch:histogram', -0.03, 0.2, 0.48))
  assert [line[:2] for line in table.rows] == [
    ('histogram', f'{s:g}') for s in (0.3, 0.5, 0.7, 0.9)
  ]
  for line in table.rows:
    assert line[2] == '0.480' and line[3] == '+0.20 ± 0.00' and line[4] == '-3.0 ± 0.0'
    assert line[6:] == ('1', '< 0.001', '2 + 4')
  assert controls.switches(ROWS).rows == ()


def test_controls_stand_against_dense_pruned_and_deleted():
  rows = (
    ROWS + renamed(ROWS, 'unmasked', 0.05) + renamed(ROWS, 'switch:x') + renamed(ROWS, 'corpus:0.5')
  )
  lines = lines_of(controls.others(rows))
  assert {key[0] for key in lines} == {'masks removed'}
  line = lines['masks removed', '0.7']
  assert line[5] == '+5.0 ± 0.0' and line[7] == '-' and line[9] == '4'
  epochs = [{**row, 'epochs': 3} for row in renamed(ROWS, 'after epochs')]
  assert controls.others(ROWS + epochs).rows == ()


def test_controls_of_one_rate_stand_beside_the_others_at_that_rate():
  # The others have three more rates, at which all are three points better; nothing else differs.
  made = ROWS + renamed(ROWS, 'switch:frozen') + renamed(ROWS, 'unmasked')
  more = [
    {
      **row,
      'cell': f'{row["cell"]}{rate}',
      'learning_rate': rate,
      'metrics': {**row['metrics'], 'accuracy': row['metrics']['accuracy'] + 0.03},
    }
    for row in ROWS
    if row['stage'] == 'finetune'
    for rate in (5e-4, 2e-3)
  ]
  assert controls.switches(made + more) == controls.switches(made)
  assert controls.others(made + more) == controls.others(made)


def test_where_the_arm_after_begins_is_no_control():
  dense = [
    {**row, 'arm': 'before', 'cell': row['cell'] + 'b'} for row in ROWS if row['arm'] == 'dense'
  ]
  assert controls.others(ROWS + dense).rows == ()


def test_no_rate_wins_by_its_one_lucky_seed():
  rows = [
    synthetic.row('finetune', 'dense', 0.0, seed, {'accuracy': v}, task='t', learning_rate=rate)
    for seed, rate, v in ((0, 1.0, 0.8), (1, 1.0, 0.8), (0, 2.0, 0.9))
  ]
  assert learning_rates.fixed(rows) == {'t': 1.0}


def test_places_that_lack_a_rate_are_in_no_best_of_rates():
  rows = [
    synthetic.row('finetune', arm, s, 0, {'accuracy': 0.8}, task='t', learning_rate=rate)
    for arm, s, rate in (
      ('dense', 0.0, 1.0),
      ('dense', 0.0, 2.0),
      ('pruned', 0.5, 1.0),
      ('pruned', 0.6, 1.0),
      ('pruned', 0.6, 2.0),
    )
  ]
  assert {key[:2] for key in lines_of(learning_rates.table(rows))} == {
    ('dense', '0'),
    ('pruned in pre-training', '0.6'),
  }


def test_an_arm_stands_against_its_own_zero():
  own = [
    {
      **row,
      'arm': 'deleted',
      'cell': row['cell'] + 'o',
      'metrics': {**row['metrics'], 'accuracy': row['metrics']['accuracy'] + 0.1},
    }
    for row in ROWS
    if row['arm'] == 'dense' and row['stage'] == 'finetune'
  ]
  before, after = (
    lines_of(beside_paper.differences(rows, paper.TABLE1)) for rows in (ROWS, ROWS + own)
  )
  mean = lambda lines, arm: float(lines[arm, '0.5'][2].split()[0])
  assert mean(after, 'information deletion') == pytest.approx(
    mean(before, 'information deletion') - 10
  )
  assert after['pruned in pre-training', '0.5'] == before['pruned in pre-training', '0.5']


def corpus(share, rise):
  rows = []
  for seed in range(3):
    for s in (0.0, 0.4, 0.8):
      wobble = 0.001 * seed
      rows.append(
        synthetic.row('pretrain', f'corpus:{share}', s, seed, {'loss': 4 + rise * s + wobble * s})
      )
      rows.append(
        synthetic.row('finetune', f'corpus:{share}', s, seed, {'accuracy': 0.8 - 0.1 * s}, task='t')
      )
  return rows


def test_shares_of_the_corpus_have_their_own_dense_model():
  rows = corpus('1', 0.5) + corpus('1/4', 0.25)
  lines = lines_of(controls.corpus(rows))
  assert list(lines) == [(share, s) for share in ('1/4', '1') for s in ('0', '0.4', '0.8')]
  assert lines['1', '0.4'][4] == '+0.20 ± 0.00' and lines['1', '0.8'][5] == '-8.0 ± 0.0'
  # A rise of 0.1 nats: at 0.2 where a whole of sparsity costs 0.5, at 0.4 where it costs 0.25.
  assert lines['1', '0'][6] == '0.20' and lines['1/4', '0'][6] == '0.40'
  assert controls.prunability(rows).startswith(b'\x89PNG') and controls.prunability(ROWS) is None
  with pytest.raises(ValueError, match='corpus:much.*share such as 0.1'):
    controls.corpus(corpus('much', 1.0))
  assert controls.prunability(corpus('1', 0.01)).startswith(
    b'\x89PNG'
  )  # beyond what was measured: an arrow


def test_unknown_arms_break_no_table():
  rows = ROWS + [
    row for arm in ('permuted', 'after epochs', 'switch:a', 'x:y') for row in renamed(ROWS, arm)
  ]
  for make in (
    table1.table,
    learning_rates.table,
    controls.switches,
    controls.others,
    controls.corpus,
  ):
    assert make(rows).title
  assert beside_paper.differences(rows, paper.TABLE1) == beside_paper.differences(
    ROWS, paper.TABLE1
  )
  assert arms.colour('x:y') == arms.colour('x:y') not in arms.COLOURS.values()
