"""Renders a report as one self-contained HTML page, for a screen of any width and for paper."""

import base64
import collections
import html
import struct

from prunejax.report import tables as tabular
from prunejax.report import verdicts

MARKS = {
  verdicts.REPRODUCED: 'yes',
  verdicts.NOT_REPRODUCED: 'no',
  verdicts.UNDECIDED: 'open',
}
# Light whatever the system says, since the figures are. On paper everything unfolds, long tables
# wrap, and no row or figure is cut by the end of a page.
STYLE = """
:root{color-scheme:light;--ink:#1d1d1f;--soft:#55585f;--line:#d9dbe0;
--yes:#00694a;--no:#a83600;--open:#55585f}
*{box-sizing:border-box}
body{font:16px/1.55 system-ui,-apple-system,"Segoe UI",sans-serif;color:var(--ink);background:#fff;
max-width:1180px;margin:0 auto;padding:.8rem 1.2rem 4rem;overflow-wrap:break-word}
h1{font-size:1.4rem;line-height:1.2;margin:0}h2{font-size:1.25rem;margin:2.4rem 0 .8rem}
h3{font-size:1rem;margin:1rem 0 .3rem}
a{color:#0a58a6}.note,.meta,figcaption{color:var(--soft);font-size:.88rem}.meta{margin:0}
nav{font-size:.88rem;margin:0}nav.inside{margin:.5rem 0}
.badge{border:1.5px solid currentColor;border-radius:999px;padding:.02rem .6rem;font-size:.8rem;
font-weight:600;display:inline-block;white-space:nowrap}
.yes{color:var(--yes)}.no{color:var(--no)}.open{color:var(--open)}
figure{margin:1.6rem 0}figure img{max-width:100%;height:auto;display:block}
figure.main{margin:.3rem 0}figure.main img{max-height:36vh;width:auto}
.verdicts{width:100%;font-size:.84rem;line-height:1.3}
.verdicts th,.verdicts td{padding:.14rem .5rem}
.verdicts td:first-child{white-space:normal}.verdicts .badge{font-size:.72rem;padding:0 .5rem}
.verdicts a{color:inherit;text-decoration:none}.verdicts a:hover{text-decoration:underline}
.table{overflow-x:auto;max-width:100%}
table{border-collapse:collapse;font-size:.86rem;margin:.4rem 0;
font-variant-numeric:tabular-nums}
caption{text-align:left;font-weight:600;padding:.3rem 0}
th,td{padding:.22rem .6rem;border-bottom:1px solid var(--line);text-align:left;white-space:nowrap;
vertical-align:top}
td.long{white-space:normal;min-width:16rem;overflow-wrap:anywhere}
th{border-bottom:2px solid #9a9da5}
.series{display:inline-block;width:.7em;height:.7em;border-radius:2px;margin-right:.45em;
-webkit-print-color-adjust:exact;print-color-adjust:exact}
details{border-bottom:1px solid var(--line);padding:.15rem 0}
summary{cursor:pointer;padding:.25rem 0}
details p{font-size:.88rem;margin:.4rem 0}
details>*:not(summary){margin-left:1.1rem}
@media(max-width:640px){body{padding:.8rem .7rem 3rem}.verdicts thead{display:none}
.verdicts tr{display:block;border-bottom:1px solid var(--line);padding:.4rem 0}
.verdicts td{display:block;border:0;padding:.05rem 0;white-space:normal}
details>*:not(summary){margin-left:0}}
@media print{@page{size:A4 landscape;margin:12mm}body{font-size:10pt;max-width:none;padding:0}
nav,.cells{display:none}.table{overflow:visible}table{font-size:7.5pt}
th,td{white-space:normal;padding:.15rem .35rem}td.long{min-width:0}
details{border:0}details::details-content{content-visibility:visible;height:auto;opacity:1}
thead{display:table-header-group}tr,figure{break-inside:avoid}h2,h3,summary{break-after:avoid}
figure img,figure.main img{max-height:150mm;width:auto}figure.main img{max-height:58mm}
.verdicts{font-size:8pt}.verdicts td:nth-child(3):not(.long){white-space:nowrap}
a{color:inherit;text-decoration:none}}
"""


