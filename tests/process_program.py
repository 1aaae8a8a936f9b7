"""What each of the two processes of `test_processes.py` runs.

argv is the index of the process, a port, the home folder of the tests, and a folder for the runs.
The program trains by the project's own command and compares masks with those of one device. It
stops a second run after four steps, waits while the parent continues that run, and ends it.
Process 1 reports every file it opens for writing.
"""

import contextlib
import json
import os
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tiny_runs

import prunejax
from prunejax import __main__ as command
from prunejax.pruning import placement
from prunejax.pruning.paths import path_name
from prunejax.sweep import grid
from prunejax.train import distributed, loop, preemption, recipe, sharding

RULES = (
  ('.*/kernel|layer_0|half', ('data', None)),
  ('embeddings/word/embedding|layer_1', (None, 'data')),
)
SHAPES = {'layer_0': (32, 64), 'layer_1': (32, 64), 'half': (64, 16), 'whole': (8, 8)}


def told(check, **values):
  print(json.dumps({'check': check, **values}), flush=True)


def watched(folder):
  """The list of files below `folder` that this process opens for writing, which grows."""
  seen = []

  def hook(event, args):
    if event == 'open' and isinstance(args[0], str) and args[0].startswith(str(folder)):
      if args[2] & (os.O_WRONLY | os.O_RDWR):
        seen.append(args[0])
    elif event in ('os.mkdir', 'os.rename', 'os.remove') and str(args[0]).startswith(str(folder)):
      seen.append(str(args[0]))

  sys.addaudithook(hook)
  return seen


def leaves(seed):
  rng = np.random.default_rng(seed)
  values = {name: rng.integers(-40, 40, shape) / 8 for name, shape in SHAPES.items()}
  return {
    name: value.astype('float16' if name == 'half' else 'float32') for name, value in values.items()
  }


def masks_of_one_device():
  """Three steps of AdamW and pruning, uniform and global, over both processes and alone."""
  allocations = {'uniform': prunejax.uniform(), 'global_threshold': prunejax.global_threshold()}
  link = lambda allocation: prunejax.prune_transform(
    prunejax.magnitude(), prunejax.cubic(0.6, end=2), allocation=allocation
  )
  chains = {
    # In float16 the default eps of 1e-8 is 0, and the moments of a zero gradient divide to NaN.
    name: optax.chain(optax.adamw(0.1, eps=1e-3), link(allocation))
    for name, allocation in allocations.items()
  }

  @jax.jit
  def step(state, grad):
    params, opt_state = {}, {}
    for name, tx in chains.items():
      updates, opt_state[name] = tx.update(grad, state['opt_state'][name], state['params'][name])
      params[name] = optax.apply_updates(state['params'][name], updates)
    return {'params': params, 'opt_state': opt_state}, ()

  params, grads = leaves(0), [leaves(1), leaves(2), leaves(3)]
  first = {
    'params': dict.fromkeys(chains, params),
    'opt_state': {name: tx.init(jax.tree.map(jnp.asarray, params)) for name, tx in chains.items()},
  }
  mesh = sharding.make_mesh()
  lies = sharding.shard(first, mesh, RULES)
  ends = []
  for over in (True, False):
    state = sharding.place(first, lies) if over else jax.device_put(first, jax.local_devices()[0])
    for grad in grads:
      grad = sharding.place(grad, sharding.shard(grad, mesh, RULES)) if over else grad
      state, _ = (sharding.steady(step, lies) if over else step)(state, grad)
    masks = {
      name: prunejax.get_masks(state['opt_state'][name], state['params'][name]) for name in chains
    }
    ends.append({'params': state['params'], 'masks': masks})
  over, alone = ({path_name(path): x for path, x in jax.tree.leaves_with_path(end)} for end in ends)
  same = lambda name: placement.on_host(over[name]).tobytes() == np.asarray(alone[name]).tobytes()
  told(
    'masks',
    differ=[name for name in over if not same(name)],
    split=[
      name
      for name, leaf in over.items()
      if name.startswith('masks/u') and not leaf.is_fully_replicated
    ],
    alike=[
      f(ends[0]['masks']) == f(ends[1]['masks'])
      for f in (prunejax.mask_hash, prunejax.masks.sparsity)
    ],
  )


def main(index, port, home, folder):
  tiny_runs.home = lambda: pathlib.Path(home)
  folder = pathlib.Path(folder)
  written = watched(folder)
  argv = tiny_runs.argv('train', folder / 'whole', mesh__rules=RULES)
  argv += [f'--config.{key}={value}' for key, value in tiny_runs.PRUNED.items()]
  status = command.main([*argv, f'--distributed=localhost:{port},{index},2'])
  told('command', status=status, processes=jax.process_count(), devices=jax.device_count())
  masks_of_one_device()
  together = grid.sweep(tiny_runs.config(), [{}, {'seed': 1}], folder / 'grid', name='x')
  told('population', members=[row['members'] for row in together], hash=together[0]['mask_hash'])

  config = tiny_runs.config(mesh__rules=RULES, checkpoint__every=0)
  asked = iter(range(1, 100))

  @contextlib.contextmanager
  def after_four():
    yield lambda: next(asked) == 4

  honest, preemption.notice = preemption.notice, after_four
  try:
    loop.train(recipe.resolve(config), folder / 'moved')
    told('stopped', saved=False)
  except preemption.Preempted as notice:
    told('stopped', saved='step 4 of 12 is saved' in str(notice))
  preemption.notice = honest
  sys.stdin.readline()  # the parent continues the run alone for a while
  result = loop.train(recipe.resolve(config), folder / 'moved')
  told('ended', hash=result['mask_hash'], sparsity=result['sparsity'])
  told(
    'written',
    files=[] if distributed.first() else [name for name in written if '/checkpoints' not in name],
  )


if __name__ == '__main__':
  main(int(sys.argv[1]), *sys.argv[2:])
