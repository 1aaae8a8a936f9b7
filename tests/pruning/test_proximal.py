"""Proximal links: the operator, runs against float64, exact zeros, the sparsity at the end."""

import cases_proximal
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import toy
from hypothesis import given, settings
from hypothesis import strategies as st

import prunejax
from prunejax.pruning.links import proximal

NUMBER = st.floats(-8, 8, width=32, allow_subnormal=False)  # XLA flushes subnormals to zero
KERNELS = '.*kernel'
ADAMW = dict(
  b1=cases_proximal.B1,
  b2=cases_proximal.B2,
  eps=cases_proximal.EPS,
  weight_decay=cases_proximal.DECAY,
)


def chain(link, before=False, rate=cases_proximal.RATE):
  adamw = optax.adamw(rate, **ADAMW)
  return optax.chain(link, adamw) if before else optax.chain(adamw, link)


def zeros(params):
  return sum(int(np.sum(np.asarray(params[part]['kernel']) == 0)) for part in params)


SIX = st.lists(NUMBER, min_size=6, max_size=6)


@settings(deadline=None, max_examples=60)
@given(SIX, SIX, st.floats(0, 4, width=32, allow_subnormal=False))
def test_the_operator_is_the_minimiser_is_non_expansive_and_never_crosses_zero(u, v, t):
  u, v = np.array(u, np.float32), np.array(v, np.float32)
  w, x = (
    np.asarray(proximal.shrink(u, np.float32(t))),
    np.asarray(proximal.shrink(v, np.float32(t))),
  )
  # 0 is in w - u + t d|w|. The slope of |w| is sign(w), or anything in [-1, 1] where w is 0.
  away = w != 0
  np.testing.assert_allclose((w - u + t * np.sign(w))[away], 0, atol=2e-6)
  assert (np.abs(u[~away]) <= t).all()
  assert (w * u >= 0).all()
  assert (np.abs(w - x) <= np.abs(u - v) + 2e-6).all()
  np.testing.assert_allclose(w, cases_proximal.prox(np.float64(u), t), atol=1e-6)


@pytest.mark.parametrize('name', [name for name, case in cases_proximal.RUNS.items() if case[0]])
def test_steps_of_adamw_are_those_of_float64(name):
  make, before, oracle = cases_proximal.RUNS[name]
  params = {'kernel': toy.make_params()['enc']['kernel']}
  grads = [np.asarray(toy.grads_of(params, t)['kernel']) for t in range(7)]
  after, _ = toy.train(chain(make(), before), params, steps=7)
  expected = oracle(np.asarray(params['kernel']), grads)
  np.testing.assert_allclose(after['kernel'], expected, atol=3e-6)
  assert np.array_equal(np.asarray(after['kernel']) == 0, expected == 0)


def test_only_a_penalty_in_the_loss_enters_the_moments():
  params = toy.make_params()
  moments = lambda tx, at: optax.tree.get(toy.train(tx, params, 1)[1], at)
  plain = moments(chain(optax.identity()), 'mu')
  prox = moments(chain(prunejax.reweighted(0.5, 0.05, where=KERNELS)), 'mu')
  lasso = moments(chain(proximal.l1_penalty(0.5, where=KERNELS), before=True), 'mu')
  same = lambda a, b: jax.tree.map(lambda x, y: bool((x == y).all()), a, b)
  assert same(plain, prox) == {'enc': {'kernel': True, 'bias': True}, 'head': {'kernel': True}}
  assert same(plain, lasso) == {'enc': {'kernel': False, 'bias': True}, 'head': {'kernel': False}}


def strong(dtype=jnp.float32, **how):
  return prunejax.reweighted(0.4, 1.0, every=2, eps=0.5, where=KERNELS, **how)


@pytest.mark.parametrize(
  'company', ['bf16', 'accumulated', 'masked', 'partition', 'vmap', 'sgd in float32 on bf16']
)
def test_zeros_are_exact_with_any_other_link(company):
  params = toy.make_params(dtype=jnp.bfloat16 if 'bf16' in company else jnp.float32)
  tx = chain(strong())
  if company == 'accumulated':
    tx = optax.MultiSteps(tx, 2)
  if company == 'masked':
    shrunk = {'enc': {'kernel': True, 'bias': False}, 'head': False}
    tx = optax.chain(optax.adamw(0.05), optax.masked(proximal.soft_threshold(0.4), shrunk))
  if company == 'partition':
    labels = {'enc': {'kernel': 'a', 'bias': 'b'}, 'head': {'kernel': 'a'}}
    tx = optax.partition({'a': chain(proximal.soft_threshold(0.4)), 'b': optax.sgd(0.1)}, labels)
  if company.startswith('sgd'):
    wide = optax.stateless(
      lambda updates, params: jax.tree.map(lambda u: -0.1 * u.astype(jnp.float32), updates)
    )
    tx = optax.chain(wide, strong())
  if company == 'vmap':
    members = jax.tree.map(lambda p: jnp.stack([p, 3 * p]), params)
    state = jax.vmap(tx.init)(members)
    alone, _ = toy.train(tx, params, 4)
    axes = jax.tree.map(lambda x: 0, state)

    @jax.jit
    def step(members, state, grads):
      updates, state = jax.vmap(tx.update, in_axes=(None, axes, 0))(grads, state, members)
      return optax.apply_updates(members, updates), state

    for t in range(4):
      members, state = step(members, state, toy.grads_of(params, t))
    after = jax.tree.map(lambda p: p[0], members)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), after, alone)
  else:
    after, _ = toy.train(tx, params, 4)
  gone = np.asarray(after['enc']['kernel']) == 0
  assert 3 < gone.sum() < gone.size
  assert not np.signbit(np.asarray(after['enc']['kernel'], np.float32)[gone]).any()
  assert (np.asarray(after['enc']['bias']) != 0).all()
  assert (zeros({'head': after['head']}) == 0) == (company == 'masked')


