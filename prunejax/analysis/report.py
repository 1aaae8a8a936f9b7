"""One self-contained report.html, with its tables and figures beside it as files."""

import base64
import collections
import html

from prunejax import files
from prunejax.analysis import figures as drawing
from prunejax.analysis import statistics
from prunejax.analysis import tables as tabular

CAPTIONS = {
    'figure1': 'Figure 1: average dev score and train loss against sparsity; bars are 95 % '
               'bootstrap intervals over seeds.',
    'figure2a': 'Figure 2a: held-out pre-train loss against dev score after information '
                'deletion, one least-squares line a task.',
    'pretrain_loss': 'Held-out pre-train loss against sparsity, by magnitude and at random.',
    'learning_curve': 'The learning curve of the model that everything here starts from.',
}
MARKS = {'reproduced': 'yes', 'not reproduced': 'no', 'undecided': 'open'}
STYLE = """
:root{color-scheme:light dark;--ink:#1d1d1f;--soft:#5c5f66;--line:#d9dbe0;--page:#fff;
--card:#f6f7f9;--yes:#00724f;--no:#b03a00;--open:#5c5f66}
@media (prefers-color-scheme:dark){:root{--ink:#ececf0;--soft:#a5a8b0;--line:#3a3d44;
--page:#17181b;--card:#212327;--yes:#3ecf9f;--no:#ff8f57;--open:#b4b7be}}
*{box-sizing:border-box}
body{font:16px/1.55 system-ui,-apple-system,"Segoe UI",sans-serif;color:var(--ink);
background:var(--page);max-width:1080px;margin:0 auto;padding:2rem 1.2rem 4rem}
h1{font-size:1.7rem;line-height:1.25;margin:0 0 .4rem}h2{font-size:1.2rem;margin:2.4rem 0 .8rem}
.note,.meta,figcaption,caption{color:var(--soft);font-size:.88rem}
.badges{display:flex;flex-wrap:wrap;gap:.5rem;margin:1.2rem 0}
.badge{border:1.5px solid currentColor;border-radius:999px;padding:.12rem .7rem;font-size:.85rem;
font-weight:600;text-decoration:none;white-space:nowrap}
.yes{color:var(--yes)}.no{color:var(--no)}.open{color:var(--open)}
.claim{background:var(--card);border-left:4px solid currentColor;border-radius:4px;
padding:.7rem 1rem;margin:.7rem 0}
.claim p{margin:.25rem 0;color:var(--ink)}.claim .note{color:var(--soft)}
figure{margin:1.2rem 0}figure img{max-width:100%;height:auto;background:#fff;border-radius:6px;
border:1px solid var(--line)}
.table{overflow-x:auto}table{border-collapse:collapse;font-size:.86rem;margin:.4rem 0;
font-variant-numeric:tabular-nums}
caption{text-align:left;font-weight:600;padding:.3rem 0}
th,td{padding:.28rem .6rem;border-bottom:1px solid var(--line);text-align:left;white-space:nowrap}
th{border-bottom-width:2px}summary{cursor:pointer;font-weight:600;margin:1rem 0 .4rem}
"""


def write(workdir, rows, verdicts, *, title, meta=None, tables=None, figures=None):
  """Writes report.html, table1.md, table1.txt and every figure into workdir; {name: path}.

  verdicts: tuples with name, claim, verdict, evidence (and figures: names of those it rests on).
  meta: {word: value} for the head. tables: `tables.Table`s, table1 of the rows by default.
  figures: {name: PNG bytes}, `figures.standard(rows)`
  by default. Each file appears whole or not
  at all; ValueError in one line when the folder or disk refuses.
  """
  rows = statistics.one_grid(list(rows))
  verdicts = list(verdicts)
  shown = [tabular.table1(rows)] if tables is None else list(tables)
  figures = drawing.standard(rows) if figures is None else dict(figures)
  workdir = files.path(workdir)
  page = render(rows, verdicts, title=title, meta=meta or {}, tables=shown, figures=figures)
  parts = {f'{_file_name(name)}.png': data for name, data in figures.items()}
  if shown:
    parts['table1.md'] = '\n'.join(map(tabular.markdown, shown)).encode()
    parts['table1.txt'] = '\n'.join(map(tabular.text, shown)).encode()
  parts['report.html'] = page.encode()  # last: it stands only when all it shows stands
  return {name: _replace(workdir / name, data) for name, data in parts.items()}


