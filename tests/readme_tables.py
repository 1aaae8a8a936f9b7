"""Tables of READMEs, each with its source, and the numbers of the sources.

A line above a table says where its numbers are from:

  <!-- verdicts: results.jsonl -->          claim, verdict and evidence of each claim
  <!-- verdicts: a.jsonl, b.jsonl -->       claim, then verdict and number in each ledger
  <!-- words: a.jsonl, b.jsonl -->          claim, then the verdict in each ledger; counts last
  <!-- table: results.jsonl "TITLE" -->     that table of the report, in the columns it has here
  <!-- table: results.jsonl "TITLE" 11 -->  its first eleven lines
  <!-- cells -->                            ledgers and how many cells each has
  <!-- numbers: results.jsonl, paper.py --> every number stands in the report or in the file
  <!-- no measurement -->                   definitions

`python tests/readme_tables.py` writes the tables of the first four kinds anew.
"""

import functools
import json
import pathlib
import re
import sys
from typing import NamedTuple

ROOT = pathlib.Path(__file__).parent.parent
PAGES = (
  'README.md',
  *sorted(str(p.relative_to(ROOT)) for p in (ROOT / 'experiments').glob('*/README.md')),
  *(f'docs/{name}.md' for name in ('choose', 'league', 'papers')),
)
KINDS = ('verdicts', 'words', 'table', 'cells', 'numbers', 'no measurement')
NUMBER = re.compile(r'(?<![\w.,])(?:(?<![\d)])[-+])?\d+(?:,\d{3})*(?:\.\d+)?(?:e[-+]?\d+)?')
# A mean with its interval: 'm [a, b]' or 'm ± h', alone on the page or in a cell.
INTERVAL = re.compile(r'\[\s*([-+]?\d[\d.,]*?),\s+([-+]?\d[\d.,]*?)\]|±\s*(\d[\d.]*)')


class Table(NamedTuple):
  """A Markdown table of a page.

  line: number of its head line, from 1.
  kind, sources, title, first: what the comment above it says; '' and () where there is none.
  head, rows: texts of the cells.
  """

  line: int
  kind: str
  sources: tuple
  title: str
  first: int
  head: tuple
  rows: tuple


def tables_of(text: str) -> list[Table]:
  """The tables of a page; tables inside code blocks are none."""
  lines, found, fenced = text.split('\n'), [], False
  for i, line in enumerate(lines):
    fenced ^= line.lstrip().startswith('```')
    if fenced or not re.match(r'\s*\|\s*-{3}', line) or not i:
      continue
    above = next((other for other in reversed(lines[: i - 1]) if other.strip()), '')
    rows = []
    for other in lines[i + 1 :]:
      if not other.lstrip().startswith('|'):
        break
      rows.append(_cells(other))
    found.append(Table(i, *_comment(above), _cells(lines[i - 1]), tuple(rows)))
  return found


def _comment(line):
  note = re.fullmatch(r'<!-- ([a-z ]+?)(?:: (.+?))? -->', line.strip())
  if not note or note[1] not in KINDS:
    return '', (), '', 0
  rest, title, first = note[2] or '', '', 0
  if quoted := re.fullmatch(r'(.+?) "(.+)"(?: (\d+))?', rest):
    rest, title, first = quoted[1], quoted[2], int(quoted[3] or 0)
  return note[1], tuple(part.strip() for part in rest.split(',') if part.strip()), title, first


def _cells(line):
  return tuple(cell.strip() for cell in re.split(r'(?<!\\)\|', line.strip().strip('|')))


class Drawn(NamedTuple):
  """What a ledger draws: its verdicts and its tables."""

  checks: tuple
  tables: tuple

  @property
  def text(self) -> str:
    """Every number of the report, as lines."""
    parts = [f'{v.claim}\n{v.verdict}\n{v.number}\n{v.evidence}' for v in self.checks]
    for table in (*(t for v in self.checks for t in v.tables), *self.tables):
      parts += [table.title, table.note, *(' | '.join(row) for row in (table.head, *table.rows))]
    return '\n'.join(parts)


@functools.cache
def drawn(path: pathlib.Path) -> Drawn:
  """Judges and tabulates a ledger, without figures."""
  from prunejax.report import ledger

  sys.path[:0] = [p for p in (str(ROOT), str(ROOT / 'tests')) if p not in sys.path]
  import redrawn

  if path.name.startswith(redrawn.OF_A_SWEEP):
    from prunejax.sweep import summary

    return Drawn((), (summary.summary(summary.settings(ledger.read(path)), 'Settings'),))
  study = redrawn.experiment(path.parent.name).STUDY
  quantities = study.analyse([row for row in ledger.read(path) if not row.get('failed')])
  return Drawn(tuple(study.claims(quantities)), tuple(study.tables(quantities)))


@functools.cache
def source(path: pathlib.Path) -> str:
  """The text in which numbers are looked for: a ledger's report, or a file as it is."""
  if path.suffix == '.jsonl' and path.name != 'cost.jsonl':
    return drawn(path).text
  return path.read_text()


def plain(cell: str) -> str:
  """A cell without Markdown and with one space between words."""
  return ' '.join(re.sub(r'\*\*|`|\\(?=[|\[\]])', '', cell).split())


def numbers(text: str) -> list[str]:
  """The numbers of a text, without signs that are hyphens and without thousands' commas."""
  return [n.replace(',', '') for n in NUMBER.findall(plain(text))]


def intervals(text: str) -> list[tuple]:
  """The intervals of a text: (low, high) or (half,)."""
  return [
    tuple(part.replace(',', '') for part in found if part) for found in INTERVAL.findall(text)
  ]


