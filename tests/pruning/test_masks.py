"""Views, fractions, packing and hashes of masks."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import prunejax
from prunejax import masks
from prunejax.pruning import who_pays

PARAMS = {'a': jnp.array([1.0, -2.0, jnp.inf, 4.0]), 'b': [jnp.array([[0.5, -1.5]], jnp.bfloat16)]}
MASKS = {'a': jnp.array([True, False, False, True]), 'b': [jnp.array([[False, True]])]}


def test_apply_zeroes_without_gradient_and_straight_through_with():
  for view, slope in ((masks.apply, 0.0), (masks.straight_through, 1.0)):
    seen = view({**PARAMS, 'a': jnp.array([1.0, -2.0, 3.0, 4.0])}, MASKS)
    assert seen['a'].tolist() == [1, 0, 0, 4] and seen['b'][0].tolist() == [[0, -1.5]]
    assert seen['b'][0].dtype == jnp.bfloat16 and not np.signbit(seen['a']).any()
    grad = jax.grad(lambda p, view=view: jnp.sum(view(p, MASKS)['a']))({**PARAMS, 'a': jnp.ones(4)})
    assert grad['a'].tolist() == [1, slope, slope, 1]
  assert masks.apply(PARAMS, MASKS)['a'].tolist() == [1, 0, 0, 4], (
    'an infinite weight is zeroed too'
  )


def test_sparsity_of_masks_and_of_params_counts_exactly():
  found = masks.sparsity(MASKS)
  assert found == {'total': 0.5, 'leaves': {'a': 0.5, 'b/0': 0.5}, 'removed': 3, 'weights': 6}
  assert masks.sparsity(masks.apply(PARAMS, MASKS)) == found
  assert masks.sparsity(MASKS, 'b/.*')['removed'] == 1
  for where in ('none', 'b', lambda name, leaf: False):
    with pytest.raises(ValueError, match=r"matches no mask.*whole path such as 'a', 'b/0'"):
      masks.sparsity(MASKS, where)
  assert masks.sparsity({})['total'] == 0.0
  assert type(found['removed']) is int and json.dumps(found)


def test_comparisons():
  other = {'a': jnp.array([True, True, False, False]), 'b': [jnp.array([[False, True]])]}
  assert masks.difference(MASKS, other) == {
    'total': 2 / 6,
    'leaves': {'a': 0.5, 'b/0': 0.0},
    'differ': 2,
    'weights': 6,
  }
  assert (
    masks.overlap(MASKS, other)['total'] == 2 / 4
    and masks.overlap(MASKS, other)['leaves']['a'] == 1 / 3
  )
  union = masks.union(MASKS, other)
  assert union['a'].tolist() == [True, True, False, True]
  assert masks.nested(MASKS, union) and not masks.nested(union, MASKS)
  with pytest.raises(ValueError, match="only one has the leaf 'b/0'"):
    masks.difference(MASKS, {'a': MASKS['a']})
  with pytest.raises(ValueError, match=r"masks of 'a' have shapes \(4,\) and \(3,\)"):
    masks.overlap(MASKS, {**MASKS, 'a': jnp.ones(3, bool)})


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=0, max_size=3), st.integers(0, 2), st.integers(0, 99))
def test_packing_keeps_rank_and_comes_back(shape, axis, seed):
  axis = min(axis, max(len(shape) - 1, 0))
  mask = np.random.default_rng(seed).integers(0, 2, shape).astype(bool)
  tree = {'m': jnp.asarray(mask)}
  packed = masks.pack(tree, axis)
  assert packed['m'].dtype == jnp.uint8 and packed['m'].ndim == len(shape)
  if shape:
    assert packed['m'].shape[axis] == -(-shape[axis] // 8)
  np.testing.assert_array_equal(masks.unpack(packed, tree, axis)['m'], mask)


def test_packed_masks_of_another_shape_are_refused():
  packed = masks.pack({'m': jnp.ones((3, 16), bool)})
  for shape in ((3, 18), (3, 8), (2, 16), (16,), ()):
    with pytest.raises(ValueError, match=r'packed masks of shape \(3, 2\) are not those of a leaf'):
      masks.unpack(packed, {'m': jnp.ones(shape)})


def test_the_hash_is_of_paths_shapes_and_bits_alone():
  value = masks.mask_hash(MASKS)
  assert value == prunejax.mask_hash(jax.tree.map(np.asarray, MASKS)) and len(value) == 64
  assert value == masks.mask_hash({'b': tuple(MASKS['b']), 'a': MASKS['a']})
  flipped = {**MASKS, 'a': MASKS['a'].at[0].set(False)}
  assert len({value, masks.mask_hash(flipped), masks.mask_hash({'a': MASKS['a']})}) == 3
  assert value != masks.mask_hash({**MASKS, 'a': MASKS['a'].reshape(2, 2)})


def test_masks_are_read_back_from_zeros():
  params = {'a': jnp.array([1.0, 0.0]), 'b': jnp.zeros(3)}
  read = masks.from_zeros(params, 'a')
  assert read['a'].tolist() == [True, False] and read['b'].all()
  with pytest.raises(ValueError, match="matches no floating-point leaf.*'a', 'b'"):
    masks.from_zeros(params, 'c')


def test_who_pays_says_asked_got_cutoff_and_warns():
  rng = np.random.default_rng(0)
  params = {
    'big': jnp.asarray(rng.normal(size=(10, 20)), jnp.float32),
    'small': jnp.asarray(rng.normal(size=(10, 20)) * 1e-3, jnp.float32),
    'bias': jnp.zeros(3),
  }
  rows = prunejax.who_pays(
    params, prunejax.magnitude(), 0.5, prunejax.global_threshold(), where='big|small'
  )
  big, small, total = rows
  assert (big.leaf, small.leaf, total.leaf) == ('big', 'small', 'total')
  assert (big.kept, small.kept, total.kept, total.weights) == (200, 0, 200, 400)
  assert (big.got, small.got, total.asked, total.got) == (0.0, 1.0, 0.5, 0.5)
  assert big.cutoff == float(jnp.min(jnp.abs(params['big']))) and small.cutoff is None
  assert (big.warning, small.warning) == ('', 'nothing is left')
  text = prunejax.format_report(rows)
  assert len(text.splitlines()) == 4 and 'nothing is left' in text
  plain = who_pays.to_dict(rows)
  assert json.loads(json.dumps(plain))['warnings'] == ['small: nothing is left']

  zero = jax.tree.map(jnp.zeros_like, params)
  paired = {'structure': prunejax.n_m(1, 2), 'where': 'big'}
  structured = prunejax.who_pays(params, prunejax.taylor(), 0.25, **paired, grad=zero)
  assert structured[0].asked == structured[0].got == structured[1].got == 0.25
  with pytest.raises(ValueError, match='sparsity=0.9 is more than this structure can remove, 0.5'):
    prunejax.who_pays(params, prunejax.magnitude(), 0.9, **paired)
  with pytest.raises(ValueError, match='needs grad= in tx.update: the raw gradient'):
    prunejax.who_pays(params, prunejax.taylor(), 0.5, where='big')
  broken = {**params, 'big': params['big'].at[0, 0].set(jnp.nan)}
  assert (
    prunejax.who_pays(broken, prunejax.magnitude(), 0.5, where='big')[0].warning
    == '1 scores are NaN'
  )
  with pytest.raises(ValueError, match='sparsity=1.5'):
    prunejax.who_pays(params, prunejax.magnitude(), 1.5)


def test_masks_that_are_not_bool_are_refused():
  with pytest.raises(ValueError, match='matches no mask and no floating-point leaf'):
    masks.sparsity({'w': np.array([0, 0, 0, 1], np.uint8)})
