"""Exact selection by counting, against a full sort."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunejax.pruning import counts, groups, selection

SHAPES = {'layer_0/w': (3, 5), 'layer_1/w': (3, 5), 'other': (7,), 'scalar': ()}
VALUES = (0.0, -0.0, 1.0, -1.0, 1.5, 2.0, -3.25, 1e-3, 6e-8, 1e-30, 3e4, np.inf, -np.inf, np.nan)
top = jax.jit(selection.top)


def ranks(score):
  """Places of a leaf from the highest score to the lowest: NaN last, -0.0 below 0.0, ties by
  position.
  """
  flat = np.asarray(score, np.float32).ravel()
  level = [(np.isnan(v), -v if not np.isnan(v) else 0.0, np.signbit(v), i) for i, v in enumerate(flat)]
  return sorted(range(flat.size), key=lambda i: level[i])


@st.composite
def leaves(draw):
  scores, kept = {}, {}
  for name, shape in SHAPES.items():
    size = int(np.prod(shape))
    drawn = draw(st.lists(st.sampled_from(VALUES), min_size=size, max_size=size))
    scores[name] = np.array(drawn, np.float32).reshape(shape)
    kept[name] = draw(st.integers(0, size))
  return scores, kept


@settings(max_examples=60, deadline=None)
@given(leaves(), st.sampled_from(['float32', 'bfloat16', 'float16']))
def test_top_is_a_full_sort_for_any_count_ties_and_dtype(drawn, dtype):
  scores, kept = drawn
  scores = {name: jnp.asarray(score).astype(dtype) for name, score in scores.items()}
  masks = top(scores, {name: jnp.int32(k) for name, k in kept.items()})
  for name, score in scores.items():
    expected = np.zeros(score.size, bool)
    expected[ranks(score)[: kept[name]]] = True
    np.testing.assert_array_equal(np.ravel(masks[name]), expected, err_msg=name)


@settings(max_examples=30, deadline=None)
@given(leaves(), st.integers(0, 38))
def test_the_common_edge_counts_what_lies_above_and_at_it(drawn, kept):
  scores, _ = drawn
  edge = common({name: jnp.asarray(score) for name, score in scores.items()}, counts.wide(kept))
  keys = {name: np.asarray(selection.order_key(score)) for name, score in scores.items()}
  key = np.asarray(edge.key)[0]
  assert np.all(np.asarray(edge.key) == key)
  assert np.asarray(edge.above).tolist() == [int((k > key).sum()) for k in keys.values()]
  assert np.asarray(edge.tied).tolist() == [int((k == key).sum()) for k in keys.values()]
  above, tied = int(sum(edge.above)), int(sum(edge.tied))
  assert above < kept <= above + tied or kept == above == 0


common = jax.jit(lambda s, kept: selection.common_edge(groups.blocks(groups.plain(s)), kept).edge)


@pytest.mark.parametrize('shape', [(0,), (1, 1), (2, 3, 4), (70_000,)])
def test_shapes(shape):
  size = int(np.prod(shape))
  score = np.random.default_rng(0).integers(0, 9, shape).astype(np.float32)
  mask = jax.jit(lambda s: selection.top({'a': s}, {'a': size // 3})['a'])(score)
  expected = np.zeros(size, bool)
  expected[np.argsort(-score.ravel(), kind='stable')[: size // 3]] = True
  np.testing.assert_array_equal(mask.ravel(), expected)


def test_members_of_a_population_select_as_they_would_alone():
  rng = np.random.default_rng(0)
  scores = {name: rng.normal(size=(3, *shape)).astype(np.float32) for name, shape in SHAPES.items()}
  kept = {name: np.arange(3, dtype=np.int32) % (int(np.prod(shape)) + 1) for name, shape in SHAPES.items()}
  together = jax.jit(jax.vmap(selection.top))(scores, kept)
  for i in range(3):
    alone = top({n: s[i] for n, s in scores.items()}, {n: jnp.asarray(k[i]) for n, k in kept.items()})
    for name, mask in alone.items():
      np.testing.assert_array_equal(mask, together[name][i])


def test_no_sort_no_gather_and_no_copy_of_the_data_beyond_the_keys():
  scores = {f'layer_{i}/w': jax.ShapeDtypeStruct((512, 256), jnp.float32) for i in range(4)}
  compiled = jax.jit(lambda s: selection.top(s, dict.fromkeys(s, 1000))).lower(scores).compile()
  text = compiled.as_text()
  assert 'sort(' not in text and 'all-gather' not in text and ' gather(' not in text
  data = 4 * 512 * 256 * 4
  assert compiled.memory_analysis().temp_size_in_bytes < 1.3 * data


def test_a_leaf_beyond_int32_is_refused_by_name():
  with pytest.raises(ValueError, match=r"'huge' has 4294967296 units"):
    jax.eval_shape(
      lambda s: selection.top(s, {'huge': 5}), {'huge': jax.ShapeDtypeStruct((2**16, 2**16), jnp.bfloat16)}
    )


@given(st.lists(st.integers(0, 2**44), min_size=1, max_size=8), st.integers(0, 2**20))
@settings(max_examples=40, deadline=None)
def test_wide_counts_are_integers(values, limit):
  plain = lambda w: (np.asarray(w.hi, np.int64) * 65536 + np.asarray(w.lo)).tolist()
  assert plain(counts.total(counts.wide(values))) == sum(values)
  assert plain(counts.running(counts.wide(values))) == [sum(values[:i]) for i in range(len(values))]
  other = values[::-1]
  assert plain(counts.subtract(counts.wide(values), counts.wide(other))) == [
    a - b for a, b in zip(values, other, strict=True)
  ]
  clipped = counts.clipped(counts.subtract(counts.wide(values), counts.wide(other)), jnp.int32(limit))
  assert clipped.tolist() == [min(max(a - b, 0), limit) for a, b in zip(values, other, strict=True)]


@given(st.integers(0, 2**46), st.integers(0, 2**29 - 1), st.integers(1, 2**29 - 1))
@settings(max_examples=60, deadline=None)
def test_multiply_divide_is_exact(count, factor, divisor):
  factor = min(factor, divisor)
  (hi, lo), rest = divide(counts.wide(count), factor, divisor)
  assert (int(hi) * 65536 + int(lo), int(rest)) == divmod(count * factor, divisor)


divide = jax.jit(counts.multiply_divide)


def test_block_sums_do_not_depend_on_order_or_scale():
  rng = np.random.default_rng(0)
  x = (rng.normal(size=(37, 53)) * 10.0 ** rng.integers(-6, 3, (37, 53))).astype(np.float32)
  total = jax.jit(lambda x: counts.block_sum(x, x.shape))
  sums = {float(total(a)[0, 0]) for a in (x, x[::-1], x[:, ::-1], rng.permuted(x, axis=0))}
  assert sums == {float(total(x)[0, 0])}
  np.testing.assert_allclose(total(x)[0, 0], np.float64(x).sum(), rtol=1e-6)
  np.testing.assert_array_equal(jax.jit(lambda x: counts.block_sum(x, (2, 3)))(np.ones((5, 7), np.float32)).sum(), 35)
  assert np.isposinf(total(np.array([[1, np.inf]], np.float32))) and np.isnan(
    total(np.array([[1, np.nan]], np.float32))
  )


def test_leaves_are_of_one_kind_if_only_numbers_tell_them_apart():
  arrays = {'l_0/a': np.ones(2), 'l_0/b': np.ones(2), 'l_1/a': np.zeros(2), 'l_2/a': np.ones(3)}
  assert groups.kinds(arrays) == [['l_0/a', 'l_1/a'], ['l_0/b'], ['l_2/a']]
  doubled = groups.map_kinds(lambda x: 2 * x, arrays)
  assert list(doubled) == list(arrays) and doubled['l_1/a'].sum() == 0 and doubled['l_2/a'].sum() == 6
