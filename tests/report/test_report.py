"""Tables, figures and the report: their content, and that they are self-contained and parse."""

import ast
import base64
import json
import os
import pathlib

import pytest
import synthetic_ledger as synthetic
from report_page import Page, problems

import prunejax.report
from experiments.gordon2020 import claims, paper
from experiments.gordon2020.analysis import beside_paper, score_figures, table1
from prunejax.report import cost, document, tables, verdicts
from prunejax.sweep import study

ROWS = synthetic.make(seeds=2, sparsities=(0.3, 0.5, 0.7, 0.9), tasks=('pydoc/order', 'pydoc/who'))
PNG = b'\x89PNG\r\n\x1a\n'


COLOURS = {'information deletion': '#D55E00'}


@pytest.fixture(scope='module')
def written(tmp_path_factory):
  workdir = tmp_path_factory.mktemp('work') / 'new' / 'folder'
  shown = [
    table1.table(ROWS),
    beside_paper.differences(ROWS, paper.TABLE1),
    tables.records('Who pays', [{'leaf': 'encoder/layer_0/<kernel>', 'asked': 0.5}]),
  ]
  drawn = score_figures.standard(ROWS, chance=0.5)
  checks = claims.check(claims.grid(ROWS))
  paths = document.write(
    workdir,
    checks,
    title='A <report> & "more"',
    meta={'preset': 'quick', '<b>': '<script>x</script>'},
    tables=shown,
    figures=drawn,
    cells=study.every_cell(ROWS),
    colours=COLOURS,
  )
  return workdir, shown, drawn, checks, paths


def test_report_stands_alone(written):
  text = (written[0] / 'report.html').read_text()
  assert problems(text) == []
  page = Page(text)
  assert len(page.pictures) == len(written[2])
  sections = ('claims', 'evidence', 'figures', 'tables', 'cells')
  assert {f'section-{name}' for name in sections} <= set(page.ids)
  assert '@media print' in text and 'Contents:' in ' '.join(page.text)


def test_the_main_figure_and_the_verdicts_come_first(written):
  text = (written[0] / 'report.html').read_text()
  main, verdict_table = (
    text.index('<figure class="main" id="figure1"'),
    text.index('class="verdicts"'),
  )
  assert text.index('<h1>') < main < verdict_table < text.index('>Evidence</h2>')
  assert text.count('class="main"') == 1
  for verdict in written[3]:
    assert text.index(f'href="#{verdict.name}"') < text.index(f'id="{verdict.name}"')


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
  workdir, shown, drawn, checks, _ = written
  text = (workdir / 'report.md').read_text()
  for table in shown:
    assert tables.markdown(table).strip() in text
  for name in drawn:
    assert f']({name}.png)' in text and (workdir / f'{name}.png').exists()
  for verdict in checks:
    assert f'| {verdict.claim} | {verdict.verdict} | ' in text
    for table in verdict.tables:
      assert tables.markdown(table).strip() in text
  order = ['## Claims', '](figure1.png)', '## Evidence', '## Figures', '## Tables']
  assert sorted(order, key=text.index) == order
  # Every line of a table has as many bars as its header.
  lines = [line for line in text.splitlines() if line.startswith('|')]
  heads = [i for i, line in enumerate(lines) if set(line) <= set('|-')]
  for start, end in zip(heads, [*[i - 1 for i in heads[1:]], len(lines)], strict=True):
    count = lines[start].count('|')
    assert all(
      line.replace(r'\\', '').replace(r'\|', '').count('|') == count
      for line in lines[start - 1 : end]
    )


def test_a_cell_has_the_colour_of_its_text():
  table = tables.records('T', [{'arm': 'information deletion', 'x': 'y' * 80}])
  page = tables.html(table, COLOURS)
  assert 'background:#D55E00' in page and '<td class="long">' in page
  assert 'background' not in tables.html(table)


