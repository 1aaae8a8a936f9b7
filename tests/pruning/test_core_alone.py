"""The core on the plain install: jax, numpy and optax, nothing else."""

import re
import subprocess
import sys
import textwrap

import pytest

import prunejax

PROGRAM = """
import importlib.abc, sys

class Blocked(importlib.abc.MetaPathFinder):
  extras = set(%r)
  def find_spec(self, name, path=None, target=None):
    if name.split('.')[0] in self.extras:
      raise ImportError('blocked: ' + name)

sys.meta_path.insert(0, Blocked())
import jax, jax.numpy as jnp, optax, prunejax
params = {'kernel': jnp.arange(1.0, 13.0).reshape(3, 4), 'bias': jnp.ones(4)}
tx = optax.chain(
  optax.adamw(0.1),
  prunejax.prune_transform(prunejax.magnitude(), prunejax.cubic(0.5, end=2), where='kernel'),
)
state = tx.init(params)
for _ in range(4):
  updates, state = jax.jit(tx.update)(jax.tree.map(jnp.ones_like, params), state, params)
  params = optax.apply_updates(params, updates)
prunejax.check_pruned(params, state)
assert prunejax.masks.sparsity(prunejax.get_masks(state, params), 'kernel')['total'] == 0.5
prunejax.save_sparse(%r, params)
assert (prunejax.load_sparse(%r)['kernel'] == params['kernel']).all()
print('prunejax.train' in sys.modules, 'prunejax.models' in sys.modules)
"""
EXTRAS = [
  'flax',
  'transformers',
  'tokenizers',
  'safetensors',
  'orbax',
  'grain',
  'ml_collections',
  'tensorboardX',
  'rich',
  'matplotlib',
  'tensorflow_datasets',
  'tensorflow',
  'pytest',
  'hypothesis',
  'etils',
]


def test_prune_transform_works_with_every_extra_blocked(tmp_path):
  path = str(tmp_path / 'pruned.safetensors')
  code = textwrap.dedent(PROGRAM % (EXTRAS, path, path))
  done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
  assert done.returncode == 0, done.stderr
  assert done.stdout.split() == ['False', 'False']


def test_the_namespace_is_small_and_explicit():
  public = {name for name in vars(prunejax.public) if name[0] != '_'}
  assert public == set(prunejax.public.__all__)
  assert {'prune_transform', 'get_masks', 'magnitude', 'cubic', 'every', 'masks'} <= public
  assert len(public) <= 80
  assert set(dir(prunejax)) == public | {'__version__'}
  assert _names_of('from prunejax import *') == public
  assert _names_of('import prunejax; prunejax.pruning.types, prunejax.masks') == {'prunejax'}
  assert all(getattr(prunejax, name) is getattr(prunejax.public, name) for name in public)
  with pytest.raises(AttributeError, match="module 'prunejax' has no attribute 'magnitud'"):
    _ = prunejax.magnitud


def test_the_version_is_the_installed_one():
  assert re.fullmatch(r'\d+\.\d+\.\d+', prunejax.__version__)


def _names_of(statement):
  """The modules that a statement imports in a fresh process."""
  code = f"exec({statement!r}, names := {{}}); print(*(name for name in names if name[0] != '_'))"
  done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
  assert done.returncode == 0, done.stderr
  return set(done.stdout.split())
