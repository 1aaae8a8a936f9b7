"""A small model whose step is stacked, and, run as a program, what must hold on eight devices."""

import functools
import os
import sys
import time
from typing import Any, NamedTuple

if __name__ == '__main__':
  flags = f'--xla_force_host_platform_device_count=8 {os.environ.get("XLA_FLAGS", "")}'
  os.environ |= {'XLA_FLAGS': flags, 'PJRT_NPROC': '16', 'JAX_PLATFORMS': 'cpu'}
  sys.path[:0] = ['.', 'tests']

import jax
import jax.numpy as jnp
import numpy as np
import optax

import prunejax
from prunejax.sweep import stacking
from prunejax.train import optimizer
from prunejax.train.step import make_train_step

TOLERANCE = 2e-5  # of a batched step on CPU, which adds sums over rows in another order


RULES = ((r'up', (None, 'model')), (r'down', ('model', None)))


class Toy(NamedTuple):
  step: Any  # of one member
  jitted: Any
  alone: list  # its states
  stacked: Any  # the step of all
  compiled: Any
  state: Any
  batches: Any  # [turn, 2, b, ...]
  rows: Any
  steps: Any  # 1


def slow():
  """Another score, whose computation takes much longer than a step."""
  score = lambda w: jax.lax.fori_loop(0, 1000, lambda i, x: jnp.sin(x) + jnp.abs(w), jnp.abs(w))
  return prunejax.magnitude()._replace(score=lambda state, params, **_: jax.tree.map(score, params))


@functools.cache
def members_of(count, width, when, criterion):
  """(step, jitted step, first states, batches); learning rate, sparsity and seed differ by run."""
  rng = np.random.default_rng(0)
  draw = lambda *shape: jnp.asarray(rng.normal(size=shape) / np.sqrt(shape[0]), jnp.float32)
  pruned = lambda sparsity: prunejax.prune_transform(
    criterion(),
    prunejax.cubic(sparsity, end=4),
    when=prunejax.every(when),
    where='up|down',
    undivided=optimizer.MEMBERS,
  )

  def tx(i):
    return optax.chain(
      optax.scale_by_adam(),
      optimizer.inject(lambda rate: optax.scale(rate), {'rate': -1e-3 * (1 + i)}),
      optimizer.inject(lambda sparsity: pruned(sparsity), {'sparsity': 0.3 + 0.1 * (i % 6)}),
    )

  def loss_fn(params, batch, rng):
    x = batch['x'] + 0.01 * jax.random.normal(rng, batch['x'].shape)
    out = jax.nn.gelu(x @ params['up']) @ params['down'] + params['bias']
    return jnp.mean(jnp.square(out - batch['y'])), {}

  def first(i):
    params = {
      'up': draw(width, 2 * width),
      'down': draw(2 * width, width),
      'bias': jnp.zeros(width),
    }
    state = {'params': params, 'opt_state': tx(i).init(params), 'step': jnp.zeros((), jnp.int32)}
    return state | {'rng': jax.random.key_data(jax.random.key(i))}

  batches = {
    'x': np.stack([draw(8, width)] * 2),
    'y': rng.normal(size=(2, 8, width)).astype(np.float32),
  }
  step = make_train_step(loss_fn, tx(0))
  return step, jax.jit(step), [first(i) for i in range(count)], batches


@functools.cache
def toy(members, batching, width=24, when=2, mesh=(1, 1, 1), criterion=prunejax.magnitude, turn=2):
  step, jitted, alone, batches = members_of(members, width, when, criterion)
  mesh = stacking.make_mesh(
    *mesh, count=members, batch_size=8, devices=jax.devices()[: np.prod(mesh)]
  )
  shapes, shardings = stacking.abstract(alone[0], members), stacking.shard(alone[0], mesh, RULES)
  state = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
  put = jax.jit(stacking.put)
  for i, one in enumerate(alone):
    state = put(state, one, i)
  args = (
    jax.device_put(state, shardings),
    stacking.put_batches(
      {name: np.stack([x * (1 + n) for n in range(turn)]) for name, x in batches.items()}, mesh
    ),
    jnp.arange(members) % 2,
    jnp.int32(1),
  )
  stacked = stacking.make_step(step, batching, mesh)
  compiled = jax.jit(stacked, out_shardings=(shardings, None)).lower(*args).compile()
  return Toy(step, jitted, alone, stacked, compiled, *args)


