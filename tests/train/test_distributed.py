"""How processes find each other, or say which one is missing; what each computes of a batch."""

import socket
import threading
import types

import jax
import numpy as np
import pytest

from prunejax import __main__ as command
from prunejax.train import distributed, sharding


def free_port():
  with socket.socket() as probe:
    probe.bind(('localhost', 0))
    return probe.getsockname()[1]


@pytest.fixture
def joined(monkeypatch):
  """What jax is told, instead of telling it."""
  for name in distributed.VARIABLES:
    monkeypatch.delenv(name, raising=False)
  calls = []
  monkeypatch.setattr(jax.distributed, 'initialize', lambda *args, **kwargs: calls.append(args))
  return calls


def test_one_process_joins_nobody(joined, monkeypatch):
  distributed.start()
  distributed.start('localhost:1,0,1')
  for name, value in zip(distributed.VARIABLES, ('localhost:1', '0', '1'), strict=True):
    monkeypatch.setenv(name, value)
  distributed.start()
  assert joined == [] and distributed.first() and distributed.agreed([True, False]) == [True, False]
  distributed.together('here')


def test_processes_wait_for_each_other_and_then_tell_jax(joined):
  port = free_port()
  start = lambda i: threading.Thread(target=distributed.start, args=(f'localhost:{port},{i},3', 20))
  threads = [start(0), start(2)]
  for thread in threads:
    thread.start()
  while True:
    try:
      stranger = socket.create_connection(('localhost', port))
      break
    except ConnectionRefusedError:
      pass
  with stranger:
    stranger.sendall(b'GET / HTTP/1.1')
    assert stranger.recv(1) == b'' and joined == [], 'hung up on, and not counted'
  threads.append(start(1))
  threads[-1].start()
  for thread in threads:
    thread.join(30)
  assert sorted(joined) == [(f'localhost:{port}', 3, i) for i in range(3)]


@pytest.mark.parametrize(
  'index, words',
  [
    (0, r'process 0 waited at port \d+, and of 3 processes \[1, 2\] did not come'),
    (2, r'process 2 of 3 could not reach process 0 at localhost:\d+ \(.*refused\); is it started'),
  ],
)
def test_a_process_that_is_missing_is_named(joined, index, words):
  with pytest.raises(ConnectionError, match=words):
    distributed.start(f'localhost:{free_port()},{index},3', patience=0.3)
  assert joined == []


def test_a_port_in_use_is_named(joined):
  with socket.create_server(('', 0)) as taken:
    port = taken.getsockname()[1]
    with pytest.raises(ConnectionError, match=f'process 0 cannot open port {port}: .*in use'):
      distributed.start(f'localhost:{port},0,2', patience=0.3)


@pytest.mark.parametrize(
  'how, words',
  [
    ('localhost:1', r"--distributed=localhost:1: expected 'auto' .*'HOST:PORT,INDEX,COUNT'"),
    ('localhost:1,one,2', 'expected'),
    ('localhost,0,2', "'localhost' is not HOST:PORT"),
    ('localhost:1,2,2', 'process 2 of 2; they count from 0'),
  ],
)
def test_a_place_that_makes_no_sense_is_named(joined, capsys, how, words):
  with pytest.raises(ValueError, match=words):
    distributed.start(how)
  assert (
    command.main(['train', '--config=configs/base.py', '--workdir=nowhere', f'--distributed={how}'])
    == 2
  )
  assert len(capsys.readouterr().err.splitlines()) == 1 and joined == []


def test_half_the_variables_or_no_cluster_is_an_error(joined, monkeypatch):
  monkeypatch.setenv('JAX_COORDINATOR_ADDRESS', 'localhost:1')
  with pytest.raises(
    ValueError, match='JAX_COORDINATOR_ADDRESS set, but not JAX_PROCESS_ID and JAX_NUM_PROCESSES'
  ):
    distributed.start()

  def nothing(**kwargs):
    raise ValueError('coordinator_address should be defined.')

  monkeypatch.setattr(jax.distributed, 'initialize', nothing)
  with pytest.raises(
    ValueError, match='--distributed: no cluster was found .*; expected a Cloud TPU, Slurm'
  ):
    distributed.start('auto')


@pytest.mark.parametrize(
  'owners, process, part',
  [
    ([[0], [0], [1], [1]], 1, (1, 2)),
    ([[0, 1], [0, 1]], 1, (0, 1)),
    ([[0, 1], [2, 3]], 3, (1, 2)),
    ([[0, 0], [1, 1], [2, 2], [3, 3]], 2, (2, 4)),
  ],
)
def test_processes_of_one_row_compute_one_part_of_the_batch(monkeypatch, owners, process, part):
  monkeypatch.setattr(jax, 'process_index', lambda: process)
  devices = [[types.SimpleNamespace(process_index=owner) for owner in row] for row in owners]
  assert sharding.part_of_batch(types.SimpleNamespace(devices=devices)) == part


@pytest.mark.parametrize('owners', [[[0], [1], [0]], [[1], [0], [0]], [[1], [1]]])
def test_parts_that_are_not_equal_are_refused(monkeypatch, owners):
  monkeypatch.setattr(jax, 'process_index', lambda: 0)
  devices = [[types.SimpleNamespace(process_index=owner) for owner in row] for row in owners]
  with pytest.raises(ValueError, match=rf'mesh.data={len(owners)} x mesh.model=1 does not give'):
    sharding.part_of_batch(types.SimpleNamespace(devices=devices))


def test_a_whole_batch_divides_where_it_can():
  mesh = sharding.make_mesh(devices=jax.devices()[:1])
  placed = sharding.put_whole({'x': np.arange(6).reshape(3, 2)}, mesh)
  assert placed['x'].sharding.spec == jax.sharding.PartitionSpec('data') and placed['x'].tolist()[
    2
  ] == [4, 5]
