"""Tables, figures and the report: what is in them, that they stand alone, that they parse."""

import ast
import base64
import json
import os
import pathlib
import struct

import pytest
import synthetic_ledger as synthetic
from report_page import Page, problems

import prunejax.report
from experiments.gordon2020 import claims, paper
from experiments.gordon2020.analysis import beside_paper, score_figures, scoring, table1
from prunejax.report import cost, document, tables

ROWS = synthetic.make(seeds=2, sparsities=(0.3, 0.5, 0.7, 0.9), tasks=('pydoc/order', 'pydoc/who'))
PNG = b'\x89PNG\r\n\x1a\n'


@pytest.fixture(scope='module')
def written(tmp_path_factory):
  workdir = tmp_path_factory.mktemp('work') / 'new' / 'folder'
  shown = [
    table1.table(ROWS),
    beside_paper.differences(ROWS, paper.TABLE1),
    tables.records('Who pays', [{'leaf': 'encoder/layer_0/<kernel>', 'asked': 0.5}]),
  ]
  drawn = {
    **score_figures.standard(ROWS, chance=0.5),
    'learning_curve': score_figures.learning_curve([(0, 7.0), (1000, 5.0), (2000, 4.5)]),
  }
  verdicts = claims.check(ROWS)
  paths = document.write(
    workdir,
    ROWS,
    verdicts,
    title='A <report> & "more"',
    meta={'preset': 'quick', '<b>': '<script>x</script>'},
    tables=shown,
    figures=drawn,
  )
  return workdir, shown, drawn, verdicts, paths


def test_report_stands_alone(written):
  text = (written[0] / 'report.html').read_text()
  assert problems(text) == []
  page = Page(text)
  assert len(page.pictures) == len(written[2])
  assert {'section-claims', 'section-figures', 'section-tables', 'section-cells'} <= set(page.ids)
  assert '@media print' in text and 'Contents:' in ' '.join(page.text)


@pytest.mark.parametrize(
  'broken, found',
  [
    ('<p>', 'never closed'),
    ('</p>', 'closes nothing'),
    ('<img alt="a" src="a.png">', 'outside'),
    ('<img alt="a" src="data:image/png;base64,">', 'missing'),
    ('<a href="#nowhere">a</a>', 'no id'),
    ('<a href="https://x.org">a</a>', 'outside'),
    ('<script></script>', '<script>'),
    ('<p onclick="x">a</p>', 'onclick'),
    ('<style>p{background:url(a.png)}</style>', 'url('),
  ],
)
def test_what_keeps_a_page_from_standing_alone_is_found(broken, found):
  assert any(found in problem for problem in problems(f'<html>{broken}</html>'))


def test_markdown_tells_the_same(written):
  workdir, shown, drawn, verdicts, _ = written
  text = (workdir / 'report.md').read_text()
  for table in shown:
    assert tables.markdown(table).strip() in text
  for name in drawn:
    assert f']({name}.png)' in text and (workdir / f'{name}.png').exists()
  for verdict in verdicts:
    assert f'| {verdict.verdict} | ' in text and verdict.claim in text
  assert text.index('## Claims') < text.index('## Figures') < text.index('## Tables')
  # A table keeps its shape: every line of it has as many bars as its head.
  lines = [line for line in text.splitlines() if line.startswith('|')]
  heads = [i for i, line in enumerate(lines) if set(line) <= set('|-')]
  for start, end in zip(heads, [*[i - 1 for i in heads[1:]], len(lines)], strict=True):
    count = lines[start].count('|')
    assert all(
      line.replace(r'\\', '').replace(r'\|', '').count('|') == count
      for line in lines[start - 1 : end]
    )


def test_an_arm_has_its_colour_in_tables():
  page = tables.html(tables.records('T', [{'arm': tables.NAMES['deleted'], 'x': 'y' * 80}]))
  assert f'background:{score_figures.COLOURS["deleted"]}' in page and '<td class="long">' in page


def test_report_holds_every_table_figure_verdict_and_cell(written):
  workdir, shown, drawn, verdicts, _ = written
  text = (workdir / 'report.html').read_text()
  words = ' '.join(Page(text).text)
  for table in shown:
    assert tables.html(table) in text
  for name, data in drawn.items():
    assert data.startswith(PNG) and (workdir / f'{name}.png').read_bytes() == data
    assert f'data:image/png;base64,{base64.b64encode(data).decode()}"' in text
  for verdict in verdicts:
    assert f'{verdict.name.replace("_", " ")}: {verdict.verdict}' in words
    assert verdict.claim in words and verdict.evidence in words
  assert all(row['cell'] in words for row in ROWS)
  assert f'{len(ROWS)} cells, {round(2.5 * len(ROWS)) // 60} min' in words
  assert 'cpu x1' in words and 'jax 0.10.2' in words and 'seeds: 0, 1' in words
  badges = text.index('class="badges"')
  assert (
    text.index('>Claims</h2>') < badges < text.index('>Figures</h2>') < text.index('>Tables</h2>')
  )


def test_everything_written_is_escaped(written):
  text = (written[0] / 'report.html').read_text()
  assert '<script' not in text and '<kernel>' not in text and '<b>' not in text
  assert 'A &lt;report&gt; &amp; &quot;more&quot;' in text


