"""The start-up time of a command, and its error when a package is missing."""

import os
import re
import subprocess
import sys
import tomllib
from importlib import metadata

import pytest
import tiny_runs

import prunejax
from prunejax import __main__ as command
from prunejax.cli import extras
from prunejax.cli.command import VERBS
from prunejax.train import loop

PYPROJECT = tomllib.loads((tiny_runs.ROOT / 'pyproject.toml').read_text())['project']
# Distributions whose importable package has another name.
IMPORTED_AS = {'scikit-learn': 'sklearn', 'orbax-checkpoint': 'orbax'}
HEAVY = ('jax', 'numpy', 'optax', 'flax', 'transformers', 'ml_collections', 'matplotlib')
PROGRAM = """
import sys
from prunejax.__main__ import main
try:
  main({argv})
finally:
  print([name for name in {heavy} if name in sys.modules])
"""


def run(*argv):
  return subprocess.run(
    [sys.executable, *argv],
    capture_output=True,
    text=True,
    cwd=tiny_runs.ROOT,
    env={**os.environ, 'PYTHONPATH': str(tiny_runs.ROOT)},
  )


@pytest.mark.parametrize('argv', [['--help'], ['--version'], *([verb, '--help'] for verb in VERBS)])
def test_help_imports_nothing_heavy(argv):
  done = run('-c', PROGRAM.format(argv=argv, heavy=HEAVY))
  assert done.returncode == 0 and done.stdout.splitlines()[-1] == '[]', done


@pytest.mark.parametrize('verb', VERBS)
def test_help_names_every_option(verb, capsys):
  with pytest.raises(SystemExit) as end:
    command.main([verb, '--help'])
  text = capsys.readouterr().out
  assert end.value.code == 0 and VERBS[verb].SUMMARY.split(',')[0] in ' '.join(text.split())
  assert ('--config.' in text) == VERBS[verb].TAKES_CONFIG


def test_help_names_every_verb(capsys):
  with pytest.raises(SystemExit) as end:
    command.main(['--help'])
  text = capsys.readouterr().out
  assert end.value.code == 0 and all(re.search(rf'^ +{verb} ', text, re.M) for verb in VERBS)


BASE = ('--config=configs/base.py', '--workdir=nowhere/run')
REFUSED = {
  'a key': ('train', *BASE, '--config.stepz=1'),
  'a value': ('train', *BASE, '--config.steps=0'),
  'a spec': ('train', *BASE, '--config.prune.weights.schedule=cubik(0.9)'),
  'a task': ('train', *BASE, '--config.data.task=glue/colla'),
  'a model': ('train', *BASE, '--config.init=nowhere/bert'),
  'a value of a sweep': ('sweep', '--config=configs/sparsity.py', BASE[1], '--config.steps=0'),
  'a paper': ('reproduce', 'gordon2021'),
  'a preset': ('reproduce', 'gordon2020', '--preset=wrong'),
  'a preset of a small paper': ('reproduce', 'lecun1990', '--preset=wrong'),
  'a work directory': ('report', 'nowhere'),
  'a run': ('export', 'nowhere', '--out=nowhere/else'),
  'a bench': ('bench', '--only=selektion'),
}


# What a run needs and a refusal does not: seconds to load, or a device of the machine to hold.
UNNEEDED = ('matplotlib', 'transformers', 'tensorflow', 'a device')
REFUSAL = """
import sys
from prunejax.__main__ import main
try:
  sys.exit(main({argv}))
finally:
  if 'jax' in sys.modules and sys.modules['jax._src.xla_bridge'].backends_are_initialized():
    sys.modules['a device'] = None
  print([name for name in {unneeded} if name in sys.modules])
"""


@pytest.mark.parametrize('what', REFUSED)
def test_wrong_input_is_refused_before_anything_is_loaded_or_compiled(what):
  done = run('-c', REFUSAL.format(argv=list(REFUSED[what]), unneeded=UNNEEDED))
  assert done.returncode == 2 and done.stderr.startswith('prunejax: '), done
  assert done.stdout.splitlines()[-1] == '[]', done


