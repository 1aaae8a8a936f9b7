"""Tables of READMEs hold the numbers of their ledgers; a table without a source is refused."""

import pathlib

import pytest
import readme_tables as pages

TEXTS = {page: (pages.ROOT / page).read_text() for page in pages.PAGES}
LEAGUE = 'league/results.jsonl'
TABLES = [
  pytest.param(page, i, id=f'{page}-{i}')
  for page, text in TEXTS.items()
  for i in range(len(pages.tables_of(text)))
]


def faults(page: str, table: pages.Table, home: pathlib.Path) -> list[str]:
  """What is wrong with a table, in words."""
  where = f'{page}:{table.line}'
  body = '\n'.join(' | '.join(row) for row in table.rows)
  if table.kind == '':
    return [f'{where}: a table with numbers and no source'] if pages.numbers(body) else []
  if table.kind == 'no measurement':
    return [f'{where}: {span} is measured' for span in pages.intervals(body)]
  if table.kind == 'cells':
    counts = [(row[0].partition('](')[2].rstrip(')'), row[2]) for row in table.rows]
    return [
      f'{where}: {name} has {pages.cells_of(home / name)} cells'
      for name, count in counts
      if int(count) != pages.cells_of(home / name)
    ]
  if table.kind == 'numbers':
    sources = '\n'.join(pages.source((home / name).resolve()) for name in table.sources)
    return [
      f'{where}: {row[0]}: {number} is in no source'
      for row in table.rows
      for number in pages.missing(' | '.join(row), sources)
    ]
  if table.kind == 'verdicts':
    return [f'{where}: {fault}' for fault in pages.misjudged(table, home)]
  made = [tuple(map(pages.plain, row)) for row in pages.made(table, home)]
  here = [tuple(map(pages.plain, row)) for row in table.rows]
  return [f'{where}: the ledger has {row}' for row in made if row not in here] + [
    f'{where}: the ledger does not have {row}' for row in here if row not in made
  ]


@pytest.mark.parametrize(('page', 'i'), TABLES)
def test_a_table_has_a_source_and_its_numbers(page, i):
  table = pages.tables_of(TEXTS[page])[i]
  assert faults(page, table, (pages.ROOT / page).parent) == []


@pytest.mark.parametrize('page', [p for p in pages.PAGES if p.startswith('experiments/')])
def test_intervals_in_the_text_are_those_of_a_ledger(page):
  home = (pages.ROOT / page).parent
  lines = [line for line in TEXTS[page].split('\n') if not line.startswith('|')]
  found = '\n'.join(lines)
  if pages.intervals(found):
    ledgers = sorted(home.glob('results*.jsonl'))
    have = '\n'.join(pages.source(path) for path in ledgers)
    spans = [n for n in pages.missing(found, have) if n.startswith('[')]
    assert spans == []


SOURCE = """
| claim | number |
|---|---|
| it holds | 0.25 [0.21, 0.30] |
"""


@pytest.mark.parametrize(
  ('comment', 'source', 'right'),
  [
    ('', '0.25 [0.21, 0.30]', False),  # no source
    ('<!-- nothing: a.md -->', '0.25 [0.21, 0.30]', False),  # an unknown kind is none
    ('<!-- no measurement -->', '', False),  # an interval is measured
    ('<!-- numbers: a.md -->', 'gain 0.25 [0.21, 0.30]', True),
    ('<!-- numbers: a.md -->', 'gain 0.2512 [0.2101, 0.2999]', True),  # rounded
    ('<!-- numbers: a.md -->', 'gain 0.26 [0.21, 0.30]', False),
    ('<!-- numbers: a.md -->', 'gain 0.25 [0.21, 0.31], 0.30', False),  # ends of two intervals
    ('<!-- numbers: a.md -->', 'gain -0.25 [0.21, 0.30]', False),  # another sign
  ],
)
def test_a_wrong_table_is_found(comment, source, right, tmp_path):
  (tmp_path / 'a.md').write_text(source)
  [table] = pages.tables_of(comment + SOURCE)
  assert (faults('page', table, tmp_path) == []) is right


PAGE = 'experiments/zhu2017/README.md'


def bumped(line: str) -> str:
  """The line with another last digit of its last number."""
  at = max(i for i, c in enumerate(line) if c.isdigit())
  return f'{line[:at]}{(int(line[at]) + 5) % 10}{line[at + 1 :]}'


def turned(line: str) -> str:
  """The line with another verdict."""
  return (
    line.replace('reproduced', 'undecided')
    if 'reproduced' in line
    else (line.replace('undecided', 'reproduced'))
  )


@pytest.mark.parametrize(
  ('kind', 'change'),
  [
    ('table', bumped),
    ('verdicts', bumped),
    ('verdicts', turned),
    ('table', lambda line: line.replace('small', 'tiny')),
    ('table', lambda line: ''),
    ('verdicts', lambda line: ''),
  ],
)
def test_a_change_of_a_drawn_table_is_found_and_drawn_right_again(kind, change):
  home = (pages.ROOT / PAGE).parent
  table = next(t for t in pages.tables_of(TEXTS[PAGE]) if t.kind == kind)
  lines = TEXTS[PAGE].split('\n')
  first = lines[table.line + 1]
  changed = change(first)
  assert changed != first
  lines[table.line + 1 : table.line + 2] = [changed] if changed else []
  text = '\n'.join(lines)
  assert [fault for t in pages.tables_of(text) for fault in faults(PAGE, t, home)]
  assert pages.written(text, home) == pages.written(TEXTS[PAGE], home)


@pytest.mark.parametrize(
  ('text', 'numbers'),
  [
    ('-0.26 [-0.3, +1e-3]', ['-0.26', '-0.3', '+1e-3']),
    ('1,066,440 bytes, 2:4', ['1066440', '2', '4']),
    ('LeNet-300-100 and fc1', ['300', '100']),
    ('14.3x at `0.9`', ['14.3', '0.9']),
    ('words-only', []),
  ],
)
def test_numbers_of_a_text(text, numbers):
  assert pages.numbers(text) == numbers
