"""The command line: its output, its exit status and the files it writes."""

import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import safetensors.numpy
import tiny_runs

from prunejax import __main__ as command
from prunejax.models import bert
from prunejax.models.hf import bert as bert_hf
from prunejax.train import loop

PRUNE = [f'--config.{k}={v}' for k, v in tiny_runs.PRUNED.items()]


def output_of(capsys, argv, status):
  assert command.main(argv) == status
  captured = capsys.readouterr()
  return captured.err.strip() if status else captured.out


def one_line(capsys, argv, *words):
  line = output_of(capsys, argv, 2)
  assert '\n' not in line and line.startswith('prunejax: ') and 'Traceback' not in line
  for word in words:
    assert word in line, line


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
  folder = tmp_path_factory.mktemp('command') / 'run'
  assert command.main(tiny_runs.argv('train', folder) + PRUNE) == 0
  return folder


def test_train_end_to_end(trained, capsys):
  want = tiny_runs.finished('pruned')
  assert tiny_runs.same_weights(trained, want.folder)
  assert {p.name for p in trained.iterdir()} == {
    'config.json',
    'reads.json',
    'result.json',
    'metrics.jsonl',
    'model',
    'checkpoints',
  }
  assert {'config.json', 'model.safetensors', 'vocab.txt'} <= {
    p.name for p in (trained / 'model').iterdir()
  }
  config = json.loads((trained / 'config.json').read_text())
  assert config['steps'] == 12 and config['prune']['weights']['schedule'] == 'cubic(0.5, end=6)'
  # The second run returns the same scores at once.
  out = output_of(capsys, tiny_runs.argv('train', trained) + PRUNE, 0)
  assert "'mlm_accuracy'" in out and 'train' not in out


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16', 'float16'])
def test_export_of_a_finished_run(trained, tmp_path, capsys, dtype):
  argv = ['export', f'--workdir={trained}', f'--out={tmp_path}/out', f'--dtype={dtype}']
  assert dtype in output_of(capsys, argv, 0)
  params, size = bert_hf.load(tmp_path / 'out')
  ours, _ = bert_hf.load(trained / 'model')
  for name in ('word', 'position'):
    a, b = (tree['embeddings'][name]['embedding'] for tree in (params, ours))
    np.testing.assert_array_equal(a == 0, b == 0)
    np.testing.assert_allclose(a, b, rtol=0 if dtype == 'float32' else 1e-2)
  assert size.hidden_size == 16
  bytes_of = lambda folder: (folder / 'model.safetensors').stat().st_size
  assert bytes_of(tmp_path / 'out') <= bytes_of(trained / 'model') * (
    1 if dtype == 'float32' else 0.8
  )
  one_line(capsys, argv, str(tmp_path / 'out'), 'not empty')


def test_export_from_a_checkpoint(tmp_path, capsys):
  class Stop(Exception):
    pass

  def say(line):
    if 'train 9/12' in line:
      raise Stop

  config = tiny_runs.config(view='apply', prune__weights__zero_pruned=False)
  with pytest.raises(Stop):
    tiny_runs.train(config, tmp_path / 'run', say=say)
  out = output_of(capsys, ['export', f'--workdir={tmp_path}/run', f'--out={tmp_path}/out'], 0)
  assert 'step 8 of 12' in out
  model = safetensors.numpy.load_file(tmp_path / 'out' / 'model.safetensors')
  kernel = model['bert.pooler.dense.weight']
  assert (kernel == 0).mean() == 0.5  # the view, not the latent weights
  assert bert.HEADS[0] in bert_hf.load(tmp_path / 'out')[0]


def test_ctrl_c_says_how_to_continue(monkeypatch, capsys, tmp_path):
  def interrupt(*args, **kwargs):
    raise KeyboardInterrupt

  monkeypatch.setattr(loop, 'train', interrupt)
  assert (
    output_of(capsys, tiny_runs.argv('train', tmp_path / 'run'), 130)
    == 'prunejax: stopped; run the same command again to continue'
  )


def test_a_defect_keeps_its_traceback_and_an_error_shows_one_on_request(monkeypatch, tmp_path):
  def broken(*args, **kwargs):
    raise KeyError('a defect')

  argv = tiny_runs.argv('train', tmp_path / 'run')
  with monkeypatch.context() as patch:
    patch.setattr(loop, 'train', broken)
    with pytest.raises(KeyError):
      command.main(argv)
  monkeypatch.setenv('PRUNEJAX_TRACEBACK', '1')
  with pytest.raises(ValueError, match='stepz'):
    command.main([*argv, '--config.stepz=1'])


def test_sweep_runs_a_config_of_ones_own(tmp_path, capsys):
  shared = tiny_runs.overrides(checkpoint__every=0)
  (tmp_path / 'mine.py').write_text(f"""
from configs import base
from prunejax.train import configs

def get_config(arg):
  return configs.override(base.get_config(), {shared!r})

def sweep():
  for seed in (0, 1):
    yield {{'seed': seed, 'optimizer.learning_rate': 0.01 * (seed + 1)}}
""")
  argv = ['sweep', f'--config={tmp_path}/mine.py', f'--workdir={tmp_path}/sweep']
  out = output_of(capsys, argv, 0)
  assert '2 cells, 0 done, 2 left' in out and '[2/2]' in out
  assert '2 cells, 2 done, 0 left' in output_of(capsys, argv, 0)
  rows = [
    json.loads(line) for line in (tmp_path / 'sweep' / 'ledger.jsonl').read_text().splitlines()
  ]
  assert [row['config']['optimizer.learning_rate'] for row in rows] == [0.01, 0.02]
  assert 'Sweep mine: what each setting gives' in out
  assert (tmp_path / 'sweep' / 'report.html').exists()
  tiny_runs.write_text(tmp_path / 'other' / 'text', seed=1)
  assert command.main([*argv, f'--config.data.root={tmp_path}/other']) == 2
  [line] = capsys.readouterr().err.splitlines()
  assert '2 cells that read other content of data.corpus=text' in line and '--workdir' in line


def test_as_a_process_an_error_is_one_line_on_stderr(tmp_path):
  argv = tiny_runs.argv('train', tmp_path / 'run', data__root='/nowhere')
  done = subprocess.run(
    [sys.executable, '-m', 'prunejax', *argv],
    capture_output=True,
    text=True,
    cwd=tiny_runs.ROOT,
    env={**os.environ, 'JAX_PLATFORMS': 'cpu'},
  )
  assert done.returncode == 2 and done.stdout == '' and len(done.stderr.splitlines()) == 1, (
    done.stderr
  )
  assert '/nowhere/text' in done.stderr


def test_a_dry_run_names_the_task_as_its_config_does(capsys):
  argv = ['train', '--config=configs/finetune.py:nano', '--dry-run']
  argv += ['--config.data.task=pydoc/order', '--config.data.pydoc=packaged']
  assert command.main(argv) == 0
  assert re.search(r'^finetune +pydoc/order ', capsys.readouterr().out, re.MULTILINE)
