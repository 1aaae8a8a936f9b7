"""Waves that train at a time end as those that train in turn, also when they are stopped."""

import concurrent.futures
import errno
import json
import os
import signal
import threading
import time

import jax
import pytest
import tiny_runs
from hypothesis import given
from hypothesis import strategies as st

from prunejax.report import ledger
from prunejax.sweep import grid, population, waves
from prunejax.train import full_disk, preemption, program, recipe, resume

CHANGES = [
  {},
  {'seed': 1},
  {'steps': 9},  # ends before the others
  {'optimizer.learning_rate': 1e30},  # fails
]
OFTEN = 2  # steps between checkpoints; two waves save at about one time


def sweep(folder, at_a_time, say=lambda line: None, often=OFTEN, **how):
  config = tiny_runs.config(population__waves=at_a_time, checkpoint__every=often, **how)
  return grid.sweep(config, CHANGES, folder, name='tiny', say=say, compiled=tiny_runs.COMPILED)


def ending(folder):
  """{cell: all that a run leaves but what depends on the clock}."""
  cells = {}
  for row in ledger.read(folder / 'ledger.jsonl'):
    home = folder / 'cells' / row['cell']
    cells[row['cell']] = row.get('failed') or (
      tiny_runs.plain(json.loads((home / 'result.json').read_text())),
      [(one['kind'], one['step']) for one in tiny_runs.rows(home)],
      {name: leaf.tobytes() for name, leaf in tiny_runs.weights(home).items()},
    )
  return cells


@pytest.fixture(scope='module')
def one_by_one(tmp_path_factory):
  folder = tmp_path_factory.mktemp('one')
  sweep(folder, 1)
  return ending(folder)


@pytest.fixture
def together(monkeypatch):
  """Lets no wave begin before two have. Returns what lets the second wave take a second step."""
  both, go, names = threading.Barrier(2), threading.Event(), {}
  begun, engine = population._train_wave, population.engine
  go.set()

  def begin(*args, **how):
    names[threading.get_ident()] = how['title']
    both.wait(timeout=60)
    return begun(*args, **how)

  def held(*args):
    made, steps = engine(*args), iter(range(100))
    second = names[threading.get_ident()].endswith('wave 2/2')

    def step(*given):
      if second and next(steps) == 1:
        assert go.wait(timeout=60)
      return made.step(*given)

    return made._replace(step=step)

  monkeypatch.setattr(population, '_train_wave', begin)
  monkeypatch.setattr(population, 'engine', held)
  return go


@pytest.mark.usefixtures('together')
def test_they_end_as_waves_that_train_one_after_the_other(one_by_one, tmp_path):
  lines, began = [], time.perf_counter()
  rows = sweep(tmp_path, 2, lines.append)
  took = time.perf_counter() - began
  assert ending(tmp_path) == one_by_one and [row['members'] for row in rows] == [2] * 4
  assert all(any(f'wave {n}/2  train 12/12' in line for line in lines) for n in (1, 2))
  assert 0 < sum(row['device_seconds'] for row in rows) <= took
  assert resume.under_way(tmp_path) == {}


@pytest.mark.parametrize('how', ['sigterm', 'error', 'keyboard'])
def test_when_one_is_stopped_the_others_save_and_all_go_on(one_by_one, tmp_path, together, how):
  def say(line):
    if 'wave 1/2  train 6/12' in line:
      together.set()  # the second wave has taken one step
      if how == 'sigterm':
        os.kill(os.getpid(), signal.SIGTERM)
      else:
        raise {'error': RuntimeError, 'keyboard': KeyboardInterrupt}[how](line)

  stopped = {
    'sigterm': (preemption.Preempted, 'step .* of 12 is saved'),
    'error': (RuntimeError, 'train 6/12'),
    'keyboard': (KeyboardInterrupt, 'train 6/12'),
  }
  error, words = stopped[how]
  together.clear()
  with preemption.guard(), pytest.raises(error, match=words):
    sweep(tmp_path, 2, say, often=0)  # nothing is saved on the way
  names = set(resume.under_way(tmp_path))
  saves = [list((tmp_path / 'populations' / name / 'checkpoints').glob('[0-9]*')) for name in names]
  # Of an error nothing is saved in the wave that it ended.
  assert sorted(map(len, saves)) == ([1, 1] if how == 'sigterm' else [0, 1])
  lines = []
  sweep(tmp_path, 2, lines.append, often=0)  # both go on, or the barrier breaks
  assert sum('goes on at step' in line for line in lines) == (2 if how == 'sigterm' else 1)
  assert ending(tmp_path) == one_by_one and resume.under_way(tmp_path) == {}


