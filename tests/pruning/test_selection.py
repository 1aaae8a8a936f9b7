"""Exact selection by counting, against a full sort."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import prunejax
from prunejax.bench import sizes
from prunejax.pruning import counts, leaf_kinds, selection
from prunejax.pruning.selection import highest, keys, passes, sample, ties

VALUES = (0.0, -0.0, 1.0, -1.0, 1.5, 2.0, -3.25, 1e-3, 6e-8, 1e-30, 3e4, np.inf, -np.inf, np.nan)
# Leaves cut as a whole, slice by slice, column by column; three that share a threshold; empty ones.
SHAPES = {
  'a/0': (3, 5),
  'shared/0': (8, 8),
  'a/1': (3, 5),
  'vector': (7,),
  'scalar': (),
  'layers': (3, 4, 5),
  'more layers': (3, 7, 2),
  'shared/1': (3, 3),
  'columns/0': (6, 9),
  'columns/1': (6, 9),
  'empty': (0, 4),
  'shared/2': (20,),
}
SHARED = ('shared/0', 'shared/1', 'shared/2')
CELLS = {'layers': (3, 1, 1), 'more layers': (3, 1, 1), 'columns/0': (1, 9), 'columns/1': (9,)}
KEYS = [(name,) for name in SHAPES if name not in SHARED] + [SHARED]


@pytest.fixture
def sampled(monkeypatch):
  """Small groups are guided by a sample and by rows, and skipped when done, as large ones are."""
  monkeypatch.setattr(passes, 'MANY', 0)
  monkeypatch.setattr(ties, 'FEWEST_COLUMNS', 1)
  monkeypatch.setattr(sample, 'FEWEST', 4)
  monkeypatch.setattr(sample, 'LARGEST_STEP', 8)


def highest_by_sort(scores, old, count):
  """Flat bool: NaN lowest, -0.0 below 0.0 or, with masks so far, pruned zeros below kept ones."""
  nan, position = np.isnan(scores), np.arange(scores.size)
  second = (scores == 0) & (np.signbit(scores) if old is None else ~old)
  order = np.lexsort((position, second, -np.where(nan, 0, scores), nan))  # the last key comes first
  keep = np.zeros(scores.size, bool)
  keep[order[:count]] = True
  return keep


def select_by_sort(scores, wanted, old=None):
  """The numpy twin of `selection.select`."""
  keep = {}
  for names, count in wanted.items():
    shape = np.shape(count)
    if np.size(count) == 1:
      flat = np.concatenate([np.float32(scores[name]).ravel() for name in names])
      so_far = None if old is None else np.concatenate([old[name].ravel() for name in names])
      kept = highest_by_sort(flat, so_far, int(np.ravel(count)[0]))
      ends = np.cumsum([scores[name].size for name in names])[:-1]
      parts = zip(names, np.split(kept, ends), strict=True)
      keep |= {name: part.reshape(scores[name].shape) for name, part in parts}
      continue
    (name,) = names
    count = np.reshape(count, (1,) * (scores[name].ndim - len(shape)) + shape)
    keep[name] = np.zeros(scores[name].shape, bool)
    for cell in np.ndindex(*count.shape):
      at = tuple(
        slice(None) if n == 1 else slice(c, c + 1) for c, n in zip(cell, count.shape, strict=True)
      )
      so_far = None if old is None else old[name][at].ravel()
      kept = highest_by_sort(np.float32(scores[name][at]).ravel(), so_far, int(count[cell]))
      keep[name][at] = kept.reshape(keep[name][at].shape)
  return {name: keep[name] for name in scores}


@st.composite
def problems(draw):
  seed = draw(st.integers(0, 2**32 - 1))
  kind = draw(st.sampled_from(['any', 'normal', 'zeros', 'few', 'huge']))
  rng = np.random.default_rng(seed)
  values = {
    'any': lambda shape: rng.choice(np.float32(VALUES), shape),
    'normal': lambda shape: np.abs(rng.standard_normal(shape)),
    'zeros': lambda shape: rng.choice(np.float32([0, -0.0, 0, 1]), shape),
    'few': lambda shape: rng.choice(np.float32([0, 1, 2]), shape),
    'huge': lambda shape: np.exp(np.clip(30 * rng.standard_normal(shape), -80, 80)),
  }[kind]
  scores = {name: np.asarray(values(shape), np.float32) for name, shape in SHAPES.items()}
  wanted = {}
  for names in KEYS:
    size = sum(scores[name].size for name in names)
    cells = CELLS.get(names[0], ())
    share = rng.choice([0, 1, rng.random()])
    one = size // int(np.prod(cells))
    counted = rng.integers(0, one + 1, cells) if cells else np.asarray(round(share * size))
    wanted[names] = np.asarray(counted, np.int32)
  old = {name: rng.random(shape) < 0.5 for name, shape in SHAPES.items()}
  return scores, wanted, old


@jax.jit
def masks(scores, wanted, old):
  wanted = dict(zip(KEYS, wanted, strict=True))
  return selection.select(selection.plain({name: scores[name] for name in SHAPES}), wanted, old)


def check(scores, wanted, old, dtype, program):
  cast = {name: jnp.asarray(score).astype(dtype) for name, score in scores.items()}
  got = program(cast, list(wanted.values()), old)
  seen = {name: np.asarray(score.astype(jnp.float32)) for name, score in cast.items()}
  for name, expected in select_by_sort(seen, wanted, old).items():
    np.testing.assert_array_equal(got.masks[name], expected, err_msg=name)
    assert bool(got.nan[name]) == bool(np.isnan(seen[name]).any()), name


# (dtype, whether there are masks so far): each is a program.
KINDS = [('float32', True), ('bfloat16', False), ('float16', True)]


@settings(max_examples=80, deadline=None)
@given(problems(), st.sampled_from(KINDS))
def test_selection_is_a_full_sort_for_any_group_count_ties_and_dtype(problem, kind):
  scores, wanted, old = problem
  dtype, has_masks = kind
  check(scores, wanted, old if has_masks else None, dtype, masks)


@settings(
  max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(problem=problems())
def test_a_sample_only_guides(sampled, problem):
  check(*problem, 'float32', sampled_masks)


sampled_masks = jax.jit(lambda *args: masks.__wrapped__(*args))


@pytest.mark.parametrize('size', ['few', 'sampled'])
def test_a_count_may_be_wide_or_a_plain_number_of_any_size(size, request):
  if size == 'sampled':
    request.getfixturevalue(size)
  scores = {'a': jnp.arange(12.0).reshape(3, 4), 'b': jnp.arange(5.0)}
  for count, stay in ((counts.wide(6), 6), (6, 6), (-3, 0), (counts.wide(2**40 + 3), 17), (99, 17)):
    of = lambda scores, count=count: selection.select(selection.plain(scores), {('b', 'a'): count})
    got = jax.jit(of)(scores).masks
    expected = select_by_sort(jax.tree.map(np.asarray, scores), {('a', 'b'): stay})
    jax.tree.map(np.testing.assert_array_equal, got, expected)


def test_leaves_of_two_precisions_share_a_threshold():
  rng = np.random.default_rng(0)
  fine = np.float32(1 + rng.random(500) / 500)  # most of them lie between two bfloat16 numbers
  coarse = np.asarray(jnp.asarray(1 + rng.random(500) / 50, jnp.bfloat16).astype(jnp.float32))
  scores = {'fine': jnp.asarray(fine), 'coarse': jnp.asarray(coarse, jnp.bfloat16)}
  names = ('fine', 'coarse')
  cut = jax.jit(lambda scores, n: selection.select(selection.plain(scores), {names: n}).masks)
  for count in (1, 250, 700, 999):
    got = cut(scores, count)
    expected = select_by_sort({'fine': fine, 'coarse': coarse}, {names: count})
    jax.tree.map(np.testing.assert_array_equal, got, expected)


@pytest.mark.parametrize('size', ['few', 'sampled'])
def test_members_of_a_population_select_as_they_would_alone(size, request):
  if size == 'sampled':
    request.getfixturevalue(size)
  rng = np.random.default_rng(0)
  keys = [('a/0',), ('layers',), ('columns/0',), ('shared/0', 'shared/1')]  # one of each kind
  names = [name for key in keys for name in key]

  def select(scores, wanted, old):
    return selection.select(
      selection.plain({name: scores[name] for name in names}),
      dict(zip(keys, wanted, strict=True)),
      old,
    )

  scores = {n: np.float32(rng.integers(0, 9, (3, *SHAPES[n]))) for n in names}
  old = {n: rng.random((3, *SHAPES[n])) < 0.5 for n in names}
  wanted = []
  for key in keys:
    cells = CELLS.get(key[0], ())
    size = sum(int(np.prod(SHAPES[name])) for name in key)
    wanted.append(np.int32(rng.integers(0, size // int(np.prod(cells)) + 1, (3, *cells))))
  together, alone = jax.jit(jax.vmap(select))(scores, wanted, old), jax.jit(select)
  for i in range(3):
    one = alone(*jax.tree.map(lambda x, i=i: x[i], (scores, wanted, old)))
    for name, mask in one.masks.items():
      np.testing.assert_array_equal(mask, together.masks[name][i])


def found(scores, wanted, old=None):
  """What `select` finds, the number of passes among it."""
  widened = lambda scores: jax.tree.map(lambda x: x.astype(jnp.float32), scores)
  scores = selection.Scores(widened, scores)
  shapes, leaves = jax.eval_shape(scores.read, scores.sources), passes.readers(scores)
  blocks, goals = highest._blocks(shapes, leaves, wanted, 1)
  return highest.find(highest._keys(leaves, old, blocks), shapes, blocks, goals)


SIZE = {f'layer_{i}/{name}': shape for i in range(3) for name, shape in (('w', (256, 192)),)}
SIZE['up'] = (256, 768)
# Passes over all scores and over ties, the most that the sparsities below may take: of float32
# scores, of scores rounded to bfloat16, and of float32 scores that are read from bfloat16 weights.
MOST = {
  'gaussian': ((4, 0), (5, 3), (2, 3)),
  '80 % zeros': ((4, 2), (5, 2), (2, 2)),
  'constant': ((1, 1), (1, 1), (1, 1)),
  'nine values': ((3, 2), (3, 2), (3, 2)),
  'log-uniform': ((6, 0), (9, 0), (4, 0)),
  'in order': ((7, 1), (5, 7), (4, 7)),
}


@pytest.mark.parametrize('cells', [(), (4, 1, 1)])
@pytest.mark.parametrize('values', [2, 5, 400])
def test_ties_are_cut_within_a_row_at_every_count(cells, values, sampled):
  rng = np.random.default_rng(values)
  score = np.float32(rng.integers(0, values, (4, 5, 6)))
  score[1, :, :2] = 0  # rows with ties at their ends alone, and with none
  score[2, 1] = values
  of = lambda scores, n: selection.select(selection.plain(scores), {('a',): n}).masks
  cut, scores = jax.jit(of), {'a': jnp.asarray(score)}
  for count in range(score.size // int(np.prod(cells)) + 1):
    number = np.full(cells, count, np.int32)
    expected = select_by_sort({'a': score}, {('a',): number})
    np.testing.assert_array_equal(cut(scores, number)['a'], expected['a'], err_msg=str(count))


@pytest.fixture(scope='module')
def count_passes():
  def passes_of(scores, share):
    kept = {(name,): jnp.int32(share * score.size) for name, score in scores.items()}
    total = sum(score.size for score in scores.values())
    everything = {tuple(scores): (jnp.float32(share) * total).astype(jnp.int32)}
    return [found(scores, wanted).passes for wanted in (kept, everything)]

  return jax.jit(passes_of)


@pytest.mark.parametrize('kind', list(sizes.KINDS))
def test_passes_over_the_scores_are_few(kind, count_passes, monkeypatch):
  monkeypatch.setattr(passes, 'MANY', 0)  # as for large models
  weights = {name: jnp.abs(w) for name, w in sizes.weights(SIZE, kind).items()}
  rounded = {name: w.astype(jnp.bfloat16).astype(w.dtype) for name, w in weights.items()}
  half = {name: w.astype(jnp.bfloat16) for name, w in weights.items()}
  for scores, (over_scores, over_ties) in zip((weights, rounded, half), MOST[kind], strict=True):
    for share in (0.5, 0.1):
      for number in count_passes(scores, share):
        assert int(number['scores']) <= over_scores, (share, number)
        assert int(number['ties']) <= over_ties, (share, number)


ONE = jnp.float32(1)
# {name: (scores of weights, the spare bits that follow from bfloat16, float16 and float32 weights)}
READ = {
  'magnitude': (lambda w: jnp.abs(w.astype(jnp.float32)), (16, 13, 0)),
  'stored': (lambda w: -w, (16, 13, 0)),
  'a view': (lambda w: w.reshape(2, -1)[1:].T.astype(jnp.float32), (16, 13, 0)),
  'masked': (lambda w: jnp.where(w > 0, w.astype(jnp.float32), 0.0), (16, 13, 0)),
  'the largest of two': (lambda w: jnp.maximum(w, w[::-1]).astype(jnp.float32), (16, 13, 0)),
  'beside a coarse number': (lambda w: jnp.maximum(w.astype(jnp.float32), 1.5), (16, 13, 0)),
  'beside a fine number': (lambda w: jnp.maximum(w.astype(jnp.float32), 0.1), (0, 0, 0)),
  'beside a fine array': (lambda w: jnp.where(w > 0, w.astype(jnp.float32), 0.1 * ONE), (0, 0, 0)),
  'squared': (lambda w: w.astype(jnp.float32) ** 2, (0, 0, 0)),
  'scaled': (lambda w: w.astype(jnp.float32) * 0.3, (0, 0, 0)),
  'rounded': (lambda w: (w * w).astype(jnp.float32), (0, 0, 0)),
  'integers': (lambda w: (w > 0).astype(jnp.int32).astype(jnp.float32), (0, 0, 0)),
}


@pytest.mark.parametrize('name', READ)
def test_bits_that_no_score_needs_are_known_and_left_out_of_the_search(name):
  read, spare = READ[name]
  for dtype, bits in zip((jnp.bfloat16, jnp.float16, jnp.float32), spare, strict=True):
    every = jnp.arange(2**16, dtype=jnp.uint16)
    half = dtype if jnp.finfo(dtype).bits == 16 else jnp.bfloat16
    weights = jax.lax.bitcast_convert_type(every, half).astype(dtype)
    weights = jnp.where(jnp.isnan(weights), 0, weights)
    scores = selection.Scores(lambda tree: jax.tree.map(read, tree), {'a': weights})
    (leaf,) = passes.readers(scores).values()
    assert leaf.spare == bits
    key = np.asarray(keys.order_key(leaf.read(leaf.arrays)))
    assert len(np.unique(key)) == len(np.unique(key >> bits))


@pytest.mark.slow
def test_any_distribution_ends_within_a_bound():
  # Every third pass leaves two sevenths of the bracket at most, and mostly a seventh or less.
  hostile = np.float32(np.exp(np.linspace(-87, 88, 2**12))) * np.float32([1, -1])[:, None]
  hostile[:, 1::2] = np.nextafter(hostile[:, ::2], np.float32(np.inf))
  scores = {'a': jnp.asarray(hostile)}
  for count in (1, 2, 4095, 4096, 4097, 8000, 8191):
    got = found(scores, {('a',): jnp.int32(count)})
    assert int(got.passes['scores']) <= 33
    kept = selection.select(selection.plain(scores), {('a',): jnp.int32(count)}).masks['a']
    np.testing.assert_array_equal(np.ravel(kept), highest_by_sort(hostile.ravel(), None, count))


@pytest.mark.parametrize(
  'shared, has_masks',
  [
    pytest.param(False, False, marks=pytest.mark.slow),
    (False, True),
    (True, False),
    pytest.param(True, True, marks=pytest.mark.slow),
  ],
)
def test_no_sort_and_no_copy_of_the_scores(shared, has_masks, monkeypatch):
  monkeypatch.setattr(passes, 'MANY', 0)  # as for large models
  params = {f'layer_{i}/w': jax.ShapeDtypeStruct((512, 256), jnp.float32) for i in range(4)}
  old = {name: jax.ShapeDtypeStruct((512, 256), bool) for name in params} if has_masks else None
  groups = [tuple(params)] if shared else [(name,) for name in params]

  @jax.jit
  def select(params, old):
    scores = selection.Scores(lambda params: jax.tree.map(jnp.abs, params), params)
    return selection.select(scores, {names: jnp.int32(1000) for names in groups}, old)

  compiled = select.lower(params, old).compile()
  assert 'sort(' not in compiled.as_text()
  # New masks, a byte a weight, are among the temporaries of a branch.
  new = 4 * 512 * 256 if has_masks else 0
  extra = compiled.memory_analysis().temp_size_in_bytes - new
  assert extra < 0.1 * 4 * 512 * 256 * 4


LARGE = ['normal', 'bfloat16', 'few', 'constant', 'zeros', 'sorted', 'gap', 'huge']
select_large = jax.jit(lambda scores, wanted: selection.select(selection.plain(scores), wanted))


@pytest.mark.parametrize('draw', LARGE)
@pytest.mark.parametrize('share', [0.5, 0.999, 0.0001])
def test_large_leaves_of_any_distribution(draw, share):
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
  kept = {('a',): round(score.size * share), ('b',): 7}
  scores = {'a': jnp.asarray(score), 'b': -jnp.asarray(score)}
  got = select_large(scores, {names: jnp.int32(count) for names, count in kept.items()}).masks
  for name, signed in (('a', score), ('b', -score)):
    expected = np.zeros(score.size, bool)
    expected[np.argsort(-signed.ravel(), kind='stable')[: kept[name,]]] = True
    np.testing.assert_array_equal(np.ravel(got[name]), expected)


def test_a_leaf_is_read_from_its_own_sources_alone():
  read = lambda sources: {name: jnp.abs(w) * sources[1] for name, w in sources[0].items()}
  weights = {'a': jnp.ones((2, 3)), 'b': jnp.ones((4, 5))}
  leaves = passes.readers(selection.Scores(read, (weights, jnp.float32(3))))
  assert [array.shape for array in leaves['b'].arrays] == [(4, 5), ()]
  np.testing.assert_array_equal(leaves['b'].read(leaves['b'].arrays), np.full((4, 5), 3.0))


def test_a_leaf_beyond_int32_is_refused_by_name():
  scores = {'huge': jax.ShapeDtypeStruct((2**16, 2**16), jnp.bfloat16)}
  with pytest.raises(ValueError, match=r"'huge' has 4294967296 units"):
    jax.eval_shape(lambda s: selection.select(selection.plain(s), {('huge',): 5}), scores)


def test_float64_scores_are_refused_by_name():
  with jax.enable_x64(True):
    scores = {'fine': jnp.ones((3,), jnp.float64)}
    with pytest.raises(ValueError, match="'fine' are float64"):
      selection.select(selection.plain(scores), {('fine',): 1})


@pytest.mark.parametrize(
  'allocation',
  [
    prunejax.uniform,
    prunejax.global_threshold,
    pytest.param(prunejax.erk, marks=pytest.mark.slow),
    pytest.param(prunejax.class_distribution, marks=pytest.mark.slow),
  ],
)
def test_stacked_leaves_are_cut_slice_by_slice_as_layers_of_their_own(allocation):
  rng = np.random.default_rng(0)
  layers = (
    rng.standard_normal((3, 40, 50)).astype(np.float32)
    * np.array([1, 10, 100], np.float32)[:, None, None]
  )
  select = lambda scores, stacked=(): prunejax.select_masks(
    scores, 0.7, allocation=allocation(), stacked=stacked
  )
  together = select({'w': layers, 'b': layers[0, 0]}, ['w'])
  apart = {f'w_{i}': layer for i, layer in enumerate(layers)} | {'b': layers[0, 0]}
  alone = select(apart)
  np.testing.assert_array_equal(together['w'], np.stack([alone[f'w_{i}'] for i in range(3)]))
  np.testing.assert_array_equal(together['b'], alone['b'])


@pytest.mark.parametrize('many, least', [(0, 3), (2**30, 2)])
def test_leaves_with_the_same_layers_are_searched_together(many, least, monkeypatch):
  """A program that is compiled has the search once, however many kernels a layer has."""
  monkeypatch.setattr(passes, 'MANY', many)

  def loops(count):
    names = 'key output query value'.split()[:count]
    scores = {
      name: jax.ShapeDtypeStruct((4, 128, 64 * i), jnp.float32) for i, name in enumerate(names, 1)
    }
    select = lambda scores: prunejax.select_masks(scores, 0.5, stacked=names)
    return str(jax.make_jaxpr(select)(scores)).count(' while[')

  assert loops(1) == loops(4) >= least  # over a sample of many scores, over scores, over ties


@pytest.mark.parametrize('allocation', [prunejax.uniform, prunejax.global_threshold])
def test_gradual_pruning_with_zeros_among_the_weights_is_a_sort_at_every_step(allocation):
  """Zeros that are pruned already go before those kept so far."""
  rng = np.random.default_rng(0)
  shapes = {'a': (20, 40), 'b': (3, 40), 'c': (40,)}
  params = {n: jnp.float32(rng.integers(-1, 3, shape)) for n, shape in shapes.items()}
  tx = prunejax.prune_transform(
    prunejax.magnitude(), prunejax.linear(0.9, end=4), allocation=allocation()
  )

  @jax.jit
  def step(params, state, noise):
    updates, state = tx.update(noise, state, params)
    return optax.apply_updates(params, updates), state

  state = tx.init(params)
  for _ in range(6):
    scores = {name: np.abs(np.asarray(w)) for name, w in params.items()}
    old = {name: np.asarray(mask) for name, mask in state.prune_mask.items()}
    noise = {n: jnp.float32(rng.integers(-1, 2, shape)) for n, shape in shapes.items()}
    params, state = step(params, state, noise)
    kept = {name: int(mask.sum()) for name, mask in state.prune_mask.items()}
    wanted = (
      {(name,): count for name, count in kept.items()}
      if allocation is prunejax.uniform
      else {tuple(shapes): sum(kept.values())}
    )
    expected = select_by_sort(scores, wanted, old)
    jax.tree.map(np.testing.assert_array_equal, state.prune_mask, expected)


# Few lengths, since every length is compiled.
LISTS = [st.lists(st.integers(0, 2**44), min_size=n, max_size=n) for n in (1, 7)]


@given(st.one_of(LISTS), st.integers(0, 2**20))
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
  assert leaf_kinds.kinds(arrays) == [['l_0/a', 'l_1/a'], ['l_0/b'], ['l_2/a']]
  doubled = leaf_kinds.map_kinds(lambda x: 2 * x, arrays)
  assert (
    list(doubled) == list(arrays) and doubled['l_1/a'].sum() == 0 and doubled['l_2/a'].sum() == 6
  )


@pytest.mark.parametrize('shared', [False, True])
def test_few_scores_are_searched_as_one_table_however_many_leaves_there_are(shared):
  def loops(count):
    names = [f'layer_{i}/w' for i in range(count)]
    scores = {name: jax.ShapeDtypeStruct((8, 3 + i), jnp.float32) for i, name in enumerate(names)}
    groups = [tuple(names)] if shared else [(name,) for name in names]
    select = lambda scores: selection.select(
      selection.plain(scores), {names: jnp.int32(9) for names in groups}
    )
    program = jax.make_jaxpr(select)(scores)
    return [len(e.params['body_jaxpr'].eqns) for e in program.eqns if e.primitive.name == 'while']

  assert loops(3) == loops(9) and len(loops(9)) == 2  # over scores, over ties


def test_leaves_that_share_a_threshold_have_one_count():
  scores = {'a': jnp.ones((2, 3)), 'b': jnp.ones((2, 3))}
  with pytest.raises(ValueError, match=r"'a', 'b'.*one count is needed, not \(3,\)"):
    selection.select(selection.plain(scores), {('a', 'b'): jnp.ones(3, jnp.int32)})
