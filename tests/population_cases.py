"""A small model whose step is stacked, and, run as a program, what must hold on eight devices."""

import os
import sys
import time
from typing import Any, NamedTuple

if __name__ == '__main__':
  os.environ |= {'XLA_FLAGS': '--xla_force_host_platform_device_count=8', 'PJRT_NPROC': '16', 'JAX_PLATFORMS': 'cpu'}
  sys.path[:0] = ['.', 'tests']

import jax
import jax.numpy as jnp
import numpy as np
import optax

import prunejax
from prunejax.train import optimizer, stack
from prunejax.train.step import make_train_step

TOLERANCE = 2e-5  # of a batched step on CPU: sums over rows are added in another order


class Toy(NamedTuple):
  step: Any
  alone: list  # states
  state: Any  # stacked
  batches: Any  # [2, b, ...]
  rows: Any
  mesh: Any
  search: Any
  rules: Any = ((r'up', (None, 'model')), (r'down', ('model', None)))


def toy(members, width=24, when=3, mesh=(1, 1, 1)):
  rng = np.random.default_rng(0)
  draw = lambda *shape: jnp.asarray(rng.normal(size=shape) / np.sqrt(shape[0]), jnp.float32)
  where = 'up|down'
  scheduled = lambda sparsity: prunejax.prune_transform(
    prunejax.magnitude(), prunejax.cubic(sparsity, end=4), when=prunejax.every(when), where=where
  )

  def tx(i):
    return optax.chain(
      optax.scale_by_adam(),
      optimizer.inject(lambda rate: optax.scale(rate), {'rate': -1e-2 * (1 + i)}),
      optimizer.inject(lambda sparsity: scheduled(sparsity), {'sparsity': 0.3 + 0.1 * (i % 6)}),
    )

  def loss_fn(params, batch, rng):
    x = batch['x'] + 0.01 * jax.random.normal(rng, batch['x'].shape)
    out = jax.nn.gelu(x @ params['up']) @ params['down'] + params['bias']
    return jnp.mean(jnp.square(out - batch['y'])), {}

  def first(i):
    params = {'up': draw(width, 2 * width), 'down': draw(2 * width, width), 'bias': jnp.zeros(width)}
    state = {'params': params, 'opt_state': tx(i).init(params), 'step': jnp.zeros((), jnp.int32)}
    return state | {'rng': jax.random.key_data(jax.random.key(i))}

  grid = stack.make_mesh(*mesh, count=members, batch_size=8, devices=jax.devices()[: np.prod(mesh)])
  alone = [first(i) for i in range(members)]
  shapes, shardings = stack.abstract(alone[0], members), stack.shard(alone[0], grid, Toy._field_defaults['rules'])
  state = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
  for i, one in enumerate(alone):
    state = stack.put(state, one, i)
  batches = {'x': np.stack([draw(8, width)] * 2), 'y': rng.normal(size=(2, 8, width)).astype(np.float32)}
  batches = stack.put_batches(batches, grid)
  search = lambda params: prunejax.select_masks({'up': jnp.abs(params['up'])}, 0.5)
  rows = jnp.arange(members) % 2
  return Toy(make_train_step(loss_fn, tx(0)), alone, jax.device_put(state, shardings), batches, rows, grid, search)


def run(step, toy, steps):
  step, state = jax.jit(step), toy.state
  for _ in range(steps):
    state, metrics = jax.block_until_ready(step(state, toy.batches, toy.rows))
  return state, metrics


def run_alone(toy, state, i, steps):
  step = jax.jit(toy.step)
  batch = {name: np.asarray(x)[i % 2] for name, x in toy.batches.items()}
  for _ in range(steps):
    state, metrics = step(state, batch)
  return state, metrics


def times(step, toy, rounds):
  """Seconds of (steps that move masks, steps that do not): every second one moves them."""
  state, taken = toy.state, ([], [])
  for number in range(2 * rounds + 6):
    began = time.perf_counter()
    state, _ = jax.block_until_ready(step(state, toy.batches, toy.rows))
    if number >= 6:  # compiled, and past the end of the schedule
      taken[number % 2].append(time.perf_counter() - began)
  return taken


def close(a, b):
  np.testing.assert_allclose(a, b, rtol=0, atol=TOLERANCE)


def masks(state):
  return prunejax.get_masks(state['opt_state'], state['params'])


def check_meshes():
  for mesh in ((8, 1, 1), (4, 2, 1), (2, 4, 1), (2, 2, 2)):
    one = toy(members=8, mesh=mesh)
    wants = [run_alone(one, state, i, steps=5)[0] for i, state in enumerate(one.alone)]
    for batching in stack.BATCHING:
      state, _ = run(stack.make_step(one.step, batching, one.mesh), one, steps=5)
      spread = state['params']['up'].sharding.spec
      assert spread[0] == 'members', spread
      for i, want in enumerate(wants):
        mine = jax.device_get(stack.take(state, i))
        jax.tree.map(close, mine['params'], want['params'])
        jax.tree.map(np.testing.assert_array_equal, masks(mine), masks(want))


def check_make_mesh():
  for (members, data, model, count), want in {
    (-1, -1, 1, 20): (8, 1, 1), (-1, -1, 1, 5): (4, 2, 1), (-1, 2, 1, 20): (4, 2, 1), (2, -1, 2, 9): (2, 2, 2),
    (-1, -1, 1, 1): (1, 8, 1),
  }.items():
    mesh = stack.make_mesh(members, data, model, count=count, batch_size=8)
    assert tuple(mesh.shape.values()) == want, (mesh.shape, want)


def check_grid(folder):
  """A whole sweep over (2, 4) devices equals its runs by themselves: masks exactly, losses nearly."""
  import tiny_runs

  from prunejax.train import grid

  changes = [{}, {'prune.weights.schedule': 'cubic(0.8, end=6)'}]
  quiet = dict(name='x', say=lambda line: None)
  both = [
    grid.sweep(tiny_runs.config(steps=8), changes, f'{folder}/{one_by_one}', one_by_one=one_by_one, **quiet)
    for one_by_one in (False, True)
  ]
  for a, b in zip(*both, strict=True):
    assert a['members'] == 2 and b['members'] == 1 and a['mask_hash'] == b['mask_hash']
    close(a['metrics']['loss'], b['metrics']['loss'])
    assert a['device_seconds'] > a['seconds']


if __name__ == '__main__':
  import tempfile

  check_make_mesh()
  check_meshes()
  with tempfile.TemporaryDirectory() as scratch:
    check_grid(scratch)
  print('good')
