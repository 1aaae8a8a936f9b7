"""Train one language model, dense or pruned gradually.

One compiled program serves all sparsities and intervals of a size.
"""

import functools
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax

import prunejax
from experiments.zhu2017 import corpus
from prunejax.models import lstm

STEPS_PER_CALL = 20
# Settings that are constants of the compiled program.
_STATIC = (
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


def measure(settings: dict, root: str, folder, say) -> dict:
  """Train one cell and measure its held-out perplexity.

  Args:
    settings: of a cell of `study.plan`.
    root: folder of plain text, or ''.
    folder, say: unused.

  Returns:
    Held-out perplexity, losses in nats a word, non-zeros, sizes, and the seconds of training.

  Raises:
    FloatingPointError: if a loss is not finite.
  """
  del folder, say
  pydoc = 'packaged' if settings['text'] == 'prose' else 'installed'
  train, held_out, _ = corpus.load(root, settings['most_words'], settings['vocabulary'], pydoc)
  init, run, loss = _program(*(settings[key] for key in _STATIC))
  sparsity, interval = settings['sparsity'], settings['interval']
  columns = _columns(train, settings['batch'])
  state, position = init(jax.random.key(settings['seed']), sparsity, interval), 0
  start, losses = time.perf_counter(), []
  for first in range(0, settings['steps'], STEPS_PER_CALL):
    count = min(STEPS_PER_CALL, settings['steps'] - first)
    batches, position = _batches(columns, settings['length'], position, count)
    state, step_losses = run(state, batches, sparsity, interval)
    losses.append(np.asarray(step_losses))
    if not np.isfinite(losses[-1]).all():
      raise FloatingPointError(f'the loss is not finite before step {first + STEPS_PER_CALL}')
  seconds = time.perf_counter() - start
  params = state[0]
  masks = prunejax.get_masks(state[1], params)
  held_out_columns = _columns(held_out, settings['batch'])
  length = settings['length']
  batches, _ = _batches(held_out_columns, length, 0, (held_out_columns.shape[1] - 1) // length)
  mean = float(np.mean(loss(params, batches)))
  leaves = jax.tree.leaves(params)
  return {
    'perplexity': float(np.exp(mean)),
    'loss': mean,
    'train_loss': float(np.mean(np.concatenate(losses)[-50:])),
    'nonzeros': sum(int(np.count_nonzero(np.asarray(leaf))) for leaf in leaves),
    'parameters': sum(leaf.size for leaf in leaves),
    'sparsity': prunejax.masks.sparsity(masks, lstm.PRUNABLE)['total'],
    'train_seconds': round(seconds, 2),
    'train_words': len(train),
    'held_out_words': len(held_out),
    'unknown': float(np.mean(held_out == 0)),
  }


@functools.lru_cache(8)
def _program(vocabulary, hidden, dropout, learning_rate, clip, begin, end, steps, batch, length):
  """(init, run, loss), jitted; sparsity and interval are arguments."""
  model = lstm.Lstm(vocabulary, hidden, dropout=dropout)
  zero_state = lstm.zero_state(batch, hidden)

  def chain(sparsity, interval):
    rate = optax.linear_schedule(learning_rate, 0.0, steps)
    # Masks stay fixed once the target is reached (section 3 of the paper).
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
    params = model.init(key, jnp.zeros((batch, length), jnp.int32), zero_state)['params']
    return params, chain(sparsity, interval).init(params), zero_state, jax.random.fold_in(key, 1)

  def loss_of(params, tokens, state, deterministic, key):
    logits, state = model.apply(
      {'params': params}, tokens[:, :-1], state, deterministic, rngs={'dropout': key}
    )
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:])
    return jnp.mean(losses), state

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

    return jax.lax.scan(step, zero_state, batches)[1]

  return init, run, loss


def _columns(ids, batch):
  """The text as `batch` columns that are read side by side: [batch, n]."""
  length = len(ids) // batch
  return ids[: length * batch].reshape(batch, length)


def _batches(columns, length, position, count):
  """(`count` batches [count, batch, length + 1] from `position` on, the next position).

  Past the end of the text, reading starts again at 0.
  """
  batches = []
  for _ in range(count):
    if position + length + 1 > columns.shape[1]:
      position = 0
    batches.append(columns[:, position : position + length + 1])
    position += length
  return np.stack(batches), position
