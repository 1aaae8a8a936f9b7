"""Optimal Brain Damage on digits (LeCun, Denker & Solla, 1990)."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.lecun1990 import claims, figures, net
from prunejax.data import handwritten_digits as digits
from prunejax.sweep import study

METHODS = ('obd', 'magnitude', 'random')


class Preset(NamedTuple):
  """seeds; first examples of the training and test set, None for all; steps of training, and of retraining after each
  of the sparsities `cuts`; sparsities at which the loss is looked at without retraining; examples
  that the curvature is averaged over. What is deleted at random is not retrained.
  """

  cost: str
  seeds: tuple = (0, 1, 2)
  train: int | None = 1400
  test: int | None = 360
  wide: int = 8
  steps: int = 1000
  retrain: int = 200
  rate: float = 0.005
  batch: int = 100
  curve: tuple = tuple(round(0.05 * i, 2) for i in range(20))
  cuts: tuple = (0.3, 0.5, 0.6, 0.8)
  curvature: int = 400


PRESETS = {
  'smoke': Preset(
    'seconds',
    seeds=(0,),
    train=40,
    test=20,
    wide=2,
    steps=3,
    retrain=2,
    batch=10,
    curve=(0.0, 0.3, 0.6),
    cuts=(0.6,),
    curvature=20,
  ),
  'quick': Preset('about two minutes on one core'),
  # The quadratic form is of a minimum, and a thousand steps are not one.
  'long': Preset(
    'about five minutes on one core', seeds=(0, 1, 2, 3, 4), steps=10_000, retrain=1000
  ),
}


def plan(p, root):
  name = digits.load(root, p.train, p.test).name
  return [
    study.Cell(
      {'digits': name, 'method': method, 'seed': seed},
      {
        'digits': name,
        'method': method,
        'seed': seed,
        **{k: v for k, v in p._asdict().items() if k not in ('cost', 'seeds')},
      },
    )
    for seed in p.seeds
    for method in METHODS
  ]


@functools.cache
def trained(root, seed, train, test, wide, steps, rate, batch):
  """(data, trained parameters)."""
  found = digits.load(root, train, test)
  params = net.init(seed, found.train_images.shape[1], wide)
  everything = jax.tree.map(lambda w: jnp.ones(w.shape, bool), params)
  key = jax.random.key(1000 + seed)
  return found, net.train(
    key, params, everything, found.train_images, found.train_labels, steps, rate, batch=batch
  )


def measure(s, root, folder, say):
  """Losses and accuracies against the sparsity, without retraining and with it."""
  found, params = trained(
    root, s['seed'], *(s[k] for k in ('train', 'test', 'wide', 'steps', 'rate', 'batch'))
  )
  both = ((found.train_images, found.train_labels), (found.test_images, found.test_labels))
  look = lambda p: [float(v) for part in both for v in net.seen(p, *part)]
  names = ('train_loss', 'train_accuracy', 'test_loss', 'test_accuracy')
  bend, cuts = both[0][0][: s['curvature']], s['cuts'] if s['method'] != 'random' else ()
  first = net.scores(params, bend, s['seed'], method=s['method'])
  # The quadratic model is the paper's for its own order; for the others it would say as little.
  cost = net.saliency(params, bend) if s['method'] == 'obd' else None
  out = {
    'weights': sum(w.size for w in jax.tree.leaves(params)),
    'curve': list(s['curve']),
    'cuts': [0.0, *cuts],
  }

  plain, predicted = [], []
  for sparsity in s['curve']:
    pruned, masks = net.cut(params, first, jnp.float32(sparsity))
    plain.append(look(pruned))
    if cost is not None:
      gone = jax.tree.map(lambda mask, c: jnp.sum(jnp.where(mask, 0, c)), masks, cost)
      predicted.append(float(sum(jax.tree.leaves(gone))))
      if sparsity == claims.JUDGED:
        rise = net.alone(params, masks, *both[0])
        out |= {'alone': rise, 'saturated': float(net.saturated(params, both[0][0]))}
  again, now = [look(params)], params
  for i, sparsity in enumerate(cuts):
    scores = net.scores(now, bend, s['seed'], method=s['method'])
    now, masks = net.cut(now, scores, jnp.float32(sparsity))
    key = jax.random.key(2000 + 100 * s['seed'] + i)
    now = net.train(key, now, masks, *both[0], s['retrain'], s['rate'], batch=s['batch'])
    again.append(look(now))
  if not np.isfinite(again + plain).all():
    raise FloatingPointError('a loss is not finite')
  for kind, lines in (('plain', plain), ('retrained', again)):
    out |= {
      f'{kind}_{name}': [round(v, 5) for v in column]
      for name, column in zip(names, np.transpose(lines).tolist(), strict=True)
    }
  out['predicted_train_loss'] = [round(again[0][0] + rise, 5) for rise in predicted]
  return out


STUDY = study.Study(
  name='lecun1990',
  title='Optimal Brain Damage on digits',
  source='LeCun, Denker & Solla, NIPS 2 (1990)',
  presets=PRESETS,
  plan=plan,
  measure=measure,
  claims=claims.claims,
  tables=claims.shown,
  figures=figures.figures,
  captions={
    'deleted': 'Loss on the training set against the share of weights deleted, none retrained: by saliency, by '
    'magnitude and at random (the paper: figure 1a).',
    'predicted': 'Saliency order: the loss that the quadratic model predicts beside the loss measured (figure 1b).',
    'retrained': 'With retraining after each cut: loss on train and test by saliency and by magnitude (figure 2).',
  },
)
reproduce, write_report, redraw, compare = study.verbs(STUDY)
