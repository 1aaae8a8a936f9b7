"""Training one language model, dense or pruned gradually; one compiled program for all sparsities of a size."""

import functools
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax

import prunejax
from experiments.zhu2017 import words
from prunejax.models import lstm

CHUNK = 20  # steps of one call


def measure(settings, root, folder, say):
  """Perplexity, non-zeros and seconds of one cell; `settings` is the cell's and holds every number it depends on."""
  del folder, say
  s = settings
  train, held_out, vocabulary = words.load(root, s['most_words'], s['vocabulary'])
  program = _program(
    *(
      s[k]
      for k in (
        'vocabulary',
        'hidden',
        'dropout',
        'learning_rate',
        'clip',
        'begin',
        'end',
        'steps',
        'batch',
        'length',
      )
    )
  )
  init, run, loss = program
  columns = _columns(train, s['batch'])
  state, place = init(jax.random.key(s['seed']), s['sparsity'], s['interval']), 0
  start, losses = time.perf_counter(), []
  for first in range(0, s['steps'], CHUNK):
    batches, place = _batches(columns, s['length'], place, min(CHUNK, s['steps'] - first))
    state, found = run(state, batches, s['sparsity'], s['interval'])
    losses.append(np.asarray(found))
    if not np.isfinite(losses[-1]).all():
      raise FloatingPointError(f'the loss is not finite before step {first + CHUNK}')
  seconds = time.perf_counter() - start
  params = state[0]
  kept = {k: int(v) for k, v in _nonzeros(params).items()}
  masks = prunejax.get_masks(state[1], params)
  wide = _columns(held_out, s['batch'])
  batches, _ = _batches(wide, s['length'], 0, (wide.shape[1] - 1) // s['length'])
  mean = float(np.mean(loss(params, batches)))
  return {
    'perplexity': float(np.exp(mean)),
    'loss': mean,
    'train_loss': float(np.mean(np.concatenate(losses)[-50:])),
    'nonzeros': sum(kept.values()),
    'parameters': sum(x.size for x in jax.tree.leaves(params)),
    'sparsity': prunejax.masks.sparsity(masks, lstm.PRUNABLE)['total'],
    'train_seconds': round(seconds, 2),
    'train_words': len(train),
    'held_out_words': len(held_out),
    'unknown': float(np.mean(held_out == 0)),
  }


@functools.lru_cache(8)
def _program(vocabulary, hidden, dropout, learning_rate, clip, begin, end, steps, batch, length):
  """(init, run, loss), jitted. Sparsity and interval are arguments, so every arm of a size is this one program."""
  model = lstm.Lstm(vocabulary, hidden, dropout=dropout)
  blank = lstm.zero_state(batch, hidden)

  def chain(sparsity, interval):
    rate = optax.linear_schedule(learning_rate, 0.0, steps)
    # Masks rest once the target is reached (section 3 of the paper).
    when = prunejax.until(end, prunejax.every(interval, begin=begin))
    link = prunejax.prune_transform(
      prunejax.magnitude(),
      prunejax.cubic(sparsity, begin=begin, end=end),
      when,
      where=lstm.PRUNABLE,
    )
    return optax.chain(optax.clip_by_global_norm(clip), optax.adam(rate), link)

  @jax.jit
  def init(key, sparsity, interval):
    params = model.init(key, jnp.zeros((batch, length), jnp.int32), blank)['params']
    return params, chain(sparsity, interval).init(params), blank, jax.random.fold_in(key, 1)

  def loss_of(params, tokens, state, deterministic, key):
    logits, state = model.apply(
      {'params': params}, tokens[:, :-1], state, deterministic, rngs={'dropout': key}
    )
    each = optax.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:])
    return jnp.mean(each), state

  @jax.jit
  def run(state, batches, sparsity, interval):
    tx = chain(sparsity, interval)

    def step(carry, tokens):
      params, opt_state, before, key = carry
      key, drop = jax.random.split(key)
      (value, after), grad = jax.value_and_grad(loss_of, has_aux=True)(
        params, tokens, before, dropout == 0, drop
      )
      updates, opt_state = tx.update(grad, opt_state, params)
      return (optax.apply_updates(params, updates), opt_state, after, key), value

    return jax.lax.scan(step, state, batches)

  @jax.jit
  def loss(params, batches):
    def step(state, tokens):
      value, state = loss_of(params, tokens, state, True, jax.random.key(0))
      return state, value

    return jax.lax.scan(step, blank, batches)[1]

  return init, run, loss


def _columns(ids, batch):
  """The text as `batch` columns that are read side by side: [batch, n]."""
  each = len(ids) // batch
  return ids[: each * batch].reshape(batch, each)


def _batches(columns, length, place, count):
  """`count` batches [count, batch, length + 1] from `place` on, and where they end; past the end it starts again."""
  out = []
  for _ in range(count):
    if place + length + 1 > columns.shape[1]:
      place = 0
    out.append(columns[:, place : place + length + 1])
    place += length
  return np.stack(out), place


def _nonzeros(params):
  return {
    jax.tree_util.keystr(path): np.count_nonzero(np.asarray(x))
    for path, x in jax.tree_util.tree_leaves_with_path(params)
  }
