"""Kernels of any layout are pruned as the matrices that they are; an unknown layout is refused."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import prunejax
from prunejax.observe import linen as observe
from prunejax.pruning import criteria, kernel_layout
from prunejax.pruning.links.low_rank import low_rank, ranks
from prunejax.pruning.paths import named_leaves

IN, OUT = 8, 8  # square, so that no shape gives a wrong axis away
RNG = np.random.default_rng(0)
ROWS = RNG.normal(size=(40, IN)).astype(np.float32) * np.arange(1, IN + 1, dtype=np.float32)
MATRIX = RNG.normal(size=(IN, OUT)).astype(np.float32)
# {layout: the matrix [in, out] as a leaf of this layout}.
LEAVES = {
  'out in': MATRIX.T,
  'in in out': MATRIX.reshape(4, 2, OUT),
  'out out in in': MATRIX.T.reshape(2, 4, 4, 2),
  'out in out': MATRIX.reshape(IN, 2, 4).swapaxes(0, 1),
}
# What reads the axes of a leaf, each in a recipe.
RECIPES = {
  'wanda': dict(criterion=prunejax.wanda()),
  'wanda per output': dict(criterion=prunejax.wanda(), allocation=prunejax.per_output()),
  'wanda over steps': dict(criterion=prunejax.wanda(accumulate=True)),
  'sparsegpt': dict(criterion=prunejax.sparsegpt(), structure=prunejax.n_m(2, 4)),
  'block_fisher': dict(criterion=prunejax.block_fisher(block=4, gradients=6, damp=0.01)),
  'fisher of steps': dict(criterion=prunejax.block_fisher(block=4, source='steps', damp=0.01)),
  'regrow': dict(criterion=prunejax.regrow(prunejax.wanda(), criteria.gradient(), 0.3)),
  'n_m': dict(criterion=prunejax.magnitude(), structure=prunejax.n_m(2, 4)),
  'n_m per output': dict(
    criterion=prunejax.magnitude(),
    structure=prunejax.n_m(1, 2),
    allocation=prunejax.per_output(),
  ),
  'rows': dict(criterion=prunejax.magnitude(), structure=prunejax.rows(2)),
  'columns': dict(criterion=prunejax.magnitude(), structure=prunejax.columns()),
  'block': dict(criterion=prunejax.magnitude(), structure=prunejax.block(2, 4)),
  'tied': dict(criterion=prunejax.magnitude(), structure=prunejax.tied({'.*': ('units', -2, 2)})),
  'per_output': dict(criterion=prunejax.magnitude(), allocation=prunejax.per_output()),
}


def pruned(leaves, recipe, moves=2):
  """The weights after some moves of the masks, {name: matrix [in, out]}.

  One program prunes all leaves: they share no score and no threshold.

  Args:
    leaves: {name: (words of its layout, leaf)}.
    recipe: what `prune_transform` is given.
    moves: how often masks move.
  """
  params = {name: {'w': jnp.asarray(leaf)} for name, (_, leaf) in leaves.items()}
  words = {f'{name}/w': words for name, (words, _) in leaves.items() if words}
  layouts = kernel_layout.layouts(params, kernel_layout.parse(words))
  recipe = dict(recipe)
  link = prunejax.prune_transform(
    recipe.pop('criterion'), prunejax.linear(0.5, begin=0, end=1), layout=words, **recipe
  )
  matrices = lambda p: {n: kernel_layout.to_matrix(p[n]['w'], layouts[f'{n}/w']) for n in leaves}
  loss = lambda p, i: sum(
    jnp.sum(jnp.tanh(jnp.asarray(ROWS)[i] @ matrix) ** 2) for matrix in matrices(p).values()
  )

  @jax.jit
  def step(params, state):
    grad = jax.grad(lambda p: jnp.sum(jax.vmap(loss, (None, 0))(p, jnp.arange(5))))(params)
    extra = {
      'activations': lambda p: {f'{name}/w': jnp.asarray(ROWS) for name in leaves},
      'examples': (6, loss),
      'grad': grad,
    }
    updates = jax.tree.map(lambda g: -0.01 * g, grad)
    updates, state = link.update(updates, state, params, **extra)
    return optax.apply_updates(params, updates), state

  state = link.init(params)
  for _ in range(moves):
    params, state = step(params, state)
  prunejax.check_pruned(params, state)
  return jax.tree.map(np.asarray, matrices(params))


# Each layout beside the plain matrix, and the matrix read the other way round.
ALL = {'plain': ('', MATRIX), 'turned': ('out in', MATRIX)}
ALL |= {f'leaf_{i}': layout_and_leaf for i, layout_and_leaf in enumerate(LEAVES.items())}


# One of each kind; the others are slow.
FEW = ('wanda per output', 'sparsegpt', 'fisher of steps', 'regrow', 'n_m', 'rows', 'tied')


@pytest.mark.parametrize(
  'name', [name if name in FEW else pytest.param(name, marks=pytest.mark.slow) for name in RECIPES]
)
def test_a_kernel_of_any_layout_is_pruned_as_its_matrix(name):
  recipe = dict(RECIPES[name])
  if name == 'tied':  # each leaf has units of its own
    recipe['structure'] = prunejax.tied({f'{leaf}/w': (leaf, -2, 2) for leaf in ALL})
  after = pruned(ALL, recipe)
  wanted, turned = after.pop('plain'), after.pop('turned')
  assert 0 < np.sum(wanted == 0) <= MATRIX.size // 2
  assert len(after) == len(LEAVES)
  for leaf, got in after.items():
    np.testing.assert_array_equal(got == 0, wanted == 0, err_msg=ALL[leaf][0])
    np.testing.assert_allclose(got, wanted, rtol=2e-4, atol=1e-6, err_msg=ALL[leaf][0])
  # The other way round is another result, which a square shape would hide.
  assert np.any((turned.T == 0) != (wanted == 0))


def test_random_scores_are_drawn_in_the_matrix_too():
  """Each leaf is pruned by itself, under one name, on which the draw depends."""
  recipe = dict(criterion=prunejax.regrow(prunejax.wanda(), prunejax.random(), 0.3))
  wanted = pruned({'layer': ('', MATRIX)}, recipe)['layer']
  words = 'out out in in'
  got = pruned({'layer': (words, LEAVES[words])}, recipe)['layer']
  np.testing.assert_array_equal(got == 0, wanted == 0)
  np.testing.assert_allclose(got, wanted, rtol=2e-4, atol=1e-6)


def test_erk_sees_heads_and_width_as_one_axis():
  leaf = {'a': jnp.asarray(RNG.random((8, 2, 32)), jnp.float32)}
  other = {'b': jnp.asarray(RNG.random((16, 16)), jnp.float32)}
  kept = lambda scores, **kwargs: {
    name: int(mask.sum())
    for name, mask in prunejax.select_masks(
      scores, 0.7, allocation=prunejax.erk(), **kwargs
    ).items()
  }
  matrix = kept({'a': leaf['a'].reshape(8, 64)} | other)
  assert kept(leaf | other, layout={'a': 'in out out'}) == matrix != kept(leaf | other)


def test_rank_is_that_of_the_matrix():
  params = {'a/kernel': jnp.asarray(MATRIX.reshape(IN, 2, 4))}
  tx = low_rank(prunejax.constant(0.5), layout='in out out')
  updates, state = tx.update(jax.tree.map(jnp.zeros_like, params), tx.init(params), params)
  assert ranks(state) == {'a/kernel': 2}
  left = np.asarray(optax.apply_updates(params, updates)['a/kernel']).reshape(IN, OUT)
  assert np.linalg.matrix_rank(left, tol=1e-4) == 2


@pytest.mark.parametrize('name', RECIPES)
@pytest.mark.parametrize(
  'leaf, shape',
  [('layer/weight', (8, 8)), ('layer/kernel', (4, 8, 8)), ('query/kernel', (8, 8, 2, 4))],
)
def test_a_layout_that_is_not_known_is_refused_by_name_where_it_matters(name, leaf, shape):
  recipe = dict(RECIPES[name])
  params = {leaf: jnp.ones(shape)}
  link = prunejax.prune_transform(recipe.pop('criterion'), prunejax.constant(0.5), **recipe)
  with pytest.raises(ValueError, match=rf"'{leaf}', whose shape is .*layout='out in ...'"):
    link.init(params)


def test_a_layout_that_is_not_known_is_accepted_where_no_axis_has_a_meaning():
  params = {'a/weight': jnp.ones((4, 6)), 'b': jnp.ones((2, 3, 4))}
  for allocation in (prunejax.uniform(), prunejax.global_threshold(), prunejax.erk()):
    prunejax.prune_transform(
      prunejax.movement(), prunejax.constant(0.5), allocation=allocation
    ).init(params)
  with pytest.raises(ValueError, match="low_rank: which axes of 'a/weight'"):
    low_rank(prunejax.constant(0.5), where='a.*').init(params)


class Net(nn.Module):
  """One of each layer of Flax that has a kernel."""

  @nn.compact
  def __call__(self, ids):
    x = nn.Embed(10, 8, name='embed')(ids)
    x = nn.MultiHeadDotProductAttention(2, name='attention')(x)
    x = nn.DenseGeneral((2, 6), name='split')(x)
    x = nn.Dense(5, name='dense')(x)
    x = nn.Conv(7, (2, 3), name='conv_in')(x)
    x = nn.Conv(4, (3,), name='Conv_0')(x[:, :, 0])
    return nn.ConvTranspose(4, (2,))(x)


KNOWN = {
  'embed/embedding': 'in out',
  'attention/query/kernel': 'in out out',
  'attention/key/kernel': 'in out out',
  'attention/value/kernel': 'in out out',
  'attention/out/kernel': 'in in out',
  'attention/query/bias': 'out out',
  'attention/out/bias': 'out',
  'split/kernel': 'in out out',
  'split/bias': 'out out',
  'dense/kernel': 'in out',
  'conv_in/kernel': 'window window in out',
  'Conv_0/kernel': 'window in out',
  'ConvTranspose_0/kernel': 'window in out',
}


def test_layers_of_flax_are_known_also_stacked_by_a_scan():
  ids = jnp.zeros((2, 5), jnp.int32)
  params = Net().init(jax.random.key(0), ids)['params']
  known = kernel_layout.layouts(params)
  for name, words in KNOWN.items():
    assert known[name].axes == tuple(words.split()), name
  layers = jax.tree.map(lambda p: jnp.stack([p, p, p]), params)
  stacked = kernel_layout.layouts(layers, stacked=lambda name: True)
  for name, words in KNOWN.items():
    assert stacked[name].axes == ('each', *words.split()), name
  # A scan over dense layers that are called like those of attention is no attention.
  dense = {f'{name}/kernel': jnp.ones((3, 8, 8)) for name in ('query', 'key', 'value', 'out')}
  assert {layout.axes for layout in kernel_layout.layouts(dense).values()} == {None}


def test_two_of_four_of_an_attention_kernel_lie_along_its_inputs():
  """Flax's [in, heads, width] got groups across heads, with 8 heads of equal width unseen."""
  model = nn.MultiHeadDotProductAttention(4, qkv_features=16)
  x = jnp.asarray(RNG.normal(size=(2, 5, 8)), jnp.float32)
  params = model.init(jax.random.key(0), x)['params']
  link = prunejax.prune_transform(
    prunejax.sparsegpt(), prunejax.constant(0.5), structure=prunejax.n_m(2, 4), where='.*kernel'
  )
  updates, state = link.update(
    jax.tree.map(jnp.zeros_like, params),
    link.init(params),
    params,
    activations=observe.activations(model, x),
  )
  masks = named_leaves(prunejax.get_masks(state, params))
  for name in ('query', 'key', 'value'):
    groups = np.asarray(masks[f'{name}/kernel']).reshape(2, 4, 4, 4)  # [groups, 4, heads, width]
    assert (groups.sum(1) == 2).all(), name
  groups = np.asarray(masks['out/kernel']).reshape(4, 4, 8)  # [heads x width / 4, 4, out]
  assert (groups.sum(1) == 2).all()


