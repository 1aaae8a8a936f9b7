"""The claims on models and masks: planted both ways, left undecided, and shown."""

import pytest
import synthetic_ledger as synthetic
from report_page import problems

from experiments.gordon2020 import claims, study
from experiments.gordon2020.analysis import movement_figures

NAMES = [claim.__name__ for claim in claims.PROBES]
GRID = synthetic.make(noise=0.0005)


def verdicts(rows):
  return {v.name: v.verdict for v in claims.check(claims.grid(rows)) if v.name in NAMES}


def corpus(rise, seeds=3):
  """Shares 0.1 and 1 of a corpus; rise: {share: nats for a whole of sparsity}."""
  rows = []
  for share, slope in rise.items():
    for seed in range(seeds):
      for s in (0.0, 0.4, 0.8):
        loss = 4 + (slope + 0.002 * seed) * s
        rows.append(
          synthetic.row('pretrain', f'corpus:{share}', s, seed, {'loss': loss, 'sparsity': s})
        )
  return rows


def test_planted_probes_are_reproduced():
  rows = GRID + synthetic.probes() + corpus({'0.1': 0.2, '1': 0.5})
  assert verdicts(rows) == dict.fromkeys(NAMES, 'reproduced')
  assert all(v.number and v.tables and v.figures for v in claims.check(claims.grid(rows)))


def test_planted_opposites_are_not_reproduced():
  odd = synthetic.probes(different=0.5, moved=0.2, larger=0.02, spread=0.3, drift=-0.5)
  rows = GRID + odd + corpus({'0.1': 0.5, '1': 0.2})
  assert verdicts(rows) == dict.fromkeys(NAMES, 'not reproduced')


@pytest.mark.parametrize(
  'rows',
  [
    [],
    GRID,
    GRID + synthetic.probes(seeds=1) + corpus({'0.1': 0.2, '1': 0.5}, seeds=1),
    GRID + corpus({'1': 0.5}) + synthetic.probes(noise=0.5),
  ],
  ids=['none', 'no probes', 'one seed', 'noise'],
)
def test_nothing_or_noise_decides_nothing(rows):
  assert set(verdicts(rows).values()) == {'undecided'}


def test_an_edge_is_rarely_called_a_fact():
  wrong = 0
  for seed in range(15):
    rows = synthetic.probes(
      seeds=2,
      tasks=('a',),
      sparsities=(0.3, 0.5, 0.7),
      noise=0.003,
      seed=seed,
      different=0.0,
      moved=0.05,
      larger=0.0,
      spread=0.1,
      drift=0.0,
    )
    for row in rows:
      if row['probe'] == 'difference':
        row['metrics']['pruned'] = [v + 0.06 for v in row['metrics']['pruned']]
    wrong += sum(v != 'undecided' for v in verdicts(rows).values())
  assert wrong <= 2


def test_of_several_rates_the_largest_counts_and_epochs_are_another_question():
  rows = synthetic.probes()
  more = [
    {**row, 'learning_rate': 1.0, 'cell': row['cell'] + 'r'}
    for row in synthetic.probes(different=0.5, moved=0.2)
    if row['probe'] in ('difference', 'movement')
  ]
  got = verdicts(GRID + rows + more)
  assert got['masks_change_little'] == got['order_moves_little'] == 'not reproduced'
  epochs = [{**row, 'epochs': 9, 'arm': 'epochs'} for row in more]
  assert verdicts(GRID + rows + epochs) == verdicts(GRID + rows)


def test_where_the_arm_after_begins_is_measured_once():
  # Of dense and 'before' the one that Table 2 and Figure 3a show, whatever the order of the rows.
  rows = [row for row in synthetic.probes() if row['probe'] in ('difference', 'movement')]
  far = synthetic.probes(different=0.5, moved=0.2)
  before = [
    {**row, 'arm': 'before', 'cell': row['cell'] + 'b'}
    for row in far
    if row['probe'] in ('difference', 'movement')
  ]
  for found in (rows + before, before + rows):
    got = verdicts(GRID + found)
    assert (
      got['masks_change_little'] == 'not reproduced' and got['order_moves_little'] == 'reproduced'
    )


