"""MkDocs hooks: links to files of the repository, pages of rooms, and names of the API.

Pages link to such files as they would in the repository, `../experiments/league/README.md`, so that
the links work in both places. This hook adds each linked file to the site and rewrites the link.
Markdown files become pages, whose own links are followed; other files are copied as they are. A
folder without a README.md becomes a page that lists its files.

Every room of the package that has no page of its own in docs/api gets one, `api/rooms/NAME.md`, and
a row in the table of `api/rooms.md`.

API pages name a function as users do, `::: prunejax.magnitude`. mkdocstrings reads source files, so
this hook replaces that name by the module that defines the function.
"""

import inspect
import os
import pathlib
import pkgutil
import posixpath
import re

from mkdocs.structure.files import File

ROOT = pathlib.Path(__file__).parents[1]
LINK = re.compile(r'(?<!`)(\]\()([^)\s#`]+)((?:#[^)\s]*)?\))')
OWN_PAGES = ('pruning', 'observe')  # rooms whose names are sorted by hand in docs/api
FROM_ROOT = ('CONTRIBUTING.md', 'CHANGELOG.md')
NAME = re.compile(r'^::: (prunejax(?:\.\w+)*)$', re.MULTILINE)
CODE = re.compile(r'^(```|~~~).*?^\1', re.DOTALL | re.MULTILINE)


def on_files(files, config):
  """Adds the files that pages link to, and those that linked pages link to."""
  waiting = [ROOT / name for name in FROM_ROOT]
  pages = [pathlib.Path(page.abs_src_path) for page in files.documentation_pages()]
  for page in pages:
    waiting += _linked(page)
  seen = set()
  while waiting:
    path = waiting.pop()
    if path in seen or not path.exists() or path.is_relative_to(ROOT / 'docs'):
      continue
    seen.add(path)
    if path.is_dir():
      listed = sorted(file for file in path.iterdir() if file.is_file())
      rows = [f'- [{file.name}]({file.name})' for file in listed]
      text = '\n'.join([f'# {path.relative_to(ROOT)}', '', *rows, ''])
      files.append(File.generated(config, _in_site(path), content=text))
      waiting += listed
      continue
    files.append(File.generated(config, _in_site(path), abs_src_path=str(path)))
    if path.suffix == '.md':
      waiting += _linked(path)
  for room in _rooms():
    text = (
      f'# prunejax.{room}\n\n::: prunejax.{room}\n'
      '    options: {show_submodules: true, show_root_heading: false, heading_level: 2}\n'
    )
    files.append(File.generated(config, f'api/rooms/{room}.md', content=text))
  return files


def on_page_markdown(markdown, page, config, files):
  """Rewrites links to files of the repository, and names of the API."""
  if page.file.abs_src_path is None:
    return markdown  # a page of a room
  source = pathlib.Path(page.file.abs_src_path).resolve()
  here = posixpath.dirname(page.file.src_uri)

  def rewrite(match):
    path = _target(source, match[2])
    if path is None or not path.exists():
      return match[0]  # a link to the web, or a broken link, which the strict build reports
    return f'{match[1]}{posixpath.relpath(_in_site(path), here or ".")}{match[3]}'

  markdown = markdown.replace('<!-- rooms -->', _table_of_rooms())
  markdown = NAME.sub(lambda match: f'::: {_defined(match[1])}', markdown)
  return LINK.sub(rewrite, markdown)


def _defined(name):
  """Where a public name is defined: 'prunejax.magnitude' -> 'prunejax.pruning....magnitude'."""
  value = pkgutil.resolve_name(name)
  return value.__name__ if inspect.ismodule(value) else f'{value.__module__}.{value.__qualname__}'


def _rooms():
  packages = sorted(path.parent.name for path in ROOT.glob('prunejax/*/__init__.py'))
  return [name for name in packages if name not in OWN_PAGES]


def _table_of_rooms():
  rows = ['| room | modules |', '|---|---|']
  for room in _rooms():
    modules = sorted(path.stem for path in ROOT.glob(f'prunejax/{room}/*.py'))
    names = ' '.join(f'`{name}`' for name in modules if name != '__init__')
    rows.append(f'| [prunejax.{room}](rooms/{room}.md) | {names} |')
  return '\n'.join(rows)


def _linked(path):
  text = CODE.sub('', path.read_text())
  targets = (_target(path, match[2]) for match in LINK.finditer(text))
  return [target for target in targets if target is not None]


def _target(source, link):
  """The file or folder of the repository that a relative link means.

  A folder that has a README.md means that file.
  """
  if re.match(r'[a-z]+:|/', link):
    return None
  path = pathlib.Path(os.path.normpath(source.parent / link))
  path = path / 'README.md' if (path / 'README.md').is_file() else path
  return path if path.is_relative_to(ROOT) else None


def _in_site(path):
  """The place of a file in the site: pages of docs/ at the top, all else as in the repository."""
  path = path / 'README.md' if path.is_dir() else path  # a list of the files in the folder
  inside = path.is_relative_to(ROOT / 'docs')
  return path.relative_to(ROOT / 'docs' if inside else ROOT).as_posix()
