"""Waves that train at a time end as those that train in turn, also when they are stopped."""

import concurrent.futures
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
from prunejax.train import preemption, recipe, resume

CHANGES = [
  {},
  {'seed': 1},
  {'steps': 9},  # ends before the others
  {'optimizer.learning_rate': 1e30},  # fails
]
OFTEN = 2  # steps between checkpoints; two waves save at about one time


def sweep(folder, at_a_time, say=lambda line: None, changes=CHANGES):
  config = tiny_runs.config(population__waves=at_a_time, checkpoint__every=OFTEN)
  return grid.sweep(config, changes, folder, name='tiny', say=say, compiled=tiny_runs.COMPILED)


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
  """Lets no wave begin before two have."""
  both, begun = threading.Barrier(2), population._train_wave

  def begin(*args, **how):
    both.wait(timeout=60)
    return begun(*args, **how)

  monkeypatch.setattr(population, '_train_wave', begin)


@pytest.mark.usefixtures('together')
def test_they_end_as_waves_that_train_one_after_the_other(one_by_one, tmp_path):
  lines, began = [], time.perf_counter()
  rows = sweep(tmp_path, 2, lines.append)
  took = time.perf_counter() - began
  assert ending(tmp_path) == one_by_one and [row['members'] for row in rows] == [2] * 4
  assert all(any(f'wave {n}/2  train 12/12' in line for line in lines) for n in (1, 2))
  assert 0 < sum(row['device_seconds'] for row in rows) <= took, 'they share the time that passes'
  assert resume.under_way(tmp_path) == {}


@pytest.mark.usefixtures('together')
@pytest.mark.parametrize('how', ['sigterm', 'error', 'keyboard'])
def test_when_one_is_stopped_all_have_saved_and_go_on_together(one_by_one, tmp_path, how):
  def say(line):
    if 'wave 1/2  train 6/12' in line:
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
  with preemption.guard(), pytest.raises(error, match=words):
    sweep(tmp_path, 2, say)
  names = set(resume.under_way(tmp_path))
  assert len(names) == 2 and all(
    any(path.name.isdigit() for path in (tmp_path / 'populations' / name / 'checkpoints').iterdir())
    for name in names
  )
  lines = []
  sweep(tmp_path, 2, lines.append)  # both go on, or the barrier breaks
  assert sum('goes on at step' in line for line in lines) == 2
  assert ending(tmp_path) == one_by_one and resume.under_way(tmp_path) == {}


def test_an_interrupt_while_they_train_stops_all(monkeypatch):
  """Ctrl-C comes to the main thread, which waits for them."""
  stopped = []

  def wave(asked, waves):
    while not asked():
      time.sleep(0.01)
    stopped.append(waves())
    raise preemption.Preempted

  def interrupted(ended):
    raise KeyboardInterrupt

  monkeypatch.setattr(concurrent.futures, 'wait', interrupted)
  with pytest.raises(KeyboardInterrupt):
    waves.side_by_side([wave, wave], 2, {})
  assert len(stopped) <= 2  # one that had not begun does not begin


def test_no_two_call_the_ledger_at_once():
  inside, most = [], []

  def settle():
    inside.append(1)
    most.append(len(inside))
    time.sleep(0.01)
    inside.pop()

  def wave(settle, asked, waves):
    for _ in range(5):
      settle()

  waves.side_by_side([wave] * 4, 2, {'settle': settle})
  assert most == [1] * 20


def test_several_on_several_devices_are_refused(monkeypatch):
  run = recipe.resolve(tiny_runs.config(population__waves=2))
  monkeypatch.setattr(jax, 'device_count', lambda: 8)
  with pytest.raises(ValueError, match='population.waves=2.*single device; there are 8'):
    population.waves_at_a_time(run, {})


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
