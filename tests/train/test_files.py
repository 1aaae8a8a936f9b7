"""Files of a work directory: whole or not at all, here and in a store that refuses now and then."""

import errno
import gc
import itertools
import json
import os
import pathlib
import subprocess
import sys
import threading
import time

import flaky_store
import pytest
import tiny_runs

from prunejax import files
from prunejax.report import ledger
from prunejax.sweep import grid
from prunejax.train import export, workdir


@pytest.fixture(params=['local', 'flaky'])
def folder(request, tmp_path, monkeypatch):
  """A new folder: here, and in a store of which every third request fails."""
  monkeypatch.setattr(files, 'PAUSE', 0.0)
  flaky_store.Store.reset(0.35)
  yield files.path(tmp_path / 'new' if request.param == 'local' else 'flaky://bucket/new')
  flaky_store.Store.reset(0.0)


def test_a_scratch_folder_goes_with_the_last_reference_to_it():
  folder = files.scratch()
  (folder / 'a.txt').write_text('a')
  where, again = str(folder), folder
  del folder
  gc.collect()
  assert os.listdir(where) == ['a.txt'] and pathlib.Path(again) == pathlib.Path(where)
  del again
  gc.collect()
  assert not os.path.exists(where)


def test_a_local_copy_is_that_of_the_store_now(monkeypatch):
  monkeypatch.setattr(files, 'PAUSE', 0.0)
  flaky_store.Store.reset(0.0)
  there = files.path('flaky://bucket/copied')
  for text in ('one', 'two'):
    files.write(there / 'a.txt', text)
    copy = files.local(there)
    assert (copy / 'a.txt').read_text() == text


def test_what_is_written_is_read_and_listed(folder):
  assert not files.exists(folder) and files.names(folder) == []
  for i in range(20):
    files.write(folder / 'deep' / f'{i}.txt', f'naïve {i}')
    files.write(folder / 'deep' / f'{i}.txt', f'naïve {i}!')
    assert files.read(folder / 'deep' / f'{i}.txt').decode() == f'naïve {i}!'
  assert files.names(folder / 'deep') == sorted(f'{i}.txt' for i in range(20)) and files.names(
    folder
  ) == ['deep']
  files.write(folder / 'a.json', b'{"a": [1, null]}')
  assert files.read_json(folder / 'a.json') == {'a': [1, None]}
  files.remove(folder / 'deep')
  files.remove(folder / 'deep')
  files.remove(folder / 'a.json')
  assert files.names(folder) == [] and not files.exists(folder / 'a.json')


def test_of_two_who_create_one_does(folder):
  assert files.create(folder / 'claim', 'mine') and not files.create(folder / 'claim', 'yours')
  assert files.read(folder / 'claim') == b'mine'
  assert files.names(folder) == ['claim']


def test_of_many_threads_who_create_one_does(tmp_path):
  won, start = [], threading.Barrier(8)

  def claim(number):
    start.wait()
    won.append((files.create(tmp_path / 'claim', f'{number}' * 1000), number))

  threads = [threading.Thread(target=claim, args=(i,)) for i in range(8)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  [winner] = [number for first, number in won if first]
  assert (tmp_path / 'claim').read_text() == f'{winner}' * 1000 and os.listdir(tmp_path) == [
    'claim'
  ]


def test_a_failed_write_leaves_what_was_there_and_nothing_else(tmp_path, monkeypatch):
  files.write(tmp_path / 'a', 'old')
  for where in ('fsync', 'replace'):
    with monkeypatch.context() as patch:
      patch.setattr(
        os,
        where,
        lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, 'No space left on device')),
      )
      with pytest.raises(OSError, match='No space left'):
        files.write(tmp_path / 'a', 'new')
    assert (tmp_path / 'a').read_text() == 'old' and os.listdir(tmp_path) == ['a']


KILLED = """
import sys, itertools
from prunejax import files
print('ready', flush=True)
for i in itertools.count():
  files.write(sys.argv[1], str(i % 10) * 3_000_000)
"""


def test_a_killed_writer_leaves_a_whole_file(tmp_path):
  path = tmp_path / 'a.txt'
  for pause in (0.0, 0.02, 0.05):
    job = subprocess.Popen(
      [sys.executable, '-c', KILLED, str(path)], stdout=subprocess.PIPE, cwd=tiny_runs.ROOT
    )
    job.stdout.readline()
    while not path.exists():
      time.sleep(0.001)
    time.sleep(pause)
    job.kill()
    job.communicate()
    text = path.read_text()
    assert len(text) == 3_000_000 and len(set(text)) == 1
  (tmp_path / '.a.txt.0123.part').write_text('half')
  assert files.names(tmp_path) == ['a.txt']  # what is half written is not there
  files.tidy(tmp_path)
  assert os.listdir(tmp_path) == ['a.txt']


