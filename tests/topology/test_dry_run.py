"""A dry run: answers of a worker, kept by the text of a program, and the table of them."""

import json
import math
import os
import signal
import subprocess
import sys
import types

import jax
import pytest
import tiny_runs

from prunejax.report import tables
from prunejax.topology import chips, dry_run, own, programs, report, slices, table, worker
from prunejax.train import configs, recipe

CHIP = chips.Chip('toy', ('toy',), 100.0, 50.0, 2**30, 10.0, 4.0, 'made up')
COST = {'flops': {'bf16': 200.0, 'f32': 50.0}, 'bytes': 20.0, 'sent': 2.0, 'collectives': {}}


def request(count=1, due=0.5, steps=((10,),)):
  run = recipe.resolve(tiny_runs.config())
  return programs.Request('toy', run, (), ('a',) * count, steps, due)


def answer(**changes):
  usual = {
    'reason': '',
    'chip': CHIP._asdict(),
    'chips': 4,
    'hosts': 1,
    'device': 'toy',
    'mesh': {'data': 4, 'model': 1},
    'places': 1,
    'arguments': 2**28,
    'temporaries': 2**28,
    'held': 2**29,
    'step': COST,
    'mask_step': {**COST, 'bytes': 50.0},
  }
  return {**usual, **changes}


@pytest.mark.parametrize(
  'changes, seconds, bound',
  [
    ({}, 3.0, 'FLOPs'),  # 200 / 100 + 50 / 50
    ({'bytes': 50.0}, 5.0, 'memory'),
    ({'sent': 40.0}, 10.0, 'links'),
  ],
)
def test_the_least_time_is_that_of_the_tightest_bound(changes, seconds, bound):
  assert table.seconds(COST | changes, CHIP) == (seconds, bound)


def test_links_of_unknown_speed_do_not_count():
  assert table.seconds(COST | {'sent': 1e9}, CHIP._replace(links=0.0)) == (3.0, 'FLOPs')


def test_figures_of_a_run():
  found = table.figures(request(), answer())
  assert (found['step'], found['mask_step'], found['mean']) == (3.0, 5.0, 4.0)
  assert found['tokens'] == 8 * 16 / 4.0 / 4  # batch 8 of 16 tokens, 4 s, 4 chips
  assert math.isclose(found['chip_hours'], 10 * 4.0 * 4 / 3600)


def test_figures_of_members_count_waves_and_leave_empty_places_out():
  many = request(3, due=0.0, steps=((10, 20, 30),))
  found = table.figures(many, answer(places=4))
  assert (found['members'], found['steps']) == (3, 30)
  found = table.figures(many, answer(places=2))
  assert (found['members'], found['steps']) == (2, 20 + 30)
  assert found['tokens'] == 2 * 8 * 16 / 3.0 / 4


def test_a_table_says_what_does_not_compile():
  refused = {'reason': 'needs 99 GiB', 'chip': CHIP._asdict(), 'chips': 4, 'hosts': 2} | {
    'device': 'toy'
  }
  made = table.make([request(), request()], [answer(), refused], 'title')
  text = tables.text(made)
  assert 'no: needs 99 GiB' in text and '1 of 2' in text and 'made up' in text
  assert 'What a compiler does not know' in text


@pytest.fixture
def quick_chip(monkeypatch):
  monkeypatch.setattr(own, 'measured', lambda device: CHIP)


def test_an_answer_is_kept_by_the_text_of_its_program(tmp_path, quick_chip, monkeypatch):
  asked = programs.of_run(recipe.resolve(tiny_runs.config()), 'tiny')
  first = worker.respond('cpu', asked, str(tmp_path))
  assert first['reason'] == '' and first['chips'] == 1 and first['places'] == 1
  assert first['arguments'] > 0 and first['held'] >= first['arguments']
  assert len(list(tmp_path.iterdir())) == 1
  again = worker.respond('cpu', asked, str(tmp_path))
  assert again.pop('cached') and again['step'] == first['step']
  # Numbers are data of the program: another rate is no other program, another batch is.
  other = configs.override(tiny_runs.config(), {'optimizer.learning_rate': 0.5})
  assert worker.respond('cpu', programs.of_run(recipe.resolve(other), ''), str(tmp_path))['cached']


def test_flags_of_the_compiler_and_the_device_are_part_of_the_name(tmp_path, monkeypatch):
  lowered = jax.jit(lambda x: x + 1).lower(1.0)

  def compiled(kind='toy'):
    on = slices.Slice('cpu', CHIP, [types.SimpleNamespace(device_kind=kind)], 1)
    return worker._compiled(lowered, 'cpu', str(tmp_path), on, {}).get('cached', False)

  assert [compiled(), compiled(), compiled('other'), compiled('other')] == [False, True] * 2
  for name in ('XLA_FLAGS', 'LIBTPU_INIT_ARGS'):
    with monkeypatch.context() as changed:
      changed.setenv(name, '--xla_something=true')
      assert [compiled(), compiled()] == [False, True]
    assert compiled()


