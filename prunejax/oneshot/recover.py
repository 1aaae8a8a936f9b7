"""Trains a pruned model as a whole, under stored masks: after each, the sparsity is what it was.

A weight is held because its mask says so, never because it is 0: a survivor may be 0, and a weight
that rounding made 0 is no pruned weight.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from prunejax.oneshot import decoder
from prunejax.oneshot.decoder import Decoder
from prunejax.pruning import kernel_layout
from prunejax.pruning.paths import named_leaves, with_leaves


class Adapters(NamedTuple):
  """Low-rank changes of kernels [.., in, out]: {path: [.., in, rank]}, {path: [.., rank, out]}."""

  down: dict[str, jax.Array]
  up: dict[str, jax.Array]


def logits(model: Decoder, params: Any, batch: Any) -> jax.Array:
  """Runs a whole model. Blocks that are alike are traced once, and run anew for gradients.

  Args:
    model: the model as three functions.
    params: its parameters.
    batch: as `model.embed` takes.
  """
  leaves = named_leaves(params)
  blocks = decoder.blocks_of(model, params)
  hidden = model.embed(params, batch)
  run_of = {
    run: jax.checkpoint(lambda flat, hidden, run=run: run(decoder.nested(flat), hidden)[0])
    for run in dict.fromkeys(block.run for block in blocks)
  }
  at = 0
  while at < len(blocks):
    kind = lambda block: (
      block.run,
      tuple((local, leaf.shape, leaf.dtype) for local, leaf in decoder.read(leaves, block).items()),
    )
    stop = at + 1
    while stop < len(blocks) and kind(blocks[stop]) == kind(blocks[at]):
      stop += 1
    run = run_of[blocks[at].run]
    parts = [decoder.read(leaves, block) for block in blocks[at:stop]]
    stacked = jax.tree.map(lambda *xs: jnp.stack(xs), *parts)
    hidden = jax.lax.scan(lambda h, w, run=run: (run(w, h), None), hidden, stacked)[0]
    at = stop
  return model.head(params, hidden)


def next_token_loss(logits: jax.Array, batch: Any) -> jax.Array:
  """Returns the mean cross-entropy of each next token, for a batch of tokens [segments, length]."""
  losses = optax.softmax_cross_entropy_with_integer_labels(logits[:, :-1], batch[:, 1:])
  return losses.mean()


def finetune(
  model: Decoder,
  params: Any,
  masks: Any,
  batches: Iterable[Any],
  *,
  tx: optax.GradientTransformation | None = None,
  learning_rate: float = 1e-4,
  loss: Callable[[jax.Array, Any], jax.Array] = next_token_loss,
  teacher: Any = None,
  temperature: float = 2.0,
  weight: float = 0.5,
  say: Callable[[str], Any] = lambda line: None,
) -> Any:
  """Trains all weights that the masks keep; the others stay exactly 0.

  Weights in float16 and bfloat16 are trained in float32, and rounded at the end; integers are not
  trained.

  With a teacher the loss is `weight` T^2 KL(teacher at T || model at T) + (1 - `weight`) loss
  (Hinton et al., 2015). The dense parameters are the usual teacher.

  Args:
    model: the model as three functions.
    params: pruned parameters.
    masks: bool, shaped like params, True = kept, as `oneshot.prune` returns them.
    batches: one for each step, as `model.embed` and `loss` take.
    tx: an optimizer; None for Adam.
    learning_rate: of Adam.
    loss: (logits, batch) -> scalar.
    teacher: parameters of the same model, or None.
    temperature: T.
    weight: of the teacher, in [0, 1].
    say: prints a line.

  Returns:
    The trained parameters.

  Raises:
    ValueError: masks that are not bool and shaped like params; a pruned weight that is not 0.
    FloatingPointError: the loss is not finite.
  """
  params = _start(params, masks)
  is_float = lambda x: jnp.issubdtype(x.dtype, jnp.floating)
  # None stands in `trained` and `masks` for a leaf that is not trained, in `fixed` for one that is.
  masks = jax.tree.map(lambda x, mask: jnp.asarray(mask) if is_float(x) else None, params, masks)
  wide = lambda x: x.astype(jnp.promote_types(x.dtype, jnp.float32)) if is_float(x) else None
  trained, fixed = (jax.tree.map(of, params) for of in (wide, lambda x: None if is_float(x) else x))
  dtypes = jax.tree.map(lambda x: x.dtype, params)
  del params
  rounded = lambda trained, fixed: jax.tree.map(
    lambda new, old, dtype: old if new is None else new.astype(dtype),
    trained,
    fixed,
    dtypes,
    is_leaf=lambda x: x is None,
  )
  tx = optax.adam(learning_rate) if tx is None else tx
  objective = _objective(model, loss, teacher, temperature, weight)

  @jax.jit
  def step(both, state, batch):
    trained, fixed = both
    of_trained = lambda trained: objective(rounded(trained, fixed), batch)
    value, grad = jax.value_and_grad(of_trained)(trained)
    updates, state = tx.update(grad, state, trained)
    held = jax.tree.map(lambda mask, u: jnp.where(mask, u, 0), masks, updates)
    return (optax.apply_updates(trained, held), fixed), state, value

  trained, fixed = _trained(step, (trained, fixed), tx.init(trained), batches, say)
  return jax.tree.map(np.asarray, rounded(trained, fixed))


def lora(
  model: Decoder,
  params: Any,
  masks: Any,
  batches: Iterable[Any],
  *,
  rank: int = 8,
  layout: str | Mapping[str, str] = '',
  scale: float = 2.0,
  seed: int = 0,
  tx: optax.GradientTransformation | None = None,
  learning_rate: float = 1e-3,
  loss: Callable[[jax.Array, Any], jax.Array] = next_token_loss,
  teacher: Any = None,
  temperature: float = 2.0,
  weight: float = 0.5,
  say: Callable[[str], Any] = lambda line: None,
) -> Any:
  """Trains low-rank changes of the pruned kernels (LoRA; Hu et al., 2022) and merges them.

  A kernel is mask * (W + `scale` down up), in training as after the merge. So the merged model is
  the trained one, and pruned weights are 0. Kernels that no mask prunes do not change, and leaves
  with one axis do not. Of stacked layers each has a change of its own.

  Args:
    model: the model as three functions.
    params: pruned parameters.
    masks: as in `finetune`.
    batches: as in `finetune`.
    rank: of the changes.
    layout: which axes of a kernel are inputs and outputs, as in `oneshot.prune`.
    scale: alpha / rank of the paper.
    seed: of the first values of `down`; those of `up` are 0.
    tx: an optimizer of the changes; None for Adam.
    learning_rate: of Adam.
    loss: as in `finetune`.
    teacher: as in `finetune`.
    temperature: as in `finetune`.
    weight: as in `finetune`.
    say: prints a line.

  Returns:
    The merged parameters.

  Raises:
    ValueError: as `finetune`; a rank below 1; no pruned kernel, or one whose layout is not known.
    FloatingPointError: the loss is not finite.
  """
  if isinstance(rank, bool) or not isinstance(rank, int) or rank < 1:
    raise ValueError(f'lora: rank={rank!r} must be a positive integer')
  params, named = _start(params, masks), named_leaves(masks)
  chosen = [n for n, mask in named.items() if np.ndim(mask) > 1 and not np.asarray(mask).all()]
  if not chosen:
    raise ValueError('lora: the masks prune no kernel')
  masks = {name: jnp.asarray(named[name]) for name in chosen}
  stacked = lambda name: bool(model.layers) and name.startswith(f'{model.blocks[0]}/')
  layouts = dict(kernel_layout.layouts(params, kernel_layout.parse(layout), stacked, chosen))
  down, up = {}, {}
  for key, name in zip(jax.random.split(jax.random.key(seed), len(chosen)), chosen, strict=True):
    if layouts[name].axes is None and len(layouts[name].shape) == 2:  # alike either way
      layouts[name] = kernel_layout.default(layouts[name].shape)
    kernel_layout.axes_of(layouts, name, 'lora')
    *more, inputs, outputs = kernel_layout.matrix_shape(layouts[name])
    down[name] = jax.random.normal(key, (*more, inputs, rank)) * inputs**-0.5
    up[name] = jnp.zeros((*more, rank, outputs))

  def merged(adapters, params):
    leaves = dict(named_leaves(params))
    for name, mask in masks.items():
      change = scale * adapters.down[name] @ adapters.up[name]
      change = kernel_layout.from_matrix(change, layouts[name])
      leaves[name] = jnp.where(mask, leaves[name] + change.astype(leaves[name].dtype), 0)
    return with_leaves(params, leaves)

  tx = optax.adam(learning_rate) if tx is None else tx
  objective = _objective(model, loss, teacher, temperature, weight)

  @jax.jit
  def step(both, state, batch):
    adapters, params = both
    of_adapters = lambda adapters: objective(merged(adapters, params), batch)
    value, grad = jax.value_and_grad(of_adapters)(adapters)
    updates, state = tx.update(grad, state, adapters)
    return (optax.apply_updates(adapters, updates), params), state, value

  adapters = Adapters(down, up)
  adapters, params = _trained(step, (adapters, params), tx.init(adapters), batches, say)
  return jax.tree.map(np.asarray, jax.jit(merged)(adapters, params))


def _objective(model, loss, teacher, temperature, weight):
  """(params, batch) -> scalar, with the teacher's share if there is one."""
  if not 0 < temperature < float('inf'):
    raise ValueError(f'temperature={temperature!r} must be above 0')
  if not 0 <= weight <= 1:
    raise ValueError(f'weight={weight!r} must be a share in [0, 1]')
  teacher = None if teacher is None else jax.tree.map(jnp.asarray, teacher)

  def objective(params, batch):
    out = logits(model, params, batch)
    if teacher is None:
      return loss(out, batch)
    soft = jax.lax.stop_gradient(logits(model, teacher, batch))
    divergence = optax.losses.kl_divergence_with_log_targets(
      jax.nn.log_softmax(out / temperature), jax.nn.log_softmax(soft / temperature)
    )
    return weight * temperature**2 * divergence.mean() + (1 - weight) * loss(out, batch)

  return objective


