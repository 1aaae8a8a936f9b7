"""Checkpoints: what comes back is what was saved, or it is named and the one before is used."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import prunejax
from prunejax.train import checkpoint, checksum

# What Orbax leaves behind when a read fails: a future that nobody awaits.
pytestmark = pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning')


def state(step, size=40):
  """Params of many kinds; `size` squared weights."""
  drawn = jax.random.normal(jax.random.key(step), (size, size))
  return {
    'params': {'kernel': drawn, 'bias': drawn[0].astype(jnp.bfloat16)},
    'opt_state': ({'mu': drawn * 2}, {'prune_mask': {'kernel': drawn > 0}}, ()),
    'step': jnp.int32(step),
    'rng': jnp.arange(2, dtype=jnp.uint32),
  }


SHAPES = jax.eval_shape(lambda: state(0))
HERE = jax.tree.map(lambda _: jax.sharding.SingleDeviceSharding(jax.devices()[0]), SHAPES)


@pytest.fixture
def folder(tmp_path):
  """Checkpoints of the steps 4 and 8."""
  with checkpoint.manager(tmp_path / 'checkpoints') as manager:
    for step in (4, 8):
      checkpoint.save(manager, state(step), {'seed': 0})
      manager.wait_until_finished()
  return tmp_path / 'checkpoints'


def read(folder, shapes=SHAPES, places=HERE):
  with checkpoint.manager(folder) as manager:
    return checkpoint.restore(manager, shapes, places)


def arrays(folder, step):
  """The files that hold numbers, the largest first."""
  found = [
    p for p in (folder / str(step) / 'state').rglob('*') if p.is_file() and p.parent.name == 'd'
  ]
  return sorted(found, key=lambda p: -p.stat().st_size)


def same(a, b):
  return all(
    jax.tree.leaves(
      jax.tree.map(lambda x, y: x.dtype == y.dtype and bool(jnp.array_equal(x, y)), a, b)
    )
  )


def test_a_state_comes_back_bit_for_bit(folder):
  got, damaged = read(folder)
  assert same(got, state(8)) and not damaged


def cut(path):
  path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path, at=0.5):
  data = bytearray(path.read_bytes())
  data[int(len(data) * at)] ^= 1
  path.write_bytes(data)


def swap(path):
  """Another state's file: sound in itself, and not what was saved here."""
  data = path.read_bytes()
  path.write_bytes(data[: len(data) // 3] + data[len(data) // 3 :][::-1])


@pytest.mark.parametrize(
  'hurt',
  [
    lambda step: cut(arrays(step.parent, 8)[0]),
    lambda step: flip(arrays(step.parent, 8)[0]),
    lambda step: flip(arrays(step.parent, 8)[0], 0.01),
    lambda step: swap(arrays(step.parent, 8)[0]),
    lambda step: arrays(step.parent, 8)[0].unlink(),
    lambda step: arrays(step.parent, 8)[0].write_bytes(b''),
    lambda step: cut(step / 'state' / '_METADATA'),
    lambda step: (step / 'state' / '_METADATA').write_bytes(b'[' * 100_000),
    lambda step: (step / 'state' / 'manifest.ocdbt').write_bytes(b'\0' * 7),
    lambda step: [p.unlink() for p in sorted(step.rglob('*')) if p.is_file()],
    lambda step: (step / 'sums' / 'metadata').unlink(),
    lambda step: flip(step / 'sums' / 'metadata', 0.9),
    lambda step: (step / 'sums' / 'metadata').write_text('{}'),
  ],
)
def test_damage_is_named_and_the_one_before_is_used(folder, hurt):
  hurt(folder / '8')
  got, damaged = read(folder)
  assert same(got, state(4))
  [(step, why)] = damaged
  assert step == 8 and why and '\n' not in why
  assert (folder.parent / 'damaged-8').is_dir() and not (folder / '8').exists()
  assert not read(folder)[1]  # set aside once
  with checkpoint.manager(folder) as manager:  # and step 8 can be saved again, and be damaged again
    checkpoint.save(manager, state(8), {})
  hurt(folder / '8')
  assert read(folder)[1][0][0] == 8 and (folder.parent / 'damaged-8-again').is_dir()


def test_a_flipped_bit_is_seen_or_was_of_no_use(folder):
  path, seen = arrays(folder, 8)[0], 0
  whole = path.read_bytes()
  for at in np.random.default_rng(0).random(10):
    flip(path, at)
    got, damaged = read(folder)
    assert same(got, state(4 if damaged else 8)), at
    if damaged:
      seen += 1
      (folder.parent / 'damaged-8').rename(folder / '8')
    path.write_bytes(whole)
  assert seen >= 8
  assert same(read(folder)[0], state(8))


def test_a_half_written_step_is_no_step_and_is_taken_away(folder):
  torn = folder / '12.orbax-checkpoint-tmp'
  (torn / 'state').mkdir(parents=True)
  assert same(read(folder)[0], state(8)) and not torn.exists()


def test_arrays_of_another_size_are_refused_by_what_the_files_say_of_themselves(
  tmp_path, monkeypatch
):
  with checkpoint.manager(tmp_path / 'c') as manager:
    checkpoint.save(manager, state(4, size=50), {})
    manager.wait_until_finished()
    monkeypatch.setattr(manager, 'restore', lambda *a, **k: pytest.fail('was read'))
    with pytest.raises(
      ValueError, match='no checkpoint in .* step 4 .its arrays are not those of this run'
    ):
      checkpoint.restore(manager, SHAPES, HERE)


def test_a_sum_tells_any_two_arrays_apart_and_numpy_agrees():
  rng = np.random.default_rng(1)
  made = [
    rng.standard_normal((6, 5, 4)).astype(np.float32),
    rng.integers(0, 2, (7, 3)).astype(bool),
    np.float32(3),
    np.array(jnp.arange(9, dtype=jnp.bfloat16)),
    np.arange(5, dtype=np.uint8),
    np.zeros((0, 3), np.float32),
    rng.integers(0, 99, 2**18 + 3).astype(np.int32),
  ]
  seen = set()
  for array in made:
    variants = [array]
    if array.size > 1:
      swapped, changed = array.reshape(-1).copy(), array.reshape(-1).copy()
      at = np.flatnonzero(swapped != swapped[0])[-1]
      swapped[[0, at]] = swapped[[at, 0]]
      changed.view(np.uint8)[-1] ^= 1
      variants += [swapped.reshape(array.shape), changed.reshape(array.shape)]
    for variant in variants:
      number = int(checksum.total_here(variant))
      assert number == int(checksum.total(jnp.asarray(variant))), variant.dtype
      seen.add(number)
  assert len(seen) == 2 + 3 * 5


def test_no_order_of_devices_changes_a_sum():
  leaf = state(1)['params']['kernel']
  assert checksum.sums({'a': leaf}) == checksum.sums({'a': np.asarray(leaf)})
  assert list(checksum.sums({'a': {'b': leaf}})) == ['a/b']


def test_the_config_lies_beside_the_state_as_plain_json(folder):
  path = pathlib.Path(folder / '8' / 'config' / 'metadata')
  assert json.loads(path.read_text()) == {'seed': 0}


EARLIER = {
  '0.1': checkpoint._as_01,
  'before prune_sparsity': lambda tree: checkpoint._as_early(tree, checkpoint._EarlyPruneState),
}


@pytest.mark.parametrize('version', EARLIER)
def test_a_state_of_an_earlier_version_is_read(version, tmp_path):
  """Links had other fields. The state comes back as links make it now, bit for bit."""
  tx = prunejax.prune_transform(prunejax.movement(), prunejax.cubic(0.5, end=4))
  params = {'w': jnp.arange(12.0).reshape(3, 4)}
  now = {'params': params, 'opt_state': (tx.init(params), optax.EmptyState()), 'step': jnp.int32(3)}
  saved = EARLIER[version](now)
  assert 'prune_sparsity' not in saved['opt_state'][0]._fields
  assert ('prune_allocation' in saved['opt_state'][0]._fields) == (version == '0.1')
  writer = checkpoint.manager(tmp_path / 'checkpoints')
  checkpoint.save(writer, saved, {})
  writer.wait_until_finished()
  shardings = jax.tree.map(lambda x: x.sharding, now)
  abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), now)
  restored, damaged = checkpoint.restore(writer, abstract, shardings)
  assert not damaged and jax.tree.structure(restored) == jax.tree.structure(now)
  jax.tree.map(np.testing.assert_array_equal, restored, now)
  writer.close()