def test_heads_of_flax_attention_go_as_a_whole():
  model = nn.MultiHeadDotProductAttention(4, qkv_features=16)
  params = model.init(jax.random.key(0), jnp.ones((1, 5, 8)))['params']
  scores = {
    name: jnp.asarray(RNG.random(leaf.shape), jnp.float32)
    for name, leaf in named_leaves(params).items()
    if name != 'out/bias'
  }
  table = {'(query|key|value)/.*': ('heads', -1, 4), 'out/kernel': ('heads', -2, 4)}
  masks = prunejax.select_masks(scores, 0.5, structure=prunejax.tied(table))
  mean = sum(
    np.sum(scores[name], axis=tuple(range(scores[name].ndim))[axes])
    for name, axes in [
      *[(f'{n}/kernel', slice(0, 3, 2)) for n in ('query', 'key', 'value')],
      *[(f'{n}/bias', slice(1, 2)) for n in ('query', 'key', 'value')],
      ('out/kernel', slice(1, 3)),
    ]
  )
  stays = np.isin(np.arange(4), np.argsort(-mean)[:2])
  for name in ('query', 'key', 'value'):
    wide = np.broadcast_to(stays[None, :, None], (8, 4, 4))
    np.testing.assert_array_equal(masks[f'{name}/kernel'], wide)
    np.testing.assert_array_equal(masks[f'{name}/bias'], wide[0])
  np.testing.assert_array_equal(
    masks['out/kernel'], np.broadcast_to(stays[:, None, None], (4, 4, 8))
  )


