"""What `pruning/test_explicit.py` runs on eight simulated devices: a JSON line for each link."""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import prunejax
from prunejax.pruning.links import low_rank, proximal

RNG = np.random.default_rng(0)
AXES = {
  'both axes': {'a': ('data', 'model'), 'b': ('model', None)},
  'inputs or outputs': {'a': (None, 'data'), 'b': ('data', None)},
}


def draw(*shape):
  return jnp.asarray(RNG.normal(size=shape), jnp.float32)


PARAMS = {'a': {'kernel': draw(16, 32)}, 'b': {'kernel': draw(32, 16)}}
GRADS = [jax.tree.map(lambda w: draw(*w.shape), PARAMS) for _ in range(3)]
INPUTS = {'a/kernel': draw(8, 16), 'b/kernel': draw(8, 32)}


def loss(params, i):
  """Elementwise, so that it means the same on every kind of mesh."""
  return sum(jnp.sum(jnp.cos((i + 1.0) * leaf)) for leaf in jax.tree.leaves(params))


def pruned(criterion):
  return prunejax.prune_transform(criterion, prunejax.constant(0.5), prunejax.every(2))


LINKS = {
  'soft_threshold': proximal.soft_threshold(0.05, 0.1),
  'reweighted': proximal.reweighted(0.05, 0.1, every=2),
  'l1_penalty': proximal.l1_penalty(0.1),
  'low_rank': low_rank.low_rank(prunejax.constant(0.5), prunejax.every(2)),
  'block_fisher': pruned(prunejax.block_fisher(8, damp=0.1)),
  'block_fisher of steps': pruned(prunejax.block_fisher(8, 2, 0.1, source='steps')),
  'wanda': pruned(prunejax.wanda(accumulate=True)),
  'sparsegpt': pruned(prunejax.sparsegpt(block=8)),
  'sparsegpt of all steps': pruned(prunejax.sparsegpt(accumulate=True)),
}


def run(tx, params, grads):
  def step(params, state, grad):
    extra = {'activations': lambda params: INPUTS, 'examples': (8, loss)}
    updates = jax.tree.map(lambda g: -0.1 * g, grad)
    updates, state = tx.update(updates, state, params, grad=grad, **extra)
    return optax.apply_updates(params, updates), state

  step, state = jax.jit(step), tx.init(params)
  for grad in grads:
    params, state = step(params, state, grad)
  return params


def main(names):
  for name in names:
    one = run(LINKS[name], PARAMS, GRADS)
    for kind in ('Explicit', 'Auto'):
      mesh = jax.make_mesh((4, 2), ('data', 'model'), axis_types=(AxisType[kind],) * 2)
      for label, axes in AXES.items():
        lies = {
          leaf: {'kernel': NamedSharding(mesh, PartitionSpec(*spec))} for leaf, spec in axes.items()
        }
        with jax.set_mesh(mesh):
          spread = [jax.device_put(tree, lies) for tree in (PARAMS, *GRADS)]
          over = run(LINKS[name], spread[0], spread[1:])
        pairs = [(one[leaf]['kernel'], over[leaf]['kernel']) for leaf in axes]
        row = {
          'link': name,
          'mesh': [kind, label],
          'off': max(float(np.max(np.abs(np.asarray(a) - np.asarray(b)))) for a, b in pairs),
          'zeros': all(np.array_equal(np.asarray(a) == 0, np.asarray(b) == 0) for a, b in pairs),
          'stray': [
            leaf
            for leaf in axes
            if not over[leaf]['kernel'].sharding.is_equivalent_to(lies[leaf]['kernel'], 2)
          ],
        }
        print(json.dumps(row), flush=True)


if __name__ == '__main__':
  main(sys.argv[1:] or list(LINKS))