def test_a_reader_changes_nothing_while_another_process_saves(folder):
  flip(arrays(folder, 8)[0], 0.5)
  (folder / '12.orbax-checkpoint-tmp' / 'state').mkdir(parents=True)
  before = sorted(folder.parent.rglob('*'))
  with checkpoint.reader(folder) as reader:
    got, damaged = checkpoint.restore(reader, SHAPES, HERE)
  assert same(got, state(4)) and damaged[0][0] == 8
  assert sorted(folder.parent.rglob('*')) == before


@pytest.mark.parametrize('error', [MemoryError(), ValueError('RESOURCE_EXHAUSTED: 9 GiB')])
def test_want_of_memory_is_no_damage(folder, error, monkeypatch):
  def fail(*given):
    raise error

  monkeypatch.setattr(checkpoint, '_read', fail)
  with pytest.raises(type(error)) as raised:
    read(folder)
  assert raised.value is error
  with pytest.raises(type(error)):
    checkpoint.of_finished(folder, SHAPES, HERE, 8)
  assert (folder / '8').is_dir() and not list(folder.parent.glob('damaged-*'))


def test_a_disk_that_fails_once_is_no_damage(folder, monkeypatch):
  monkeypatch.setattr(checkpoint.time, 'sleep', lambda seconds: None)
  restore, failed = checkpoint._Manager.restore, []

  def once(*given, **more):
    if not failed:
      failed.append(1)
      raise OSError(5, 'Input/output error')
    return restore(*given, **more)

  monkeypatch.setattr(checkpoint._Manager, 'restore', once)
  got, damaged = read(folder)
  assert same(got, state(8)) and not damaged and failed


def test_a_finished_run_without_its_last_step_is_not_continued(folder):
  assert same(checkpoint.of_finished(folder, SHAPES, HERE, 8), state(8))
  with pytest.raises(ValueError, match='holds step 8 as its last one, and the run took 12'):
    checkpoint.of_finished(folder, SHAPES, HERE, 12)
