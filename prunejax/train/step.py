"""The whole algorithm: gradient, updates, parameters. Pruning is a link of `tx`, unknown here."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jax.sharding import NamedSharding, PartitionSpec

import prunejax
from prunejax import masks as masks_lib
from prunejax.pruning import placement

VIEWS = {
  'plain': lambda params, masks: params,
  'apply': masks_lib.apply,
  'straight_through': masks_lib.straight_through,
}


def nothing(seen, batch, rng) -> dict:
  """Returns no extra arguments: the optimizer gets the gradient alone."""
  return {}


def make_train_step(
  loss_fn: Callable,
  tx: optax.GradientTransformation,
  view: Callable = VIEWS['plain'],
  accumulate: int = 1,
  observe: Callable = nothing,
) -> Callable:
  """Makes the train step.

  Args:
    loss_fn: (params, batch, rng) -> (loss, metrics), means over the batch.
    tx: an optax transformation that takes the raw gradient as the extra argument `grad`.
    view: (params, masks) -> what the model sees.
    accumulate: micro-batches a step. Every leaf of the batch is split on its first axis; the loss
      of a step is the mean of the micro-batches' means.
    observe: (seen, batch, rng) -> extra arguments of `tx.update`, functions of the parameters that
      cost nothing until a link calls them. `seen(params)` is what the model sees. See
      criterion_arguments.py.

  Returns:
    A function (state, batch) -> (state, metrics). The state is {'params', 'opt_state', 'step',
    'rng'}. The random numbers of a step are `fold_in(rng, step)`, so a resumed run draws the same.
  """

  def train_step(state, batch):
    params, opt_state, step = state['params'], state['opt_state'], state['step']
    rng = jax.random.fold_in(jax.random.wrap_key_data(state['rng']), step)
    masks = prunejax.get_masks(opt_state, params, unpruned=True)
    gradient = jax.value_and_grad(lambda p, b, r: loss_fn(view(p, masks), b, r), has_aux=True)

    def micro(total, piece):
      number, part = piece
      return jax.tree.map(
        jnp.add, total, gradient(params, part, jax.random.fold_in(rng, number))
      ), None

    pieces = jax.tree.map(lambda x: _pieces(x, accumulate), batch)
    first = jax.tree.map(lambda x: x[0], pieces)
    zero = jax.tree.map(
      lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(gradient, params, first, rng)
    )
    zero = (zero[0], jax.tree.map(placement.like, zero[1], params))
    total, _ = jax.lax.scan(micro, zero, (jnp.arange(accumulate), pieces))
    (loss, metrics), grad = jax.tree.map(lambda x: x / accumulate, total)

    extra = observe(lambda p: view(p, masks), batch, rng)
    updates, opt_state = tx.update(grad, opt_state, params, grad=grad, **extra)
    params = optax.apply_updates(params, updates)
    metrics = {**metrics, 'loss': loss, 'grad_norm': optax.tree.norm(grad)}
    return {
      'params': params,
      'opt_state': opt_state,
      'step': step + 1,
      'rng': state['rng'],
    }, metrics

  return train_step


def _pieces(x, count):
  """[count, examples, ...]; on an Explicit mesh examples lie as in the batch."""
  if count == 1:
    return x[None]
  lies, split = jax.typeof(x).sharding, lambda x: x.reshape(count, -1, *x.shape[1:])
  if not placement.explicit_axes(lies):
    return split(x)
  axes = PartitionSpec(None, *lies.spec)
  return placement.on_auto_axes(split, x, like=NamedSharding(lies.mesh, axes))
