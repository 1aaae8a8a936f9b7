"""How alike the hidden states of two models are, token by token and layer by layer (Gordon et al. 2020, Figure 2b)."""

from typing import NamedTuple

import numpy as np


class Likeness(NamedTuple):
  """Sums over tokens, which add up over batches: `tokens` int, `cosine` and `squares` float64 [layers]."""

  tokens: int
  cosine: np.ndarray
  squares: np.ndarray


def cosine(a, b):
  """Cosine similarity along the last axis of two float arrays of one shape, in float64; 0 where one is null."""
  a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
  if a.shape != b.shape:
    raise ValueError(f'features of shapes {a.shape} and {b.shape} cannot be compared')
  length = np.sqrt((a * a).sum(-1) * (b * b).sum(-1))
  return np.divide((a * b).sum(-1), length, out=np.zeros(length.shape), where=length > 0)


def likeness(ours, theirs, valid):
  """`Likeness` of one batch. ours, theirs: [layers, batch, length, hidden]; valid: bool [batch, length]."""
  each = cosine(ours, theirs)[:, np.asarray(valid, bool)]
  return Likeness(each.shape[1], each.sum(1), np.square(each).sum(1))


def add(a, b):
  """The sum of two `Likeness`; None is nothing yet."""
  return b if a is None else Likeness(*(x + y for x, y in zip(a, b, strict=True)))


def summary(total):
  """(mean, standard deviation over tokens) of the cosine, float64 [layers] each; raises ValueError without a token."""
  if not total or not total.tokens:
    raise ValueError('no valid token: nothing to compare')
  mean = total.cosine / total.tokens
  return mean, np.sqrt(np.maximum(total.squares / total.tokens - mean * mean, 0))