def test_tidying_removes_links_and_not_what_they_point_to(tmp_path):
  (tmp_path / 'elsewhere').mkdir()
  (tmp_path / 'elsewhere' / 'a.txt').write_text('kept')
  (tmp_path / 'run').mkdir()
  for name, target in (('a', 'elsewhere'), ('b', 'elsewhere/a.txt'), ('c', 'nowhere')):
    (tmp_path / 'run' / f'.{name}.0123.part').symlink_to(tmp_path / target)
  files.tidy(tmp_path / 'run')
  assert os.listdir(tmp_path / 'run') == []
  assert (tmp_path / 'elsewhere' / 'a.txt').read_text() == 'kept'


def test_accidents_are_tried_again_and_answers_are_not(monkeypatch):
  pauses, asked = [], []
  monkeypatch.setattr(files.time, 'sleep', pauses.append)
  flaky_store.Store.reset(1.0)
  monkeypatch.setattr(flaky_store.Store, 'most', 10**9)
  with pytest.raises(OSError) as error:
    files.write('flaky://bucket/a', 'x')
  assert (
    str(error.value) == "cannot write 'flaky://bucket/a': 503 Service Unavailable (tried 6 times)"
  )
  assert pauses == [0.1, 0.2, 0.4, 0.8, 1.6]
  for kind in (
    FileNotFoundError(2, 'none'),
    PermissionError(13, 'no'),
    OSError(errno.ENOSPC, 'full'),
  ):
    with pytest.raises(type(kind)):
      files._retry('ask', 'a', lambda kind=kind: asked.append(1) or (_ for _ in ()).throw(kind))
  assert len(asked) == 3
  flaky_store.Store.reset(0.0)


def test_what_is_too_large_or_no_json_is_one_line(tmp_path):
  path = tmp_path / 'config.json'
  with open(path, 'wb') as stream:
    stream.truncate(2**40)  # a terabyte of nothing
  for read in (files.read, files.read_json):
    with pytest.raises(
      ValueError, match=r"config.json' .*has 1099511627776 bytes: expected at most"
    ):
      read(path)
  for text in ('{"a": ', '[' * 200_000, '\0', '\ud800'.encode('utf-8', 'surrogatepass')):
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match="config.json' cannot be read as JSON") as error:
      files.read_json(path)
    assert '\n' not in str(error.value)


def test_an_unknown_store_is_one_line():
  with pytest.raises(ValueError, match="'warez://x/y': no file system is known for"):
    files.path('warez://x/y')


def test_a_ledger_in_a_store_is_a_row_a_file(folder):
  path = folder / 'ledger.jsonl'
  rows = [
    {'cell': f'{i:012x}', 'time': f'2026-01-{i:02}', 'metrics': {'loss': i}} for i in range(1, 13)
  ]
  for row in rows:
    ledger.append(path, row)
  ledger.append(path, {**rows[3], 'metrics': {'loss': -1}})
  got = ledger.read(path)
  assert [row['cell'] for row in got] == [row['cell'] for row in rows] and got[3]['metrics'] == {
    'loss': -1
  }
  if files.remote(folder):
    assert files.names(folder) == ['ledger.d'] and len(files.names(folder / 'ledger.d')) == 12
    files.write(folder / 'ledger.d' / 'x.json', '{"cell": ')
    with pytest.raises(ledger.LedgerError, match='x.json: damaged ledger row'):
      ledger.read(path)


def test_a_disk_without_locks_gets_rows_of_their_own(tmp_path, monkeypatch):
  path = tmp_path / 'ledger.jsonl'
  ledger.append(path, {'cell': 'a', 'time': '1'})

  def none(*_):
    raise OSError(errno.ENOLCK, 'No locks available')

  with monkeypatch.context() as patch:
    patch.setattr(ledger.fcntl, 'flock', none)
    ledger.append(path, {'cell': 'b', 'time': '2'})
  assert path.read_text().count('\n') == 1 and os.listdir(tmp_path / 'ledger.d') == ['b.json']
  assert [row['cell'] for row in ledger.read(path)] == ['a', 'b']


def test_a_folder_is_held_by_one_process(tmp_path):
  config = {'seed': 0}
  folder = workdir.claim(tmp_path / 'run', config)
  (tmp_path / 'run' / '.model.0123.part').mkdir()
  with workdir.held(folder):
    assert os.listdir(folder) == ['config.json']
    with pytest.raises(ValueError, match='is in use by another process'), workdir.held(folder):
      pytest.fail('held twice')
  with workdir.held(folder):
    pass


