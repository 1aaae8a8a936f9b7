"""Train a classifier with AdamW under a last link; what transfer and families share."""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import prunejax
from prunejax.models import convnets
from prunejax.train import objectives

EVALUATED = 250  # examples at a time


class Examples(NamedTuple):
  """Labelled examples.

  Attributes:
    inputs: an array [n, ...] or a dict of arrays.
    labels: int32 [n].
    teacher: a teacher's logits [n, classes], or None.
  """

  inputs: Any
  labels: np.ndarray
  teacher: np.ndarray | None = None


@functools.cache
def prune(where: str, ramp: int, together: bool = False) -> Callable:
  """Make the link of gradual magnitude pruning.

  Args:
    where: regex of the pruned kernels.
    ramp: steps over which the sparsity rises; 0 prunes at the first step and holds.
    together: whether all kernels have one threshold; by default each kernel has its own.

  Returns:
    sparsity -> link.
  """

  def link(sparsity):
    schedule = prunejax.cubic(sparsity, end=ramp) if ramp else prunejax.constant(sparsity)
    when = prunejax.every(10) if ramp else prunejax.every(1, until=0)
    allocation = prunejax.global_threshold() if together else prunejax.uniform()
    return prunejax.prune_transform(
      prunejax.magnitude(), schedule, when, allocation=allocation, where=where
    )

  return link


@functools.cache
def hold(where: str) -> Callable:
  """Make the link that keeps zeros at zero: number -> link; the number is not used."""
  return lambda number: prunejax.hold_zeros(where)


def fit(
  logits: Callable,
  params: dict,
  examples: Examples,
  *,
  steps: int,
  rate: float,
  batch: int,
  seed: int,
  decay: float = 0.0,
  link: Callable | None = None,
  number: float = 0.0,
  view: Callable | None = None,
  fixed: Any = None,
  soft: tuple = (),
) -> dict:
  """Train with AdamW; the rate falls from `rate` to a tenth along half a cosine.

  Calls with the same functions share one compiled program: the sparsity is data.

  Args:
    logits: (params, inputs) -> logits [n, classes].
    params: where training starts.
    examples: what is trained on.
    steps: number of steps.
    rate: first learning rate.
    batch: examples of a batch, or all if there are fewer.
    seed: of the order of the examples.
    decay: decoupled weight decay (AdamW), which is multiplied by the learning rate.
    link: number -> last link of the chain.
    number: what `link` gets.
    view: (params, fixed) -> what `logits` gets; None for the parameters themselves.
    fixed: what `view` gets beside the parameters.
    soft: (temperature, weight) of the teacher's soft targets; () without a teacher.

  Raises:
    FloatingPointError: if a weight is not finite.
  """
  if not steps:
    return params
  chain, step = _program(logits, link, view, soft)
  number, decay = jnp.float32(number), jnp.float32(decay)
  state = chain(rate, decay, number).init(params)
  params = jax.tree.map(jnp.array, params)  # The step takes the memory of what it gets.
  for t, rows in enumerate(_orders(len(examples.labels), batch, steps, seed)):
    now = rate * (0.1 + 0.45 * (1 + math.cos(math.pi * t / steps)))
    part = jax.tree.map(lambda array, rows=rows: array[rows], examples)
    params, state = step(params, state, part, jnp.float32(now), decay, number, fixed)
  params = jax.device_get(params)
  if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params)):
    raise FloatingPointError('a weight is not finite')
  return params


def predict(logits: Callable, params: dict, inputs: Any) -> np.ndarray:
  """Compute logits [n, classes] of all inputs, some at a time."""
  n, run = len(jax.tree.leaves(inputs)[0]), _jitted(logits)
  out = []
  for start in range(0, n, EVALUATED):
    rows = np.minimum(np.arange(start, start + EVALUATED), n - 1)  # One shape for every part.
    out.append(np.asarray(run(params, jax.tree.map(lambda x, rows=rows: x[rows], inputs))))
  return np.concatenate(out)[:n]


def score(logits: Callable, params: dict, examples: Examples) -> tuple[float, float]:
  """Measure (accuracy, mean cross-entropy in nats) on examples."""
  out = predict(logits, params, examples.inputs)
  shifted = out - out.max(-1, keepdims=True)
  logs = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
  loss = -logs[np.arange(len(out)), examples.labels].mean()
  return float((out.argmax(-1) == examples.labels).mean()), float(loss)


@functools.cache
def logits_of(network: convnets.Network) -> Callable:
  """Make (params, images) -> logits of a network; always the same function of the same network."""
  return functools.partial(convnets.apply, network)


_jitted = functools.cache(jax.jit)


@functools.cache
def _program(logits, link, view, soft):
  """((rate, decay, number) -> chain, compiled step)."""
  distilled = objectives.distillation(*soft) if soft else None

  def chain(rate, decay, number):
    return optax.chain(optax.adamw(rate, weight_decay=decay), *([link(number)] if link else []))

  def loss_of(params, examples, fixed):
    out = logits(view(params, fixed) if view else params, examples.inputs)
    loss = optax.softmax_cross_entropy_with_integer_labels(out, examples.labels).mean()
    if not distilled:
      return loss
    return distilled(loss, {'classifier': out}, {'teacher_classifier': examples.teacher})[0]

  @functools.partial(jax.jit, donate_argnums=(0, 1))
  def step(params, state, examples, rate, decay, number, fixed):
    grad = jax.grad(loss_of)(params, examples, fixed)
    updates, state = chain(rate, decay, number).update(grad, state, params, grad=grad)
    return optax.apply_updates(params, updates), state

  return chain, step


def _orders(n, batch, steps, seed):
  """Yield the rows of `steps` batches; each epoch has an order of its own."""
  rng, order = np.random.default_rng(seed), np.zeros(0, int)
  for _ in range(steps):
    if len(order) < min(batch, n):
      order = rng.permutation(n)
    yield order[:batch]
    order = order[batch:]
