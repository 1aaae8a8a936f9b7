"""Two processes on one machine train as one: the masks of one process, and one writer.

A run continues with one process, and then with two again.
"""

import json
import os
import socket
import subprocess
import sys
import threading

import pytest
import tiny_runs

pytestmark = pytest.mark.slow


def port():
  with socket.socket() as probe:
    probe.bind(('localhost', 0))
    return str(probe.getsockname()[1])


def start(index, *words):
  environment = {
    **os.environ,
    'PYTHONPATH': f'{tiny_runs.ROOT}:{tiny_runs.ROOT}/tests',
    'JAX_PLATFORMS': 'cpu',
  }
  environment['XLA_FLAGS'] = tiny_runs.QUICK_COMPILE
  return subprocess.Popen(
    [
      sys.executable,
      str(tiny_runs.ROOT / 'tests' / 'process_program.py'),
      str(index),
      *map(str, words),
    ],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    env=environment,
    cwd=tiny_runs.ROOT,
  )


def hear(process, until):
  """{check: values} of what a process tells, up to the check `until`."""
  heard = {}
  for line in process.stdout:
    if line.startswith('{"check"'):
      row = json.loads(line)
      heard[row.pop('check')] = row
    if until in heard:
      return heard
  raise AssertionError(
    f'ended before {until!r}, after {list(heard)}: {process.stderr.read()[-2000:]}'
  )


@pytest.fixture(scope='module')
def told(tmp_path_factory):
  """What both processes told, and the folder of their runs."""
  folder, at = tmp_path_factory.mktemp('processes'), port()
  tiny_runs.finished('pruned')  # fills the cache that they share
  both = [start(index, at, tiny_runs.home(), folder) for index in (0, 1)]
  # A process that waits for ever would keep the tests waiting too.
  watch = threading.Timer(600, lambda: [process.kill() for process in both])
  watch.start()
  try:
    heard = [hear(process, 'stopped') for process in both]
    saved = [tiny_runs.newest(folder / 'moved')]
    tiny_runs.stopped(
      folder / 'moved', 'train 9/12', checkpoint__every=8
    )  # a key that a run may change
    saved.append(tiny_runs.newest(folder / 'moved'))
    for process in both:
      process.stdin.write('go\n')
      process.stdin.flush()
    heard = [
      {**before, **hear(process, 'written')} for before, process in zip(heard, both, strict=True)
    ]
    assert [process.wait(60) for process in both] == [0, 0]
  finally:
    watch.cancel()
    for process in both:
      process.kill()
      process.communicate()
  return folder, heard, saved


def test_the_command_trains_over_two_processes_and_one_writes(told):
  folder, heard, _ = told
  whole = tiny_runs.finished('pruned')
  assert [h['command'] for h in heard] == [{'status': 0, 'processes': 2, 'devices': 2}] * 2
  result = json.loads((folder / 'whole' / 'result.json').read_text())
  assert (
    result['mask_hash'] == whole.result['mask_hash']
    and result['sparsity'] == whole.result['sparsity']
  )
  assert result['metrics'] == pytest.approx(whole.result['metrics'], rel=1e-5)
  rows, want = tiny_runs.rows(folder / 'whole'), tiny_runs.rows(whole.folder)
  assert [(row['kind'], row['step']) for row in rows] == [
    (row['kind'], row['step']) for row in want
  ]
  assert [row['loss'] for row in rows] == pytest.approx([row['loss'] for row in want], rel=1e-5)
  assert heard[1]['written'] == {'files': []}, 'only process 0 writes'
  assert set(tiny_runs.weights(folder / 'whole')) == set(tiny_runs.weights(whole.folder))


def test_a_population_trains_over_two_processes(told):
  want = {'members': [2, 2], 'hash': tiny_runs.finished('pruned').result['mask_hash']}
  assert [h['population'] for h in told[1]] == [want] * 2


SPLIT = [f'masks/uniform/{name}' for name in ('half', 'layer_0', 'layer_1')]


def test_masks_of_two_processes_are_those_of_one_device(told):
  for heard in told[1]:
    assert heard['masks'] == {'differ': [], 'split': SPLIT, 'alike': [True, True]}


def test_a_run_goes_on_with_one_process_and_with_two_again(told, tmp_path):
  folder, heard, saved = told
  assert [h['stopped'] for h in heard] == [{'saved': True}] * 2
  whole = [
    tiny_runs.newest(tiny_runs.stopped(tmp_path / words[6:7], words))
    for words in ('train 6/12', 'train 9/12')
  ]
  assert saved == whole and [step for step, _ in whole] == [4, 8] and whole[0] != whole[1]
  end = {'hash': tiny_runs.finished('pruned').result['mask_hash'], 'sparsity': 0.5}
  assert [h['ended'] for h in heard] == [end] * 2