def render(
  checks, *, title, meta, tables, figures, captions, lists=(), cells=None, colours=None
) -> str:
  """The whole page; the arguments are those of `document.write`.

  The first screen shows the main figure, which is the first, and the verdicts. The evidence of each
  verdict and the cells unfold.
  """
  parts, contents = [], []
  show = lambda table: tabular.html(table, colours)

  def section(name, inside):
    anchor = f'section-{slug(name.lower())}'
    contents.append(link(anchor, name))
    parts.append(f'<h2 id="{anchor}">{safe(name)}</h2>')
    parts.extend(inside)

  drawn = [_figure(name, png, captions.get(name)) for name, png in figures.items()]
  first = []
  if checks:
    first = [*drawn[:1], _counts(checks), _verdicts(checks)]
    first = [part.replace('<figure ', '<figure class="main" ', 1) for part in first]
  for name, shown in lists:
    section(name, map(show, shown))
  if checks:
    section('Evidence', [_evidence(verdict, figures, show) for verdict in checks])
  rest = dict(list(figures.items())[len(drawn[:1]) if checks else 0 :])
  if rest:
    names = [link(slug(name), words(name)) for name in rest]
    section('Figures', [_inside(names), *drawn[len(drawn) - len(rest) :]])
  if tables:
    names = [link(f'table-{i}', table.title) for i, table in enumerate(tables)]
    shown = [f'<div id="table-{i}">{show(table)}</div>' for i, table in enumerate(tables)]
    section('Tables', [_inside(names), *shown])
  if cells:
    summary = f'<summary>{safe(cells.title)}</summary>'
    section('Cells', [f'<details class="cells">{summary}{show(cells)}</details>'])
  facts = ' · '.join(f'{safe(k)}: {safe(v)}' for k, v in meta.items())
  head = [
    f'<h1>{safe(title)}</h1>',
    f'<p class="meta">{facts}</p>',
    f'<nav>Contents: {" · ".join(contents)}</nav>',
  ]
  return (
    '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
    '<meta name="viewport" content="width=device-width, initial-scale=1">'
    f'<title>{safe(title)}</title><style>{STYLE}</style></head>\n<body>\n'
    + '\n'.join([*head, *first, *parts])
    + '\n</body></html>\n'
  )


def safe(value) -> str:
  """Text as HTML."""
  return html.escape(str(value), quote=True)


def slug(name) -> str:
  """A name as an anchor and as the name of a file."""
  return ''.join(c if c.isalnum() or c in '-_.' else '-' for c in str(name))


def words(name) -> str:
  """A name of code as words: 'loss_rises' is 'loss rises'."""
  return str(name).replace('_', ' ')


def link(anchor, text) -> str:
  """A link within the page."""
  return f'<a href="#{safe(anchor)}">{safe(text)}</a>'


def _inside(links):
  return f'<nav class="inside">{" · ".join(links)}</nav>' if len(links) > 1 else ''


def _badge(word):
  return f'<span class="badge {MARKS.get(word, "open")}">{safe(word)}</span>'


def _counts(checks):
  counts = collections.Counter(verdict.verdict for verdict in checks)
  text = ', '.join(f'{counts[word]} {word}' for word in MARKS if counts[word])
  return f'<p class="meta">Of {len(checks)} claims: {text}.</p>'


def _verdicts(checks):
  lines = [
    f'<tr><td>{link(slug(v.name), v.claim)}</td><td>{_badge(v.verdict)}</td>'
    f'<td{tabular.wrapping(number)}>{safe(number)}</td></tr>'
    for v in checks
    for number in [verdicts.deciding(v)]
  ]
  head = '<tr><th>claim</th><th>verdict</th><th>decided by</th></tr>'
  return (
    '<div class="table" id="section-claims" tabindex="0" role="region" aria-label="What held">'
    f'<table class="verdicts"><thead>{head}</thead><tbody>{"".join(lines)}</tbody></table></div>'
  )


def _evidence(verdict, figures, show):
  links = [link(slug(name), words(name)) for name in verdict.figures if name in figures]
  parts = [show(table) for table in verdict.tables]
  parts += [f'<p>{safe(verdict.evidence)}</p>'] if verdict.evidence else []
  parts += [f'<p class="note">Shown in {", ".join(links)}</p>'] if links else []
  # A link to hidden content unfolds it; a link to the fold itself would not.
  return (
    f'<details><summary>{_badge(verdict.verdict)} {safe(verdict.claim)}</summary>'
    f'<div id="{safe(slug(verdict.name))}">{"".join(parts)}</div></details>'
  )


def _figure(name, png, caption):
  caption = safe(caption or words(name))
  # Figures are drawn at 150 dots an inch.
  width, height = (round(v / 1.5) for v in struct.unpack('>II', png[16:24]))
  return (
    f'<figure id="{safe(slug(name))}"><img alt="{caption}" width="{width}" height="{height}" '
    f'src="data:image/png;base64,{base64.b64encode(png).decode()}">'
    f'<figcaption>{caption}</figcaption></figure>'
  )
