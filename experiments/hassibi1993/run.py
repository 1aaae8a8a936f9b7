"""Optimal Brain Surgeon on the MONK's problems and XOR (Hassibi & Stork, 1993)."""

import functools
import itertools
from typing import NamedTuple

import jax
import numpy as np

from experiments.hassibi1993 import claims, figures, net, xor
from prunejax.data import monks
from prunejax.sweep import study

HIDDEN = {1: 3, 2: 2, 3: 2}
ROWS = max(
  monks.TRAIN.values()
)  # every training set is filled up to this, so that problems 2 and 3 share a program


class Preset(NamedTuple):
  """seeds; initialisations tried for each; steps of training and of retraining after a weight; problems of MONK's;
  trained XOR nets.
  """

  cost: str
  seeds: tuple = tuple(range(5))
  tries: int = 6
  steps: int = 3000
  retrain: int = 300
  rate: float = 0.05
  decay: tuple = ((1, 1e-4), (2, 1e-4), (3, 1e-3))
  alpha: float = 1e-6
  methods: tuple = net.METHODS
  xor_nets: int = 10
  xor_decays: tuple = (0.0, 1e-5, 1e-4)


PRESETS = {
  'smoke': Preset(
    'seconds',
    seeds=(0,),
    tries=2,
    steps=20,
    retrain=2,
    decay=((3, 1e-3),),
    methods=('obs',),
    xor_nets=0,
  ),
  'quick': Preset('about two minutes on one core'),
}


def plan(p, root):
  cells = []
  for problem, decay in p.decay:
    source = monks.load(problem, root).source.split(',')[0]
    for method in p.methods:
      for seed in p.seeds:
        settings = {
          'problem': problem,
          'method': method,
          'seed': seed,
          'source': source,
          'decay': decay,
          'tries': p.tries,
          'steps': p.steps,
          'rate': p.rate,
          'alpha': p.alpha,
          'retrain': p.retrain if 'retrained' in method else 0,
        }
        labels = {'problem': f'monks-{problem}', 'method': method, 'seed': seed, 'source': source}
        cells.append(study.Cell(labels, settings))
  for method, decay, seed in itertools.product(net.CRITERIA, p.xor_decays, range(p.xor_nets)):
    settings = {
      'problem': 'xor',
      'method': method,
      'seed': seed,
      'decay': decay,
      'tries': p.tries,
      'steps': p.steps,
      'rate': p.rate,
      'alpha': p.alpha,
    }
    labels = {
      'problem': 'xor',
      'method': method,
      'decay': decay,
      'seed': seed,
      'source': 'four patterns',
    }
    cells.append(study.Cell(labels, settings))
  return cells


def measure(s, root, folder, say):
  with jax.enable_x64(True):
    return xor.measure(s) if s['problem'] == 'xor' else measure_monk(s, root)


@functools.cache
def trained(problem, root, seed, decay, steps, rate, tries):
  found = monks.load(problem, root, seed)
  train = net.data(found.train_x, found.train_y, ROWS)
  return net.train(seed, train, decay, steps, rate, hidden=HIDDEN[problem], tries=tries)


def measure_monk(s, root):
  """Accuracy and error after every removal, and the last point at which training accuracy is the dense net's."""
  found = monks.load(s['problem'], root, s['seed'])
  train, test = (
    net.data(found.train_x, found.train_y, ROWS),
    net.data(found.test_x, found.test_y, len(found.test_y)),
  )
  params = trained(s['problem'], root, s['seed'], s['decay'], s['steps'], s['rate'], s['tries'])
  weights = sum(leaf.size for leaf in jax.tree.leaves(params))
  seen = net.take_apart(
    params,
    train,
    test,
    s['decay'],
    s['retrain'],
    s['rate'] / 2,
    criterion=s['method'].split(',')[0],
    alpha=s['alpha'],
    removals=weights - 1,
  )
  curves = {name: np.asarray(values) for name, values in seen.items()}
  if not np.isfinite(curves['error']).all():
    raise FloatingPointError(
      f'the error is not finite after {int(np.argmin(np.isfinite(curves["error"])))} removals'
    )
  fallen = curves['train'] < curves['train'][0] - 1e-9
  at = int(np.argmax(fallen)) - 1 if fallen.any() else weights - 1
  return {
    'weights': weights,
    'left': weights - at,
    'train_dense': float(curves['train'][0]),
    'test_dense': float(curves['test'][0]),
    'train_left': float(curves['train'][at]),
    'test_left': float(curves['test'][at]),
    'error_dense': float(curves['error'][0]),
    'error_left': float(curves['error'][at]),
    'left_at_last': weights - int(np.flatnonzero(~fallen)[-1]),
    **{
      f'{name}_curve': [round(float(v), 5) for v in curves[name]]
      for name in ('error', 'train', 'test')
    },
  }


STUDY = study.Study(
  name='hassibi1993',
  title="Optimal Brain Surgeon: the MONK's problems and XOR",
  source='Hassibi & Stork, NIPS 5 (1993)',
  presets=PRESETS,
  plan=plan,
  measure=measure,
  claims=claims.claims,
  tables=claims.shown,
  figures=figures.figures,
  captions={
    **{
      p: f'{p}: error on the training set and accuracy on all points against the weights removed; thin: seeds.'
      for p in claims.PROBLEMS
    },
    'xor': 'XOR: the error that is left when one weight went and the others were trained on; below 0.02 XOR is solved.',
  },
)
reproduce, write_report, redraw, compare = study.verbs(STUDY)
