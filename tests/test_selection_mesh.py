"""Selection over 8 (forced host) devices: the masks of one device, and nothing but counts on the wire."""

import subprocess
import sys

PROGRAM = r"""
import os
os.environ |= {'XLA_FLAGS': '--xla_force_host_platform_device_count=8', 'PJRT_NPROC': '16', 'JAX_PLATFORMS': 'cpu'}
import math, re
import jax, jax.numpy as jnp, numpy as np, prunejax
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P

rng = np.random.default_rng(0)
shapes = {'q': (64, 64), 'o': (64, 64), 'up': (64, 128)}
rules = {'q': P(None, 'model'), 'o': P('model', None), 'up': P('data', 'model')}
draw = lambda shape: (rng.integers(0, 99, shape) / 8).astype(np.float32)
scores = {f'layer_{i}/{name}': draw(shape) for i in range(2) for name, shape in shapes.items()}
mesh = jax.make_mesh((2, 4), ('data', 'model'), axis_types=(AxisType.Auto,) * 2)
sharding = {name: NamedSharding(mesh, rules[name.split('/')[1]]) for name in scores}
spread = {name: jax.device_put(score, sharding[name]) for name, score in scores.items()}
recipe = {'allocation': prunejax.global_threshold(), 'structure': prunejax.block(8, 8)}
select = lambda scores: prunejax.select_masks(scores, jnp.float32(0.4), **recipe)
compiled = jax.jit(select, out_shardings=sharding).lower(spread).compile()
pattern = r'= (.*?) (?:all-gather|all-to-all|collective-permute|all-reduce)(?:-start)?\('
moved = [dims for result in re.findall(pattern, compiled.as_text()) for dims in re.findall(r'\[([\d,]*)\]', result)]
largest = max(math.prod(int(n) for n in dims.split(',') if n) for dims in moved)
masks, alone = compiled(spread), jax.jit(select)(scores)
print(len(moved) > 0, largest <= 64, all(np.array_equal(masks[name], alone[name]) for name in scores))
"""


def test_masks_of_a_mesh_are_those_of_one_device_and_no_score_is_gathered():
  done = subprocess.run([sys.executable, '-c', PROGRAM], capture_output=True, text=True, timeout=300)
  assert done.stdout.split() == ['True'] * 3, done.stdout + done.stderr