def run(toy, steps):
  """(state, metrics of the last step) after whole turns and, where they do not divide, a part."""
  state, turn = toy.state, len(toy.batches['x'])
  for at in range(0, steps, turn):
    taken = min(turn, steps - at)
    state, metrics = jax.block_until_ready(
      toy.compiled(state, toy.batches, toy.rows, jnp.int32(taken))
    )
  return state, jax.tree.map(lambda x: x[taken - 1], metrics)


def run_alone(toy, state, i, steps):
  turn = len(toy.batches['x'])
  for at in range(steps):
    batch = {name: np.asarray(x)[at % turn, i % 2] for name, x in toy.batches.items()}
    state, metrics = toy.jitted(state, batch)
  return state, metrics


def times(toy, rounds):
  """Seconds of (steps that move masks, other steps); every second step moves them."""
  state, taken = toy.state, ([], [])
  for number in range(2 * rounds + 6):
    began = time.perf_counter()
    state, _ = jax.block_until_ready(toy.compiled(state, toy.batches, toy.rows, toy.steps))
    if number >= 6:  # compiled, and past the end of the schedule
      taken[number % 2].append(time.perf_counter() - began)
  return taken


def close(a, b):
  np.testing.assert_allclose(a, b, rtol=0, atol=TOLERANCE)


def masks(state):
  return prunejax.get_masks(state['opt_state'], state['params'])


def check_meshes():
  for mesh, batching in (((8, 1, 1), 'vmap'), ((4, 2, 1), 'map'), ((2, 2, 2), 'vmap')):
    one = toy(8, batching, mesh=mesh)
    state, _ = run(one, steps=5)
    assert state['params']['up'].sharding.spec == jax.P('members', None, 'model')
    for i, alone in enumerate(one.alone):
      want, mine = run_alone(one, alone, i, steps=5)[0], jax.device_get(stacking.take(state, i))
      jax.tree.map(close, mine['params'], want['params'])
      jax.tree.map(np.testing.assert_array_equal, masks(mine), masks(want))


def check_make_mesh():
  for (members, data, model, count), want in {
    (-1, -1, 1, 20): (8, 1, 1),
    (-1, -1, 1, 5): (4, 2, 1),
    (-1, 2, 1, 20): (4, 2, 1),
    (2, -1, 2, 9): (2, 2, 2),
    (-1, -1, 1, 1): (1, 8, 1),
  }.items():
    mesh = stacking.make_mesh(members, data, model, count=count, batch_size=8)
    assert tuple(mesh.shape.values()) == want, (mesh.shape, want)
    assert stacking.part_of_batch(mesh) == (0, 1)


def check_grid(folder, cells):
  """A sweep over eight devices gives exactly the masks of one device, and nearly its losses."""
  import tiny_runs

  from prunejax.sweep import grid

  changes = [change for change, _, _ in cells]
  rows = grid.sweep(tiny_runs.config(), changes, folder, name='x', say=lambda line: None)
  for row, (_, mask_hash, loss) in zip(rows, cells, strict=True):
    assert row['members'] == len(cells) and row['mask_hash'] == mask_hash
    close(row['metrics']['loss'], loss)
    assert row['device_seconds'] > row['seconds']


if __name__ == '__main__':
  import json
  import tempfile

  check_make_mesh()
  check_meshes()
  with tempfile.TemporaryDirectory() as scratch:
    check_grid(scratch, json.loads(sys.argv[1]))
  print('good')