def test_files_are_named_and_no_draft_stays(written):
  workdir, _, drawn, _, paths = written
  expected = {
    'report.html',
    'report.md',
    'table1.md',
    'table1.txt',
    *(f'{name}.png' for name in drawn),
  }
  assert {path.name for path in workdir.iterdir()} == expected == set(paths)


def test_standard_tables_and_figures_are_the_default(tmp_path):
  paths = document.write(tmp_path, ROWS[:12], [], title='t')
  assert set(paths) == {
    'report.html',
    'report.md',
    'table1.md',
    'table1.txt',
    'figure1.png',
    'figure2a.png',
    'pretrain_loss.png',
  }


def test_an_empty_ledger_still_makes_a_report(tmp_path):
  document.write(tmp_path, [], claims.check([]), title='nothing yet')
  assert 'undecided' in (tmp_path / 'report.html').read_text()


def test_a_failed_write_leaves_the_old_report(tmp_path, monkeypatch):
  document.write(tmp_path, ROWS, [], title='first', figures={})
  before = (tmp_path / 'report.html').read_bytes()

  def full(handle):
    raise OSError(28, 'No space left on device')

  monkeypatch.setattr(os, 'fsync', full)
  with pytest.raises(ValueError, match='cannot write .*No space left on device; the folder must'):
    document.write(tmp_path, ROWS, [], title='second', figures={})
  assert (tmp_path / 'report.html').read_bytes() == before
  assert not list(tmp_path.glob('.*'))


def test_a_workdir_that_is_a_file_is_one_clear_error(tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(ValueError, match='cannot write'):
    document.write(tmp_path / 'file', ROWS, [], title='t', figures={})


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


def test_the_same_cells_stand_in_text_markdown_and_html():
  table = tables.records('T', [{'a': 'x|y', 'b': 1.5}, {'a': '<&>', 'c': None}], note='n')
  assert table.rows == (('x|y', '1.5', '-'), ('<&>', '-', '-'))
  assert tables.text(table).splitlines() == [
    'T',
    'a    b    c',
    '---  ---  -',
    'x|y  1.5  -',
    '<&>  -    -',
    'n',
  ]
  assert r'| x\|y | 1.5 | - |' in tables.markdown(table)
  assert '<td>&lt;&amp;&gt;</td>' in tables.html(table)


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
  several = score_figures.learning_curve({'a': [(0, 1.0)], 'b': [(0, 2.0), (5, 1.0)]})
  assert several.startswith(PNG)


def test_every_curve_has_its_own_colour_and_mark():
  assert len(set(score_figures.COLOURS.values())) == len(score_figures.COLOURS)
  assert len(set(score_figures.MARKERS.values())) == len(score_figures.CURVES)


def test_rows_of_two_presets_are_refused(tmp_path):
  rows = [*ROWS, {**ROWS[0], 'preset': 'mini'}]
  with pytest.raises(ValueError, match='several grids'):
    document.write(tmp_path, rows, [], title='t')
  assert not list(tmp_path.iterdir())


def test_report_imports_no_jax_and_no_pandas():
  folder = pathlib.Path(prunejax.report.__file__).parent
  names = set()
  for path in folder.glob('*.py'):
    for node in ast.walk(ast.parse(path.read_text())):
      if isinstance(node, ast.Import):
        names |= {alias.name.split('.')[0] for alias in node.names}
      elif isinstance(node, ast.ImportFrom):
        names |= {'.'.join(f'{node.module}.{alias.name}'.split('.')[:2]) for alias in node.names}
  assert {'numpy', 'matplotlib'} <= names
  roots = {name.partition('.')[0] for name in names}
  assert not roots & {'jax', 'jaxlib', 'pandas', 'flax', 'optax', 'experiments', 'configs'}
  assert {name for name in names if name.startswith('prunejax')} == {
    'prunejax.report',
    'prunejax.files',
  }


def test_what_a_grid_took_is_added_up_by_way_and_device(tmp_path):
  part = {
    'how': 'together',
    'cells': 4,
    'compiles': 10,
    'compile_seconds': 2.5,
    'seconds': 20.0,
    'device': 'cpu x2',
  }
  part |= {'device_seconds': 40.0}
  (tmp_path / 'cost').mkdir()
  for name, row in (('a', part), ('b', part), ('c', part | {'how': 'one by one', 'cells': 1})):
    (tmp_path / 'cost' / f'{name}.json').write_text(json.dumps(row))
  (tmp_path / 'old.jsonl').write_text(
    json.dumps(part | {'preset': 'quick', 'date': '2026-11-21'}) + '\n'
  )
  before = cost.measured(tmp_path / 'old.jsonl', 'quick')
  table = cost.table(cost.read(tmp_path), before)
  assert table.rows[0] == (
    'as few programs as it needs',
    'here',
    'cpu x2',
    '8',
    '20',
    '5',
    '80',
    '10',
  )
  assert table.rows[1][0] == 'one run after the other' and table.rows[2][1] == '2026-11-21'
  assert (
    cost.measured(tmp_path / 'old.jsonl', 'mini') == [] == cost.measured(tmp_path / 'none', 'quick')
  )
  assert cost.read(tmp_path / 'none') == []
