"""Training and judging a translation model with pruned weights: small jitted functions over fixed shapes.

A model is a Flax module with `__call__(source, target)`, `encode`, `start` and `step`, see models/seq2seq.py.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import sacrebleu

from prunejax.data import translation as data
from prunejax.pruning.transform import hold_zeros


class State(NamedTuple):
  """What training carries; masks are in `opt_state`, what is data to chain and view but never moves in `fixed`."""

  params: dict
  opt_state: tuple
  rng: jax.Array
  fixed: dict


class Trainer(NamedTuple):
  """init(params, seed, fixed) -> State; run(state, batch, rates) -> (State, loss), `batch` [steps, batch, length]."""

  init: object
  run: object


def links(where, last=None):
  """The optax chain of these experiments: clip, Adam, and last the link that holds or makes the zeros.

  last(fixed) -> that link; None is `hold_zeros(where)`, which keeps what is zero at init. The rate and `State.fixed`
  are arguments of a step, so that one program serves every rate and sparsity.
  """
  last = (lambda fixed: hold_zeros(where)) if last is None else last
  return lambda rate, fixed: optax.chain(
    optax.clip_by_global_norm(1.0),
    optax.scale_by_adam(b2=0.98),
    optax.scale_by_learning_rate(rate),
    last(fixed),
  )


def loss_of(model, params, source, target, rng=None, smoothing=0.1):
  """Mean cross-entropy a word in nats, padding not counted; dropout where there is a key."""
  rngs = None if rng is None else {'dropout': rng}
  scores = model.apply(
    {'params': params}, source, target[:, :-1], deterministic=rng is None, rngs=rngs
  )
  words = target[:, 1:]
  logs = jax.nn.log_softmax(scores)
  right = jnp.take_along_axis(logs, words[..., None], -1)[..., 0]
  loss = -(1 - smoothing) * right - smoothing * logs.mean(-1)
  counted = words != data.PAD
  return jnp.sum(loss * counted) / jnp.maximum(jnp.sum(counted), 1)


def trainer(model, chain, *, smoothing=0.1, view=lambda params, fixed: params):
  """A `Trainer`; view(params, fixed) is what the model sees of the parameters."""

  def one(state, given):
    source, target, rate = given
    rng, key = jax.random.split(state.rng)
    seen = lambda params: loss_of(model, view(params, state.fixed), source, target, key, smoothing)
    loss, grads = jax.value_and_grad(seen)(state.params)
    updates, opt_state = chain(rate, state.fixed).update(
      grads, state.opt_state, state.params, grad=grads
    )
    return State(optax.apply_updates(state.params, updates), opt_state, rng, state.fixed), loss

  @functools.partial(jax.jit, donate_argnums=0)
  def run(state, source, target, rates):
    state, losses = jax.lax.scan(one, state, (source, target, rates))
    return state, losses.mean()

  def init(params, seed, fixed):
    params, fixed = jax.tree.map(
      jnp.array, (params, fixed)
    )  # `run` gives its state away, so it must own it
    return State(params, chain(0.0, fixed).init(params), jax.random.key(seed), fixed)

  return Trainer(init, lambda state, batch, rates: run(state, batch.source, batch.target, rates))


def fit(
  trainer,
  params,
  filled,
  *,
  steps,
  rate,
  warmup,
  batch,
  seed,
  together=8,
  last=0.1,
  fixed=None,
  say=None,
):
  """(State, mean loss of the last fifth) after `steps` steps at least, in groups of `together`.

  The rate climbs to `rate` over `warmup` steps and falls to `last` of it in a straight line. Raises FloatingPointError
  for a loss that is not finite, ValueError for data that does not fill one group.
  """
  if all(len(bucket.source) < batch * together for bucket in filled):
    raise ValueError(
      f'no bucket holds {together} batches of {batch}: {[len(bucket.source) for bucket in filled]}'
    )
  rng, state, losses, done = (
    np.random.default_rng(seed),
    trainer.init(params, seed, fixed or {}),
    [],
    0,
  )
  while done < steps:
    for group in data.epoch(filled, batch, together, rng):
      at = done + 1 + np.arange(together)
      rates = (
        rate * np.minimum(at / max(warmup, 1), 1) * np.maximum(1 - (1 - last) * at / steps, last)
      )
      state, loss = trainer.run(state, group, jnp.asarray(rates, jnp.float32))
      losses.append(loss)
      done += together
      if say and done % (together * 25) == 0:
        say(f'step {done}/{steps} loss {float(loss):.3f}')
      if done >= steps:
        break
  ends = np.asarray(jax.device_get(losses[-max(1, len(losses) // 5) :]), np.float64)
  if not np.isfinite(ends).all():
    raise FloatingPointError(f'the loss is {ends[-1]} after {done} steps at a rate of {rate}')
  return state, float(ends.mean())


@functools.partial(jax.jit, static_argnums=(0, 3))
def greedy(model, params, source, length):
  """The most probable next word again and again: ids [batch, length], after </s> only <pad>."""
  apply = functools.partial(model.apply, {'params': params})
  memory, state = apply(source, method='encode')
  state = apply(memory, state, length, method='start')

  def step(carry, position):
    state, word, ended = carry
    state, scores = apply(state, word, position, memory, method='step')
    word = jnp.where(ended, data.PAD, jnp.argmax(scores.at[:, : data.EOS].set(-jnp.inf), -1))
    return (state, word, ended | (word == data.EOS)), word

  start = jnp.full(len(source), data.BOS), jnp.zeros(len(source), bool)
  _, words = jax.lax.scan(step, (state, *start), jnp.arange(length))
  return words.T


def translate(model, params, tokenizer, source, *, width, length, batch=250):
  """The greedy translation of each line, in batches of one shape; `width`: pieces of a source, the rest is cut."""
  rows = data.padded(
    [ids[: width - 1] + [data.EOS] for ids in data.encoded(tokenizer, source)], width
  )
  out = []
  for at in range(0, len(rows), batch):
    part = rows[at : at + batch]
    filled = np.concatenate([part, np.zeros((batch - len(part), width), np.int32)])
    out += data.decoded(tokenizer, greedy(model, params, filled, length))[: len(part)]
  return out


def bleu(hypotheses, references):
  """Corpus BLEU in points of 100 on text that is tokenised already (sacrebleu, tokenize='none')."""
  return sacrebleu.corpus_bleu(hypotheses, [list(references)], tokenize='none', force=True).score
