"""What a criterion may need of a batch beyond its gradient: functions, free until they are called.

`prunejax.Criterion` explains the names. All of them run the model without dropout.
"""

from collections.abc import Callable

import flax.linen as nn
import jax
from jax import lax

from prunejax.observe import linen
from prunejax.pruning import placement
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
  recorded = lambda params, batch: activations(model, params, batch)

  def observe(seen, batch, rng):
    loss = lambda params, batch, rng: loss_fn(params, batch, rng, deterministic=True)[0]
    count = len(batch['input_ids'])
    example = lambda batch, i: jax.tree.map(lambda x: lax.dynamic_slice_in_dim(x, i, 1), batch)
    auto = placement.on_auto_axes  # the compiler lays out what happens in the model
    loss_of = lambda params, batch, rng, i: loss(params, example(batch, i), rng)
    extra = {
      'value_fn': lambda params, **_: auto(loss, seen(params), batch, rng),
      'examples': (count, lambda params, i: auto(loss_of, seen(params), batch, rng, i)),
      'activations': lambda params: auto(recorded, seen(params), batch),
    }
    if residuals:

      def sketch(params, batch, rng, i):
        return gauss_newton.sketched(
          residuals(params, example(batch, i)), jax.random.fold_in(rng, i)
        )

      extra['outputs'] = count, lambda params, i: auto(sketch, seen(params), batch, rng, i)
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
