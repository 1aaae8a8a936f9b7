"""Links that shrink weights beside their numpy twins: whole runs of AdamW in float64."""

import numpy as np

from prunejax.pruning.links import proximal

RATE, DECAY, B1, B2, EPS = 0.05, 0.1, 0.9, 0.99, 1e-6


def prox(u, threshold):
  return np.sign(u) * np.maximum(np.abs(u) - threshold, 0)


def adamw(w, grads, *, added=lambda w: 0.0, after=lambda u, w, t: u):
  """Weights after AdamW (Loshchilov & Hutter, 2019).

  `added(w)` is added to each gradient; `after(u, w, t)` maps the weights after each step.
  """
  w = np.float64(w)
  m, v = np.zeros_like(w), np.zeros_like(w)
  for t, g in enumerate(grads):
    g = np.float64(g) + added(w)
    m, v = B1 * m + (1 - B1) * g, B2 * v + (1 - B2) * g * g
    hat_m, hat_v = m / (1 - B1 ** (t + 1)), v / (1 - B2 ** (t + 1))
    u = w - RATE * (hat_m / (np.sqrt(hat_v) + EPS) + DECAY * w)
    w = after(u, w, t)
  return w


def reweighted_run(w, grads, strength=0.02, every=2, eps=0.05, end=5):
  alpha = np.ones_like(np.float64(w))

  def after(u, w, t):
    nonlocal alpha
    if t and t % every == 0:
      alpha = 1 / (np.abs(w) + eps)
    return prox(u, strength * RATE * alpha) if t < end else u

  return adamw(w, grads, after=after)


# name: (link, whether it precedes the optimizer, (weights, gradients) -> weights at the end)
RUNS = {
  'soft_threshold': (
    lambda: proximal.soft_threshold(0.5, lambda step: RATE / (1 + step)),
    False,
    lambda w, grads: adamw(w, grads, after=lambda u, w, t: prox(u, 0.5 * RATE / (1 + t))),
  ),
  'reweighted': (
    lambda: proximal.reweighted(0.02, RATE, every=2, eps=0.05, end=5),
    False,
    reweighted_run,
  ),
  'l1_penalty': (
    lambda: proximal.l1_penalty(0.3),
    True,
    lambda w, grads: adamw(w, grads, added=lambda w: 0.3 * np.sign(w)),
  ),
  'l2_penalty': (
    lambda: proximal.l2_penalty(0.3),
    True,
    lambda w, grads: adamw(w, grads, added=lambda w: 0.3 * w),
  ),
  'shrink': (None, None, prox),
}
