"""The ledger: whole lines even after a crash, damage named, cells counted once."""

import errno
import json
import os
import subprocess
import sys
import warnings

import numpy as np
import pytest

from prunejax.report import ledger


def row(cell='0123456789ab', **rest):
  return {'cell': cell, 'metrics': {'loss': 1.5}, **rest}


def test_rows_come_back_and_folders_are_made(tmp_path):
  path = tmp_path / 'a' / 'b' / 'results.jsonl'
  rows = [row('a' * 12, seed=0), row('b' * 12, seed=1, parent=None, note='naïve\nline')]
  for one in rows:
    ledger.append(path, one)
  assert ledger.read(path) == rows
  assert ledger.done(rows) == {'a' * 12, 'b' * 12}
  assert path.read_bytes().count(b'\n') == 2


def test_no_file_is_an_empty_ledger(tmp_path):
  assert ledger.read(tmp_path / 'none.jsonl') == []


def test_the_last_row_of_a_cell_wins(tmp_path):
  path = tmp_path / 'l.jsonl'
  for cell, seconds in [('a', 1), ('b', 2), ('a', 3)]:
    ledger.append(path, row(cell, seconds=seconds))
  assert [(r['cell'], r['seconds']) for r in ledger.read(path)] == [('a', 3), ('b', 2)]


def test_numpy_values_and_nan_are_plain_json(tmp_path):
  path = tmp_path / 'l.jsonl'
  metrics = {
    'loss': np.float32(0.5),
    'count': np.int64(2**40),
    'nan': float('nan'),
    'inf': np.float64('inf'),
    'many': np.arange(2),
    'pair': (1, True),
  }
  ledger.append(path, {'cell': 'c', 'metrics': metrics})
  strict = json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(name))
  assert strict['metrics'] == {
    'loss': 0.5,
    'count': 2**40,
    'nan': None,
    'inf': None,
    'many': [0, 1],
    'pair': [1, True],
  }


@pytest.mark.parametrize('bad', [{}, {'cell': ''}, {'cell': 3}, ['cell'], None])
def test_a_row_without_a_cell_is_refused(tmp_path, bad):
  with pytest.raises(ledger.LedgerError, match="'cell'"):
    ledger.append(tmp_path / 'l.jsonl', bad)
  assert not (tmp_path / 'l.jsonl').exists()


def test_a_row_that_is_no_json_names_its_cell(tmp_path):
  with pytest.raises(ledger.LedgerError, match='cell abc .*JSON'):
    ledger.append(tmp_path / 'l.jsonl', {'cell': 'abc', 'metrics': {'f': object()}})


@pytest.mark.parametrize('cut', [1, 7, 40])
def test_a_torn_last_line_is_named_left_out_and_mended(tmp_path, cut):
  path = tmp_path / 'l.jsonl'
  ledger.append(path, row('a'))
  ledger.append(path, row('b', config={'text': 'x' * 100_000}))
  whole = path.read_bytes()
  path.write_bytes(whole[: -1 - cut])
  with pytest.warns(UserWarning, match=r'l\.jsonl:2: the last line is torn'):
    assert ledger.done(ledger.read(path)) == {'a'}
  with pytest.warns(UserWarning, match='took away a torn last line'):
    ledger.append(path, row('c'))
  assert ledger.done(ledger.read(path)) == {'a', 'c'}


def test_a_last_line_that_lacks_only_its_end_is_kept(tmp_path):
  path = tmp_path / 'l.jsonl'
  ledger.append(path, row('a'))
  path.write_bytes(path.read_bytes()[:-1])
  assert ledger.done(ledger.read(path)) == {'a'}
  ledger.append(path, row('b'))
  assert ledger.done(ledger.read(path)) == {'a', 'b'}


@pytest.mark.parametrize(
  'damage', [b'{"cell": "b", "me', b'[1, 2]', b'{"no": "cell"}', b'\xff\xfe{}']
)
def test_damage_in_the_middle_is_named_with_its_line(tmp_path, damage):
  path = tmp_path / 'l.jsonl'
  ledger.append(path, row('a'))
  with open(path, 'ab') as file:
    file.write(damage + b'\n')
  ledger.append(path, row('c'))
  with pytest.raises(ledger.LedgerError, match=r'l\.jsonl:2: damaged'):
    ledger.read(path)