def render(rows, verdicts, *, title, meta, tables, figures):
  """The page as one string: no file, script or address outside it is needed to read it."""
  parts = [f'<h1>{_safe(title)}</h1>', _head(rows, meta), _badges(verdicts)]
  if verdicts:
    parts += ['<h2>Claims</h2>', *[_claim(v, figures) for v in verdicts]]
  if figures:
    parts += ['<h2>Figures</h2>', *[_figure(name, data) for name, data in figures.items()]]
  if tables:
    parts += ['<h2>Tables</h2>', *map(tabular.html, tables)]
  if rows:
    parts += ['<h2>Cells</h2>', _cost(rows), _cells(rows)]
  return (f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
          f'<meta name="viewport" content="width=device-width, initial-scale=1">'
          f'<title>{_safe(title)}</title><style>{STYLE}</style></head>\n<body>\n'
          + '\n'.join(parts) + '\n</body></html>\n')


def _head(rows, meta):
  seeds = sorted({row['seed'] for row in rows})
  facts = {**meta, 'cells': len(rows), 'seeds': ', '.join(map(str, seeds)) or '-'}
  return '<p class="meta">' + ' · '.join(
      f'{_safe(k)}: {_safe(v)}' for k, v in facts.items()) + '</p>'


def _badges(verdicts):
  return '<div class="badges">' + ''.join(
      f'<a class="badge {MARKS.get(v.verdict, "open")}" href="#{_safe(_file_name(v.name))}">'
      f'{_safe(v.name.replace("_", " "))}: {_safe(v.verdict)}</a>' for v in verdicts) + '</div>'


def _claim(verdict, figures):
  links = ', '.join(f'<a href="#{_safe(_file_name(name))}">{_safe(name)}</a>'
                    for name in getattr(verdict, 'figures', ()) if name in figures)
  mark = MARKS.get(verdict.verdict, 'open')
  return (f'<div class="claim {mark}" id="{_safe(_file_name(verdict.name))}">'
          f'<span class="badge {mark}">{_safe(verdict.verdict)}</span>'
          f'<p><strong>{_safe(verdict.claim)}</strong></p><p>{_safe(verdict.evidence)}</p>'
          + (f'<p class="note">Shown in {links}</p>' if links else '') + '</div>')


def _figure(name, data):
  caption = _safe(CAPTIONS.get(name, name.replace('_', ' ')))
  return (f'<figure id="{_safe(_file_name(name))}"><img alt="{caption}" '
          f'src="data:image/png;base64,{base64.b64encode(data).decode()}">'
          f'<figcaption>{caption}</figcaption></figure>')


def _cost(rows):
  seconds = sum(row.get('seconds') or 0 for row in rows)
  devices = collections.Counter(str(row.get('device', '-')) for row in rows)
  versions = {f'{k} {v}' for row in rows for k, v in (row.get('versions') or {}).items()}
  return (f'<p class="note">{len(rows)} cells, {_duration(seconds)} of device time in all, on '
          + _safe(', '.join(f'{name} ({count} cells)' for name, count in sorted(devices.items())))
          + f'. {_safe(", ".join(sorted(versions)))}</p>')


def _cells(rows):
  def line(row):
    numbers = {k: v for k, v in row['metrics'].items() if isinstance(v, (int, float))}
    return {'cell': row['cell'], 'stage': row['stage'], 'arm': row['arm'],
            'sparsity': row['sparsity'], 'task': row.get('task') or '-',
            'learning rate': row.get('learning_rate'), 'seed': row['seed'],
            'metrics': ', '.join(f'{k} {v:.4g}' for k, v in numbers.items()),
            'masks': str(row.get('mask_hash') or '-')[:12], 'bytes': row.get('bytes'),
            'seconds': row.get('seconds'), 'device': row.get('device'),
            'from': row.get('parent'), 'written': row.get('time')}
  table = tabular.records(f'The ledger: {len(rows)} cells', [line(row) for row in rows])
  return f'<details><summary>Every cell</summary>{tabular.html(table)}</details>'


def _duration(seconds):
  hours, rest = divmod(round(seconds), 3600)
  minutes, seconds = divmod(rest, 60)
  return (f'{hours} h {minutes:02d} min' if hours else f'{minutes} min {seconds:02d} s' if minutes
          else f'{seconds} s')


def _safe(value):
  return html.escape(str(value), quote=True)


def _file_name(name):
  return ''.join(c if c.isalnum() or c in '-_.' else '-' for c in str(name))


def _replace(path, data):
  try:
    files.write(path, data)
  except OSError as error:
    raise ValueError(f'cannot write {path}: {error.strerror or error}; the folder must be '
                     f'writable and the disk must have room') from None
  return path
