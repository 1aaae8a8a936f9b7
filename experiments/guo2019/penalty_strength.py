"""Choose the strength of each run's penalty by a rule, so that nothing is tuned on the results."""

import numpy as np


def calibrate(
  weights: np.ndarray,
  sparsity: float,
  *,
  peak: float,
  steps: int,
  warmup: float,
  end: int,
  every: int,
  eps: float,
) -> float:
  """Find the strength at which proximal steps alone, with no gradient, reach a sparsity.

  Bisection on the logarithm of the strength.

  Args:
    weights: float [n].
    sparsity: fraction of `weights` that is 0 after step `end`.
    peak, steps, warmup: of the learning rate, linear up and down.
    end: last proximal step.
    every: steps between reweightings.
    eps: of the reweighting, alpha = 1 / (|w| + eps).

  Returns:
    The strength, to two significant digits.
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
