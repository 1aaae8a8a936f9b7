"""What spoils a leaf when masks move is loud, and named with its reason."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.training import train_state
from jax.sharding import PartitionSpec
from toy import grads_of, make_params, prune, train

import prunejax
from prunejax.pruning.links import low_rank
from prunejax.pruning.selection import passes
from prunejax.train import finite

PARAMS = make_params()
NAN = jnp.float32(jnp.nan)


def once(link, params=PARAMS, **extra):
  """Params and state after one update of zeros, compiled."""
  zeros = jax.tree.map(jnp.zeros_like, params)
  updates, state = jax.jit(link.update)(zeros, link.init(params), params, **extra)
  return optax.apply_updates(params, updates), state


def link_of(schedule, **how):
  return prunejax.prune_transform(prunejax.magnitude(), schedule, **{'where': '.*kernel', **how})


def injected(sparsity, **how):
  make = lambda sparsity: link_of(prunejax.constant(sparsity), **how)
  return prunejax.inject_hyperparams(make)(sparsity=jnp.float32(sparsity))


RUN_TIME = {
  'a callable of 90': lambda: link_of(lambda step: 90.0),
  'a callable of 90, as an array': lambda: link_of(lambda step: jnp.float32(90)),
  'below 0': lambda: link_of(lambda step: -0.25),
  'NaN': lambda: link_of(lambda step: NAN),
  'injected 90': lambda: injected(90.0),
  'injected NaN': lambda: injected(NAN),
  'more than 2:4 removes': lambda: injected(0.6, structure=prunejax.n_m(1, 2)),
  'a class of 90': lambda: link_of(
    prunejax.constant(0.5), allocation=prunejax.by_class({'.*': jnp.float32(90)})
  ),
  'a class above 2:4': lambda: link_of(
    prunejax.constant(0.5),
    allocation=prunejax.by_class({'.*': jnp.float32(0.6)}),
    structure=prunejax.n_m(1, 2),
  ),
  'a cut-off of NaN': lambda: link_of(prunejax.constant(0.5), allocation=prunejax.above(NAN)),
  'an optax schedule': lambda: link_of(optax.constant_schedule(1.5)),
  'with global counts': lambda: link_of(lambda step: 90.0, allocation=prunejax.global_threshold()),
  'per output': lambda: link_of(lambda step: 90.0, allocation=prunejax.per_output()),
  'erk': lambda: link_of(lambda step: 90.0, allocation=prunejax.erk()),
}


@pytest.mark.parametrize('name', RUN_TIME)
def test_a_sparsity_that_is_out_of_range_at_run_time_spoils_its_leaves_by_name(name):
  params, state = once(RUN_TIME[name]())
  for leaf in ('enc', 'head'):
    assert jnp.isnan(params[leaf]['kernel']).all()
  assert jnp.isfinite(params['enc']['bias']).all()
  faults = prunejax.faults(state)
  assert sorted(faults) == ['enc/kernel', 'head/kernel']
  assert {fault.step for fault in faults.values()} == {1}
  assert all('the sparsity asked of it' in fault.reason for fault in faults.values())
  assert prunejax.nan_scores(state) == {'enc/kernel': 1, 'head/kernel': 1}
  with pytest.raises(ValueError, match=r'is NaN since step 1, when the sparsity asked of it was'):
    prunejax.check_pruned(params, state)
  table = {'loss': np.array([1.0, np.nan]), 'grad_norm': np.array([1.0, np.nan])}
  with pytest.raises(FloatingPointError, match='masks of .* moved at step 1, when the sparsity'):
    finite.check_finite(table, 2, faults)


IN_RANGE = {
  '1.0 removes everything': (lambda: link_of(lambda step: 1.0), 1.0),
  'the most of 2:4': (lambda: injected(0.5, structure=prunejax.n_m(1, 2)), 0.5),
  'rounding below 0': (lambda: link_of(lambda step: -1e-7), 0.0),
  'a cut-off is no sparsity': (
    lambda: link_of(lambda step: 90.0, allocation=prunejax.above(1.0, relative=True)),
    1.0,
  ),
  'not asked while masks stay': (
    lambda: link_of(lambda step: jnp.where(step > 0, 0.5, 90.0), when=prunejax.every(5, begin=5)),
    0.0,
  ),
}


@pytest.mark.parametrize('name', IN_RANGE)
def test_a_sparsity_at_the_border_is_in_range(name):
  make, removed = IN_RANGE[name]
  params, state = once(make())
  assert not prunejax.faults(state)
  assert prunejax.masks.sparsity(params, '.*kernel')['total'] == removed


def test_each_member_of_a_batch_has_its_own_fault():
  link = injected(0.0)
  states = jax.vmap(lambda s: with_sparsity(link.init(PARAMS), s))(jnp.array([0.5, 90.0]))
  zeros = jax.tree.map(jnp.zeros_like, PARAMS)
  _, states = jax.jit(jax.vmap(lambda state: link.update(zeros, state, PARAMS)))(states)
  assert not prunejax.faults(states, member=0)
  assert sorted(prunejax.faults(states, member=1)) == ['enc/kernel', 'head/kernel']


def with_sparsity(state, sparsity):
  return state._replace(hyperparams={'sparsity': sparsity})


def test_ranks_and_scores_outside_of_links_have_a_range_too():
  tx = low_rank.low_rank(lambda step: 90.0, where='.*kernel')
  params, _ = once(tx)
  assert jnp.isnan(params['enc']['kernel']).all()
  for sparsity in (90, -0.1, float('nan'), np.float32(1.5), jnp.float32(1.5)):
    with pytest.raises(ValueError, match=r'select_masks: sparsity=.* is outside of \[0, 1.0\]'):
      prunejax.select_masks({'w': jnp.arange(4.0)}, sparsity)
  with pytest.raises(ValueError, match=r'outside of \[0, 0.5\]'):
    prunejax.select_masks({'w': jnp.ones((4, 2))}, 0.6, structure=prunejax.n_m(2, 4))


# ---- a link that is not the last one

NOT_LAST = {
  'adam after it': lambda: optax.chain(prune(), optax.adam(0.1)),
  'momentum after it': lambda: optax.chain(optax.sgd(0.1), prune(), optax.trace(0.9)),
  'noise after it': lambda: optax.chain(prune(), optax.add_noise(0.1, 0.5, seed=0)),
  'a scale after it': lambda: optax.chain(optax.sgd(0.1), prune(), optax.scale(0.5)),
}


@pytest.mark.parametrize('name', NOT_LAST)
def test_the_next_move_of_masks_notices_a_link_that_is_not_last(name):
  params, state = train(NOT_LAST[name](), PARAMS, steps=6)
  faults = prunejax.faults(state)
  assert sorted(faults) == ['enc/kernel', 'head/kernel']
  assert all('must be the last of its optax.chain' in fault.reason for fault in faults.values())
  assert jnp.isnan(params['enc']['kernel']).any()
  with pytest.raises(ValueError, match='must be the last link of its optax.chain'):
    prunejax.check_pruned(params, state)


def test_params_that_change_after_the_update_are_noticed_and_masked_ones_are_not():
  tx = optax.chain(optax.sgd(0.1), prune(when=prunejax.every(2)))
  params, state = train(tx, PARAMS, steps=4)
  masked = prunejax.masks.apply(PARAMS, prunejax.get_masks(state, params))
  for later, is_fault in ((PARAMS, True), (masked, False)):
    _, then = train(tx, later, steps=2, state=state, first=4)
    assert bool(prunejax.faults(then)) == is_fault
  latent = optax.chain(prune(zero_pruned=False), optax.adam(0.1))
  _, state = train(latent, PARAMS, steps=6)
  assert not prunejax.faults(state), 'latent weights are not 0'


def test_steps_that_move_no_masks_look_at_no_weight():
  """The check is inside the branch: outside of it the program is as it was."""
  link = prune(when=prunejax.every(10))
  jaxpr = jax.make_jaxpr(link.update)(PARAMS, link.init(PARAMS), PARAMS).jaxpr
  names = [str(eqn.primitive) for eqn in jaxpr.eqns]
  assert 'reduce_or' not in names and 'reduce_sum' not in names and 'cond' in names


# ---- TrainState, which passes no extra arguments


def test_a_train_state_is_told_how_to_pass_the_gradient():
  tx = optax.chain(optax.adam(1e-3), prune(criterion=prunejax.taylor()))
  state = train_state.TrainState.create(apply_fn=None, params=PARAMS, tx=tx)
  message = "needs grad=.*Flax's TrainState.*gradient_from_updates"
  with pytest.raises(ValueError, match=message):
    state.apply_gradients(grads=grads_of(PARAMS, 0))
  whole = prunejax.gradient_from_updates(tx)
  state = train_state.TrainState.create(apply_fn=None, params=PARAMS, tx=whole)
  for step in range(4):
    state = state.apply_gradients(grads=grads_of(PARAMS, step))
  assert prunejax.masks.sparsity(state.params, '.*kernel')['total'] == 0.5


ALONE = {
  'a link': lambda: prune(criterion=prunejax.taylor()),
  'links': lambda: optax.chain(prune(criterion=prunejax.taylor()), prunejax.hold_zeros('.*kernel')),
  'injected': lambda: prunejax.inject_hyperparams(
    lambda sparsity: link_of(prunejax.constant(sparsity))
  )(sparsity=0.5),
  'masked': lambda: optax.masked(prune(criterion=prunejax.taylor()), {'enc': True, 'head': True}),
}


@pytest.mark.parametrize('name', ALONE)
def test_gradient_from_updates_around_a_link_alone_is_refused(name):
  tx = optax.chain(optax.adam(1e-3), prunejax.gradient_from_updates(ALONE[name]()))
  with pytest.raises(ValueError, match='are steps of the optimizer before it.*whole chain'):
    tx.init(PARAMS)


# ---- shapes and types of numbers

SHAPES = {
  'schedule': (lambda: link_of(lambda step: jnp.array([0.5])), r'schedule returns .* shape \(1,\)'),
  'list': (lambda: link_of(lambda step: np.array([0.5, 0.5])), r'schedule returns .* shape \(2,\)'),
  'when': (
    lambda: link_of(prunejax.constant(0.5), when=lambda step: jnp.array([True])),
    r'when returns .* shape \(1,\)',
  ),
  'constant': (
    lambda: link_of(prunejax.constant(jnp.array([0.5]))),
    r'constant: sparsity has shape \(1,\)',
  ),
}


@pytest.mark.parametrize('name', SHAPES)
def test_a_schedule_with_a_shape_is_named_at_init(name):
  make, message = SHAPES[name]
  with pytest.raises(ValueError, match=message):
    make().init(PARAMS)


HALF = jnp.bfloat16(0.9)
STEP = jnp.bfloat16(300)
ROUNDED = {
  'constant': lambda: prunejax.constant(HALF),
  'cubic': lambda: prunejax.cubic(HALF, end=10),
  'initial': lambda: prunejax.linear(0.95, end=10, initial=HALF),
  'end': lambda: prunejax.cubic(0.9, end=STEP),
  'begin': lambda: prunejax.linear(0.9, begin=STEP, end=900),
  'at': lambda: prunejax.one_shot(0.9, at=STEP),
  'one_shot': lambda: prunejax.one_shot(jnp.float16(0.9)),
  'staircase': lambda: prunejax.staircase(HALF, 0.95, steps=3, jumps=2),
  'jumps': lambda: prunejax.staircase(0.9, 0.95, steps=STEP, jumps=2),
  'iterative': lambda: prunejax.iterative(0.9, rounds=jnp.float16(3), steps=5),
  'cycle': lambda: prunejax.cycle(HALF, steps=1, begin=0, end=4),
  'every': lambda: prunejax.every(STEP),
  'until': lambda: prunejax.until(STEP),
  'numpy': lambda: prunejax.constant(np.float16(0.9)),
  'by_class': lambda: prunejax.by_class({'.*': HALF}),
  'above': lambda: prunejax.above(HALF),
  'a callable': lambda: link_of(lambda step: HALF).init(PARAMS),
  'strength': lambda: prunejax.reweighted(HALF),
}


@pytest.mark.parametrize('name', ROUNDED)
def test_a_number_that_was_rounded_to_half_precision_is_refused(name):
  with pytest.raises(
    ValueError, match=r'float16.*a float32 is needed.*prunejax.inject_hyperparams'
  ):
    ROUNDED[name]()


@pytest.mark.parametrize('dtype', ['bfloat16', 'float16', 'float32'])
def test_injected_numbers_are_float32_whatever_the_weights_are(dtype):
  params = {'w': jnp.asarray(np.random.default_rng(0).normal(size=10_000), dtype)}
  make = lambda sparsity, end: prunejax.prune_transform(
    prunejax.random(), prunejax.cubic(sparsity, end=end), prunejax.every(1)
  )
  link = prunejax.inject_hyperparams(make)(sparsity=0.9, end=3.0)
  state, zeros = link.init(params), jax.tree.map(jnp.zeros_like, params)
  for _ in range(5):
    updates, state = jax.jit(link.update)(zeros, state, params)
    params = optax.apply_updates(params, updates)
  assert int(jnp.sum(params['w'] == 0)) == 9_000
  plain = optax.inject_hyperparams(make)(sparsity=0.9, end=3.0)
  if dtype != 'float32':
    with pytest.raises(ValueError, match='prunejax.inject_hyperparams keeps them float32'):
      plain.init(params)


# ---- programs that see the part of one device

GLOBAL = {'allocation': prunejax.global_threshold()}


def traced(spec, check_vma, **how):
  """Traces an update inside shard_map over four devices, which need not be there."""
  mesh = jax.sharding.AbstractMesh((4,), ('d',), axis_types=(jax.sharding.AxisType.Auto,))
  link = prunejax.prune_transform(prunejax.magnitude(), prunejax.constant(0.5), **how)

  def update(params):
    zeros = jax.tree.map(jnp.zeros_like, params)
    return link.update(zeros, link.init(params), params)[0]

  inside = jax.shard_map(update, mesh=mesh, in_specs=(spec,), out_specs=spec, check_vma=check_vma)
  return jax.eval_shape(inside, {'w': jax.ShapeDtypeStruct((8, 2), jnp.float32)})['w'].shape


WHOLE, SPLIT = PartitionSpec(), PartitionSpec('d')
REFUSED = {
  'divided, unknown': (SPLIT, False, r'leaves may be divided \(check_vma=False\)'),
  'whole, unknown': (WHOLE, False, r'leaves may be divided \(check_vma=False\)'),
  'divided': (SPLIT, True, 'a leaf is divided'),
}


@pytest.mark.parametrize('how', [{}, GLOBAL], ids=['uniform', 'global'])
@pytest.mark.parametrize('name', REFUSED)
def test_leaves_that_a_manual_axis_may_divide_are_refused(name, how):
  spec, check_vma, why = REFUSED[name]
  with pytest.raises(ValueError, match=why + " over the axis 'd'.*undivided='d'"):
    traced(spec, check_vma, **how)


@pytest.mark.parametrize('many', [0, 2**20])
@pytest.mark.parametrize('how', [{}, GLOBAL], ids=['uniform', 'global'])
def test_leaves_that_are_known_or_said_to_be_whole_are_ranked(how, many, monkeypatch):
  monkeypatch.setattr(passes, 'MANY', many)
  assert traced(WHOLE, True, **how) == (8, 2)
  assert traced(WHOLE, False, undivided='d', **how) == (8, 2)
  for known in (False, True):  # a model of its own on each device
    assert traced(SPLIT, known, undivided=('d',), **how) == (8, 2)
    mesh = jax.sharding.AbstractMesh((1,), ('d',), axis_types=(jax.sharding.AxisType.Auto,))
    select = lambda w: prunejax.select_masks({'w': w}, 0.5, undivided='d', **how)['w']
    inside = jax.shard_map(select, mesh=mesh, in_specs=(SPLIT,), out_specs=SPLIT, check_vma=known)
    assert jax.eval_shape(inside, jax.ShapeDtypeStruct((8, 2), jnp.float32)).shape == (8, 2)


LINKS = {
  **{
    name: lambda name=name: prunejax.prune_transform(
      getattr(prunejax, name)(), prunejax.linear(0.5, end=3), undivided='d'
    )
    for name in (
      'block_fisher magnitude movement obd obs platon random rigl snip sparse_evolution'
      ' sparsegpt taylor wanda'
    ).split()
  },
  'sparsegpt, 2:4': lambda: prunejax.prune_transform(
    prunejax.sparsegpt(), prunejax.linear(0.5, end=3), structure=prunejax.n_m(2, 4), undivided='d'
  ),
  'low_rank': lambda: low_rank.low_rank(prunejax.linear(0.5, end=3), undivided='d'),
}


@pytest.mark.parametrize('name', LINKS)
def test_each_device_may_prune_a_model_of_its_own_where_jax_checks_what_varies(name):
  """Loops and branches start with what varies as their results do."""
  loss = lambda p, i=0: sum(jnp.sum(jnp.tanh(w) ** 2) * (jnp.float32(i) + 1) for w in p.values())

  def update(params):
    link, params = LINKS[name](), jax.tree.map(lambda x: x[0], params)
    state, zeros = link.init(params), jax.tree.map(jnp.zeros_like, params)
    more = {
      'grad': jax.grad(loss)(params),
      'value_fn': loss,
      'examples': (3, loss),
      'activations': lambda params: {name: jnp.tanh(w) for name, w in params.items()},
    }
    for _ in range(2):  # the second state is one that an update returned
      updates, state = optax.with_extra_args_support(link).update(zeros, state, params, **more)
    return jax.tree.map(lambda x: x[None], updates)

  mesh = jax.sharding.AbstractMesh((4,), ('d',), axis_types=(jax.sharding.AxisType.Auto,))
  inside = jax.shard_map(update, mesh=mesh, in_specs=(SPLIT,), out_specs=SPLIT)
  params = {name: jax.ShapeDtypeStruct((4, 8, 8), jnp.float32) for name in 'ab'}
  assert {x.shape for x in jax.eval_shape(inside, params).values()} == {(4, 8, 8)}


def test_select_masks_and_low_rank_refuse_them_too():
  mesh = jax.sharding.AbstractMesh((4,), ('d',), axis_types=(jax.sharding.AxisType.Auto,))
  tx = low_rank.low_rank(prunejax.constant(0.5))
  ranks = lambda w: tx.update({'w': w}, tx.init({'w': w}), {'w': w})[0]['w']
  for fn in (lambda w: prunejax.select_masks({'w': w}, 0.5)['w'], ranks):
    inside = jax.shard_map(fn, mesh=mesh, in_specs=(SPLIT,), out_specs=SPLIT, check_vma=False)
    with pytest.raises(ValueError, match="over the axis 'd'"):
      jax.eval_shape(inside, jax.ShapeDtypeStruct((8, 2), jnp.float32))


def test_rewinding_does_not_wash_out_a_score_that_is_nan():
  link = prunejax.prune_transform(
    prunejax.taylor(),
    prunejax.one_shot(0.5, at=2),
    prunejax.every(2, begin=2),
    where='.*kernel',
  )
  tx = prunejax.rewind(optax.sgd(0.1), link, when=lambda step: step == 2)
  params, step = PARAMS, jax.jit(lambda g, s, p: tx.update(g, s, p, grad=g))
  state = tx.init(params)
  for t in range(5):
    grads = jax.tree.map(jnp.ones_like, params)
    if t == 2:
      grads['enc']['kernel'] = grads['enc']['kernel'].at[0, 0].set(jnp.nan)
    updates, state = step(grads, state, params)
    params = optax.apply_updates(params, updates)
  assert set(prunejax.faults(state)) == {'enc/kernel'}
  assert np.isnan(params['enc']['kernel']).any()
