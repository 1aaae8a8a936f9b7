"""Exact selection by counting, against a full sort."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import prunejax
from prunejax.pruning import mask_update
from prunejax.pruning.selection import counts, groups
from prunejax.pruning.selection import search as selection

SHAPES = {'layer_0/w': (3, 5), 'layer_1/w': (3, 5), 'other': (7,), 'scalar': ()}
VALUES = (0.0, -0.0, 1.0, -1.0, 1.5, 2.0, -3.25, 1e-3, 6e-8, 1e-30, 3e4, np.inf, -np.inf, np.nan)
top = jax.jit(selection.top)


@pytest.fixture
def streamed(monkeypatch):
  """Trees of any size go the way of large ones."""
  monkeypatch.setattr(groups, 'FEW', -1)
  monkeypatch.setattr(groups, 'SMALL', 8)
  return jax.jit(lambda scores, kept: selection.top(scores, kept))


def ranks(score):
  """Places of a leaf from the highest score to the lowest: NaN last, -0.0 below 0.0, ties by
  position.
  """
  flat = np.asarray(score, np.float32).ravel()
  level = [
    (np.isnan(v), -v if not np.isnan(v) else 0.0, np.signbit(v), i) for i, v in enumerate(flat)
  ]
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


@settings(
  max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(drawn=leaves(), dtype=st.sampled_from(['float32', 'bfloat16', 'float16']))
def test_a_tree_that_is_streamed_too(streamed, drawn, dtype):
  scores, kept = drawn
  scores = {name: jnp.asarray(score).astype(dtype) for name, score in scores.items()}
  kept = {name: jnp.int32(k) for name, k in kept.items()}
  masks, expected = streamed(scores, kept), top(scores, kept)
  for name in scores:
    np.testing.assert_array_equal(masks[name], expected[name], err_msg=name)


@settings(max_examples=30, deadline=None)
@given(leaves(), st.integers(0, 38))
def test_the_common_edge_counts_what_lies_above_and_at_it(drawn, kept):
  scores, _ = drawn
  edge = common({name: jnp.asarray(score) for name, score in scores.items()}, counts.wide(kept))
  keys = {name: np.asarray(selection.order_key(score)) for name, score in scores.items()}
  key = int(edge.key['other'])
  assert {int(k) for k in edge.key.values()} == {key}
  assert {n: int(a) for n, a in edge.above.items()} == {
    n: int((k > key).sum()) for n, k in keys.items()
  }
  assert {n: int(t) for n, t in edge.tied.items()} == {
    n: int((k == key).sum()) for n, k in keys.items()
  }
  # Ties go to earlier leaves, in the order of the dict.
  left = kept - sum(int(a) for a in edge.above.values())
  for name in scores:
    assert int(edge.needed[name]) == min(left, int(edge.tied[name]))
    left -= int(edge.needed[name])
  above, tied = int(sum(edge.above.values())), int(sum(edge.tied.values()))
  assert above < kept <= above + tied or kept == above == 0


@jax.jit
def common(scores, kept):
  plain = groups.plain(scores)
  of = groups.blocks(plain)
  edge = selection.common_edge(of, kept).edge
  return type(edge)(*(groups.by_name(of, field, plain) for field in edge))


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
  kept = {
    name: np.arange(3, dtype=np.int32) % (int(np.prod(shape)) + 1) for name, shape in SHAPES.items()
  }
  together = jax.jit(jax.vmap(selection.top))(scores, kept)
  for i in range(3):
    alone = top(
      {n: s[i] for n, s in scores.items()}, {n: jnp.asarray(k[i]) for n, k in kept.items()}
    )
    for name, mask in alone.items():
      np.testing.assert_array_equal(mask, together[name][i])


def test_no_sort_and_no_copy_of_the_scores(streamed):
  params = {f'layer_{i}/w': jax.ShapeDtypeStruct((512, 256), jnp.float32) for i in range(4)}

  def masks(params):
    of = groups.blocks(groups.Scores(lambda params: jax.tree.map(jnp.abs, params), params))
    return selection.masks(of, selection.edges(of, jnp.full(4, 1000)).edge, params)[0]

  compiled = jax.jit(masks).lower(params).compile()
  assert 'sort(' not in compiled.as_text()
  assert compiled.memory_analysis().temp_size_in_bytes < 0.1 * 4 * 512 * 256 * 4


@pytest.mark.parametrize(
  'draw', ['normal', 'bfloat16', 'few', 'constant', 'zeros', 'sorted', 'gap', 'huge']
)
@pytest.mark.parametrize('share', [0.5, 0.999, 0.0001])
def test_large_leaves_of_any_distribution(draw, share, streamed):
  rng = np.random.default_rng(1)
  size = (512, 300)
  normal = np.abs(rng.standard_normal(size)).astype(np.float32)
  score = {
    'normal': normal,
    'bfloat16': np.asarray(jnp.asarray(normal, jnp.bfloat16), np.float32),
    'few': rng.integers(0, 3, size).astype(np.float32),
    'constant': np.ones(size, np.float32),
    'zeros': normal * (rng.random(size) > 0.8),
    'sorted': np.sort(normal.ravel()).reshape(size),
    'gap': normal * (normal > 0.5) + 1e-30 * (normal < 1e-4),
    'huge': np.exp(40 * rng.standard_normal(size)).astype(np.float32),
  }[draw]
  kept = {'a': round(score.size * share), 'b': 7}
  if 'large' not in LARGE:
    LARGE['large'] = streamed
  scores = {'a': jnp.asarray(score), 'b': -jnp.asarray(score)}
  masks = LARGE['large'](scores, {name: jnp.int32(count) for name, count in kept.items()})
  for name, signed in (('a', score), ('b', -score)):
    expected = np.zeros(score.size, bool)
    expected[np.argsort(-signed.ravel(), kind='stable')[: kept[name]]] = True
    np.testing.assert_array_equal(np.ravel(masks[name]), expected)


LARGE = {}  # one compile for all draws


def test_stacked_leaves_are_cut_slice_by_slice_as_layers_of_their_own():
  rng = np.random.default_rng(0)
  layers = (
    rng.standard_normal((3, 40, 50)).astype(np.float32)
    * np.array([1, 10, 100], np.float32)[:, None, None]
  )
  for allocation in (
    prunejax.uniform(),
    prunejax.erk(),
    prunejax.global_threshold(),
    prunejax.class_distribution(),
  ):
    select = lambda scores, stacked=(), allocation=allocation: jax.jit(
      lambda s: prunejax.select_masks(s, 0.7, allocation=allocation, stacked=stacked)
    )(scores)
    together = select({'w': layers, 'b': layers[0, 0]}, ['w'])
    apart = {f'w_{i}': layer for i, layer in enumerate(layers)} | {'b': layers[0, 0]}
    alone = select(apart)
    np.testing.assert_array_equal(together['w'], np.stack([alone[f'w_{i}'] for i in range(3)]))
    np.testing.assert_array_equal(together['b'], alone['b'])


def test_a_leaf_beyond_int32_is_refused_by_name():
  with pytest.raises(ValueError, match=r"'huge' has 4294967296 units"):
    jax.eval_shape(
      lambda s: selection.top(s, {'huge': 5}),
      {'huge': jax.ShapeDtypeStruct((2**16, 2**16), jnp.bfloat16)},
    )


@pytest.mark.parametrize('allocation', [prunejax.uniform, prunejax.global_threshold])
def test_a_large_tree_is_pruned_step_by_step_as_a_small_one(allocation, monkeypatch):
  """Zeros among the weights: those pruned already go before those kept so far, in both ways alike."""
  rng = np.random.default_rng(0)
  start = {
    'a': rng.integers(-1, 3, (20, 40)),
    'b': rng.integers(-2, 2, (3, 40)),
    'c': rng.integers(0, 2, (40,)),
  }
  start = jax.tree.map(lambda w: jnp.asarray(w, jnp.float32), start)

  def run():
    tx = prunejax.prune_transform(
      prunejax.magnitude(), prunejax.linear(0.9, end=4), allocation=allocation()
    )

    @jax.jit
    def step(params, state, noise):
      updates, state = tx.update(noise, state, params)
      return optax.apply_updates(params, updates), state

    params, state, masks = start, tx.init(start), []
    draw = np.random.default_rng(1)
    for _ in range(6):
      params, state = step(
        params, state, jax.tree.map(lambda w: jnp.float32(draw.integers(-1, 2, w.shape)), start)
      )
      masks.append(state.prune_mask)
    return masks

  small = run()
  monkeypatch.setattr(groups, 'FEW', -1)
  monkeypatch.setattr(groups, 'SMALL', 8)
  for few, many in zip(small, run(), strict=True):
    jax.tree.map(np.testing.assert_array_equal, few, many)


@pytest.mark.parametrize(
  'allocation',
  [
    prunejax.global_threshold(),
    prunejax.class_uniform(['a.*', 'b.*']),
    prunejax.uniform(),
    prunejax.class_distribution(['a.*', 'b.*']),
  ],
)
def test_of_two_zeros_in_any_leaf_the_kept_one_stays(allocation, monkeypatch):
  # Few scores are not zero, so the threshold falls on zeros of several leaves; those pruned come first in the tree.
  draw = np.random.default_rng(2)
  leaves = {'a1': ((9, 7), 0.2), 'a2': ((5, 8), 0.9), 'b': ((6, 11), 0.6)}
  scores = {name: np.float32(draw.random(shape) < 0.2) for name, (shape, _) in leaves.items()}
  old = {name: jnp.asarray(draw.random(shape) < share) for name, (shape, share) in leaves.items()}
  run = lambda: mask_update.select(groups.plain(scores), jnp.float32(0.6), allocation, None, old)
  few = run()
  monkeypatch.setattr(groups, 'FEW', -1)
  monkeypatch.setattr(groups, 'SMALL', 8)
  many = run()
  jax.tree.map(np.testing.assert_array_equal, (few.masks, few.kept), (many.masks, many.kept))
  assert {name: int(count) for name, count in many.kept.items()} == {
    n: int(m.sum()) for n, m in many.masks.items()
  }
  if (
    allocation.find is not None
  ):  # a weight is revived only where all zeros that are kept so far stay
    revived = sum(int((mask & ~old[n] & (scores[n] == 0)).sum()) for n, mask in many.masks.items())
    lost = sum(int((~mask & old[n] & (scores[n] == 0)).sum()) for n, mask in many.masks.items())
    assert not revived and lost


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
  clipped = counts.clipped(
    counts.subtract(counts.wide(values), counts.wide(other)), jnp.int32(limit)
  )
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
  np.testing.assert_array_equal(
    jax.jit(lambda x: counts.block_sum(x, (2, 3)))(np.ones((5, 7), np.float32)).sum(), 35
  )
  assert np.isposinf(total(np.array([[1, np.inf]], np.float32))) and np.isnan(
    total(np.array([[1, np.nan]], np.float32))
  )


def test_leaves_are_of_one_kind_if_only_numbers_tell_them_apart():
  arrays = {'l_0/a': np.ones(2), 'l_0/b': np.ones(2), 'l_1/a': np.zeros(2), 'l_2/a': np.ones(3)}
  assert groups.kinds(arrays) == [['l_0/a', 'l_1/a'], ['l_0/b'], ['l_2/a']]
  doubled = groups.map_kinds(lambda x: 2 * x, arrays)
  assert (
    list(doubled) == list(arrays) and doubled['l_1/a'].sum() == 0 and doubled['l_2/a'].sum() == 6
  )
