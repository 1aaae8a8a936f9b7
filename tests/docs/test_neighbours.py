"""Trainers of other projects, unmodified, from checkouts that variables of the environment name.

FLAX_EXAMPLES is the folder `examples` of Flax's repository, and MAXTEXT_SRC the folder `src` of
MaxText's. Without them, or without the packages that those files import, a test is skipped. The
pages of docs/how-to run everywhere.
"""

import importlib.util
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
pytestmark = pytest.mark.docs


def checkout(variable, file, packages):
  """The folder that a variable names; skips the test where it or a package is missing."""
  folder = pathlib.Path(os.environ.get(variable, ''))
  if not os.environ.get(variable) or not (folder / file).is_file():
    pytest.skip(f'{variable} does not name a folder with {file}')
  missing = [name for name in packages if importlib.util.find_spec(name) is None]
  if missing:
    pytest.skip(f'{folder / file} needs {", ".join(missing)}, which is not installed')
  return folder


def run(program, folder, tmp_path):
  """Runs a program that imports from `folder`; returns its lines that begin with >.

  The root of this repository is not on its path: the examples have a package `configs` too.
  """
  (tmp_path / 'prunejax').symlink_to(ROOT / 'prunejax')
  done = subprocess.run(
    [sys.executable, '-c', program],
    capture_output=True,
    text=True,
    cwd=tmp_path,
    env={**os.environ, 'PYTHONPATH': f'{folder}:{tmp_path}'},
  )
  assert done.returncode == 0, done.stderr[-3000:]
  return [line for line in done.stdout.splitlines() if line.startswith('>')]


MNIST = """
import tempfile, optax, prunejax, numpy as np, tensorflow_datasets as tfds
import tensorflow_datasets.image_classification.mnist
from flax import nnx
from configs import default

link = prunejax.prune_transform(
  prunejax.magnitude(), prunejax.cubic(0.9, end=8), prunejax.every(2), where='linear.*/kernel')
sgd, optax.sgd = optax.sgd, lambda *a, **k: optax.chain(sgd(*a, **k), link)
import train

made = []

class Optimizer(nnx.Optimizer):
  def __init__(self, model, *args, **kwargs):
    super().__init__(model, *args, **kwargs)
    made.append((model, self))

train.nnx.Optimizer = Optimizer
config = default.get_config()
config.num_epochs, config.batch_size = 2, 8
with tfds.testing.mock_data(num_examples=64):
  train.train_and_evaluate(config, tempfile.mkdtemp())
[(model, optimizer)] = made
params = nnx.as_pure(nnx.state(model, nnx.Param))
prunejax.check_pruned(params, nnx.as_pure(optimizer.opt_state))
print('>', int(optimizer.step[...]), int(np.sum(np.asarray(model.linear1.kernel[...]) == 0)))
"""


def test_flax_mnist_is_pruned_as_it_is(tmp_path):
  needed = ('tensorflow', 'tensorflow_datasets', 'ml_collections')
  examples = checkout('FLAX_EXAMPLES', 'mnist/train.py', needed)
  assert run(MNIST, examples / 'mnist', tmp_path) == ['> 16 722534']  # 0.9 * 3136 * 256, rounded


LM1B = """
import os, tempfile, jax, optax, prunejax, numpy as np, tensorflow as tf
import tensorflow_datasets.text.lm1b
from configs import default

jax.config.update('jax_disable_most_optimizations', True)
link = prunejax.prune_transform(
  prunejax.magnitude(), prunejax.cubic(0.9, end=8), prunejax.every(2), where='.*/kernel')
adamw, optax.adamw = optax.adamw, lambda *a, **k: optax.chain(adamw(*a, **k), link)
import input_pipeline, train

def text(builder, split):  # the trainer's own reader wants the real data set
  words = [''.join(chr(97 + (i * 7 + j * j) % 26) for j in range(3 + i % 4)) for i in range(200)]
  rng = np.random.default_rng(0)
  rows = [' '.join(rng.choice(words, 4)) for _ in range(1024)]
  return tf.data.Dataset.from_tensor_slices({'inputs': rows, 'targets': rows})

input_pipeline.get_raw_dataset = text
save, states = train.checkpoints.save_checkpoint_multiprocess, {}

def saved(folder, state, step, **kwargs):
  params = jax.device_get(state.params)
  states[step] = prunejax.mask_hash(prunejax.get_masks(state.opt_state, state.params))
  prunejax.check_pruned(state.params, state.opt_state)
  zeros = sum(int(np.sum(p == 0)) for p in jax.tree.leaves(params))
  print('>', step, int(state.step), zeros > 0)
  return save(folder, state, step, **kwargs)

train.checkpoints.save_checkpoint_multiprocess = saved

def run(folder, steps):
  config = default.get_config()
  config.update(max_corpus_chars=3000, vocab_size=40, per_device_batch_size=2, num_eval_steps=1)
  config.update(eval_per_device_batch_size=2, num_predict_steps=1)
  config.update(num_layers=1, qkv_dim=32, emb_dim=32, mlp_dim=64, num_heads=2)
  config.update(max_target_length=32, max_eval_target_length=32, max_predict_length=32)
  config.update(num_train_steps=steps, checkpoint_every_steps=100, eval_every_steps=100)
  train.train_and_evaluate(config, folder)

folder = os.path.join(tempfile.mkdtemp(), 'run')
run(folder, 6)
first = states[5]
restore = train.checkpoints.restore_checkpoint

def restored(folder, state):
  state = restore(folder, state)
  assert prunejax.mask_hash(prunejax.get_masks(state.opt_state, state.params)) == first
  return state

train.checkpoints.restore_checkpoint = restored
run(folder, 12)
"""


