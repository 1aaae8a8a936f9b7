"""Writes a report: report.html, which is self-contained, report.md, and the figures."""

from prunejax import files
from prunejax.report import page, verdicts
from prunejax.report import tables as tabular


def write(
  folder,
  checks=(),
  *,
  title: str,
  meta=None,
  tables=(),
  figures=None,
  captions=None,
  lists=(),
  cells=None,
  colours=None,
) -> dict:
  """Writes report.html, report.md, tables.md, tables.txt and every figure into a folder.

  Each file appears whole or not at all; report.html comes last.

  Args:
    folder: where to write; it is made.
    checks: `verdicts.Verdict`s.
    title: of the report.
    meta: {word: value} for the line under the title.
    tables: `tables.Table`s.
    figures: {name: bytes of a PNG}; the first is the main figure, beside the verdicts.
    captions: {name of a figure: text}.
    lists: (heading, tables) that stand before the figures, such as a comparison.
    cells: a `tables.Table` of every cell, which report.html folds away and report.md leaves out.
    colours: {text of a cell: CSS colour}.

  Returns:
    {name: path} of the files.

  Raises:
    ValueError: the folder or the disk refuses a file.
  """
  checks, shown, figures = list(checks), list(tables), dict(figures or {})
  content = {
    'title': title,
    'meta': meta or {},
    'tables': shown,
    'figures': figures,
    'captions': captions or {},
    'lists': lists,
  }
  parts = {f'{page.slug(name)}.png': png for name, png in figures.items()}
  if shown:
    parts['tables.md'] = _joined(tabular.markdown, shown)
    parts['tables.txt'] = _joined(tabular.text, shown)
  parts['report.md'] = markdown(checks, **content).encode()
  parts['report.html'] = page.render(checks, **content, cells=cells, colours=colours).encode()
  folder = files.path(folder)
  files.tidy(folder, parts)
  return {name: _replace(folder / name, data) for name, data in parts.items()}


def markdown(checks, *, title, meta, tables, figures, captions, lists=()) -> str:
  """The report without its cells as Markdown; figures are files beside it."""
  images = [_image(name, captions) for name in figures]
  safe = tabular.markdown_text
  parts = [f'# {safe(title)}', ' · '.join(f'{safe(k)}: {safe(v)}' for k, v in meta.items())]
  if checks:
    parts += ['## Claims', tabular.markdown(verdict_table(checks)), *images[:1]]
    images = images[1:]
  for heading, shown in lists:
    parts += [f'## {safe(heading)}', *map(tabular.markdown, shown)]
  if checks:
    parts += ['## Evidence', *map(_evidence, checks)]
  if images:
    parts += ['## Figures', *images]
  if tables:
    parts += ['## Tables', *map(tabular.markdown, tables)]
  return '\n\n'.join(part.strip() for part in parts if part.strip()) + '\n'


def verdict_table(checks) -> tabular.Table:
  """Claim, verdict and the number that decides, one line a claim."""
  lines = tuple((v.claim, v.verdict, verdicts.deciding(v)) for v in checks)
  return tabular.Table('What held', ('claim', 'verdict', 'decided by'), lines)


def _evidence(verdict):
  heading, claim, evidence = map(
    tabular.markdown_text,
    (f'{page.words(verdict.name)}: {verdict.verdict}', verdict.claim, verdict.evidence),
  )
  shown = [f'### {heading}', claim]
  shown += [tabular.markdown(table) for table in verdict.tables]
  return '\n\n'.join(part.strip() for part in [*shown, evidence] if part)


def _image(name, captions):
  caption = tabular.markdown_text(captions.get(name, page.words(name)))
  return f'![{caption}]({page.slug(name)}.png)\n\n*{caption}*'


def _joined(form, shown):
  return '\n'.join(map(form, shown)).encode()


def _replace(path, data):
  try:
    files.write(path, data)
  except OSError as error:
    raise ValueError(
      f'cannot write {path}: {error.strerror or error}; '
      'the folder must be writable and the disk must have room'
    ) from None
  return path
