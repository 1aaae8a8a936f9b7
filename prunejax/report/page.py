"""The page of a report as one string of HTML: nothing outside it is needed to read it, on a screen or on paper."""

import base64
import collections
import html
import math
import struct

from prunejax.report import tables as tabular

MARKS = {'reproduced': 'yes', 'not reproduced': 'no', 'undecided': 'open'}
# Light whatever the system says: the figures are. Printed, long tables wrap and nothing is cut at a page's end.
STYLE = """
:root{color-scheme:light;--ink:#1d1d1f;--soft:#55585f;--line:#d9dbe0;--card:#f6f7f9;
--yes:#00694a;--no:#a83600;--open:#55585f}
*{box-sizing:border-box}
body{font:16px/1.55 system-ui,-apple-system,"Segoe UI",sans-serif;color:var(--ink);background:#fff;
max-width:1120px;margin:0 auto;padding:2rem 1.2rem 4rem;overflow-wrap:break-word}
h1{font-size:1.7rem;line-height:1.25;margin:0 0 .4rem}h2{font-size:1.25rem;margin:2.4rem 0 .8rem}
a{color:#0a58a6}.note,.meta,figcaption{color:var(--soft);font-size:.88rem}
nav{font-size:.92rem;margin:.9rem 0}nav.inside{font-size:.85rem}
.badges{display:flex;flex-wrap:wrap;gap:.5rem;margin:1.2rem 0}
.badge{border:1.5px solid currentColor;border-radius:999px;padding:.12rem .7rem;font-size:.85rem;
font-weight:600;text-decoration:none;display:inline-block;max-width:100%}
.yes{color:var(--yes)}.no{color:var(--no)}.open{color:var(--open)}
.claim{background:var(--card);border-left:4px solid currentColor;border-radius:4px;
padding:.7rem 1rem;margin:.7rem 0}
.claim p{margin:.25rem 0;color:var(--ink)}.claim .note{color:var(--soft)}
figure{margin:1.6rem 0}figure img{max-width:100%;height:auto;display:block}
.table{overflow-x:auto;max-width:100%}table{border-collapse:collapse;font-size:.86rem;margin:.4rem 0;
font-variant-numeric:tabular-nums}
caption{text-align:left;font-weight:600;padding:.3rem 0}
th,td{padding:.28rem .6rem;border-bottom:1px solid var(--line);text-align:left;white-space:nowrap;vertical-align:top}
td.long{white-space:normal;min-width:16rem;overflow-wrap:anywhere}th{border-bottom:2px solid #9a9da5}
.arm{display:inline-block;width:.7em;height:.7em;border-radius:2px;margin-right:.45em;
-webkit-print-color-adjust:exact;print-color-adjust:exact}
summary{cursor:pointer;font-weight:600;margin:1rem 0 .4rem}
@media print{@page{size:A4 landscape;margin:12mm}body{font-size:10pt;max-width:none;padding:0}
nav,details{display:none}.table{overflow:visible}table{font-size:7.5pt}th,td{white-space:normal;padding:.15rem .35rem}
td.long{min-width:0}thead{display:table-header-group}tr,figure,.claim{break-inside:avoid}h2{break-after:avoid}
figure img{max-height:165mm;width:auto}a{color:inherit;text-decoration:none}.claim{background:none}}
"""


def render(rows, verdicts, *, title, meta, tables, figures, captions, lists=()):
  """The whole page. lists: (heading, `tables.Table`s) that stand before the figures, such as a comparison."""
  parts, contents = [], []

  def section(name, inside):
    anchor = f'section-{slug(name.lower())}'
    contents.append(link(anchor, name))
    parts.append(f'<h2 id="{anchor}">{safe(name)}</h2>')
    parts.extend(inside)

  if verdicts:
    section('Claims', [_badges(verdicts), *[_claim(v, figures) for v in verdicts]])
  for name, shown in lists:
    section(name, [tabular.html(table) for table in shown])
  if figures:
    names = [link(slug(name), _words(name)) for name in figures]
    drawn = [_figure(name, data, captions.get(name)) for name, data in figures.items()]
    section('Figures', [_inside(names), *drawn])
  if tables:
    names = [link(f'table-{i}', table.title) for i, table in enumerate(tables)]
    shown = [f'<div id="table-{i}">{tabular.html(table)}</div>' for i, table in enumerate(tables)]
    section('Tables', [_inside(names), *shown])
  if rows:
    section('Cells', [_cost(rows), _cells(rows)])
  head = [
    f'<h1>{safe(title)}</h1>',
    _head(rows, meta),
    f'<nav>Contents: {" · ".join(contents)}</nav>',
  ]
  return (
    '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
    '<meta name="viewport" content="width=device-width, initial-scale=1">'
    f'<title>{safe(title)}</title><style>{STYLE}</style></head>\n<body>\n'
    + '\n'.join([*head, *parts])
    + '\n</body></html>\n'
  )


