"""Tables as plain text, Markdown and HTML, and numbers as the text of their cells."""

import html as escape
import math
import re
from typing import NamedTuple

LONG = 60  # characters of a cell from which its text may wrap


class Table(NamedTuple):
  """A table whose cells are text already: a title, column heads, rows, and a note under it."""

  title: str
  head: tuple
  rows: tuple
  note: str = ''


def records(title: str, items, note: str = '') -> Table:
  """Makes a table of dicts, one a row; columns stand in the order in which they first appear."""
  items = [{str(k): v for k, v in item.items()} for item in items]
  head = tuple(dict.fromkeys(key for item in items for key in item))
  return Table(title, head, tuple(tuple(_shown(item.get(k)) for k in head) for item in items), note)


def text(table: Table) -> str:
  """Plain text with aligned columns."""
  lines = [table.head, *table.rows]
  width = [max(len(line[i]) for line in lines) for i in range(len(table.head))]
  lines = [
    '  '.join(c.ljust(w) for c, w in zip(line, width, strict=True)).rstrip() for line in lines
  ]
  lines.insert(1, '  '.join('-' * w for w in width))
  return '\n'.join([table.title, *lines, *([table.note] if table.note else [])]) + '\n'


def markdown(table: Table) -> str:
  """A Markdown table; bars, HTML and links inside cells are escaped."""

  def line(cells):
    safe = [c.replace('\\', '\\\\').replace('|', r'\|') for c in cells]
    return '| ' + ' | '.join(map(markdown_text, safe)) + ' |'

  rule = '|' + '---|' * len(table.head)
  title, note = markdown_text(table.title), markdown_text(table.note)
  lines = [f'**{title}**', '', line(table.head), rule, *map(line, table.rows)]
  return '\n'.join([*lines, *(['', note] if note else [])]) + '\n'


def markdown_text(text) -> str:
  """Text as one line of Markdown without HTML or links: names in a ledger may come from anywhere.

  A '<' before a space, as in '< 0.001', begins no tag and stays.
  """
  line = ' '.join(str(text).split())
  return re.sub(r'<(?=[A-Za-z/!?])', '&lt;', line).replace('](', ']\\(')


def html(table: Table, colours=None) -> str:
  """An HTML table with all text escaped.

  Args:
    table: the table.
    colours: {text of a cell: CSS colour}; such a cell shows a square of its colour.
  """
  colours = colours or {}
  head = ''.join(f'<th>{escape.escape(c)}</th>' for c in table.head)
  lines = (
    '<tr>' + ''.join(_cell(c, colours.get(c)) for c in line) + '</tr>' for line in table.rows
  )
  title = escape.escape(table.title, quote=True)
  note = f'<p class="note">{escape.escape(table.note)}</p>' if table.note else ''
  return (
    f'<div class="table" tabindex="0" role="region" aria-label="{title}"><table>'
    f'<caption>{title}</caption><thead><tr>{head}</tr></thead><tbody>'
    + '\n'.join(lines)
    + f'</tbody></table></div>{note}'
  )


def wrapping(text: str) -> str:
  """The attribute of a cell whose text is long enough to wrap, else ''."""
  return ' class="long"' if len(text) > LONG else ''


def _cell(text, colour):
  mark = f'<span class="series" style="background:{colour}"></span>' if colour else ''
  return f'<td{wrapping(text)}>{mark}{escape.escape(text)}</td>'


def points(estimate, sign: str = '') -> str:
  """A fraction as points of 100 with half of its interval: '83.1 ± 0.4'."""
  return _plus_minus(*[100 * v for v in estimate[:3]], f'{sign}.1f', '.1f')


def number(estimate, sign: str = '') -> str:
  """A loss with half of its interval: '1.82 ± 0.01'."""
  return _plus_minus(*estimate[:3], f'{sign}.2f', '.2f')


def span(low, high, scale: float = 1, form: str = '.2f') -> str:
  """An interval: '[-0.4, +0.1]', or '-' when it has no ends."""
  if not (math.isfinite(low) and math.isfinite(high)):
    return '-'
  return f'[{scale * low:{form}}, {scale * high:{form}}]'


def p_value(p) -> str:
  """A probability with two digits: '0.034', '< 0.001'."""
  return '-' if not math.isfinite(p) else '< 0.001' if p < 0.001 else f'{p:.2g}'


def _plus_minus(middle, low, high, form, reach):
  if not math.isfinite(middle):
    return '-'
  half = (high - low) / 2
  return f'{middle:{form}} ± ' + (f'{half:{reach}}' if math.isfinite(half) else '-')


def _shown(value, form='.4g'):
  if value is None or isinstance(value, float) and not math.isfinite(value):
    return '-'
  return f'{value:{form}}' if isinstance(value, float) else str(value)