@pytest.mark.slow
def test_a_whole_sweep_in_a_flaky_store_is_the_one_here(tmp_path, monkeypatch):
  monkeypatch.setattr(files, 'PAUSE', 0.0)
  flaky_store.Store.reset(0.3)
  config = lambda: tiny_runs.config(checkpoint__every=0, log__tensorboard=True)
  changes = [{}, {'seed': 1}]
  how = dict(
    name='tiny', one_by_one=True, say=lambda line: None
  )  # Orbax writes waves, by its own ways
  sweep = lambda folder: grid.sweep(config(), changes, folder, **how)
  here, there = sweep(tmp_path / 'sweep'), sweep('flaky://bucket/sweep')
  timeless = lambda row: {k: v for k, v in row.items() if k != 'time' and 'second' not in k}
  in_order = lambda rows: sorted(map(timeless, rows), key=lambda row: row['cell'])
  keep = lambda rows: json.loads(json.dumps(in_order(rows)))  # a store lists rows by name
  assert keep(here) == keep(there) == keep(ledger.read('flaky://bucket/sweep/ledger.jsonl'))
  for row in here:
    cell = pathlib.Path('cells', row['cell'])
    stored = flaky_store.Store.home / 'bucket' / 'sweep' / cell
    assert tiny_runs.same_weights(stored, tmp_path / 'sweep' / cell)
    steps = [
      [(r['kind'], r['step']) for r in tiny_runs.rows(home)]
      for home in (stored, tmp_path / 'sweep' / cell)
    ]
    assert steps[0] == steps[1] and len(list((stored / 'tensorboard').iterdir())) == 1
  assert flaky_store.Store.accidents > 20
  # Again nothing runs; a model there is a start for another run, and can be exported.
  assert keep(sweep('flaky://bucket/sweep')) == keep(here)
  cell = f'flaky://bucket/sweep/cells/{here[0]["cell"]}'
  out = files.path('flaky://bucket/out')
  export.export(cell, out, say=lambda line: None)
  assert files.names(out) == files.names(tmp_path / 'sweep' / 'cells' / here[0]['cell'] / 'model')
  started = [
    tiny_runs.train(
      tiny_runs.config(init=f'{home}/model', checkpoint__every=0), to, say=lambda line: None
    )['metrics']
    for home, to in (
      (cell, 'flaky://bucket/next'),
      (tmp_path / 'sweep' / 'cells' / here[0]['cell'], tmp_path / 'next'),
    )
  ]
  assert started[0] == started[1]
  with pytest.raises(ValueError, match='belongs to another config .differs in data.identity, seed'):
    tiny_runs.train(tiny_runs.config(seed=5, checkpoint__every=0), cell, say=pytest.fail)


def test_a_cell_is_its_own_wherever_its_grid_lies(tmp_path):
  at = lambda where, cell='a' * 12: {
    'init': f'{where}/cells/{cell}/model',
    'distill': {'teacher': ''},
    'steps': 3,
  }
  workdir.claim(tmp_path / 'run', at('runs/x'))
  assert workdir.owned(tmp_path / 'run', at('/elsewhere/x')) == tmp_path / 'run'
  for other in (at('runs/x', 'b' * 12), at('runs/x') | {'init': 'runs/x/model'}):
    with pytest.raises(ValueError, match='differs in init'):
      workdir.owned(tmp_path / 'run', other)


def test_nothing_else_opens_files_of_a_work_directory():
  """Every access to a work directory goes through the layer `files`."""
  package = pathlib.Path(files.__file__).parent
  watched = [
    package / 'train' / name for name in ('workdir.py', 'export.py', 'checkpoint.py', 'loop.py')
  ]
  watched += [package / 'report' / 'document.py']
  watched += set(package.glob('sweep/*.py')) - {package / 'sweep' / 'resources.py'}  # reads /proc
  banned = (
    'read_text(',
    'write_text(',
    'read_bytes(',
    'write_bytes(',
    '.mkdir(',
    '.unlink(',
    'shutil.',
    ' open(',
  )
  for path, word in itertools.product(watched, banned):
    assert word not in path.read_text(), f'{path.name}: {word}'


def test_json_that_is_written_is_json(folder):
  workdir.claim(folder, {'a': (1, 2)})
  assert files.read_json(folder / 'config.json') == {'a': [1, 2]}
  assert json.loads(files.read(folder / 'config.json')) == {'a': [1, 2]}


def test_devices_and_pipes_are_not_read(tmp_path):
  os.mkfifo(tmp_path / 'pipe')
  for path in ('/dev/zero', tmp_path / 'pipe'):
    with pytest.raises(ValueError, match='is no regular file'):
      files.read(path)