@pytest.mark.parametrize('count', [1, 2])
def test_a_program_that_the_memory_cannot_hold_does_not_compile(count, tmp_path, monkeypatch):
  run = recipe.resolve(tiny_runs.config())
  asked = programs.Request('toy', run, (), ('a',) * count, ((10,) * count,), 0.5)
  said = {'reason': '', 'held': 3 * 2**29, 'step': COST, 'mask_step': COST}
  monkeypatch.setattr(worker, '_compiled', lambda *_: said)
  found = worker.respond('cpu', asked, '', peaks=CHIP._asdict())
  assert found['reason'] == 'needs 1.50 GiB of a chip with 1 GiB' and found['places'] == 1
  roomy = CHIP._replace(memory=2.0**31)
  assert worker.respond('cpu', asked, '', peaks=roomy._asdict())['reason'] == ''


@pytest.mark.slow
def test_members_are_compiled_as_the_grid_does(tmp_path, quick_chip):
  config = tiny_runs.config()
  many = programs.Request('', recipe.resolve(config), (), ('a', 'a', 'b'), ((12, 12, 12),), 0.5)
  found = worker.respond('cpu', many, str(tmp_path))
  assert found['reason'] == '' and found['places'] == 3 and found['mesh']['members'] == 1
  tight = configs.override(config, {'population.memory': found['held'] * 0.8 / 2**30})
  found = worker.respond('cpu', many._replace(recipe=recipe.resolve(tight)), str(tmp_path))
  assert found['places'] < 3 and found['widths'][-1] == 3


def test_a_mesh_that_does_not_fit_is_the_reason(tmp_path, quick_chip):
  asked = recipe.resolve(configs.override(tiny_runs.config(), {'mesh.model': 7}))
  asked = programs.of_run(asked, '')
  found = worker.respond('cpu', asked, str(tmp_path))
  assert 'mesh.model=7' in found['reason'] and found['wrong_input']


def test_a_mesh_that_fits_no_program_is_one_line(monkeypatch):
  refused = {'reason': 'mesh.model=7 does not use 4 devices', 'wrong_input': True, 'seconds': 1.0}
  monkeypatch.setattr(dry_run, '_asked', lambda *rest: refused)
  with pytest.raises(ValueError, match='--topology=v5e:2x2: mesh.model=7'):
    report.of_requests([request()], '', ['v5e:2x2'], say=lambda line: None)


def test_a_worker_that_dies_is_a_reason(monkeypatch):
  monkeypatch.setattr(dry_run, 'WORKER', 'no.such.module')
  found = dry_run._asked({'topology': 'cpu'}, set())
  assert 'the compiler ended with' in found['reason'] and 'no.such.module' in found['reason']


def test_a_slice_that_the_compiler_lacks_is_an_error(monkeypatch):
  code = 'import sys; sys.stderr.write("ValueError: --topology=v5p:8x8x1: libtpu has no such");'
  start = subprocess.Popen
  words = [sys.executable, '-c', code + 'sys.exit(1)']
  monkeypatch.setattr(subprocess, 'Popen', lambda _, **how: start(words, **how))
  with pytest.raises(ValueError, match=r'^--topology=v5p:8x8x1: libtpu has no such'):
    dry_run._asked({'topology': 'v5p:8x8x1'}, set())


def test_a_command_that_is_stopped_stops_its_workers(monkeypatch):
  started, words = [], [sys.executable, '-c', 'import time; time.sleep(60)']
  start = subprocess.Popen

  def sleeping(_, **how):
    started.append(start(words, **how))
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    return started[-1]

  def stop(*_):
    raise KeyboardInterrupt

  before = signal.signal(signal.SIGALRM, stop)
  monkeypatch.setattr(subprocess, 'Popen', sleeping)
  try:
    with pytest.raises(KeyboardInterrupt):
      dry_run.compile_all([request()], 'cpu', cache='unused', say=lambda line: None)
  finally:
    signal.signal(signal.SIGALRM, before)
  assert started[0].wait(10) == -signal.SIGKILL


def test_workers_do_not_look_for_a_tpu():
  assert dry_run._environment('v5e:4x4').items() >= slices.ENVIRONMENT.items()
  assert dry_run._environment('cpu')['JAX_PLATFORMS'] == 'cpu'
  assert 'JAX_PLATFORMS' not in slices.environment('gpu')


@pytest.mark.slow
def test_the_command_writes_its_table(tmp_path):
  config = tmp_path / 'tiny.py'
  config.write_text('import tiny_runs\nget_config = lambda arg="": tiny_runs.config()\n')
  out = tmp_path / 'table.md'
  words = ['train', f'--config={config}', '--dry-run', '--topology=cpu', f'--out={out}']
  ran = subprocess.run(
    [sys.executable, '-m', 'prunejax', *words],
    capture_output=True,
    text=True,
    env={
      **os.environ,
      'PYTHONPATH': f'{tiny_runs.ROOT}:{tiny_runs.ROOT / "tests"}',
      'PRUNEJAX_CACHE': str(tmp_path),
    },
  )
  assert ran.returncode == 0, ran.stderr
  assert '[1/1]' in ran.stdout and 'compiles' in ran.stdout and 'tokens/s a chip' in ran.stdout
  assert '--topology=cpu' in out.read_text() and 'measured here' in out.read_text()
  kept = json.loads(out.with_suffix('.json').read_text())
  assert kept['cpu'][0]['figures']['step'] > 0
