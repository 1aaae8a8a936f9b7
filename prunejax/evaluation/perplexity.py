"""Perplexity of a decoder: windows of a text, one after the other, one block of layers at a time.

The protocol is that of the tables of one-shot pruning (Frantar & Alistarh 2023, section 4): windows
that do not overlap, the mean cross-entropy of each, and the exponential of their mean.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from prunejax.models import parts as model_parts

# Positions whose logits are held at once. An array of more than 32 MB would go back to the system
# after every use, and come anew page by page.
ROWS = 128


class Window(NamedTuple):
  """One window.

  Attributes:
    start: the number of its first token in the text.
    first: the number, in the window, of the first token that is predicted; those before it are
      context.
  """

  start: int
  first: int


def windows(tokens: int, window: int, stride: int | None = None) -> list[Window]:
  """Cuts a text into windows. What is left at the end is not read.

  Args:
    tokens: of the text.
    window: tokens of a window.
    stride: tokens from the start of a window to that of the next; None for `window`. With a
      smaller one a window predicts only the tokens that the one before did not reach.

  Raises:
    ValueError: a window below 2 tokens or longer than the text; a stride that is not from 1 to
      `window`.
  """
  stride = window if stride is None else stride
  if window < 2:
    raise ValueError(f'window={window}: expected at least 2 tokens')
  if not 1 <= stride <= window:
    raise ValueError(f'stride={stride}: expected a number from 1 to the window of {window}')
  if tokens < window:
    raise ValueError(
      f'the text has {tokens:,} tokens, fewer than a window of {window:,}: expected a longer text'
      ' or a smaller window'
    )
  starts = range(0, tokens - window + 1, stride)
  return [Window(start, window - stride if start and stride < window else 1) for start in starts]


class Running(NamedTuple):
  """A model on the device.

  Attributes:
    hidden: tokens int32 [batch, length] -> hidden states after the last layer.
    head: see `parts.Parts`.
    params: what the head reads.
  """

  hidden: Callable[[np.ndarray], jax.Array]
  head: Callable[[Any, jax.Array], jax.Array]
  params: Any


def running(size: Any, params: Any, dtype: Any = jnp.float32) -> Running:
  """Puts a model on the device, to be run layer by layer.

  Layers of one kind share a program, which is compiled at the first call.

  Args:
    size: a config of transformers, see `parts.of`.
    params: of the model. Numpy leaves are taken out of their dicts one by one, so that the model is
      held once.
    dtype: of the computation.

  Raises:
    ValueError: a model of another kind.
  """
  model = model_parts.of(size, dtype)
  params = _on_device(params, dtype)
  outer = model.outer(params)
  layers = [model.take(params, i) for i in range(len(model.blocks))]
  embed = jax.jit(model.embed)
  # The hidden states of a layer take the place of those before it.
  jitted = {block: jax.jit(block, donate_argnums=1) for block in dict.fromkeys(model.blocks)}
  blocks = [jitted[block] for block in model.blocks]

  def hidden(tokens):
    states = embed(outer, tokens)
    for block, layer in zip(blocks, layers, strict=True):
      states = block(layer, states)
    return states

  return Running(hidden, model.head, outer)


def _on_device(tree, dtype):
  """The leaves as arrays of a device."""
  if not isinstance(tree, dict):
    return jnp.asarray(tree, dtype)
  return {name: _on_device(tree.pop(name), dtype) for name in list(tree)}


def scorer(model: Running) -> Callable[[np.ndarray], np.ndarray]:
  """Makes a function that scores one window.

  Args:
    model: what `running` returned.

  Returns:
    tokens int32 [length] -> cross-entropy float32 [length - 1] of each token after the first, in
    nats.
  """
  head = jax.jit(in_chunks(model.head, cross_entropy))

  def score(tokens):
    tokens = np.asarray(tokens, np.int32)
    states = model.hidden(tokens[None])[0]
    # The last position has no next token; its score is dropped.
    return np.asarray(head(model.params, states, np.append(tokens[1:], 0)))[:-1]

  return score


def cross_entropy(logits: jax.Array, targets: jax.Array) -> jax.Array:
  """Returns float32 [rows] for logits [rows, vocabulary] and targets [rows]."""
  picked = jnp.take_along_axis(logits, targets[:, None], axis=-1)[:, 0]
  return jax.nn.logsumexp(logits, axis=-1) - picked


def in_chunks(head: Callable, measure: Callable) -> Callable:
  """Makes a function that holds the logits of `ROWS` positions at once.

  Args:
    head: (params, hidden) -> logits.
    measure: (logits [rows, vocabulary], targets [rows]) -> arrays [rows].

  Returns:
    (params, hidden [length, width], targets int [length]) -> arrays [length].
  """

  def measured(params, hidden, targets):
    length = len(targets)
    rows = min(ROWS, length)
    pad = -length % rows
    targets = jnp.pad(targets, (0, pad)).reshape(-1, rows)
    hidden = jnp.pad(hidden, ((0, pad), (0, 0))).reshape(-1, 1, rows, hidden.shape[-1])
    some = lambda part: measure(head(params, part[0])[0], part[1])
    out = jax.lax.map(some, (hidden, targets))
    return jax.tree.map(lambda x: x.reshape(-1)[:length], out)

  return measured


def losses(
  score: Callable[[np.ndarray], np.ndarray],
  tokens: np.ndarray,
  chosen: Iterable[Window],
  window: int,
) -> Iterator[tuple[float, int]]:
  """Yields (sum of the cross-entropy, number of tokens predicted) of each window.

  Args:
    score: what `scorer` returned.
    tokens: int [n], the text.
    chosen: windows of it.
    window: tokens of a window.
  """
  for start, first in chosen:
    each = score(tokens[start : start + window])
    if not np.isfinite(each).all():
      raise FloatingPointError(
        f'the cross-entropy of the window at token {start:,} is not finite: the model computes NaN'
        ' or infinite logits'
      )
    yield float(each[first - 1 :].sum(dtype=np.float64)), window - first


def perplexity(rows: Iterable[tuple[float, int]]) -> float:
  """Returns exp of the mean cross-entropy over the rows of `losses`; inf where it is too large."""
  rows = list(rows)
  mean = sum(total for total, _ in rows) / sum(count for _, count in rows)
  return math.exp(mean) if mean < 700 else math.inf


def interval(rows: Iterable[tuple[float, int]]) -> float:
  """Returns the standard error of the logarithm of the perplexity, over windows; NaN for one."""
  means = np.array([total / count for total, count in rows])
  return float(means.std(ddof=1) / math.sqrt(len(means))) if len(means) > 1 else math.nan
