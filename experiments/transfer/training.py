"""Measure one cell: a network in pre-training, or one arm of fine-tuning."""

import jax
import numpy as np

from experiments.classification import training
from experiments.gordon2020.analysis import arms
from experiments.transfer import halves
from prunejax.models import convnets
from prunejax.pruning import masks
from prunejax.pruning.paths import named_leaves
from prunejax.sweep import study

WHERE = r'(conv|fc)\d+/kernel'  # every kernel but the classifier's
HOLD = training.hold(WHERE)
CUT = training.prune(WHERE, 0)


def measure(settings: dict, root: str, folder, say) -> dict:
  """Train one cell and score it on test images.

  Args:
    settings: of a cell of `study.plan`.
    root: folder that holds `mnist/`, or ''.
    folder: work directory; networks of pre-training are kept there for other cells.
    say: unused.

  Returns:
    'accuracy' on test images and 'sparsity' of the pruned kernels. In pre-training also 'loss' on
    test images, in nats; in fine-tuning 'train_loss', in nats, and 'majority', the accuracy of a
    constant answer. The arm 'after' also has 'mask_difference', the share of entries in which its
    masks differ from those that would be chosen before fine-tuning.

  Raises:
    FloatingPointError: if a weight is not finite.
  """
  del say
  data = halves.load(root, settings['test'], str(settings.get('reads')))
  network = convnets.Network('vgg', data.side, halves.CLASSES)
  logits = training.logits_of(network)
  if settings['stage'] == 'pretrain':
    params = _pretrained(settings, data, network, folder, settings['arm'])
    accuracy, loss = training.score(logits, params, data.first.test)
    return {'accuracy': accuracy, 'loss': loss, 'sparsity': _sparsity(params)}
  task = halves.few(data.second, settings['images'], settings['seed'])
  params, metrics = _tuned(settings, data, task, network, folder)
  accuracy, _ = training.score(logits, params, task.test)
  metrics['train_loss'] = training.score(logits, params, task.train)[1]
  counts = np.bincount(task.test.labels, minlength=halves.CLASSES)
  metrics['majority'] = float(counts.max() / counts.sum())
  return {'accuracy': accuracy, 'sparsity': _sparsity(params), **metrics}


def _tuned(settings, data, task, network, folder):
  """(fine-tuned parameters, metrics that only this arm has)."""
  arm, logits, seed = settings['arm'], training.logits_of(network), settings['seed']
  fresh = convnets.init(jax.random.key(seed + 3000), network)
  if arm == 'fresh':
    params = fresh
  else:
    params = _pretrained(settings, data, network, folder, arms.SOURCE[arm])
    params = {**params, 'classifier': fresh['classifier']}
  run = {'rate': settings['tune_rate'], 'batch': settings['tune_batch'], 'seed': seed + 4000}
  steps = settings['tune']
  if arm in ('pruned', 'random'):
    return training.fit(logits, params, task.train, steps=steps, link=HOLD, **run), {}
  if arm != 'after':
    return training.fit(logits, params, task.train, steps=steps, **run), {}
  sparsity = settings['sparsity']
  tuned = training.fit(logits, params, task.train, steps=steps // 2, **run)
  rest = {**run, 'seed': seed + 5000, 'link': CUT, 'number': sparsity}
  out = training.fit(logits, tuned, task.train, steps=steps - steps // 2, **rest)
  before, after = (_kept(_cut(tree, sparsity)) for tree in (params, tuned))
  return out, {'mask_difference': float(np.mean(before != after))}


def _pretrained(settings, data, network, folder, arm):
  """The network of pre-training that an arm starts from, made once for all cells."""
  numbers = ('digits', 'born', 'batch', 'rate', 'decay', 'seed', 'reads')
  born = {'transfer': 'born', **{name: settings.get(name) for name in numbers}}
  own = born | {name: settings[name] for name in ('steps', 'ramp')}
  own |= {'transfer': arm, 'sparsity': settings['sparsity'] if arm != 'dense' else 0.0}
  return _nested(
    study.kept(folder, own, lambda: _continued(settings, data, network, folder, born, own))
  )


def _continued(settings, data, network, folder, born, own):
  """The network after its second part of pre-training, in which the arm prunes."""
  logits, seed, arm = training.logits_of(network), settings['seed'], own['transfer']
  run = {name: settings[name] for name in ('rate', 'batch', 'decay')}

  def first():
    params = convnets.init(jax.random.key(seed), network)
    train = data.first.train
    return named_leaves(
      training.fit(logits, params, train, steps=settings['born'], seed=seed + 1000, **run)
    )

  params, how = _nested(study.kept(folder, born, first)), {}
  if arm == 'pruned':
    how = {'link': training.prune(WHERE, settings['ramp']), 'number': own['sparsity']}
  elif arm == 'random':
    params, how = _drawn(params, own['sparsity'], seed), {'link': HOLD}
  train = data.first.train
  return named_leaves(
    training.fit(logits, params, train, steps=settings['steps'], seed=seed + 2000, **run, **how)
  )


def _drawn(params, sparsity, seed):
  """The parameters with a random share of each kernel at zero, exact to the weight."""
  rng = np.random.default_rng(seed)

  def drawn(kernel):
    removed = round(sparsity * kernel.size)
    gone = rng.permutation(kernel.size)[:removed]
    kernel = np.array(kernel)
    kernel.ravel()[gone] = 0
    return kernel

  return _changed(params, drawn)


def _cut(params, sparsity):
  """The parameters without the smallest weights of each kernel."""

  def cut(kernel):
    removed = round(sparsity * kernel.size)
    kernel = np.array(kernel)
    kernel.ravel()[np.argsort(np.abs(kernel).ravel(), kind='stable')[:removed]] = 0
    return kernel

  return _changed(params, cut)


def _changed(params, change):
  """The parameters with a function applied to each kernel but the classifier's."""
  return {
    layer: {
      'kernel': change(parts['kernel']) if layer != 'classifier' else parts['kernel'],
      'bias': parts['bias'],
    }
    for layer, parts in params.items()
  }


def _kept(params):
  """Which weights of the kernels are not zero, flat."""
  return np.concatenate(
    [np.ravel(params[layer]['kernel'] != 0) for layer in sorted(params) if layer != 'classifier']
  )


def _sparsity(params):
  return masks.sparsity(params, WHERE)['total']


def _nested(flat):
  """Turn {'conv1/kernel': array} into {'conv1': {'kernel': array}}."""
  params = {}
  for name, leaf in flat.items():
    layer, part = name.split('/')
    params.setdefault(layer, {})[part] = np.asarray(leaf)
  return params