def test_report_holds_every_table_figure_verdict_and_cell(written):
  workdir, shown, drawn, checks, _ = written
  text = (workdir / 'report.html').read_text()
  words = ' '.join(Page(text).text)
  for table in [*shown, *(table for verdict in checks for table in verdict.tables)]:
    assert tables.html(table, COLOURS) in text
  for name, data in drawn.items():
    assert data.startswith(PNG) and (workdir / f'{name}.png').read_bytes() == data
    assert f'data:image/png;base64,{base64.b64encode(data).decode()}"' in text
  for verdict in checks:
    assert verdict.claim in words and verdict.evidence in words
    assert verdicts.deciding(verdict) in words
  assert all(row['cell'] in words for row in ROWS)
  assert f'{len(ROWS)} cells' in words and 'jax 0.10.2' in words


def test_everything_written_is_escaped(written):
  text = (written[0] / 'report.html').read_text()
  assert '<script' not in text and '<kernel>' not in text and '<b>' not in text
  assert 'A &lt;report&gt; &amp; &quot;more&quot;' in text


def test_names_pass_no_html_into_markdown(tmp_path):
  evil = '<img src=x onerror=alert(1)>[a](javascript:b)\n# c</td><!--'
  table = tables.records(evil, [{evil: evil, 'p': '< 0.001', 'b': 'a < b'}], evil)
  checks = [verdicts.Verdict(evil, evil, evil, evil, tables=(table,))]
  document.write(
    tmp_path, checks, title=evil, meta={evil: evil}, tables=[table], lists=[(evil, [table])]
  )
  for name in ('report.md', 'tables.md'):
    text = (tmp_path / name).read_text()
    assert '&lt;img' in text and '< 0.001' in text and 'a < b' in text
    for part in ('<img', '</td', '<!--', '](javascript', '\n# c'):
      assert part not in text, (name, part)
  assert problems((tmp_path / 'report.html').read_text()) == []


def test_files_are_named_and_no_draft_stays(written):
  workdir, _, drawn, _, paths = written
  expected = {
    'report.html',
    'report.md',
    'tables.md',
    'tables.txt',
    *(f'{name}.png' for name in drawn),
  }
  assert {path.name for path in workdir.iterdir()} == expected == set(paths)


def test_a_report_without_figures_and_tables_is_a_page(tmp_path):
  assert set(document.write(tmp_path, title='t')) == {'report.html', 'report.md'}
  assert problems((tmp_path / 'report.html').read_text()) == []


def test_an_empty_ledger_still_makes_a_report(tmp_path):
  document.write(tmp_path, claims.check(claims.grid([])), title='nothing yet')
  assert 'undecided' in (tmp_path / 'report.html').read_text()


def test_a_failed_write_leaves_the_old_report(tmp_path, monkeypatch):
  document.write(tmp_path, title='first')
  before = (tmp_path / 'report.html').read_bytes()

  def full(handle):
    raise OSError(28, 'No space left on device')

  monkeypatch.setattr(os, 'fsync', full)
  with pytest.raises(ValueError, match='cannot write .*No space left on device; the folder must'):
    document.write(tmp_path, title='second')
  assert (tmp_path / 'report.html').read_bytes() == before
  assert not list(tmp_path.glob('.*'))


def test_a_workdir_that_is_a_file_is_one_clear_error(tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(ValueError, match='cannot write'):
    document.write(tmp_path / 'file', title='t')


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


def test_report_imports_no_jax_and_no_pandas():
  folder = pathlib.Path(prunejax.report.__file__).parent
  names = set()
  for path in folder.glob('*.py'):
    for node in ast.walk(ast.parse(path.read_text())):
      if isinstance(node, ast.Import):
        names |= {alias.name.split('.')[0] for alias in node.names}
      elif isinstance(node, ast.ImportFrom):
        names |= {'.'.join(f'{node.module}.{alias.name}'.split('.')[:2]) for alias in node.names}
  assert {'numpy', 'matplotlib', 'scipy.stats'} <= names
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
