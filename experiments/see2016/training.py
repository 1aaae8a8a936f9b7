"""Train one cell: the dense model, then one-shot pruning, retraining, or training from scratch."""

import functools

import jax
import jax.numpy as jnp
import optax

import prunejax
from experiments.translation import decoding, task, training
from prunejax.models import seq2seq
from prunejax.pruning import masks
from prunejax.pruning.paths import named_leaves
from prunejax.sweep import study

# The paper's classes of weights.
CLASSES = {
  'source embedding': r'source/embedding/embedding',
  'target embedding': r'target/embedding/embedding',
  'source layer': r'source/layer_\d+/.*',
  'target layer': r'target/layer_\d+/.*',
  'attention': r'attention/.*',
  'softmax': r'softmax/kernel',
}
# The paper prunes matrices, so biases belong to no class.
_MATRICES = {name: rf'(?!.*/bias)({pattern})' for name, pattern in CLASSES.items()}
SCHEMES = {
  'class-blind': prunejax.global_threshold,
  'class-uniform': lambda: prunejax.class_uniform(list(_MATRICES.values())),
  'class-distribution': lambda: prunejax.class_distribution(list(_MATRICES.values())),
}
# Ways to retrain: at a small rate that falls linearly; at half of the rate of training, halved
# every few steps; and at the rate of training.
RETRAINED = ('retrained', 'halved', 'full rate')
NEW = 1000  # Added to the seed of a dense model for the weights of a network from scratch.


def measure(settings: dict, root: str, folder, say) -> dict:
  """Train one cell and score it on the task's test sentences.

  Args:
    settings: of a cell of `study.plan`.
    root: folder that holds `multi30k/`, or ''.
    folder: work directory; the dense model is kept there for the seed's other cells.
    say: prints a line of progress.

  Returns:
    BLEU, and the sparsity of the model and of each class.

  Raises:
    FloatingPointError: if a loss is not finite.
  """
  base, method, scheme, sparsity = (settings[k] for k in ('base', 'method', 'scheme', 'sparsity'))
  data, model = task.load_for(base, root), _model(base)
  initial = draw(model, base['seed'], base['reach'])

  def fit(params, steps, rate, halve=0):
    return training.fit(
      _trainer(model),
      params,
      data.buckets,
      steps=steps,
      rate=rate,
      warmup=base['warmup'],
      batch=base['batch'],
      together=base['together'],
      seed=base['seed'],
      halve=halve,
      say=say,
    )

  def train_dense():
    state, loss = fit(initial, base['steps'], base['rate'])
    say(f'dense: training loss {loss:.3f}')
    return named_leaves(jax.device_get(state.params))

  made_of = {'see2016': base, 'vocabulary': data.vocabulary, 'reads': settings.get('reads')}
  dense_leaves = study.kept(folder, made_of, train_dense)
  params = jax.tree.structure(initial).unflatten(
    [jnp.asarray(dense_leaves[name]) for name in named_leaves(initial)]
  )
  metrics = {}
  if method == 'class alone':
    params = prune(params, 'class-blind', sparsity, _MATRICES[scheme])
  elif scheme:
    params = prune(params, scheme, sparsity)
  if method in ('from scratch', 'ticket'):
    # A ticket (Frankle & Carbin 2019) starts from the weights that the dense model started from.
    seed = base['seed'] + NEW * (method == 'from scratch')
    first = draw(model, seed, base['reach'])
    params = masks.apply(first, masks.from_zeros(params, seq2seq.PRUNABLE))
    state, metrics['train_loss'] = fit(params, base['steps'] + settings['steps'], base['rate'])
    params = state.params
  elif method in RETRAINED:
    halve = settings.get('halve', 0)
    state, metrics['train_loss'] = fit(params, settings['steps'], settings['rate'], halve)
    params = state.params
  metrics |= decoding.score(model, params, data)
  metrics |= {
    f'removed {name}': masks.sparsity(params, pattern)['total']
    for name, pattern in _MATRICES.items()
  }
  return metrics | {'removed': masks.sparsity(params, seq2seq.PRUNABLE)['total']}


def draw(model: seq2seq.Seq2Seq, seed: int, reach: float) -> dict:
  """Draw every parameter from U(-reach, reach), as the paper does with a reach of 0.1.

  Args:
    model: says the shapes.
    seed: of the draw.
    reach: largest size of a parameter.
  """
  leaves, tree = jax.tree.flatten(training.initial_params(model, 0))
  keys = jax.random.split(jax.random.key(seed), len(leaves))
  uniform = lambda key, leaf: jax.random.uniform(key, leaf.shape, leaf.dtype, -reach, reach)
  return tree.unflatten(list(map(uniform, keys, leaves)))


def prune(params: dict, scheme: str, sparsity: float, where: str = seq2seq.PRUNABLE) -> dict:
  """Prune in one shot by magnitude.

  Args:
    params: the model's parameters.
    scheme: a name from `SCHEMES`.
    sparsity: fraction of the weights that is removed.
    where: regex of the leaves that are pruned.
  """
  return _pruner(scheme, where)(params, jnp.float32(sparsity))


@functools.lru_cache
def _pruner(scheme, where):
  @jax.jit
  def run(params, sparsity):
    tx = prunejax.prune_transform(
      prunejax.magnitude(), prunejax.constant(sparsity), allocation=SCHEMES[scheme](), where=where
    )
    updates, _ = tx.update(jax.tree.map(jnp.zeros_like, params), tx.init(params), params)
    return optax.apply_updates(params, updates)

  return run


@functools.lru_cache
def _trainer(model):
  return training.trainer(model, training.links(seq2seq.PRUNABLE))


def _model(base):
  return seq2seq.Seq2Seq(base['words'], base['hidden'], base['layers'], base['dropout'])
