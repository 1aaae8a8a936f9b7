"""What a pruning criterion may ask of a batch beyond its gradient: functions that cost nothing until they are called.

See `prunejax.Criterion` for the names. All of them look at the model without dropout.
"""

import jax

from prunejax.observe import linen
from prunejax.train import gauss_newton


def of(model, loss_fn, curved=None):
  """`observe` of `step.make_train_step` for a Flax model of this package and its objective.

  Args:
    model, loss_fn: see `objectives`.
    curved: the residuals of the objective, where the loss is theirs: not of a run with a teacher.

  Returns:
    observe(seen, batch, rng) -> {'value_fn', 'examples', 'activations'}, and with `curved` 'outputs', where many
    outputs of an example are a few random sums of them.
  """

  def observe(seen, batch, rng):
    loss = lambda params, batch: loss_fn(seen(params), batch, rng, deterministic=True)[0]
    count = len(batch['input_ids'])
    example = lambda i: jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, i, 1), batch)
    told = {
      'value_fn': lambda params, **_: loss(params, batch),
      'examples': (count, lambda params, i: loss(params, example(i))),
      'activations': lambda params: activations(model, seen(params), batch),
    }
    if curved:
      outputs = lambda params, i: curved(seen(params), example(i))
      told['outputs'] = (
        count,
        lambda params, i: gauss_newton.sketched(outputs(params, i), jax.random.fold_in(rng, i)),
      )
    return told

  return observe


def activations(model, params, batch):
  """Returns {path of a kernel: float32 [rows, in]}, the inputs of each dense layer of a model.

  Rows of padding are 0, so that they add nothing to a norm or to a product of the matrix with itself.

  Args:
    model: a Flax module that takes the first three arrays of the batch.
    params: its parameters.
    batch: input_ids, segment_ids, valid, int and bool [batch, length].
  """
  inputs = batch['input_ids'], batch['segment_ids'], batch['valid']
  record = linen.activations(model, *inputs, valid=batch['valid'], deterministic=True)
  return record(params)
