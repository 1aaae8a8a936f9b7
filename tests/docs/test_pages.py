"""The Python blocks of every page of the manual run, in order, in one namespace a page.

The comment after each `print` is its output, and nothing else is printed.

The front matter of a page says what its program needs. `needs:` names packages without which the
test is skipped. `mark: docs` moves the page to `python -m pytest -m docs`. A page that needs a
package outside the extra `test` has that mark.
"""

import importlib.util
import pathlib
import re

import pytest

DOCS = pathlib.Path(__file__).parents[2] / 'docs'
BLOCK = re.compile(r'^```python[^\n]*\n(.*?)^```', re.DOTALL | re.MULTILINE)
PRINTED = re.compile(r'^ *print\(.*\)  # (.+)$', re.MULTILINE)


def front_matter(text):
  """The `key: value` lines between the first two `---` lines of a page."""
  match = re.match(r'---\n(.*?)\n---\n', text, re.DOTALL)
  return dict(line.split(': ', 1) for line in match.group(1).splitlines()) if match else {}


def installed(package):
  """True if a package, or a module whose name has dots, is there."""
  try:
    return importlib.util.find_spec(package) is not None
  except ModuleNotFoundError:
    return False


def programs():
  found = []
  for path in sorted(DOCS.rglob('*.md')):
    text = path.read_text()
    if BLOCK.search(text):
      meta = front_matter(text)
      marks = [pytest.mark.docs] if meta.get('mark') == 'docs' else []
      name = str(path.relative_to(DOCS))
      found.append(pytest.param(path, meta.get('needs', '').split(), marks=marks, id=name))
  return found


@pytest.mark.parametrize('path, needs', programs())
def test_program_runs_and_prints_what_it_says(path, needs, capsys, tmp_path, monkeypatch):
  for package in needs:
    if not installed(package):
      pytest.skip(f'{path.name} needs {package}, which is not installed')
  monkeypatch.chdir(tmp_path)
  text = path.read_text()
  namespace = {'__name__': '__main__'}
  for match in BLOCK.finditer(text):
    first_line = text.count('\n', 0, match.start(1))
    exec(compile('\n' * first_line + match.group(1), path, 'exec'), namespace)
  printed = [line.strip() for line in capsys.readouterr().out.splitlines()]
  assert printed == PRINTED.findall(text)


def test_there_are_pages():
  assert len(programs()) >= 10
