"""Leaves that stay in files, and the file that is written from them: against arrays in memory."""

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from numpy.testing import assert_array_equal

from prunejax.data import content
from prunejax.models.hf import convert, safetensors_file, stored, stored_masks
from prunejax.models.hf import folder as hf_folder
from prunejax.models.hf.folder import CheckpointError

RNG = np.random.default_rng(0)
ARRAYS = {
  'b': RNG.normal(size=(7, 12)).astype('f'),
  'a': RNG.normal(size=(5,)).astype('f'),
  'one': np.array(2.5, 'f'),
  'none': np.zeros((0, 3), 'f'),
}
INDICES = ((), (slice(2, 5),), (slice(1, 4), slice(3, 8)), (slice(4, 4),))


@pytest.fixture
def file(tmp_path):
  path = tmp_path / 'model.safetensors'
  safetensors.numpy.save_file(ARRAYS, path)
  return path


def kept(file, name='b'):
  shape = ARRAYS[name].shape
  return stored.Stored(file, name, shape, 0, shape[-1] if shape else 0)


KINDS = (
  'stored',
  'transposed',
  'columns',
  'columns, transposed',
  'cast',
  'cast, transposed',
  'cast of a transpose',
  'bits',
  'layers',
)


def leaves(file):
  """{kind: (leaf in the file, the same as an array)}."""
  leaf, array, half = kept(file), ARRAYS['b'], np.dtype(ml_dtypes.bfloat16)
  packed = stored.Bits(file.with_name('masks.safetensors'), 'mask', array.shape)
  safetensors.numpy.save_file({'mask': np.packbits(array > 0)}, packed.file)
  return {
    'stored': (leaf, array),
    'transposed': (leaf.T, array.T),
    'columns': (leaf.columns(2, 11).columns(1, 7), array[:, 3:9]),
    'columns, transposed': (leaf.columns(2, 11).T, array[:, 2:11].T),
    'cast': (stored.Cast(leaf, half), array.astype(half)),
    'cast, transposed': (stored.Cast(leaf, half).T, array.T.astype(half)),
    'cast of a transpose': (stored.Cast(leaf.T, half).T, array.astype(half)),
    'bits': (packed, array > 0),
    'layers': (stored.Layers((leaf, leaf)), np.stack([array, array])),
  }


@pytest.mark.parametrize('most', [2**25, 100, 1])
@pytest.mark.parametrize('kind', KINDS)
def test_a_leaf_is_the_array_whole_in_part_and_piece_by_piece(kind, most, file, monkeypatch):
  monkeypatch.setattr(stored, 'PIECE', most)
  leaf, array = leaves(file)[kind]
  assert (leaf.shape, leaf.dtype, leaf.ndim) == (array.shape, array.dtype, array.ndim)
  assert (leaf.nbytes, leaf.size) == (array.nbytes, array.size)
  assert [path.parent for path in leaf.files] == [file.parent]
  assert_array_equal(stored.whole(leaf), array)
  assert_array_equal(np.asarray(leaf), array)
  assert_array_equal(jnp.asarray(leaf), array)
  with pytest.raises(ValueError, match='copied when it is read'):
    np.asarray(leaf, copy=False)
  for index in INDICES:
    assert_array_equal(leaf.read(index), array[index])
  pieces = list(stored.pieces(leaf))
  assert_array_equal(np.concatenate(pieces), array)
  assert (len(pieces) > 1) == (array.nbytes > most and kind != 'bits')
  assert kind == 'bits' or all(x.nbytes <= max(most, array[:1].nbytes) for x in pieces)
  as_pieces = content.of_pieces([(leaf.dtype, leaf.shape, stored.pieces(leaf))])
  assert as_pieces == content.of_arrays([array])


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16', 'float16'])
@pytest.mark.parametrize('in_file', [False, True])
def test_a_file_has_the_bytes_that_the_library_writes(dtype, in_file, file, tmp_path, monkeypatch):
  monkeypatch.setattr(stored, 'PIECE', 100)
  given = {name: kept(file, name) if in_file else array for name, array in ARRAYS.items()}
  narrow, lost = convert.cast({**given, 'turned': given['b'].T}, dtype)
  assert lost == 0
  ours, theirs = tmp_path / 'ours', tmp_path / 'theirs'
  safetensors_file.write(ours, narrow, {'format': 'pt'})
  plain = {**ARRAYS, 'turned': ARRAYS['b'].T}
  of_library = {k: np.ascontiguousarray(x.astype(convert.FLOATS[dtype])) for k, x in plain.items()}
  of_library['one'] = of_library['one'].reshape(())
  safetensors.numpy.save_file(of_library, theirs, metadata={'format': 'pt'})
  assert ours.read_bytes() == theirs.read_bytes()


def test_types_are_in_the_order_of_the_library(tmp_path):
  half = np.ones(3, ml_dtypes.bfloat16)
  mixed = {'z': np.ones(3, 'f'), 'a': np.ones(3, np.float16), 'm': np.ones((2, 2), 'f'), 'b': half}
  safetensors_file.write(tmp_path / 'ours', mixed, {})
  safetensors.numpy.save_file(mixed, tmp_path / 'theirs')
  assert (tmp_path / 'ours').read_bytes() == (tmp_path / 'theirs').read_bytes()


def test_weights_that_a_narrow_type_cannot_hold_are_counted_or_refused(file, monkeypatch):
  monkeypatch.setattr(stored, 'PIECE', 100)
  for name, change, message in (('tiny', 1e-30, ''), ('huge', 1e30, 'b holds weights too large')):
    path = file.with_name(name)
    safetensors.numpy.save_file({'b': ARRAYS['b'] * np.float32(change)}, path)
    leaf = stored.Stored(path, 'b', (7, 12), 0, 12)
    if message:
      with pytest.raises(CheckpointError, match=message):
        convert.cast({'b': leaf}, 'float16')
    else:
      assert convert.cast({'b': leaf}, 'float16')[1] == 84


def test_another_type_is_refused_before_anything_is_written(tmp_path):
  given = {'w': np.ones(3, 'f'), 'ids': np.arange(3)}
  with pytest.raises(
    CheckpointError, match=r'out: expected weights of float32, .* got ids \(int64'
  ):
    hf_folder.write(tmp_path / 'out', {}, given)
  assert not list(tmp_path.iterdir())


def test_a_damaged_file_is_named_when_it_is_read(file):
  leaf = kept(file)
  file.write_bytes(file.read_bytes()[:60])
  with pytest.raises(stored.Damaged, match='model.safetensors is damaged'):
    leaf.read()


def test_masks_in_files_are_written_as_masks_in_memory(file):
  packed, mask = leaves(file)['bits']
  whole = np.broadcast_to(np.True_, (3, 4))
  assert stored_masks.encode({'w': packed, 'v': whole}) == stored_masks.encode({'w': mask})
