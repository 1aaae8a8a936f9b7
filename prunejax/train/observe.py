"""What a pruning criterion may ask of a batch beyond its gradient: functions that cost nothing until they are called.

See `prunejax.Criterion` for the names. All of them look at the model without dropout.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

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
  """{path of a kernel: float32 [rows, in]}: every row that went into each `nn.Dense` of the model.

  batch: input_ids, segment_ids, valid, int and bool [batch, length]. Rows of padding are 0, so that they add nothing to
  a norm or to a product of the matrix with itself.
  """
  found = {}

  def record(call, args, kwargs, context):
    if isinstance(context.module, nn.Dense) and context.method_name == '__call__':
      x = args[0].astype(jnp.float32)
      if x.shape[:-1] == batch['valid'].shape:
        x = jnp.where(batch['valid'][..., None], x, 0)
      found['/'.join((*context.module.path, 'kernel'))] = x.reshape(-1, x.shape[-1])
    return call(*args, **kwargs)

  with nn.intercept_methods(record):
    model.apply(
      {'params': params},
      batch['input_ids'],
      batch['segment_ids'],
      batch['valid'],
      deterministic=True,
    )
  return found
