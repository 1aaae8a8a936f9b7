"""The README's example runs; commands of the README and the manual parse; their links exist."""

import pathlib
import re
import shlex

import pytest

from prunejax import __main__ as command

ROOT = pathlib.Path(__file__).parent.parent
README = ROOT / 'README.md'
PAGES = [
  README,
  ROOT / 'CONTRIBUTING.md',
  ROOT / 'CHANGELOG.md',
  *sorted(ROOT.glob('docs/**/*.md')),
]
BLOCK = re.compile(r'^( *)```(\w*)\n(.*?)^ *```', re.DOTALL | re.MULTILINE)


def blocks(path, kind):
  return [text for _, its_kind, text in BLOCK.findall(path.read_text()) if its_kind == kind]


def commands():
  """(page, line) of every `python -m prunejax ...` in a block without a language."""
  lines = [
    (path, line)
    for path in PAGES
    for block in blocks(path, '')
    for line in block.replace('\\\n', ' ').splitlines()
  ]
  found = []
  for path, line in lines:
    start = line.find('-m prunejax ')
    if start >= 0:
      words = line[start + len('-m prunejax ') :].replace('$i', '0')
      words = re.split(r' (?:&&?|\d?>) ', words)[0].rstrip('"')
      found.append(pytest.param(words, id=f'{path.name}: {words.strip()[:60]}'))
  return found


def test_readme_is_short():
  assert len(README.read_text().splitlines()) <= 150


def test_example_runs_and_prints_what_it_says(capsys):
  (code,) = blocks(README, 'python')
  exec(compile(code, 'README.md', 'exec'), {})
  said = re.search(r'print\(.*\)\s*# (\S+)', code).group(1)
  assert capsys.readouterr().out.strip() == said


@pytest.mark.parametrize('words', commands())
def test_commands_parse(words):
  args, rest = command.parser().parse_known_args(shlex.split(words))
  assert args.verb and all(word.startswith('--config.') for word in rest), words
  if args.verb in ('train', 'sweep'):
    from prunejax.train import configs

    config, _ = configs.load(args.config, ROOT)
    configs.override(config, dict(word.removeprefix('--config.').split('=', 1) for word in rest))


def test_paths_of_the_map_exist():
  (tree,) = (block for block in blocks(README, '') if block.startswith('prunejax/'))
  for line in tree.strip().splitlines():
    assert (ROOT / line.split()[0]).is_dir(), line


@pytest.mark.parametrize('path', PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_exist(path):
  for link in re.findall(r'\]\(([^)#\s]+)[^)]*\)', path.read_text()):
    if not re.match(r'[a-z]+:', link):
      assert (path.parent / link).exists(), link