def _start(params, masks):
  """Params on the device, once they fit the masks."""
  leaves, named = named_leaves(params), named_leaves(masks)
  if leaves.keys() != named.keys() or any(
    np.shape(leaves[name]) != np.shape(mask) for name, mask in named.items()
  ):
    raise ValueError('masks must be shaped like params, as oneshot.prune returns them')
  dtypes = {n: np.dtype(getattr(mask, 'dtype', type(mask))) for n, mask in named.items()}
  wrong = {name: dtype for name, dtype in dtypes.items() if dtype != np.dtype(bool)}
  if wrong:
    name, dtype = next(iter(wrong.items()))
    raise ValueError(f'the mask of {name!r} is {dtype}: expected bool, True = kept')
  for name, mask in named.items():
    if not np.asarray(mask).all() and np.asarray(leaves[name])[~np.asarray(mask)].any():
      raise ValueError(f'{name!r} has weights that its mask prunes and that are not 0')
  return jax.tree.map(jnp.asarray, params)


def _trained(step, params, state, batches, say):
  """What a step makes of params, a batch after the other."""
  value, number = jnp.float32(0), -1
  for number, batch in enumerate(batches):
    params, state, value = step(params, state, jax.tree.map(jnp.asarray, batch))
    if number % 50 == 0:
      say(f'step {number}  loss {float(value):.4f}')
  if number < 0:
    raise ValueError('batches has none: expected at least one')
  if not np.isfinite(value):
    raise FloatingPointError(
      f'the loss is {float(value)} at step {number}: take a smaller learning rate'
    )
  for name, leaf in named_leaves(params).items():
    if not bool(jnp.isfinite(leaf).all()):  # the loss was that before the last step
      raise FloatingPointError(
        f'{name} is not finite after step {number}: take a smaller learning rate'
      )
  return params
