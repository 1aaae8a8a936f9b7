"""A report in two forms, one self-contained report.html and the same as report.md, with its figures beside it."""

from prunejax import files
from prunejax.report import figures as drawing
from prunejax.report import page, statistics
from prunejax.report import tables as tabular

CAPTIONS = {
  'figure1': 'Figure 1: average dev score and train loss against sparsity; bars are 95 % bootstrap intervals '
  f'over seeds ({statistics.FEW}).',
  'figure2a': 'Figure 2a: held-out pre-train loss against dev score after information deletion, one least-squares line '
  'a task.',
  'pretrain_loss': 'Held-out pre-train loss against sparsity, by magnitude and at random.',
  'learning_curve': 'The learning curve of the model that everything here starts from.',
}


def write(
  workdir, rows, verdicts, *, title, meta=None, tables=None, figures=None, captions=None, lists=()
):
  """Writes report.html, report.md, table1.md, table1.txt and every figure into workdir; {name: path}.

  verdicts: tuples with name, claim, verdict, evidence (and figures: names of those it rests on).
  meta: {word: value} for the head. tables: `tables.Table`s, table1 of the rows by default.
  figures: {name: PNG bytes}, `figures.standard(rows)` by default. captions: {name: text}, beside those known here.
  lists: (heading, tables) that stand before the figures. Each file appears whole or not at all; ValueError in one line
  when the folder or disk refuses.
  """
  rows = statistics.one_grid(list(rows))
  shown = [tabular.table1(rows)] if tables is None else list(tables)
  drawn = drawing.standard(rows) if figures is None else dict(figures)
  named = {**CAPTIONS, **(captions or {})}
  known = {
    'title': title,
    'meta': meta or {},
    'tables': shown,
    'figures': drawn,
    'captions': named,
    'lists': lists,
  }
  workdir, verdicts = files.path(workdir), list(verdicts)
  parts = {f'{page.slug(name)}.png': data for name, data in drawn.items()}
  if shown:
    parts['table1.md'] = '\n'.join(map(tabular.markdown, shown)).encode()
    parts['table1.txt'] = '\n'.join(map(tabular.text, shown)).encode()
  parts['report.md'] = markdown(verdicts, **known).encode()
  parts['report.html'] = page.render(
    rows, verdicts, **known
  ).encode()  # last: it stands only when all it shows stands
  return {name: _replace(workdir / name, data) for name, data in parts.items()}


def markdown(verdicts, *, title, meta, tables, figures, captions, lists=()):
  """The report without its cells as Markdown; figures are the files beside it."""
  parts = [f'# {title}', ' · '.join(f'{k}: {v}' for k, v in meta.items())]
  if verdicts:
    parts += ['## Claims', tabular.markdown(verdict_table(verdicts))]
  for name, shown in lists:
    parts += [f'## {name}', *map(tabular.markdown, shown)]
  if figures:
    text = {name: ' '.join(captions.get(name, name.replace('_', ' ')).split()) for name in figures}
    parts += [
      '## Figures',
      *[f'![{text[name]}]({page.slug(name)}.png)\n\n*{text[name]}*' for name in figures],
    ]
  if tables:
    parts += ['## Tables', *map(tabular.markdown, tables)]
  return '\n\n'.join(part.strip() for part in parts if part.strip()) + '\n'


def verdict_table(verdicts):
  """Claim, verdict and evidence as a table."""
  lines = tuple((f'{v.name.replace("_", " ")}: {v.claim}', v.verdict, v.evidence) for v in verdicts)
  return tabular.Table('What held', ('claim', 'verdict', 'evidence'), lines)


def _replace(path, data):
  try:
    files.write(path, data)
  except OSError as error:
    raise ValueError(
      f'cannot write {path}: {error.strerror or error}; the folder must be writable and the disk must have room'
    ) from None
  return path