def duration(seconds):
  """'2 h 05 min', '6 min 50 s', '12 s'."""
  hours, rest = divmod(round(seconds), 3600)
  minutes, seconds = divmod(rest, 60)
  return (
    f'{hours} h {minutes:02d} min'
    if hours
    else f'{minutes} min {seconds:02d} s'
    if minutes
    else f'{seconds} s'
  )


def safe(value):
  """Text as HTML."""
  return html.escape(str(value), quote=True)


def slug(name):
  """A name as an anchor and as a file's name."""
  return ''.join(c if c.isalnum() or c in '-_.' else '-' for c in str(name))


def link(anchor, text):
  """A link within the page."""
  return f'<a href="#{safe(anchor)}">{safe(text)}</a>'


def _words(name):
  return str(name).replace('_', ' ')


def _inside(links):
  return f'<nav class="inside">{" · ".join(links)}</nav>' if len(links) > 1 else ''


def _head(rows, meta):
  seeds = sorted({str(row['seed']) for row in rows}, key=lambda seed: (len(seed), seed))
  facts = {**meta, 'cells': len(rows), 'seeds': ', '.join(seeds) or '-'} if rows else meta
  return '<p class="meta">' + ' · '.join(f'{safe(k)}: {safe(v)}' for k, v in facts.items()) + '</p>'


def _badges(verdicts):
  return (
    '<div class="badges">'
    + ''.join(
      f'<a class="badge {MARKS.get(v.verdict, "open")}" href="#{safe(slug(v.name))}">'
      f'{safe(_words(v.name))}: {safe(v.verdict)}</a>'
      for v in verdicts
    )
    + '</div>'
  )


def _claim(verdict, figures):
  shown = [
    link(slug(name), _words(name)) for name in getattr(verdict, 'figures', ()) if name in figures
  ]
  mark = MARKS.get(verdict.verdict, 'open')
  return (
    f'<div class="claim {mark}" id="{safe(slug(verdict.name))}">'
    f'<span class="badge {mark}">{safe(verdict.verdict)}</span>'
    f'<p><strong>{safe(verdict.claim)}</strong></p><p>{safe(verdict.evidence)}</p>'
    + (f'<p class="note">Shown in {", ".join(shown)}</p>' if shown else '')
    + '</div>'
  )


def _figure(name, data, caption):
  caption = safe(caption or _words(name))
  width, height = (
    round(v / 1.5) for v in struct.unpack('>II', data[16:24])
  )  # drawn at 150 dots an inch
  return (
    f'<figure id="{safe(slug(name))}"><img alt="{caption}" width="{width}" height="{height}" '
    f'src="data:image/png;base64,{base64.b64encode(data).decode()}"><figcaption>{caption}</figcaption></figure>'
  )


def _cost(rows):
  seconds = sum(row.get('seconds') or 0 for row in rows)
  devices = collections.Counter(str(row.get('device', '-')) for row in rows)
  versions = {f'{k} {v}' for row in rows for k, v in (row.get('versions') or {}).items()}
  where = ', '.join(f'{name} ({count} cells)' for name, count in sorted(devices.items()))
  return (
    f'<p class="note">{len(rows)} cells, {duration(seconds)} of device time in all, on {safe(where)}. '
    f'{safe(", ".join(sorted(versions)))}</p>'
  )


def _cells(rows):
  def line(row):
    numbers = {k: v for k, v in (row.get('metrics') or {}).items() if _number(v)}
    return {
      'cell': row['cell'],
      'stage': row['stage'],
      'arm': row['arm'],
      'sparsity': row['sparsity'],
      'task': row.get('task') or '-',
      'learning rate': row.get('learning_rate'),
      'seed': row['seed'],
      'metrics': ', '.join(f'{k} {v:.4g}' for k, v in numbers.items()),
      'masks': str(row.get('mask_hash') or '-')[:12],
      'bytes': row.get('bytes'),
      'seconds': row.get('seconds'),
      'device': row.get('device'),
      'from': row.get('parent'),
      'written': row.get('time'),
    }

  table = tabular.records(f'The ledger: {len(rows)} cells', [line(row) for row in rows])
  return f'<details><summary>Every cell</summary>{tabular.html(table)}</details>'


def _number(value):
  return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
