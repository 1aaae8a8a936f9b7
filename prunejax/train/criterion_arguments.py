"""What a criterion may need of a batch beyond its gradient: functions, free until they are called.

`prunejax.Criterion` explains the names. All of them run the model without dropout.
"""

from collections.abc import Callable

import flax.linen as nn
import jax

from prunejax.observe import linen
from prunejax.train import gauss_newton


def make(model: nn.Module, loss_fn: Callable, residuals: Callable | None = None) -> Callable:
  """Makes `observe` of `step.make_train_step` for a model of this package and its objective.

  Args:
    model: a Flax module.
    loss_fn: its loss, see objectives.py.
    residuals: the residuals of its objective, see gauss_newton.py; None if the loss is another one,
      as that of a run with a teacher.

  Returns:
    A function (seen, batch, rng) -> {'value_fn', 'examples', 'activations'}; with `residuals` also
    'outputs', in which random sums replace many outputs of an example.
  """

  def observe(seen, batch, rng):
    loss = lambda params, batch: loss_fn(seen(params), batch, rng, deterministic=True)[0]
    count = len(batch['input_ids'])
    example = lambda i: jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, i, 1), batch)
    extra = {
      'value_fn': lambda params, **_: loss(params, batch),
      'examples': (count, lambda params, i: loss(params, example(i))),
      'activations': lambda params: activations(model, seen(params), batch),
    }
    if residuals:
      outputs = lambda params, i: residuals(seen(params), example(i))
      extra['outputs'] = (
        count,
        lambda params, i: gauss_newton.sketched(outputs(params, i), jax.random.fold_in(rng, i)),
      )
    return extra

  return observe


def activations(model, params, batch):
  """Returns {path of a kernel: float32 [rows, in]}, the inputs of each dense layer of a model.

  Rows of padding are 0, so that they add nothing to a norm or to a product of the matrix with
  itself.

  Args:
    model: a Flax module that takes the first three arrays of the batch.
    params: its parameters.
    batch: input_ids, segment_ids, valid, int and bool [batch, length].
  """
  inputs = batch['input_ids'], batch['segment_ids'], batch['valid']
  record = linen.activations(model, *inputs, valid=batch['valid'], deterministic=True)
  return record(params)