def test_flax_lm1b_is_pruned_saved_and_restored_as_it_is(tmp_path):
  needed = ('tensorflow', 'tensorflow_text', 'tensorflow_datasets', 'clu', 'sentencepiece')
  examples = checkout('FLAX_EXAMPLES', 'lm1b/train.py', needed)
  lines = run(LM1B, examples / 'lm1b', tmp_path)
  assert lines == ['> 0 1 True', '> 5 6 True', '> 11 12 True'], lines


MAXTEXT = """
import os, sys, tempfile, types
import jax, jax.numpy as jnp, numpy as np, optax, orbax.checkpoint as ocp, prunejax
from flax import nnx

# Without __init__.py and muon_utils.py, which import most of MaxText and sixty packages.
package, muon = types.ModuleType('maxtext'), types.ModuleType('maxtext.utils.muon_utils')
package.__path__ = [os.path.join(os.environ['MAXTEXT_SRC'], 'maxtext')]
muon.get_muon_weight_dimension_numbers = None
sys.modules.update({'maxtext': package, 'maxtext.utils.muon_utils': muon})
from maxtext.common import train_state_nnx as states
from maxtext.optimizers import optimizers

link = prunejax.prune_transform(
  prunejax.magnitude(), prunejax.cubic(0.8, end=8), prunejax.every(2), where='decoder/.*/kernel')
get = optimizers.get_optimizer
optimizers.get_optimizer = lambda *a, **k: optax.chain(get(*a, **k), link)

class Model(nnx.Module):
  def __init__(self, rngs):
    layer = lambda: nnx.Linear(16, 16, rngs=rngs)
    self.decoder = nnx.Dict(layers_0=layer(), layers_1=layer())
  def __call__(self, x):
    return self.decoder['layers_1'](nnx.relu(self.decoder['layers_0'](x)))

def new(skip):
  config = types.SimpleNamespace(
    opt_type='adamw', adam_b1=0.9, adam_b2=0.95, adam_eps=1e-8, adam_eps_root=0.0, mu_dtype=None,
    adam_weight_decay=0.1, adamw_mask=None, skip_step_on_spikes=skip, skip_step_interval=8,
    skip_step_scaling_factor=6.0, trainable_parameters_mask=None)
  model = Model(nnx.Rngs(0))
  tx = optimizers.get_optimizer(config, optax.constant_schedule(1e-3), model)
  return states.TrainStateNNX(model, nnx.Optimizer(model, tx, wrt=nnx.Param))

@nnx.jit
def step(state, x):
  loss, grads = nnx.value_and_grad(lambda model: jnp.mean((model(x) - 1) ** 2))(state.model)
  state.apply_gradients(grads, loss=loss, grad_norm=optax.global_norm(grads))

def masks(state):
  params = nnx.as_pure(nnx.state(state.model, nnx.Param))
  prunejax.check_pruned(params, nnx.as_pure(state.optimizer.opt_state))
  return prunejax.get_masks(nnx.as_pure(state.optimizer.opt_state), params)

x = jax.random.normal(jax.random.key(0), (8, 16))
for skip in (False, True):
  state = new(skip)
  for _ in range(6):
    step(state, x)
  folder = tempfile.mkdtemp()
  with ocp.CheckpointManager(folder) as manager:
    manager.save(6, args=ocp.args.StandardSave(states.to_checkpoint_dict(state)))
    manager.wait_until_finished()
    again = new(skip)
    like = nnx.state(again)
    stored = manager.restore(6, args=ocp.args.StandardRestore(states.to_checkpoint_dict(like)))
    nnx.replace_by_pure_dict(like, states.from_linen_checkpoint_dict(stored))
    nnx.update(again, like)
  assert prunejax.mask_hash(masks(again)) == prunejax.mask_hash(masks(state))
  for _ in range(6):
    step(again, x)
  total = prunejax.masks.sparsity(masks(again), where='decoder/.*/kernel')
  print('>', skip, total['removed'])
"""


def test_maxtext_optimizer_and_train_state_as_they_are(tmp_path):
  source = checkout('MAXTEXT_SRC', 'maxtext/common/train_state_nnx.py', ('flax', 'orbax'))
  # 0.8 * 256 is 204.8 of each of two kernels
  assert run(MAXTEXT, source, tmp_path) == ['> False 410', '> True 410']
