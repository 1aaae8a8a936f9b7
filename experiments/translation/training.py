"""Train a translation model with pruned weights: jitted functions over fixed shapes.

A model is a Flax module with `__call__(source, target)`, `encode`, `start` and `step`; see
prunejax/models/seq2seq.py.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.translation import corpus
from prunejax.pruning.transform import hold_zeros


class State(NamedTuple):
  """What a training step carries.

  Attributes:
    params: what is trained.
    opt_state: of the optax chain; holds the masks.
    rng: key of the dropout.
    fixed: arrays that chain and view read and no step changes, such as a sparsity.
  """

  params: dict
  opt_state: tuple
  rng: jax.Array
  fixed: dict


class Trainer(NamedTuple):
  """Two functions of one model and chain.

  Attributes:
    init: (params, seed, fixed) -> State.
    run: (state, batch [steps, batch, length], rates [steps]) -> (State, mean loss).
  """

  init: Callable
  run: Callable


def links(where: str, last: Callable | None = None) -> Callable:
  """Builds (rate, fixed) -> optax chain: clip, Adam, and a last link that makes or holds zeros.

  Rate and `State.fixed` are arguments of a step, so one program serves every rate and sparsity.

  Args:
    where: regex of the leaves that are pruned.
    last: (fixed) -> the last link; None for `hold_zeros(where)`.
  """
  last = (lambda fixed: hold_zeros(where)) if last is None else last
  return lambda rate, fixed: optax.chain(
    optax.clip_by_global_norm(1.0),
    optax.scale_by_adam(b2=0.98),
    optax.scale_by_learning_rate(rate),
    last(fixed),
  )


def cross_entropy(
  model: nn.Module,
  params: dict,
  source: jax.Array,
  target: jax.Array,
  rng: jax.Array | None = None,
  smoothing: float = 0.1,
) -> jax.Array:
  """Compute the mean cross-entropy a word in nats; padding does not count.

  Args:
    model, params: the model and its parameters.
    source, target: int32 [batch, length], see `corpus.Batch`.
    rng: key of the dropout; None for no dropout.
    smoothing: share of the label that is spread over all words.
  """
  rngs = None if rng is None else {'dropout': rng}
  scores = model.apply(
    {'params': params}, source, target[:, :-1], deterministic=rng is None, rngs=rngs
  )
  words = target[:, 1:]
  logs = jax.nn.log_softmax(scores)
  right = jnp.take_along_axis(logs, words[..., None], -1)[..., 0]
  loss = -(1 - smoothing) * right - smoothing * logs.mean(-1)
  valid = words != corpus.PAD
  return jnp.sum(loss * valid) / jnp.maximum(jnp.sum(valid), 1)


def trainer(
  model: nn.Module,
  chain: Callable,
  *,
  smoothing: float = 0.1,
  view: Callable = lambda params, fixed: params,
) -> Trainer:
  """Builds the `Trainer` of a model.

  Args:
    model: see the module's docstring.
    chain: of `links`.
    smoothing: see `cross_entropy`.
    view: (params, fixed) -> the parameters that the model sees.
  """

  def train_step(state, inputs):
    source, target, rate = inputs
    rng, key = jax.random.split(state.rng)
    loss_of = lambda params: cross_entropy(
      model, view(params, state.fixed), source, target, key, smoothing
    )
    loss, grads = jax.value_and_grad(loss_of)(state.params)
    updates, opt_state = chain(rate, state.fixed).update(
      grads, state.opt_state, state.params, grad=grads
    )
    return State(optax.apply_updates(state.params, updates), opt_state, rng, state.fixed), loss

  @functools.partial(jax.jit, donate_argnums=0)
  def run(state, source, target, rates):
    state, losses = jax.lax.scan(train_step, state, (source, target, rates))
    return state, losses.mean()

  def init(params, seed, fixed):
    # `run` donates its state, so the state must own its arrays.
    params, fixed = jax.tree.map(jnp.array, (params, fixed))
    return State(params, chain(0.0, fixed).init(params), jax.random.key(seed), fixed)

  return Trainer(init, lambda state, batch, rates: run(state, batch.source, batch.target, rates))


def fit(
  trainer: Trainer,
  params: dict,
  buckets: list[corpus.Batch],
  *,
  steps: int,
  rate: float,
  warmup: int,
  batch: int,
  seed: int,
  together: int = 8,
  last: float = 0.1,
  halve: int = 0,
  fixed: dict | None = None,
  say: Callable | None = None,
) -> tuple[State, float]:
  """Train for at least `steps` steps, `together` steps a call.

  Args:
    trainer: of `trainer`.
    params: where training starts.
    buckets: training pairs, see `corpus.buckets`.
    steps: rounded up to a multiple of `together`.
    rate: peak learning rate; it rises linearly over `warmup` steps, then falls linearly.
    warmup: steps.
    batch: pairs in a batch.
    seed: of the order of the pairs and of the dropout.
    together: steps in one call of the compiled program.
    last: final learning rate as a fraction of `rate`.
    halve: steps after which the rate is halved, again and again, in place of the linear fall; 0 for
      the linear fall.
    fixed: see `State`.
    say: prints a line of progress, or None.

  Returns:
    The last state, and the mean loss of the last fifth of the steps.

  Raises:
    FloatingPointError: if the loss is not finite.
    ValueError: if no bucket fills one call.
  """
  if all(len(bucket.source) < batch * together for bucket in buckets):
    sizes = [len(bucket.source) for bucket in buckets]
    raise ValueError(f'no bucket holds {together} batches of {batch}: the buckets hold {sizes}')
  rng, state = np.random.default_rng(seed), trainer.init(params, seed, fixed or {})
  losses, done = [], 0
  while done < steps:
    for group in corpus.epoch(buckets, batch, together, rng):
      step = done + 1 + np.arange(together)
      fall = np.maximum(1 - (1 - last) * step / steps, last)
      if halve:
        fall = 0.5 ** ((step - 1) // halve)
      rates = rate * np.minimum(step / max(warmup, 1), 1) * fall
      state, loss = trainer.run(state, group, jnp.asarray(rates, jnp.float32))
      losses.append(loss)
      done += together
      if say and done % (together * 25) == 0:
        say(f'step {done}/{steps} loss {float(loss):.3f}')
      if done >= steps:
        break
  final = np.asarray(jax.device_get(losses[-max(1, len(losses) // 5) :]), np.float64)
  if not np.isfinite(final).all():
    raise FloatingPointError(f'the loss is {final[-1]} after {done} steps at a rate of {rate}')
  return state, float(final.mean())


@functools.lru_cache
def initial_params(model: nn.Module, seed: int) -> dict:
  """Draw the first parameters of a model."""
  ids = np.ones((2, 4), np.int32)
  return jax.jit(model.init)(jax.random.key(seed), ids, ids)['params']
