"""What the README shows, runs."""

import pathlib
import re
import shlex

import pytest

from prunejax import __main__ as command

ROOT = pathlib.Path(__file__).parent.parent
TEXT = (ROOT / 'README.md').read_text()
BLOCKS = re.findall(r'```(\w*)\n(.*?)```', TEXT, re.DOTALL)
COMMANDS = [
  part.strip()
  for kind, block in BLOCKS
  if not kind
  for line in block.replace('\\\n', ' ').splitlines()
  for part in line.split('&&')
  if part.strip().startswith('python -m prunejax')
]


@pytest.mark.parametrize('code', [block for kind, block in BLOCKS if kind == 'python'])
def test_example_runs_and_prints_what_it_says(code, capsys):
  exec(compile(code, 'README.md', 'exec'), {})
  said = re.search(r'print\(.*\)\s*# (\S+)', code).group(1)
  assert capsys.readouterr().out.strip() == said


@pytest.mark.parametrize('line', COMMANDS)
def test_commands_parse(line):
  args, rest = command.parser().parse_known_args(shlex.split(line)[3:])
  assert args.verb and all(word.startswith('--config.') for word in rest), line
  if args.verb in ('train', 'sweep'):
    from prunejax.train import configs

    config, _ = configs.load(args.config, ROOT)
    configs.override(config, dict(word.removeprefix('--config.').split('=', 1) for word in rest))


def test_paths_of_the_map_exist():
  tree = next(block for kind, block in BLOCKS if not kind and block.startswith('prunejax/'))
  for line in tree.strip().splitlines():
    assert (ROOT / line.split()[0]).is_dir(), line
  for link in re.findall(r'\]\(([^)#]+)\)', TEXT):
    assert (ROOT / link).exists(), link
