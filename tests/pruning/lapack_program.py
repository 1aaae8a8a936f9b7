"""Runs many decompositions beside each other on two cores: argument 1 says which.

`python lapack_program.py stacked` prints 'done' at the end; a starved thread pool never gets there.
"""

import os
import sys

if hasattr(os, 'sched_setaffinity'):
  os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])

import jax
import jax.numpy as jnp
import numpy as np

import prunejax
from prunejax.pruning.links.low_rank import low_rank

MOVES = 40
SHAPES = [(4, 256, 64)] * 5 + [(4, 64, 256)]


def drawn(shape, seed):
  return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def kernels():
  """Six leaves whose names make each of them a kind of its own."""
  return {chr(97 + i): drawn(shape, i) for i, shape in enumerate(SHAPES)}


def stacked():
  """`sparsegpt` on kernels that hold four layers each."""
  params = kernels()
  rows = {name: drawn((4, 32, w.shape[1]), 9) for name, w in params.items()}
  link = prunejax.prune_transform(prunejax.sparsegpt(), prunejax.constant(0.5), stacked='.*')

  @jax.jit
  def update(params, state, rows):
    return link.update(params, state, params, activations=lambda _: rows)

  state = link.init(params)
  for _ in range(MOVES):
    _, state = jax.block_until_ready(update(params, state, rows))


def members():
  """Four members under `vmap`: ranks of six kernels, and `obs` of four nets."""
  params, nets = kernels(), [{'w': drawn((4, 200), seed)} for seed in range(4)]
  rank = low_rank(prunejax.constant(0.5), prunejax.every(2))
  surgeon = prunejax.prune_transform(prunejax.obs(alpha=1.0), prunejax.constant(0.5))
  examples = (3, lambda p, i: jnp.sum(p['w'] ** 2) * (i + 1))

  @jax.jit
  def update(params, nets, ranks, surgeons):
    ranks = jax.vmap(lambda p, s: rank.update(p, s, p)[1])(params, ranks)
    move = jax.vmap(lambda p, s: surgeon.update(p, s, p, examples=examples)[1])
    return ranks, [move(p, s) for p, s in zip(nets, surgeons, strict=True)]

  states = jax.vmap(rank.init)(params), [jax.vmap(surgeon.init)(net) for net in nets]
  for _ in range(MOVES):
    states = jax.block_until_ready(update(params, nets, *states))


if __name__ == '__main__':
  {'stacked': stacked, 'members': members}[sys.argv[1]]()
  print('done')