@pytest.mark.usefixtures('together')
def test_sigterm_does_not_wait_for_the_first_states(tmp_path, monkeypatch):
  made = []

  def first(*args):
    made.append(args)
    if made[0] is args:  # a second SIGTERM would kill the process
      os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.5)
    return initial(*args)

  initial = program.initial_state
  monkeypatch.setattr(program, 'initial_state', first)
  with preemption.guard(), pytest.raises(preemption.Preempted, match='before the first step'):
    sweep(tmp_path, 2)
  assert len(made) <= 2


def test_waves_that_do_not_fit_together_train_in_turn(one_by_one, tmp_path, monkeypatch):
  working, most = [], []
  train = population.loop.train_members

  def counted(*args, **how):
    working.append(1)
    most.append(len(working))
    train(*args, **how)
    working.pop()

  monkeypatch.setattr(population.loop, 'train_members', counted)
  rows = sweep(tmp_path, 2, population__memory=1e-9)
  assert most == [1] * 4 and [row['members'] for row in rows] == [1] * 4
  assert ending(tmp_path) == one_by_one


def test_an_interrupt_while_they_train_stops_all(monkeypatch):
  """Ctrl-C comes to the main thread, which waits for them."""
  both, stopped = threading.Barrier(3), []

  def wave(told, now):
    both.wait(timeout=60)
    until = time.monotonic() + 60
    while not told() and time.monotonic() < until:
      time.sleep(0.01)
    stopped.append(told())
    raise preemption.Preempted

  def interrupted(ended):
    both.wait(timeout=60)
    raise KeyboardInterrupt

  monkeypatch.setattr(concurrent.futures, 'wait', interrupted)
  with pytest.raises(KeyboardInterrupt):
    waves.side_by_side([wave, wave], 2, {})
  assert stopped == [True, True]


def test_the_first_error_in_time_is_raised_and_the_others_are_noted(tmp_path):
  both = threading.Barrier(2)

  def later(told, now):
    both.wait(timeout=60)
    while not told():
      time.sleep(0.01)
    raise ValueError('cannot save')

  def earlier(told, now):
    both.wait(timeout=60)
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

  with pytest.raises(OSError, match='no space is left') as raised, full_disk.one_error(tmp_path):
    waves.side_by_side([later, earlier], 2, {})
  assert raised.value.__cause__.__notes__ == ['another wave ended with ValueError: cannot save']


def test_waves_share_the_time_that_passes_while_they_train():
  clock, read = iter([0.0, 1.0, 3.0, 4.0, 8.0, 10.0]), []
  shared = waves.Clock(lambda: next(clock))
  shared.count(1)  # at 1: a second passed without waves
  shared.count(1)  # at 3: two seconds for the first alone
  read.append(shared.now())  # at 4: half a second for each
  shared.count(-1)  # at 8: two seconds for each
  read.append(shared.now())  # at 10: two seconds for the one that is left
  assert read == [3.5, 7.5]


def test_no_two_call_the_ledger_at_once():
  inside, most = [], []

  def settle():
    inside.append(1)
    most.append(len(inside))
    time.sleep(0.01)
    inside.pop()

  def wave(settle, told, now):
    for _ in range(5):
      settle()

  waves.side_by_side([wave] * 4, 2, {'settle': settle})
  assert most == [1] * 20


@pytest.mark.parametrize('platform, devices', [('cpu', 8), ('gpu', 1)])
def test_several_are_refused_but_on_one_cpu_before_anything_runs(
  tmp_path, monkeypatch, platform, devices
):
  monkeypatch.setattr(jax, 'default_backend', lambda: platform)
  monkeypatch.setattr(jax, 'device_count', lambda: devices)
  words = f'population.waves=2: .*one CPU device only, and here are {devices} of {platform}'
  with pytest.raises(ValueError, match=words):
    sweep(tmp_path, 2)
  assert not (tmp_path / 'cells').exists()


def test_two_of_small_members_where_there_are_cores(monkeypatch):
  small = {'w': jax.ShapeDtypeStruct((8,), 'float32')}
  large = {'w': jax.ShapeDtypeStruct((population.SMALL,), 'float32')}
  run = recipe.resolve(tiny_runs.config())
  at_a_time = lambda cores, state: (
    monkeypatch.setattr(population, '_cores', lambda: cores)
    or population.waves_at_a_time(run, state)
  )
  assert [at_a_time(4, small), at_a_time(1, small), at_a_time(4, large)] == [2, 1, 1]


@given(st.lists(st.integers(1, 100), min_size=1), st.integers(1, 12), st.integers(1, 4))
def test_every_run_is_in_one_wave(steps, width, at_a_time):
  runs = sorted(steps)
  made = waves.divided(runs, width, at_a_time)
  assert sorted(run for wave in made for run in wave) == runs
  assert all(1 <= len(wave) <= width and list(wave) == sorted(wave) for wave in made)
  if at_a_time > 1 and len(runs) >= at_a_time:
    sizes = [len(wave) for wave in made]
    assert len(made) % at_a_time == 0 or len(made) == len(runs)
    assert max(sizes) - min(sizes) <= 1