def test_filters_of_convolutions_are_units_with_their_biases_and_followers():
  """Also under `per_output`: an output of a convolution is its filter."""
  scores = {
    'conv_0/kernel': jnp.asarray(RNG.random((3, 2, 4, 6)), jnp.float32),
    'conv_0/bias': jnp.asarray(RNG.random(6), jnp.float32),
    'conv_1/kernel': jnp.asarray(RNG.random((3, 3, 6, 5)), jnp.float32),
  }
  table = {'conv_0/.*': ('filters', -1, 1), 'conv_1/kernel': ('filters', -2, 1)}
  masks = prunejax.select_masks(scores, 0.5, structure=prunejax.tied(table))
  total = np.sum(scores['conv_0/kernel'], (0, 1, 2)) + np.asarray(scores['conv_0/bias'])
  total = total + np.sum(scores['conv_1/kernel'], (0, 1, 3))
  stays = np.isin(np.arange(6), np.argsort(-total)[:3])
  np.testing.assert_array_equal(masks['conv_0/bias'], stays)
  np.testing.assert_array_equal(masks['conv_0/kernel'], np.broadcast_to(stays, (3, 2, 4, 6)))
  wide = np.broadcast_to(stays[:, None], (3, 3, 6, 5))
  np.testing.assert_array_equal(masks['conv_1/kernel'], wide)
  alone = prunejax.select_masks(
    scores, 0.5, allocation=prunejax.per_output(), layout={'conv_0/bias': 'in'}
  )
  assert np.sum(alone['conv_0/kernel'], (0, 1, 2)).tolist() == [12] * 6
  assert np.sum(alone['conv_1/kernel'], (0, 1, 2)).tolist() == [27] * 5


