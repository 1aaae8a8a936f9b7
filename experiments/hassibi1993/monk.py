"""Remove the weights of one network, trained on a MONK's problem, one at a time."""

import functools

import jax
import numpy as np

from experiments.hassibi1993 import network
from prunejax.data import monks

HIDDEN = {1: 3, 2: 2, 3: 2}  # units by problem
# Every training set is filled up to this many rows, so that problems 2 and 3 share a program.
ROWS = max(monks.TRAIN.values())


def measure(settings: dict, root: str) -> dict:
  """Measure accuracy and error after every removal.

  Args:
    settings: of a cell of `study.plan`.
    root: folder that holds `monks/`, or ''.

  Returns:
    The curves, and their values for the dense network and at the last removal before training
    accuracy first falls below the dense network's ('left' weights are left there).

  Raises:
    FloatingPointError: if an error is not finite.
  """
  data = monks.load(settings['problem'], root, settings['seed'])
  train = network.data(data.train_x, data.train_y, ROWS)
  test = network.data(data.test_x, data.test_y, len(data.test_y))
  names = ('decay', 'steps', 'rate', 'tries')
  params = _trained(
    settings['problem'],
    root,
    str(settings.get('reads')),
    settings['seed'],
    *(settings[name] for name in names),
  )
  weights = sum(leaf.size for leaf in jax.tree.leaves(params))
  removal = network.remove_one_by_one(
    params,
    train,
    test,
    settings['decay'],
    settings['retrain'],
    settings['rate'] / 2,
    criterion=settings['method'].split(',')[0],
    alpha=settings['alpha'],
    removals=weights - 1,
  )
  curves = {name: np.asarray(values) for name, values in removal.items()}
  if not np.isfinite(curves['error']).all():
    removed = int(np.argmin(np.isfinite(curves['error'])))
    raise FloatingPointError(f'the error is not finite after {removed} removals')
  fallen = curves['train'] < curves['train'][0] - 1e-9
  last = int(np.argmax(fallen)) - 1 if fallen.any() else weights - 1
  return {
    'weights': weights,
    'left': weights - last,
    'train_dense': float(curves['train'][0]),
    'test_dense': float(curves['test'][0]),
    'train_left': float(curves['train'][last]),
    'test_left': float(curves['test'][last]),
    'error_dense': float(curves['error'][0]),
    'error_left': float(curves['error'][last]),
    'left_at_last': weights - int(np.flatnonzero(~fallen)[-1]),
    **{
      f'{name}_curve': [round(float(v), 5) for v in curves[name]]
      for name in ('error', 'train', 'test')
    },
  }


@functools.cache
def _trained(problem, root, content_read, seed, decay, steps, rate, tries):
  del content_read  # it tells one content of the files from another
  data = monks.load(problem, root, seed)
  train = network.data(data.train_x, data.train_y, ROWS)
  return network.train(seed, train, decay, steps, rate, hidden=HIDDEN[problem], tries=tries)