def test_a_run_would_ask_for_a_device():
  program = REFUSAL.replace('sys.exit(main({argv}))', 'import jax; jax.devices()')
  done = run('-c', program.format(unneeded=UNNEEDED))
  assert done.stdout.splitlines()[-1] == "['a device']", done


def test_the_version_is_printed(capsys):
  with pytest.raises(SystemExit) as end:
    command.main(['--version'])
  assert end.value.code == 0
  assert capsys.readouterr().out == f'prunejax {prunejax.__version__}\n'
  assert prunejax.__version__ == metadata.version('prunejax')


def test_the_citation_names_the_version():
  citation = (tiny_runs.ROOT / 'CITATION.cff').read_text()
  assert f'\nversion: {PYPROJECT["version"]}\n' in citation


def test_a_folder_that_is_not_installed_has_an_unknown_version(monkeypatch):
  def missing(name):
    raise metadata.PackageNotFoundError(name)

  monkeypatch.setattr(metadata, 'version', missing)
  monkeypatch.delitem(vars(prunejax), '__version__', raising=False)
  try:
    assert prunejax.__version__ == '0+unknown'
  finally:
    vars(prunejax).pop('__version__')  # the next import finds the real one


def refused(capsys, argv):
  assert command.main(argv) == 2
  line = capsys.readouterr().err.strip()
  assert '\n' not in line and line.startswith('prunejax: '), line
  return line


@pytest.mark.parametrize('name', extras.REQUIRED['train'])
def test_a_missing_package_is_reported_before_anything_starts(monkeypatch, capsys, tmp_path, name):
  monkeypatch.setitem(sys.modules, name, None)
  line = refused(capsys, tiny_runs.argv('train', tmp_path / 'out'))
  assert line == f"prunejax: {name} is not installed: python -m pip install -e '.[train]'"
  assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize('name', extras.EXTRAS)
def test_an_import_that_fails_later_names_the_extra(monkeypatch, capsys, tmp_path, name):
  def absent(*args, **kwargs):
    monkeypatch.setitem(sys.modules, name, None)
    __import__(f'{name}.something')

  monkeypatch.setattr(loop, 'train', absent)
  line = refused(capsys, tiny_runs.argv('train', tmp_path / 'out'))
  extra = extras.EXTRAS[name]
  wanted = f"pip install -e '.[{extra}]'" if extra else 'pip install -e .'
  assert f'{name} is not installed' in line and line.endswith(wanted)


@pytest.mark.parametrize('name', ['prunejax.train.step', 'somebody_elses', None])
def test_a_wrong_import_of_ours_keeps_its_traceback(monkeypatch, tmp_path, name):
  def broken(*args, **kwargs):
    raise ImportError(f'cannot import name {name!r}', name=name)

  monkeypatch.setattr(loop, 'train', broken)
  with pytest.raises(ImportError, match='cannot import name'):
    command.main(tiny_runs.argv('train', tmp_path / 'out'))


def test_every_package_of_an_extra_is_known():
  declared = {'': PYPROJECT['dependencies'], **PYPROJECT['optional-dependencies']}
  for extra in set(extras.EXTRAS.values()):
    names = [re.match(r'[\w-]+', requirement)[0] for requirement in declared[extra]]
    wanted = {IMPORTED_AS.get(name, name.replace('-', '_')) for name in names}
    assert wanted == {name for name, of in extras.EXTRAS.items() if of == extra}
  for extra, names in extras.REQUIRED.items():
    assert {extras.EXTRAS[name.partition('.')[0]] for name in names} == {extra}


def test_an_installation_without_experiments_says_so(monkeypatch, capsys, tmp_path):
  from prunejax.cli import papers

  monkeypatch.setattr(papers, 'FOLDER', tmp_path)
  line = refused(capsys, ['reproduce', 'gordon2020', f'--workdir={tmp_path}/out'])
  assert "no experiment 'gordon2020'" in line and 'checkout' in line