STACKED, EACH = dict(stacked=('blocks',)), dict(layout='each in out')


@pytest.mark.parametrize(
  'structure, how',
  [
    ('rows', STACKED),
    ('columns', EACH),
    ('n_m', STACKED),
    ('block', EACH),
    pytest.param('rows', EACH, marks=pytest.mark.slow),
    pytest.param('columns', STACKED, marks=pytest.mark.slow),
    pytest.param('n_m', EACH, marks=pytest.mark.slow),
    pytest.param('block', STACKED, marks=pytest.mark.slow),
  ],
)
def test_units_of_a_stack_lie_in_one_layer(structure, how):
  make = RECIPES[structure]['structure']
  layers = RNG.random((3, 8, 8)).astype(np.float32)
  masks = prunejax.select_masks({'blocks': jnp.asarray(layers)}, 0.5, structure=make, **how)
  if 'stacked' in how:
    select = jax.jit(lambda w: prunejax.select_masks({'w': w}, 0.5, structure=make)['w'])
    for layer, mask in zip(layers, masks['blocks'], strict=True):
      np.testing.assert_array_equal(mask, select(layer))
  assert np.sum(masks['blocks']) == layers.size // 2
  assert len({layer.tobytes() for layer in np.asarray(masks['blocks'])}) > 1