def test_layer_0_is_no_layer_of_the_features():
  # The sum of the embeddings stays as it was; the layers drift.
  rows = synthetic.probes()
  for row in rows:
    if row['probe'] == 'features':
      row['metrics']['cosine'] = [[1.0, *layers[1:]] for layers in row['metrics']['cosine']]
  assert [v for v in claims.check(claims.grid(GRID + rows)) if v.name == 'features_follow'] == [
    v for v in claims.check(claims.grid(GRID + synthetic.probes())) if v.name == 'features_follow'
  ]


@pytest.mark.parametrize(
  'rises, expected',
  [
    (
      {'0.1': 0.01, '0.5': 0.4, '1': 0.2},
      'reproduced',
    ),  # the smallest share never rises so far: it spares most of all
    ({'0.1': 0.01, '1': 0.4}, 'reproduced'),
    ({'0.1': 0.4, '1': 0.01}, 'not reproduced'),
    ({'0.1': 0.01, '1': 0.01}, 'undecided'),
  ],
)
def test_an_end_beyond_what_was_measured_is_a_bound(rises, expected):
  found = next(
    v for v in claims.check(claims.grid(corpus(rises))) if v.name == 'more_text_less_prunable'
  )
  assert found.verdict == expected and ('>= 0.80' in str(found.tables)) == (0.01 in rises.values())


def test_an_end_beyond_is_bounded_by_what_its_own_seed_has():
  rows = corpus({'0.1': 0.4, '1': 0.01})
  short = [
    row for row in rows if (row['arm'], row['seed']) != ('corpus:1', 2) or row['sparsity'] < 0.8
  ]
  found = next(v for v in claims.check(claims.grid(short)) if v.name == 'more_text_less_prunable')
  assert '>= 0.67' in str(found.tables)  # 0.8, 0.8 and 0.4


def test_figures_of_tasks_with_unlike_rates():
  rows = [row for row in synthetic.probes() if row['probe'] == 'movement']
  task = rows[0]['task']
  more = [
    {**row, 'learning_rate': 1.0, 'cell': row['cell'] + 'r'} for row in rows if row['task'] == task
  ]
  epochs = [
    {**row, 'arm': 'epochs', 'epochs': 3, 'task': 'other', 'cell': row['cell'] + 'e'}
    for row in more
  ]
  for figure in (movement_figures.figure4, movement_figures.figure6):
    assert figure(rows + more + epochs).startswith(b'\x89PNG')
  named = movement_figures.rates_of(movement_figures.fastest(rows + more))
  assert named[task].endswith(', rate 1') and len(named) == len(synthetic.TASKS)


def test_a_sweep_over_the_corpus_alone_has_a_report(tmp_path):
  from prunejax.report import ledger

  for row in corpus({'0.1': 0.2, '1': 0.5}):
    ledger.append(tmp_path / 'rows.jsonl', row)
  written = study.redraw(tmp_path / 'rows.jsonl', tmp_path / 'out', say=lambda line: None)
  assert set(written) == {'report.html', 'report.md', 'tables.md', 'tables.txt', 'prunability.png'}
  page = written['report.html'].read_text()
  assert (
    problems(page) == [] and 'Does prunability depend' in page and 'Where the three' not in page
  )


def test_a_whole_report_of_everything_stands_alone(tmp_path):
  from prunejax.report import ledger

  switched = [
    {**row, 'cell': row['cell'] + 's', 'arm': 'switch:histogram'}
    for row in GRID
    if row['arm'] == 'pruned'
  ]
  for row in GRID + switched + synthetic.probes() + corpus({'0.1': 0.2, '1': 0.5}):
    ledger.append(tmp_path / 'rows.jsonl', row)
  study.redraw(tmp_path / 'rows.jsonl', tmp_path / 'out', say=lambda line: None)
  page = (tmp_path / 'out' / 'report.html').read_text()
  assert problems(page) == []
  shown = (
    'What each fidelity switch changes',
    'Does prunability depend',
    'prunability.png',
    'regimes.png',
    'figure3a',
  )
  for words in shown:
    assert words in page + ' '.join(p.name for p in (tmp_path / 'out').iterdir()), words
  assert page.count('reproduced</span>') == 2 * len(
    claims.CLAIMS
  )  # in the table and over the evidence
