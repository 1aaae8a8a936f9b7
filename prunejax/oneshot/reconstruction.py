"""Trains a pruned block to put out what the dense block puts out; the mask holds."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from prunejax.oneshot import decoder


class Reconstruction(NamedTuple):
  """How a block is trained, see `reconstruct`."""

  steps: int
  learning_rate: float
  segments: int
  length: int | None
  seed: int


def reconstruct(
  steps: int = 200,
  learning_rate: float = 3e-4,
  segments: int = 1,
  length: int | None = None,
  seed: int = 0,
) -> Reconstruction:
  """Adam on the output of each block, right after it was pruned; for `prune(recover=...)`.

  The loss is the mean squared difference between what the pruned and the dense block put out on the
  same hidden states, those behind the pruned blocks before it. All leaves of the block are trained.
  A weight that the mask prunes stays exactly 0, so the sparsity does not change. Leaves in float16
  and bfloat16 are trained in float32, and rounded at the end; integers are not trained.

  Args:
    steps: of Adam.
    learning_rate: at the start; it falls to 0 along a cosine.
    segments: segments of a step, drawn without replacement until all have been used.
    length: the first tokens of a segment that are used, for hidden states [segments, length, ...]
      of a causal model; None for all.
    seed: of the order of segments.

  Raises:
    ValueError: a number out of range.
  """
  counts = {'steps': steps, 'segments': segments, 'length': length}
  for name, value in counts.items():
    whole = isinstance(value, int) and not isinstance(value, bool) and value > 0
    if not whole and not (name == 'length' and value is None):
      raise ValueError(f'reconstruct: {name}={value!r} must be a positive integer')
  if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
    raise ValueError(f'reconstruct: seed={seed!r} must be an integer of at least 0')
  if not learning_rate > 0:
    raise ValueError(f'reconstruct: learning_rate={learning_rate!r} must be above 0')
  return Reconstruction(steps, float(learning_rate), segments, length, seed)


def step(how: Reconstruction, run: Callable) -> Callable:
  """Makes one compiled step of training.

  Args:
    how: what `reconstruct` made.
    run: (weights, hidden) -> (hidden, inputs), as `Decoder.block`.

  Returns:
    (trained, moments, dense, masks, hidden) -> (trained, moments, loss).
  """
  tx = _optimizer(how)
  out = lambda flat, hidden: run(decoder.nested(flat), hidden)[0]

  def loss_of(trained, dense, hidden):
    target, got = out(dense, hidden), out({**dense, **_rounded(trained, dense)}, hidden)
    pairs = zip(jax.tree.leaves(got), jax.tree.leaves(target), strict=True)
    return sum(jnp.mean(jnp.square((a - b).astype(jnp.float32))) for a, b in pairs)

  @jax.jit
  def one(trained, moments, dense, masks, hidden):
    loss, grad = jax.value_and_grad(loss_of)(trained, dense, hidden)
    updates, moments = tx.update(grad, moments, trained)
    # A pruned weight is 0 and gets no update, so it stays exactly 0.
    held = {
      name: jnp.where(masks[name], u, 0) if name in masks else u for name, u in updates.items()
    }
    return optax.apply_updates(trained, held), moments, loss

  return one


def fitted(
  how: Reconstruction,
  one: Callable,
  dense: Mapping[str, Any],
  pruned: Mapping[str, Any],
  masks: Mapping[str, np.ndarray],
  segment: Callable[[int], Any],
  count: int,
) -> dict[str, jax.Array]:
  """Trains the weights of a pruned block.

  Args:
    how: what `reconstruct` made.
    one: what `step` returned.
    dense: {path in the block: array} before pruning.
    pruned: the same after pruning.
    masks: {path: bool}, of the kernels that are pruned, now or before.
    segment: number -> the hidden states of one segment in front of the block.
    count: the number of segments.

  Returns:
    The trained weights.

  Raises:
    FloatingPointError: the loss is not finite.
  """
  as_arrays = lambda tree: {name: jnp.asarray(x) for name, x in tree.items()}
  pruned, dense, masks = as_arrays(pruned), as_arrays(dense), as_arrays(masks)
  floats = {name: x for name, x in pruned.items() if jnp.issubdtype(x.dtype, jnp.floating)}
  trained = {name: x.astype(jnp.promote_types(x.dtype, jnp.float32)) for name, x in floats.items()}
  moments = _optimizer(how).init(trained)
  rng, queue = np.random.default_rng(how.seed), []
  loss = jnp.float32(0)
  for _ in range(how.steps):
    while len(queue) < how.segments:
      queue.extend(rng.permutation(count).tolist())
    drawn, queue = queue[: how.segments], queue[how.segments :]
    crop = lambda x: x[:, : how.length] if how.length and x.ndim > 1 else x
    parts = [jax.tree.map(crop, segment(i)) for i in drawn]
    hidden = jax.tree.map(lambda *xs: jnp.concatenate(xs), *parts)
    trained, moments, loss = one(trained, moments, dense, masks, hidden)
  if not np.isfinite(loss):
    raise FloatingPointError(
      f'reconstruct: the loss of a block became {float(loss)}; take a smaller learning_rate than'
      f' {how.learning_rate}'
    )
  return pruned | _rounded(trained, pruned)


def _rounded(trained, like):
  """Trained leaves in the dtypes of the model."""
  return {name: x.astype(like[name].dtype) for name, x in trained.items()}


def _optimizer(how):
  return optax.adam(optax.cosine_decay_schedule(how.learning_rate, how.steps))
