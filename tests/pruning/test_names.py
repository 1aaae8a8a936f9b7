"""Names of leaves do not matter: leaves whose names differ in a number only may have any shapes."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import prunejax

RNG = np.random.default_rng(0)
SHAPES = ((16, 24), (24, 16), (16, 8), (16, 24))
DRAW = lambda: [jnp.asarray(RNG.normal(size=shape), jnp.float32) for shape in SHAPES]
ROWS = [jnp.asarray(RNG.normal(size=(30, shape[0])), jnp.float32) for shape in SHAPES]
PLAIN, NUMBERED = ('a', 'b', 'c', 'd'), ('dense_0', 'dense_1', 'dense_2', 'dense_3')
MAGNITUDE = prunejax.magnitude
LINKS = {
  'wanda': (prunejax.wanda, {'allocation': prunejax.per_output()}),
  'sparsegpt': (lambda: prunejax.sparsegpt(block=5), {}),
  'block_fisher': (lambda: prunejax.block_fisher(8, damp=0.1), {}),
  'rigl': (lambda: prunejax.rigl(first='magnitude'), {'allocation': prunejax.erk()}),
  'platon': (prunejax.platon, {'allocation': prunejax.global_threshold()}),
  'rows': (MAGNITUDE, {'structure': prunejax.rows()}),
  'columns': (MAGNITUDE, {'structure': prunejax.columns(2)}),
  'block': (MAGNITUDE, {'structure': prunejax.block(8, 12)}),
  'n_m': (MAGNITUDE, {'structure': prunejax.n_m(2, 4)}),
}


FEW = ('wanda', 'rigl', 'rows')  # one of each kind; the others are slow


@pytest.mark.parametrize(
  'name', [name if name in FEW else pytest.param(name, marks=pytest.mark.slow) for name in LINKS]
)
def test_numbered_names_give_the_masks_and_weights_of_others(name):
  make, how = LINKS[name]
  weights, grads = DRAW(), [DRAW(), DRAW()]
  ends = []
  for names in (PLAIN, NUMBERED):
    of = lambda leaves, names=names: dict(zip(names, leaves, strict=True))
    link = prunejax.prune_transform(make(), prunejax.constant(0.5), **how)
    told = {
      'activations': lambda params, of=of: of(ROWS),
      'examples': (
        6,
        lambda params, i, names=names: sum(
          jnp.sum(jnp.tanh(x[i] @ params[n])) for n, x in zip(names, ROWS, strict=True)
        ),
      ),
    }
    params, state = of(weights), link.init(of(weights))

    @jax.jit
    def step(params, state, grad, link=link, told=told):
      updates = jax.tree.map(lambda g: -0.1 * g, grad)
      updates, state = link.update(updates, state, params, grad=grad, **told)
      return optax.apply_updates(params, updates), state

    for grad in grads if name == 'rigl' else grads[:1]:
      params, state = step(params, state, of(grad))
    masks = prunejax.get_masks(state, params)
    ends.append([(masks[n], params[n]) for n in names])
  for (mask, weight), (other, same) in zip(*ends, strict=True):
    np.testing.assert_array_equal(mask, other)
    np.testing.assert_allclose(weight, same, rtol=1e-5, atol=1e-6)
    assert 0.4 < 1 - mask.mean() < 0.9 or name in ('platon', 'rigl')
