"""Numpy twins of first-order, dynamic and iterative methods: see `cases`."""

import math
import zlib

import jax
import numpy as np
import optax

from prunejax.pruning import criteria
from prunejax.pruning.paths import named_leaves
from prunejax.pruning.schedules import cycle, iterative


def snip_scores(params, grads):
  found = {name: abs(np.float64(w) * grads[-1][name]) for name, w in params.items()}
  whole = sum(score.sum() for score in found.values())
  return {name: score / whole for name, score in found.items()}


def platon_scores(params, grads, b1=0.85, b2=0.95):
  out = {}
  for name, w in params.items():
    mean = spread = 0.0
    for grad in grads:
      now = abs(np.float64(w) * grad[name])
      mean = b1 * mean + (1 - b1) * now
      spread = b2 * spread + (1 - b2) * abs(now - mean)
    out[name] = mean * spread
  return out


def soft_scores(params, grads, penalty=0.5, rate=0.1):
  sigmoid = lambda s: 1 / (1 + np.exp(-s))
  out = {}
  for name, w in params.items():
    s = np.zeros(w.shape)
    for grad in grads:
      s = s - rate * (np.float64(w) * grad[name] + penalty * sigmoid(s) * (1 - sigmoid(s)))
    out[name] = sigmoid(s)
  return out


def deviation_scores(params, grads):
  return {name: abs(np.float64(w)) / np.float64(w).std() for name, w in params.items()}


def noise_scores(params, grads, seed=5, step=2):
  from cases import threefry  # which imports this file

  out = {}
  words = lambda key, data: threefry(key, (np.uint32(0), np.uint32(data)))
  for name, w in params.items():
    key = words(words((np.uint32(0), np.uint32(seed)), step), zlib.crc32(name.encode()))
    place = np.arange(w.size, dtype=np.uint32).reshape(w.shape)
    a, b = threefry(key, (np.zeros_like(place), place))
    out[name] = ((a ^ b) >> np.uint32(9) | np.uint32(0x3F800000)).view(np.float32) - 1
  return out


def some_masks(params):
  """Masks that keep about half of every leaf, as an extra argument."""
  rng = np.random.default_rng(3)
  return {'masks': jax.tree.map(lambda w: np.asarray(rng.random(w.shape) < 0.5), params)}


def regrown_masks(w, come, mask, fraction):
  """RigL: drop the smallest |w| of the kept weights, and grow as many others by `come`."""
  active = np.flatnonzero(mask.ravel())
  dropped = math.floor(np.float32(active.size) * np.float32(fraction))
  order = sorted(active, key=lambda i: (-abs(w.ravel()[i]), i))
  survivors = order[: active.size - dropped]
  others = sorted(set(range(w.size)) - set(survivors), key=lambda i: (-come.ravel()[i], i))
  out = np.zeros(w.size, bool)
  out[[*survivors, *others[:dropped]]] = True
  return out.reshape(w.shape), survivors


def regrow_scores(come_of, fraction):
  def oracle(params, grads, masks):
    out, come, kept = {}, come_of(params, grads), named_leaves(masks)
    for name, w in params.items():
      survivors = regrown_masks(w, come[name], kept[name], fraction)[1]
      # Below every survivor, in the order of `come`: a negative float as far from -inf as `come` is
      # from 0.
      out[name] = -(np.uint32(0x7F800000) - np.float32(come[name]).view(np.uint32)).view(np.float32)
      out[name].ravel()[survivors] = abs(w.ravel()[survivors])
    return out

  return oracle


def steepest(params, grads):
  return {name: np.abs(grads[-1][name]) for name in params}


def cut(level_of):
  return lambda units, shapes, s: {
    n: int(np.sum(np.ravel(u) > level_of(n, s))) if s else u.size for n, u in units.items()
  }


def cycled(t):
  return 0.8 if t >= 14 or (t >= 2 and (t - 2) // 3 % 2 == 0) else 0.0


def rows(Case):
  """{name: Case} of the criteria of this file."""
  quarter = 0.3 / 2 * (1 + math.cos(math.pi * 2 / 8))
  return {
    'snip': Case(criteria.snip, snip_scores),
    'platon': Case(criteria.platon, platon_scores),
    'deviations': Case(criteria.deviations, deviation_scores),
    'gradient': Case(criteria.gradient, steepest),
    'noise': Case(lambda: criteria.noise(5), noise_scores),
    'regrow': Case(
      lambda: criteria.regrow(criteria.magnitude(), criteria.gradient(), 0.4),
      regrow_scores(steepest, 0.4),
      some_masks,
    ),
    'rigl': Case(lambda: criteria.rigl(0.3, end=8), regrow_scores(steepest, quarter), some_masks),
    'sparse_evolution': Case(
      lambda: criteria.sparse_evolution(0.3, seed=5), regrow_scores(noise_scores, 0.3), some_masks
    ),
  }


def soft(Case):
  return Case(lambda: criteria.soft_movement(0.5, tx=optax.scale(-0.1)), soft_scores)


def schedules(Case):
  return {
    'iterative': Case(
      lambda: iterative(0.8, rounds=4, steps=3, begin=2),
      lambda t: 0.0 if t < 2 else 1 - 0.2 ** (min(4, (t - 2) // 3 + 1) / 4),
    ),
    'cycle': Case(lambda: cycle(0.8, steps=3, begin=2, end=14), cycled),
  }
