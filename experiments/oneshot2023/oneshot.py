"""Prune the packaged BERT in one shot and measure its held-out loss."""

import functools

import jax
import jax.numpy as jnp
import optax

import prunejax
from configs import pretrain
from prunejax import files
from prunejax.report import ledger
from prunejax.train import configs, evaluate, inputs, loop, optimizer, program, recipe

WHERE = r'encoder/.*/kernel'
# The paper has blocks of 50 and 1024 gradients; these take a few minutes on a CPU core.
FISHER = {'block': 8, 'gradients': 16}
# {method: (criterion, allocation, mask updates)}
METHODS = {
  'magnitude': (prunejax.magnitude, prunejax.uniform, 1),
  'wanda': (prunejax.wanda, prunejax.per_output, 1),
  'sparsegpt': (prunejax.sparsegpt, prunejax.uniform, 1),
  'fisher 1': (functools.partial(prunejax.block_fisher, **FISHER), prunejax.global_threshold, 1),
  'fisher 4': (functools.partial(prunejax.block_fisher, **FISHER), prunejax.global_threshold, 4),
}


def measure(settings: dict, root: str, folder, say) -> dict:
  """Prune once and measure the held-out loss, with no training after.

  Args:
    settings: of a cell of `study.plan`.
    root: unused.
    folder: work directory; networks of the preset `nets` are trained below it, each once.
    say: prints a line.

  Returns:
    'loss' in nats (MLM + NSP), 'dense_loss', and 'got', the sparsity of the encoder's kernels.

  Raises:
    FloatingPointError: if a score or a change of a weight is not finite.
  """
  del root
  sizes = (settings['batches'], settings['calibration'], settings.get('pydoc', 'installed'))
  if 'net' in settings:
    sizes += (_born(settings, folder, say),)
  data, functions, params, dense_loss = _packaged_model(*sizes)
  prune, updates = _pruner(settings['method'], settings['pattern'], *sizes)
  batch = data.train(settings['seed'])
  for update in range(1, updates + 1):
    params, not_finite = prune(params, batch, settings['sparsity'] * update / updates)
    if bool(not_finite):
      raise FloatingPointError('a score or a change of a weight is not finite')
  loss = evaluate.pretraining(functions.measure, params, data.held_out())['loss']
  sparsity = prunejax.masks.sparsity(params, WHERE)['total']
  return {'loss': loss, 'dense_loss': dense_loss, 'got': sparsity}


def reads(root: str, pydoc: str) -> dict[str, str]:
  """Digests of the text and of the packaged model.

  Args:
    root: unused.
    pydoc: which text, 'installed' or 'packaged'.
  """
  del root
  config = pretrain.get_config('nano')
  config.data.pydoc = pydoc
  data = recipe.data_of(config.data)
  return inputs.reads(data, config.init, config.distill.teacher)


def _born(settings, folder, say):
  """The model folder of a network of the packaged model's size, trained from nothing."""
  config = pretrain.get_config('nano')
  config.update(pretrained=False, steps=settings['born'], batch_size=16, seed=settings['net'])
  config.optimizer.learning_rate = settings['born_rate']
  config.data.pydoc = settings.get('pydoc', 'installed')
  config.log.update(every=200, tensorboard=False, who_pays=False)
  home = files.path(folder) / 'nets' / f'{ledger.cell_hash(dict(configs.counted(config)))}'
  loop.train(recipe.resolve(config), home, title=f'network {settings["net"]}', say=say)
  return str(home / 'model')


@functools.cache
def _packaged_model(batches, calibration, pydoc, init=''):
  """(data, compiled functions, weights, dense loss) of the packaged model, or of a folder's."""
  config = pretrain.get_config('nano')
  config.unlock()
  config.data.pydoc = pydoc
  config.init = init or config.init
  config.eval.batches, config.batch_size = batches, calibration
  resolved = recipe.resolve(config)
  source, data = program.read_inputs(resolved)
  tx = optimizer.make(resolved)
  functions = program.build(resolved, source, data, tx)
  abstract = program.abstract_state(resolved, functions, tx)
  loaded = program.pretrained(resolved, source, functions, abstract['params'])
  params = program.initial_state(resolved, functions, tx, loaded)['params']
  dense_loss = evaluate.pretraining(functions.measure, params, data.held_out())['loss']
  return data, functions, params, dense_loss


@functools.cache
def _pruner(method, pattern, batches, calibration, pydoc, init=''):
  """(compiled (params, batch, sparsity) -> (params, whether a value is NaN), mask updates)."""
  criterion, allocation, updates = METHODS[method]
  functions = _packaged_model(batches, calibration, pydoc, init)[1]
  structure = prunejax.n_m(2, 4) if pattern == '2:4' else prunejax.unstructured()

  @jax.jit
  def prune(params, batch, sparsity):
    tx = prunejax.prune_transform(
      criterion(),
      prunejax.constant(sparsity),
      allocation=allocation(),
      structure=structure,
      where=WHERE,
    )
    extra_args = functions.observe(lambda p: p, batch, jax.random.key(0))
    zeros = jax.tree.map(jnp.zeros_like, params)
    change, state = tx.update(zeros, tx.init(params), params, **extra_args)
    return optax.apply_updates(params, change), jnp.any(state.prune_nan > 0)

  return prune, updates
