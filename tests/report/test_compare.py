"""Two ledgers side by side, and a report from a ledger alone, through the command."""

import json
import pathlib

import pytest
import synthetic_ledger as synthetic
from report_page import problems

from experiments.gordon2020 import claims
from prunejax import __main__ as command
from prunejax.report import compare, ledger

ROOT = pathlib.Path(__file__).parents[2]
SMALL = {'sparsities': (0.5, 0.9), 'tasks': ('pydoc/order',)}


def shifted(rows, **changes):
  """The same cells with every score one point lower, on another machine, with changed configs."""
  found = json.loads(json.dumps(rows))
  for row in found:
    row['config'].update(changes)
    row['device'] = 'NVIDIA H200 x1'
    if 'accuracy' in row['metrics']:
      row['metrics']['accuracy'] -= 0.01
  return found


@pytest.fixture(scope='module')
def folders(tmp_path_factory):
  """Two work directories, a and b, of the same grid."""
  home = tmp_path_factory.mktemp('compare')
  rows = synthetic.make(seeds=2, **SMALL)
  for name, those in (('a', rows), ('b', shifted(rows, steps=7))):
    for row in those:
      ledger.append(home / name / 'ledger.jsonl', row)
    (home / name / 'grid.json').write_text(json.dumps({'paper': 'gordon2020', 'preset': 'quick'}))
  return home


def test_two_side_by_side(folders, capsys):
  out = folders / 'out'
  assert command.main(['report', str(folders / 'a'), str(folders / 'b'), f'--out={out}']) == 0
  page = (out / 'report.html').read_text()
  assert problems(page) == [] and page.count('<img') == 2
  assert 'NVIDIA H200 x1' in page and 'config: steps' in page and 'B minus A' in page
  text = (out / 'report.md').read_text()
  assert '| -1.0 ± 0.0 |' in text and '## Verdicts' in text
  assert 'loss_rises' in capsys.readouterr().out


def test_differences_are_paired_and_verdicts_beside_each_other():
  a = synthetic.make(seeds=3, noise=0.01, **SMALL)
  b = shifted(a)
  table = compare.differences(a, b)
  assert all(line[4] == '-1.0 ± 0.0' and line[7] in ('+0.00 ± 0.00', '-') for line in table.rows)
  same = compare.verdicts(claims.check(a), claims.check(a))
  assert {line[3] for line in same.rows} == {''} and len(same.rows) == len(claims.CLAIMS)
  told = {line[0]: line[1:] for line in compare.settings(a, b).rows}
  assert told['device'] == ('cpu x1', 'NVIDIA H200 x1') and 'version of jax' not in told


def test_only_what_both_were_tuned_at_is_compared():
  a = synthetic.make(seeds=3, noise=0.01, **SMALL)
  better = [
    {
      **row,
      'cell': row['cell'] + 'r',
      'learning_rate': 7.0,
      'metrics': {**row['metrics'], 'accuracy': row['metrics']['accuracy'] + 0.05},
    }
    for row in a
    if row['stage'] == 'finetune'
  ]
  epochs = [
    {**row, 'cell': row['cell'] + 'e', 'arm': 'epochs', 'epochs': n}
    for row in better
    for n in (1, 12)
  ]
  assert compare.differences(a, a + better + epochs) == compare.differences(a, a)
  told = [compare.settings(a, b) for b in (a + better, better + a)]
  assert told[0] == told[1]  # whatever the order of the rows


def test_other_seeds_are_compared_by_welch():
  import numpy as np
  import scipy.stats

  rng = np.random.default_rng(0)
  one, two = (
    {('t', i + k): v for i, v in enumerate(rng.normal(size=n))} for k, n in ((0, 4), (10, 4))
  )
  got = compare._difference(one, two, 0.95)[2]
  want = scipy.stats.ttest_ind(list(two.values()), list(one.values()), equal_var=False)
  low, high = want.confidence_interval(0.95)
  assert got.mean == pytest.approx((low + high) / 2)
  # Whole degrees of freedom are never more than Welch's: never narrower.
  assert got.low <= low and got.high >= high and got.high - got.low < 1.3 * (high - low)


def test_other_tasks_and_seeds_break_nothing(tmp_path):
  a = synthetic.make(seeds=2, **SMALL)
  b = [
    {**row, 'preset': 'mini'}
    for row in synthetic.make(seeds=1, tasks=('glue/cola',), sparsities=(0.7,))
  ]
  assert compare.differences(a, b).rows and compare.settings(a, b).rows
  assert all(png.startswith(b'\x89PNG') for png in compare.figures(a, b).values())


def test_a_ledger_alone_is_enough(folders, tmp_path, capsys):
  rows = (folders / 'a' / 'ledger.jsonl').read_text()
  (tmp_path / 'rows.jsonl').write_text(rows)
  for i, words in enumerate(
    (['--ledger', str(tmp_path / 'rows.jsonl')], [str(tmp_path / 'rows.jsonl')])
  ):
    assert command.main(['report', *words, f'--out={tmp_path / str(i)}']) == 0
  assert command.main(['report', str(folders / 'a'), f'--out={tmp_path / "2"}']) == 0
  pages = [(tmp_path / str(i) / 'report.html').read_text() for i in range(3)]
  assert pages[0] == pages[1] == pages[2] and problems(pages[0]) == []
  assert 'reproduced' in capsys.readouterr().out


def test_the_committed_ledger_is_enough(tmp_path):
  home = ROOT / 'experiments' / 'gordon2020'
  assert command.main(['report', '--ledger', str(home / 'results.jsonl'), f'--out={tmp_path}']) == 0
  assert problems((tmp_path / 'report.html').read_text()) == []
  assert {'figure1.png', 'figure2a.png', 'pretrain_loss.png', 'report.md'} <= {
    p.name for p in tmp_path.iterdir()
  }


@pytest.mark.parametrize(
  'words, said',
  [
    (['report'], ['one or two', 'got 0']),
    (['report', 'a', 'b', 'c'], ['one or two', 'got 3']),
    (['report', '{}/none.jsonl', '--out=x'], ['none.jsonl', 'no ledger there']),
    (['report', '{}/a', '{}/none'], ['none', 'no ledger there']),
    (['report', '{}/a/ledger.jsonl'], ['--out']),
    (['report', '{}/a', '{}/text.txt'], ['text.txt', 'no ledger']),
    (['report', '{}/a', '{}/text.jsonl'], ['damaged']),
    (['report', '{}/a', '{}/empty.jsonl'], ['empty.jsonl', 'no finished cell']),
    (['report', '{}/a', '{}/odd.jsonl'], ['odd.jsonl', 'without', 'metrics']),
    (['report', '{}/a', '{}/other.jsonl'], ['other', 'nothing to compare']),
    (['report', '{}/other.jsonl', '--out=x'], ['no experiment']),
  ],
)
def test_wrong_input_is_one_line(folders, capsys, words, said):
  (folders / 'text.txt').write_text('hello')
  (folders / 'text.jsonl').write_text('hello\nthere\n')
  (folders / 'empty.jsonl').write_text('')
  (folders / 'odd.jsonl').write_text('{"cell": "1", "stage": "pretrain"}\n')
  other = {**synthetic.make(seeds=1, **SMALL)[0], 'experiment': 'other2021'}
  (folders / 'other.jsonl').write_text(json.dumps(other) + '\n')
  assert command.main([word.format(folders) for word in words]) == 2
  error = capsys.readouterr().err
  assert len(error.strip().splitlines()) == 1 and all(word in error for word in said), error
