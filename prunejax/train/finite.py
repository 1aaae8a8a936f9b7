"""Checks that end a run: is its loss, its gradient and every pruning score finite?"""

import numpy as np


def check_finite(table: dict, at: int, nan_scores=()):
  """Checks the metrics of some steps.

  Args:
    table: {name: [steps]}, metrics of which the last is that of step `at`.
    at: the number of the last step.
    nan_scores: {leaf: step} of pruning scores that were NaN (`prunejax.nan_scores`).

  Raises:
    FloatingPointError: the first step that is not finite. It names the scores if they were NaN
      before the loss was, since they are the cause then.
  """
  bad = ~(np.isfinite(table['loss']) & np.isfinite(table['grad_norm']))
  step = at - len(bad) + int(bad.argmax()) + 1 if bad.any() else at + 1
  early = sorted((first, name) for name, first in dict(nan_scores).items() if first < step)
  if early:
    more = f' and of {len(early) - 1} more leaves' if early[1:] else ''
    raise FloatingPointError(
      f'scores of {early[0][1]!r}{more} are NaN at step {early[0][0]}, so no mask can rest on them;'
      ' nothing was saved after the last good checkpoint (check the criterion of its prune group)'
    )
  if bad.any():
    raise FloatingPointError(
      f'the loss or its gradient is not finite at step {step}; nothing was saved after the last'
      ' good checkpoint (lower optimizer.learning_rate, or lengthen optimizer.warmup)'
    )