def test_updates_pass_unchanged_without_strength_or_after_the_end():
  params = toy.make_params()
  updates = toy.grads_of(params, 0)
  for link, at in (
    (prunejax.reweighted(0.0), 0),
    (prunejax.reweighted(9.0, 0.0), 0),
    (strong(end=2), 2),
  ):
    state = link.init(params)._replace(prox_count=jnp.int32(at))
    jax.tree.map(np.testing.assert_array_equal, link.update(updates, state, params)[0], updates)


def test_a_run_ends_at_the_exact_sparsity_and_fine_tuning_holds_it():
  params = toy.make_params()

  @jax.jit
  def run(strength):
    tx = optax.chain(
      chain(prunejax.reweighted(strength, 0.2, every=2, eps=0.1, end=6, where=KERNELS)),
      prunejax.prune_transform(
        prunejax.magnitude(),
        prunejax.one_shot(0.75, at=6),
        prunejax.every(1, begin=6, until=6),
        where=KERNELS,
      ),
    )

    def step(carry, grads):
      updates, state = tx.update(grads, carry[1], carry[0])
      params = optax.apply_updates(carry[0], updates)
      return (params, state), jnp.sum(params['enc']['kernel'] == 0)

    grads = jax.tree.map(lambda *g: jnp.stack(g), *(toy.grads_of(params, t) for t in range(9)))
    return jax.lax.scan(step, (params, tx.init(params)), grads)

  before = []
  for strength in (
    0.02,
    1.5,
  ):  # too weak, too strong: the link that prunes takes what is missing, zeros first
    (after, state), count = run(strength)
    before.append(int(count[5]))
    kept = prunejax.get_masks(state, after)
    assert prunejax.masks.sparsity(kept, KERNELS)['total'] == 0.75
    prunejax.check_pruned(after, state)
  assert before[0] < 18 < before[1]
  held, holding = toy.train(optax.chain(optax.adamw(0.1), prunejax.hold_zeros(KERNELS)), after, 2)
  assert prunejax.masks.sparsity(held, KERNELS)['total'] >= 0.75
  assert prunejax.masks.nested(prunejax.get_masks(holding, held), kept)


def test_one_program_for_any_strength():
  params, traces = toy.make_params(), []

  @jax.jit
  def step(params, strength):
    traces.append(1)
    tx = optax.chain(
      proximal.l1_penalty(strength),
      optax.sgd(0.1),
      proximal.soft_threshold(strength, where=KERNELS),
    )
    updates, _ = tx.update(toy.grads_of(params, 0), tx.init(params), params)
    return optax.apply_updates(params, updates)

  counts = [zeros(step(params, jnp.float32(s))) for s in (0.0, 0.3, 1.0)]
  assert counts[0] == 0 < counts[1] < counts[2] and len(traces) == 1


@pytest.mark.parametrize(
  ('make', 'words'),
  [
    (
      lambda: prunejax.reweighted(-1.0),
      'reweighted: strength=-1.0 must be finite and non-negative',
    ),
    (lambda: prunejax.reweighted(1.0, every=0), 'every=0 must be at least 1'),
    (lambda: prunejax.reweighted(1.0, eps=0.0), 'eps=0.0 must be above 0'),
    (lambda: proximal.soft_threshold(1.0, -0.1), 'rate=-0.1 must not be negative'),
    (lambda: proximal.l1_penalty(1.0, end=0), 'end=0 must be at least 1 step'),
    (
      lambda: proximal.l1_penalty(1.0, where='nothing').init(toy.make_params()),
      "where='nothing' matches no",
    ),
    (
      lambda: proximal.soft_threshold(1.0).update({}, None),
      'soft_threshold: tx.update needs params',
    ),
  ],
)
def test_wrong_use_gets_one_line(make, words):
  with pytest.raises(ValueError, match=words):
    make()
