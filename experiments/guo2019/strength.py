"""How strong the penalty of each run is: by a rule, so that nothing is tuned on what is measured."""

import numpy as np


def calibrated(weights, sparsity, *, peak, steps, warmup, end, every, eps):
  """The strength at which the proximal steps alone, without any gradient, zero that fraction of `weights` by `end`.

  weights: numpy, flat. peak, steps, warmup: of the learning rate, linear up and down (train.optimizer.rate_shape).
  By bisection on the logarithm; two significant digits.
  """
  size = np.sort(np.abs(np.float64(weights)))
  ramp = max(round(steps * warmup), 1)
  rate = [peak * min((t + 1) / ramp, (steps - t) / (steps - ramp)) for t in range(end)]

  def zeroed(strength):
    w, alpha = size.copy(), 1.0
    for t, lr in enumerate(rate):
      if t and t % every == 0:
        alpha = 1 / (w + eps)
      w = np.maximum(w - strength * lr * alpha, 0)
    return np.mean(w == 0)

  low, high = 1e-4, 1e3
  for _ in range(40):
    middle = np.sqrt(low * high)
    low, high = (low, middle) if zeroed(middle) >= sparsity else (middle, high)
  return float(f'{high:.2g}')