def missing(text: str, sources: str) -> list[str]:
  """The numbers and intervals of a text that the sources do not have.

  A number of the page may be that of the source rounded; an interval has both ends in one place.
  """
  have = {float(n): n for n in numbers(sources)}
  spans = {tuple(map(float, span)) for span in intervals(sources)}
  lacking = [n for n in numbers(text) if not any(_rounds(n, v) for v in have)]
  for span in intervals(text):
    if not any(len(span) == len(other) and all(map(_rounds, span, other)) for other in spans):
      lacking.append('[' + ', '.join(span) + ']')
  return lacking


def _rounds(text: str, value: float) -> bool:
  digits = len(text.partition('.')[2]) if 'e' not in text else 12
  return (
    abs(float(text) - value) <= 0.5 * 10**-digits * (1 + 1e-9)
    if digits
    else (float(text) == value or abs(float(text) - value) <= 0.5 and abs(value) >= 20)
  )


def misjudged(table: Table, home: pathlib.Path) -> list[str]:
  """What a table of verdicts says that the ledgers do not; words are free, numbers are not."""
  wrong = []
  for i, name in enumerate(table.sources, 1):
    by_claim = {plain(v.claim): v for v in drawn((home / name).resolve()).checks}
    if lacking := by_claim.keys() - {plain(row[0]) for row in table.rows}:
      wrong.append(f'no line for {sorted(lacking)}')
    for row in table.rows:
      verdict = by_claim.get(plain(row[0]))
      here = row[i] if len(table.sources) > 1 else ': '.join(row[1:])
      if verdict is None or not plain(here):
        if plain(here) or _word(verdict):
          wrong.append(f'{row[0]}: {name} says {verdict and verdict.verdict}')
        continue
      if plain(here).partition(':')[0] != verdict.verdict:
        wrong.append(f'{row[0]}: {name} says {verdict.verdict}')
      sources = Drawn((verdict,), ()).text
      wrong += [f'{row[0]}: {n} is not in {name}' for n in missing(here, sources)]
  return wrong


def made(table: Table, home: pathlib.Path) -> list[tuple]:
  """The lines that a table of a ledger's verdicts or of its report must have.

  Raises:
    LookupError: the report has no such table or column.
  """
  ledgers = [drawn((home / name).resolve()) for name in table.sources]
  if table.kind == 'words':
    lines = [(claim, *map(_word, found)) for claim, found in _beside(ledgers)]
    for word in ('reproduced', 'not reproduced', 'undecided'):
      lines.append((f'*{word}*', *(str(sum(_word(v) == word for v in d.checks)) for d in ledgers)))
    return lines
  if table.kind == 'verdicts' and len(ledgers) > 1:
    return [(claim, *map(_judged, found)) for claim, found in _beside(ledgers)]
  if table.kind == 'verdicts':
    return [(v.claim, _bold(v.verdict), _shown(v)) for v in ledgers[0].checks]
  [report] = ledgers
  every = [*report.tables, *(t for v in report.checks for t in v.tables)]
  chosen = [t for t in every if t.title == table.title]
  if not chosen:
    raise LookupError(f'no table {table.title!r}; there are {[t.title for t in every]}')
  columns = []
  for head in map(plain, table.head):
    if head not in chosen[0].head:
      raise LookupError(f'{table.title!r} has no column {head!r}; it has {chosen[0].head}')
    columns.append(chosen[0].head.index(head))
  rows = [tuple(row[i] for i in columns) for row in chosen[0].rows]
  return rows[: table.first] if table.first else rows


def _beside(ledgers):
  """[(claim, [its verdict in each ledger, None where a ledger does not judge it])]."""
  found = [{v.claim: v for v in d.checks} for d in ledgers]
  claims = dict.fromkeys(claim for verdicts in found for claim in verdicts)
  return [(claim, [verdicts.get(claim) for verdicts in found]) for claim in claims]


def _word(verdict):
  """The verdict, '' where the ledger has no rows that speak of the claim."""
  if verdict is None:
    return ''
  nothing = ('No rows to compare', 'not run', 'no runs', 'no rows', 'cells are missing', 'no cells')
  return '' if verdict.evidence.startswith(nothing) else verdict.verdict


def _judged(verdict):
  return f'{_bold(_word(verdict))}: {_shown(verdict)}' if _word(verdict) else ''


def _shown(verdict):
  return verdict.number or verdict.evidence.removesuffix('.')


def _bold(word):
  return f'**{word}**' if word == 'not reproduced' else word


def written(text: str, home: pathlib.Path) -> str:
  """A page with its tables of ledgers written anew."""
  from prunejax.report import tables as tabular

  lines = text.split('\n')
  for table in reversed(tables_of(text)):
    if table.kind in ('verdicts', 'words', 'table'):
      rows = [
        '| ' + ' | '.join(tabular.markdown_text(c.replace('|', r'\|')) for c in row) + ' |'
        for row in made(table, home)
      ]
      lines[table.line + 1 : table.line + 1 + len(table.rows)] = rows
  return '\n'.join(lines)


def cells_of(path: pathlib.Path) -> int:
  """How many cells a ledger has; a cell that ran again has several lines."""
  rows = [json.loads(line) for line in path.open()]
  return len({row.get('cell', i) for i, row in enumerate(rows)})


if __name__ == '__main__':
  sys.path.insert(0, str(ROOT))
  for page in sys.argv[1:] or PAGES:
    path = ROOT / page
    path.write_text(written(path.read_text(), path.parent))