def test_a_full_disk_leaves_no_part_of_a_line(tmp_path, monkeypatch):
  path = tmp_path / 'l.jsonl'
  ledger.append(path, row('a'))
  before = path.read_bytes()
  write = os.write
  monkeypatch.setattr(ledger.os, 'write', lambda file, data: write(file, data[:10]))
  with pytest.raises(ledger.LedgerError, match='cannot write ledger .*No space left') as caught:
    ledger.append(path, row('b'))
  assert '\n' not in str(caught.value)
  assert path.read_bytes() == before


def test_a_full_device_is_one_clear_error():
  if os.path.exists('/dev/full'):
    with pytest.raises(ledger.LedgerError, match='/dev/full.*No space left on device'):
      ledger.append('/dev/full', row())
  else:
    assert issubclass(ledger.LedgerError, ValueError)


def test_a_read_only_folder_is_one_clear_error(tmp_path, monkeypatch):
  def refuse(*_):
    raise OSError(errno.EROFS, os.strerror(errno.EROFS))

  monkeypatch.setattr(ledger.os, 'open', refuse)
  with pytest.raises(ledger.LedgerError, match=r'l\.jsonl: Read-only file system; the folder must'):
    ledger.append(tmp_path / 'l.jsonl', row())


def test_a_path_through_a_file_and_a_folder_as_ledger_are_clear_errors(tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(ledger.LedgerError, match='cannot write ledger'):
    ledger.append(tmp_path / 'file' / 'l.jsonl', row())
  with pytest.raises(ledger.LedgerError, match='cannot read ledger'):
    ledger.read(tmp_path)


def test_hash_knows_values_and_not_their_order():
  one = {'a': 1, 'b': {'c': [1.5, 'x'], 'd': None}}
  two = {'b': {'d': None, 'c': (np.float64(1.5), 'x')}, 'a': np.int32(1)}
  assert ledger.cell_hash(one) == ledger.cell_hash(two)
  assert len(ledger.cell_hash(one)) == 12 and int(ledger.cell_hash(one), 16) >= 0
  assert ledger.cell_hash(one) == '51f7aaf32f60'  # the name of a cell never changes
  changed = [{'a': 2, **{k: v for k, v in one.items() if k != 'a'}}, {**one, 'e': 0}, {}]
  assert len({ledger.cell_hash(c) for c in [one, *changed]}) == 4


@pytest.mark.parametrize('bad', [{'a': float('nan')}, {'a': object()}])
def test_a_config_that_has_no_canonical_form_is_refused(bad):
  with pytest.raises(ledger.LedgerError, match='plain finite JSON'):
    ledger.cell_hash(bad)


# Several processes append, forked from one that has all imports. `herd(path, writers, count)` waits
# for them; with `seconds` it kills them all in the middle. It prints the cells whose append()
# returned.
HERD = """
import json, os, signal, sys, time
from prunejax.report import ledger

def writer(number, first, count, go, told):
  os.read(go, 1)
  for i in range(first, first + count):
    ledger.append(sys.argv[1], {'cell': f'{number}-{i}', 'pad': 'x' * (7000 + 500 * number)})
    os.write(told, f'{number}-{i}\\n'.encode())
  os._exit(0)

def herd(writers, first, count, seconds=None):
  (go, start), (heard, told), pids = os.pipe(), os.pipe(), []
  for number in range(writers):
    pids.append(os.fork())
    if not pids[-1]:
      os.close(heard)
      writer(number, first, count, go, told)
  os.close(told)
  os.write(start, b'g' * writers)
  if seconds:
    time.sleep(seconds)
    for pid in pids:
      os.kill(pid, signal.SIGKILL)
  with os.fdopen(heard) as stream:
    said = stream.read().split()
  return said, [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]

print(json.dumps([herd(*given) for given in json.loads(sys.argv[2])]))
"""


def herds(path, *given):
  """[(cells said, statuses)] of herds in turn: (writers, first, count[, seconds until the kill])"""
  done = subprocess.run(
    [sys.executable, '-c', HERD, str(path), json.dumps(given)], stdout=subprocess.PIPE, check=True
  )
  return json.loads(done.stdout)


def test_appends_of_several_processes_never_tear_a_row(tmp_path):
  path, count, writers = tmp_path / 'l.jsonl', 40, 4
  [(said, statuses)] = herds(path, (writers, 0, count))
  assert statuses == [0] * writers
  rows = ledger.read(path)
  assert (
    set(said) == ledger.done(rows) == {f'{w}-{n}' for w in range(writers) for n in range(count)}
  )
  assert all(len(r['pad']) == 7000 + 500 * int(r['cell'][0]) for r in rows)
  assert path.read_bytes().count(b'\n') == writers * count


def test_writers_killed_in_the_middle_leave_whole_rows(tmp_path):
  path, pauses = tmp_path / 'l.jsonl', 0.02 + 0.1 * np.random.default_rng(0).random(8)
  ended = herds(path, *[(3, 10**6 * i, 10**6, pause) for i, pause in enumerate(pauses)])
  assert all(statuses == [-9] * 3 for _, statuses in ended)
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')  # of a torn last line, if there is one
    rows = ledger.read(path)
    ledger.append(path, row('last'))
  # Every row whose append() returned is there. Any other row is there whole or not at all.
  said = {cell for cells, _ in ended for cell in cells}
  assert len(said) > 20 and said <= ledger.done(rows)
  assert ledger.done(ledger.read(path)) == ledger.done(rows) | {'last'}
  assert all(len(r['pad']) == 7000 + 500 * int(r['cell'][0]) for r in rows)


RUN = {'stage': 'pretrain', 'arm': 'pruned', 'sparsity': 0.5, 'seed': 0}
WRONG = {
  'a column that is not there': ({'seed': ...}, ['without seed', 'reproduce']),
  'no metrics': ({'metrics': ...}, ['without metrics']),
  'a sparsity that is not a number': ({'sparsity': float('nan')}, ['sparsity=nan', '[0, 1]']),
  'a sparsity as text': ({'sparsity': '0.5'}, ["sparsity='0.5'", '[0, 1]']),
  'a huge sparsity': ({'sparsity': 1e308}, ['sparsity=1e+308', '[0, 1]']),
  'a negative sparsity': ({'sparsity': -0.1}, ['sparsity=-0.1']),
  'a sparsity that is true': ({'sparsity': True}, ['sparsity=True']),
  'half a seed': ({'seed': 0.5}, ['seed=0.5', 'whole number']),
  'an arm as a list': ({'arm': ['pruned']}, ["arm=['pruned']", 'text']),
  'a task as an object': ({'task': {}}, ['task={}']),
  'an experiment as a list': ({'experiment': []}, ['experiment=[]']),
  'metrics as a list': ({'metrics': [1.5]}, ['metrics=[1.5]', 'an object']),
  'an infinite metric': ({'metrics': {'loss': float('inf')}}, ['metrics.loss=inf', 'finite']),
  'NaN inside a metric': ({'metrics': {'loss': [{'a': float('nan')}]}}, ['metrics.loss=']),
  'seconds as text': ({'seconds': '3'}, ["seconds='3'"]),
  'versions as text': ({'versions': 'jax'}, ["versions='jax'"]),
  'a label as a list': ({'probe': [1] * 99}, ['probe=[1, 1', 'text, a number or null']),
}


@pytest.mark.parametrize('what', WRONG)
def test_a_row_of_another_kind_is_named_wherever_it_stands(what, tmp_path):
  changes, words = WRONG[what]
  wrong = {k: v for k, v in {**row('bad'), **RUN, **changes}.items() if v is not ...}
  path = tmp_path / 'ledger.jsonl'
  path.write_text(''.join(json.dumps(one) + '\n' for one in (row('good') | RUN, wrong)))
  assert ledger.checked(ledger.read(path)[:1], path)
  with pytest.raises(ledger.LedgerError) as error:
    ledger.checked(ledger.read(path), path)
  for word in (str(path), "'bad'", *words):
    assert word in str(error.value), error.value


def test_a_row_that_lacks_what_the_others_have_is_named():
  rows = [row(str(i), metrics={'loss': 1.0, 'score': 2.0}, arm='a') for i in range(6)]
  assert ledger.unlike(rows) == ''
  rows[3] = row('3', metrics={'loss': 1.0, 'score': None}, arm='a')
  assert "cell '3'" in ledger.unlike(rows) and 'metrics.score' in ledger.unlike(rows)