@pytest.mark.parametrize(
  'layout, words',
  [
    ('in uot', "layout: 'uot' is no word for an axis"),
    ('... in ... out', 'once ...'),
    (3, 'layout=3: expected words or a dict'),
    ({'a': 3}, 'layout: 3 is no word'),
    ({'a(': 'in out'}, "layout='a\\(' is not a regular expression"),
    ({'b': 'in out'}, "layout: 'b' matches none of the leaves"),
    ('in out out', "layout: 'in out out' does not fit 'a/kernel', whose shape is \\(8, 8\\)"),
    ({'a.*': '... out in in'}, "'... out in in' does not fit 'a/kernel'"),
  ],
)
def test_a_wrong_layout_is_one_clear_error(layout, words):
  with pytest.raises(ValueError, match=words):
    prunejax.prune_transform(prunejax.magnitude(), prunejax.constant(0.5), layout=layout).init(
      {'a': {'kernel': jnp.ones((8, 8))}}
    )


def test_words_have_to_fit_the_leaves_that_are_pruned_alone():
  params = {
    'a/weight': jnp.ones((8, 8)),
    'conv/weight': jnp.ones((4, 3, 2, 2)),
    'scale': jnp.ones(()),
  }
  recipe = dict(structure=prunejax.n_m(2, 4), layout='out in')
  link = lambda **kwargs: prunejax.prune_transform(
    prunejax.magnitude(), prunejax.constant(0.5), **recipe, **kwargs
  )
  assert link(where='a.*').init(params)
  with pytest.raises(ValueError, match="'out in' does not fit 'conv/weight'"):
    link(where='.*weight').init(params)
  # Of a stack of scalars each has no axis.
  layers = {'kernel': jnp.ones((3, 8, 8)), 'scale': jnp.ones(3)}
  prunejax.prune_transform(
    prunejax.wanda(), prunejax.constant(0.5), where='kernel', stacked='.*'
  ).init(layers)
  assert kernel_layout.layouts(layers, stacked=lambda name: True)['scale'].axes == ('each',)


def test_who_pays_takes_the_layout_too():
  params = {'layer': {'weight': jnp.asarray(MATRIX.T)}}
  recipe = (prunejax.magnitude(), 0.5, None, prunejax.rows(2))
  with pytest.raises(ValueError, match=r"rows\(2\): which axes of 'layer/weight'"):
    prunejax.who_pays(params, *recipe)
  got = prunejax.who_pays(params, *recipe, layout='out in ...')
  wanted = prunejax.who_pays({'layer': {'kernel': jnp.asarray(MATRIX)}}, *recipe)
  assert [row[1:] for row in got] == [row[1:] for row in wanted]
  # The layers of a stack are cut one by one, whatever the scale of their weights.
  layers = {'blocks': jnp.stack([MATRIX, 100 * MATRIX])}
  rows = prunejax.who_pays(layers, *recipe, stacked='blocks')
  assert (rows[0].kept, rows[0].got) == (MATRIX.size, 0.5)
  alone = prunejax.who_pays(layers, *recipe, layout='each in out')
  assert alone[0].cutoff > 0 and rows[0].cutoff is None
