"""A model that stays in its files: pruned to the same bytes, one block at a time in memory."""

import time
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import transformers
from numpy.testing import assert_array_equal
from tiny_decoder import tokens

import prunejax
from prunejax import oneshot
from prunejax.models import llama
from prunejax.models.hf import llama as llama_hf
from prunejax.models.hf import stored
from prunejax.oneshot import decoder, decoders
from prunejax.pruning.paths import named_leaves

SIZE = transformers.LlamaConfig(
  vocab_size=61,
  max_position_embeddings=16,
  hidden_size=32,
  num_hidden_layers=4,
  num_attention_heads=4,
  num_key_value_heads=2,
  intermediate_size=64,
  tie_word_embeddings=True,
)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  ids = jnp.zeros((1, 8), jnp.int32)
  params = jax.jit(llama.Llama(SIZE).init)(jax.random.key(0), ids, ids, ids >= 0)['params']
  where = tmp_path_factory.mktemp('model') / 'llama'
  llama_hf.save(where, jax.tree.map(np.asarray, params), SIZE)
  return where


def prune(params, folder=None, **how):
  given = {'criterion': prunejax.sparsegpt(), 'sparsity': 0.5, **how}
  return oneshot.prune(
    decoders.of_size(SIZE), params, tokens(6), folder=folder, settings={'a': 1}, **given
  )


def alike(a, b):
  a, b = named_leaves(a), named_leaves(b)
  assert a.keys() == b.keys()
  for name, leaf in a.items():
    assert_array_equal(stored.whole(leaf), stored.whole(b[name]), err_msg=name)


HOW = {
  'sparsegpt': {},
  'wanda, 2:4': {'criterion': prunejax.wanda(), 'structure': prunejax.n_m(2, 4)},
  'magnitude, global': {
    'criterion': prunejax.magnitude(),
    'allocation': prunejax.global_threshold(),
  },
  'reconstructed': {'recover': oneshot.reconstruct(3)},
  'shares of blocks': {'shares_of_blocks': oneshot.owl(2.0, 0.1)},
  'some kernels': {'where': r'.*layer_[02]/ffn/.*kernel'},
}


@pytest.mark.parametrize('name', HOW)
def test_a_model_in_files_is_pruned_as_one_in_memory(name, folder, tmp_path):
  in_memory, _ = llama_hf.load(folder)
  in_files, _ = llama_hf.load(folder, parts=True)
  whole = prune(in_memory, **HOW[name])
  assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(whole.params))
  for where in (None, tmp_path / 'state'):
    got = prune(in_files, where, **HOW[name])
    alike(got.params, whole.params)
    alike(got.masks, whole.masks)
    assert prunejax.masks.sparsity(got.masks) == prunejax.masks.sparsity(whole.masks)
    assert prunejax.mask_hash(got.masks) == prunejax.mask_hash(whole.masks)
    drop = lambda row: {key: value for key, value in row.items() if key != 'seconds'}
    assert [*map(drop, got.rows)] == [*map(drop, whole.rows)]
  again = prune(in_files, tmp_path / 'state', **HOW[name])  # nothing is left to do
  alike(again.params, whole.params)
  alike(again.masks, whole.masks)
  llama_hf.save(tmp_path / 'memory', whole.params, SIZE, dtype='bfloat16')
  llama_hf.save(tmp_path / 'files', got.params, SIZE, dtype='bfloat16')
  bytes_of = lambda name: (tmp_path / name / 'model.safetensors').read_bytes()
  assert bytes_of('files') == bytes_of('memory')


def test_one_block_of_a_model_in_files_is_in_memory_at_a_time(folder, tmp_path, monkeypatch):
  params, _ = llama_hf.load(folder, parts=True)
  read, held, alive = stored.Stored.read, [], {}

  of_block = sum(leaf.nbytes for name, leaf in named_leaves(params).items() if 'layer_0/' in name)

  def bytes_alive():
    arrays = [ref() for ref in list(alive.values())]
    return sum(array.nbytes for array in arrays if array is not None)

  def counted(leaf, index=()):
    array = read(leaf, index)
    key = id(array)
    alive[key] = weakref.ref(array, lambda _: alive.pop(key, None))
    # JAX gives an array up in a thread of its own, and drops it in a later call.
    patience = time.monotonic() + 20
    while bytes_alive() > of_block and time.monotonic() < patience:
      jnp.asarray(np.zeros(1)).block_until_ready()
      time.sleep(0.01)
    held.append(bytes_alive())
    return array

  monkeypatch.setattr(stored.Stored, 'read', counted)
  got = prune(params, tmp_path / 'state')
  assert 0 < max(held) <= of_block < sum(leaf.nbytes for leaf in jax.tree.leaves(params)) / 3
  held.clear()
  llama_hf.save(tmp_path / 'out', got.params, SIZE)
  # The leaf before is given up once the next has been read.
  assert 0 < max(held) <= 2 * max(leaf.nbytes for leaf in jax.tree.leaves(got.params))


def test_leaves_of_half_width_in_files_keep_their_dtype(folder, tmp_path):
  half = lambda leaf: stored.Cast(leaf, np.dtype(jnp.bfloat16))
  params = jax.tree.map(half, llama_hf.load(folder, parts=True)[0])
  whole, got = prune(jax.tree.map(stored.whole, params)), prune(params, tmp_path / 'state')
  assert {x.dtype for x in jax.tree.leaves(got.params)} == {np.dtype(jnp.bfloat16)}
  alike(got.params, whole.params)
  alike(got.masks, whole.masks)


def test_a_predicate_sees_the_shape_of_a_leaf_in_a_file(folder):
  large = lambda path, leaf: leaf.size > 32 * 32 and leaf.ndim == 2 and leaf.dtype == np.float32
  in_memory, in_files = (llama_hf.load(folder, parts=parts)[0] for parts in (False, True))
  alike(prune(in_files, where=large).masks, prune(in_memory, where=large).masks)


def test_an_embedding_is_given_the_leaves_that_it_reads_and_no_others():
  params = {
    'words': np.ones((5, 3)),
    'scale': np.ones(3),
    'block': {'w': np.ones((3, 3))},
    'key': jax.random.key(0),
    'rate': 0.5,
  }
  batch = jax.ShapeDtypeStruct((1, 4), jnp.int32)

  def cast_all(params, ids):
    some = {name: params[name] for name in ('words', 'scale', 'block')}
    params = jax.tree.map(lambda x: x.astype(jnp.bfloat16), some)
    return params['words'][ids] * params['scale']

  cases = {
    'words': (lambda p, ids: p['words'][ids], ['words']),
    'all are cast': (cast_all, ['scale', 'words']),
    'of a block': (lambda p, ids: p['words'][ids] @ p['block']['w'], ['block/w', 'words']),
    'none': (lambda p, ids: jnp.ones((*ids.shape, 3)), []),
    'a leaf is returned': (lambda p, ids: p['scale'], ['scale']),
    'jitted': (jax.jit(cast_all), ['scale', 'words']),
    'no ids': (lambda p, ids: p['words'][:4], ['words']),
  }
  ids = jnp.array([[0, 1, 2, 4]])
  names = {id(leaf): name for name, leaf in named_leaves(params).items()}
  for case, (embed, expected) in cases.items():
    model = decoder.Decoder(embed, None, None, ())
    of_leaves, leaves = decoder.embedding(model, params, batch)
    assert [names[id(leaf)] for leaf in leaves] == expected, case
    assert_array_equal(of_leaves(leaves, ids), embed(params, ids), err_msg=case)
