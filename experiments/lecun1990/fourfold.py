"""The fourfold reduction: delete, retrain, compute saliencies again, until a quarter is left."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.lecun1990 import network
from prunejax.data import handwritten_digits as digits
from prunejax.pruning.paths import named_leaves
from prunejax.sweep import study

METHODS = ('obd', 'magnitude')
PART = 'fourfold'  # What the settings and the rows of these cells say in 'part'.


class Preset(NamedTuple):
  """One size of the fourfold reduction.

  Attributes:
    cost: what the preset takes, in words.
    seeds: one trained network each.
    train, test: use the first examples of the training and the test set.
    wide, hidden: maps of the first layer and hidden units; together some 10,000 parameters.
    steps: of training.
    retrain: steps of retraining after each cut.
    rate: first learning rate.
    batch: examples in a batch.
    kept: fractions of the parameters that are left, cut by cut.
    curvature: examples over which the curvature is averaged.
  """

  cost: str
  seeds: tuple = (0, 1, 2)
  train: int = 1400
  test: int = 360
  wide: int = 30
  hidden: int = 110
  steps: int = 1500
  retrain: int = 200
  rate: float = 0.005
  batch: int = 100
  kept: tuple = (0.7, 0.5, 0.35, 0.25, 0.18, 0.125, 0.09)
  curvature: int = 400


def plan(preset: Preset, root: str) -> list[study.Cell]:
  """List one cell for each seed and method.

  Args:
    preset: its size.
    root: folder that holds `mnist/`, or '' for scikit-learn's digits.

  Raises:
    ValueError, FileNotFoundError: for missing or damaged data.
  """
  name = digits.load(root, preset.train, preset.test).name
  numbers = {k: v for k, v in preset._asdict().items() if k not in ('cost', 'seeds')}
  cells = []
  for seed in preset.seeds:
    for method in METHODS:
      labels = {'part': PART, 'digits': name, 'method': method, 'seed': seed}
      cells.append(study.Cell(labels, {**labels, **numbers}))
  return cells


def measure(settings: dict, root: str, folder, say) -> dict:
  """Measure losses and accuracies of one cell after every cut and its retraining.

  Args:
    settings: of a cell of `plan`.
    root: folder that holds `mnist/`, or ''.
    folder: work directory; the trained network is kept there for the seed's other cell.
    say: prints a line of progress.

  Returns:
    The number of parameters; the fractions that are left, 1 first; losses and accuracies on train
    and test at each.

  Raises:
    FloatingPointError: if a loss is not finite.
  """
  data = digits.load(root, settings['train'], settings['test'])
  train, test = (data.train_images, data.train_labels), (data.test_images, data.test_labels)
  first = network.init(
    settings['seed'], data.train_images.shape[1], settings['wide'], settings['hidden']
  )

  def fit(params, masks, seed, steps):
    key = jax.random.key(seed)
    rate, batch = settings['rate'], settings['batch']
    return network.train(key, params, masks, *train, steps, rate, batch=batch)

  def trained():
    every = jax.tree.map(lambda w: jnp.ones(w.shape, bool), first)
    dense = fit(first, every, 1000 + settings['seed'], settings['steps'])
    return named_leaves(jax.device_get(dense))

  leaves = study.kept(folder, _dense_settings(settings), trained)
  now = jax.tree.structure(first).unflatten([jnp.asarray(leaves[k]) for k in named_leaves(first)])
  evaluate = lambda p: [float(v) for part in (train, test) for v in network.evaluate(p, *part)]
  examples, lines = train[0][: settings['curvature']], [evaluate(now)]
  for i, kept in enumerate(settings['kept']):
    scores = network.scores(now, examples, settings['seed'], method=settings['method'])
    now, masks = network.cut(now, scores, jnp.float32(1 - kept))
    now = fit(now, masks, 3000 + 100 * settings['seed'] + i, settings['retrain'])
    lines.append(evaluate(now))
    say(f'{kept:g} left: train loss {lines[-1][0]:.4f}, test accuracy {lines[-1][3]:.3f}')
  if not np.isfinite(lines).all():
    raise FloatingPointError('a loss is not finite')
  names = ('train_loss', 'train_accuracy', 'test_loss', 'test_accuracy')
  return {
    'weights': sum(w.size for w in jax.tree.leaves(now)),
    'kept': [1.0, *settings['kept']],
    **{
      name: [round(v, 5) for v in column]
      for name, column in zip(names, np.transpose(lines).tolist(), strict=True)
    },
  }


def _dense_settings(settings):
  """What the trained network of a cell depends on."""
  left_out = ('method', 'kept', 'retrain', 'curvature')
  return {k: v for k, v in settings.items() if k not in left_out} | {'lecun1990': PART}
