"""What each of the two processes of `test_processes.py` runs: argv is index, port, the tests' home, a folder.

It trains by the project's own command, compares masks with one device's, stops a second run after four steps, waits
until the parent has taken it further, and ends it. Process 1 reports every file it opens for writing.
"""

import contextlib
import json
import os
import pathlib
import sys

import jax
import numpy as np
import optax
import tiny_runs
from jax.sharding import NamedSharding, PartitionSpec

import prunejax
from prunejax import __main__ as command
from prunejax.pruning import layout
from prunejax.train import distributed, loop, preemption, sharding

RULES = (('.*/kernel', ('data', None)), ('embeddings/word/embedding', (None, 'data')))
SHAPES = {'layer_0/w': (32, 64), 'layer_1/w': (32, 64), 'half': (64, 16), 'whole': (8, 8)}
LIES = {'layer_0/w': ('data', None), 'layer_1/w': (None, 'data'), 'half': ('data', None), 'whole': ()}


def told(check, **values):
  print(json.dumps({'check': check, **values}), flush=True)


def watched(folder):
  """The files below `folder` that this process opens to write, as they come."""
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
  return {name: value.astype('float16' if name == 'half' else 'float32') for name, value in values.items()}


def masks_of_one_device():
  """Three steps of AdamW and pruning, with a threshold for each leaf and with one, over both processes and alone."""
  mesh = sharding.make_mesh()
  lies = {name: NamedSharding(mesh, PartitionSpec(*axes)) for name, axes in LIES.items()}
  recipes = {'uniform': prunejax.uniform(), 'global_threshold': prunejax.global_threshold()}
  links = [
    prunejax.prune_transform(prunejax.magnitude(), prunejax.cubic(0.6, end=2), allocation=allocation)
    for allocation in recipes.values()
  ]

  @jax.jit
  def run(params, grads):
    out = {}
    for name, link in zip(recipes, links, strict=True):
      tx, now = optax.chain(optax.adamw(0.1), link), params
      state = tx.init(now)
      for grad in grads:
        updates, state = tx.update(grad, state, now)
        now = optax.apply_updates(now, updates)
      out |= {f'params {name}': now, f'masks {name}': prunejax.get_masks(state, now)}
    return out

  params, grads = leaves(0), [leaves(1), leaves(2), leaves(3)]
  over = run(sharding.place(params, lies), [sharding.place(grad, lies) for grad in grads])
  alone = run(params, grads)
  differ = [
    f'{what} {name}' for what in over for name in SHAPES
    if layout.on_host(over[what][name]).tobytes() != np.asarray(alone[what][name]).tobytes()
  ]
  split = [name for name, mask in over['masks uniform'].items() if not mask.is_fully_replicated]
  alike = [
    prunejax.mask_hash(over['masks uniform']) == prunejax.mask_hash(alone['masks uniform']),
    prunejax.masks.sparsity(over['masks uniform']) == prunejax.masks.sparsity(alone['masks uniform']),
  ]
  told('masks', differ=differ, split=split, alike=alike)


def main(index, port, home, folder):
  tiny_runs.home = lambda: pathlib.Path(home)
  folder = pathlib.Path(folder)
  written = watched(folder)
  argv = tiny_runs.argv('train', folder / 'whole', mesh__rules=RULES)
  argv += [f'--config.{key}={value}' for key, value in tiny_runs.PRUNED.items()]
  status = command.main([*argv, f'--distributed=localhost:{port},{index},2'])
  told('command', status=status, processes=jax.process_count(), devices=jax.device_count())
  masks_of_one_device()

  config = tiny_runs.config(mesh__rules=RULES, checkpoint__every=0)
  asked = iter(range(1, 100))

  @contextlib.contextmanager
  def after_four():
    yield lambda: next(asked) == 4

  honest, preemption.notice = preemption.notice, after_four
  try:
    loop.train(config, folder / 'moved')
    told('stopped', saved=False)
  except preemption.Preempted as notice:
    told('stopped', saved='step 4 of 12 is saved' in str(notice))
  preemption.notice = honest
  sys.stdin.readline()  # the parent goes on alone for a while
  result = loop.train(config, folder / 'moved')
  told('ended', hash=result['mask_hash'], sparsity=result['sparsity'])
  told('written', files=[] if distributed.first() else [name for name in written if '/checkpoints' not in name])


if __name__ == '__main__':
  main(int(sys.argv[1]), *sys.argv[2:])
