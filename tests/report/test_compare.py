"""Two ledgers side by side, and a report from a ledger alone, through the command."""

import json
import pathlib

import pytest
import synthetic_ledger as synthetic
from report_page import problems

from prunejax import __main__ as command
from prunejax.report import compare, ledger, verdicts

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
  assert command.main(['report', str(tmp_path / '0')]) == 0  # of a report alone, again
  assert (tmp_path / '0' / 'report.html').read_text() == pages[0]
  assert (
    command.main(
      ['report', str(tmp_path / '0'), str(tmp_path / '1'), '--out=' + str(tmp_path / 'x')]
    )
    == 0
  )


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


def test_verdicts_are_matched_by_the_names_of_their_claims():
  of = lambda name, verdict: verdicts.Verdict(name, f'{name} holds', verdict, ())
  first = [of('l1', 'reproduced'), of('rpp', 'undecided')]
  second = [of('rpp', 'undecided'), of('l2', 'reproduced')]
  names = [tuple(v and v.name for v in pair) for pair in compare.pairs(first, second)]
  assert names == [('l1', None), ('rpp', 'rpp'), (None, 'l2')]
  rows = compare.verdict_table(first, second).rows
  assert [row[1:4] for row in rows] == [
    ('reproduced', '-', 'differs'),
    ('undecided', 'undecided', ''),
    ('-', 'reproduced', 'differs'),
  ]
