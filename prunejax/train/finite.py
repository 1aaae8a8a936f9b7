"""A run ends where its loss, its gradient or a pruning score is not finite."""

import numpy as np


def check_finite(table, at, nan_scores=()):
  """Raises FloatingPointError for the first step that is not finite. table: {name: [steps]}, the last being `at`.

  nan_scores: {leaf: step} of pruning scores that were NaN (`prunejax.nan_scores`). A step earlier than that of the
  loss, or without one, is the cause.
  """
  bad = ~(np.isfinite(table['loss']) & np.isfinite(table['grad_norm']))
  step = at - len(bad) + int(bad.argmax()) + 1 if bad.any() else at + 1
  early = sorted((first, name) for name, first in dict(nan_scores).items() if first < step)
  if early:
    more = f' and of {len(early) - 1} more leaves' if early[1:] else ''
    raise FloatingPointError(
      f'scores of {early[0][1]!r}{more} are NaN at step {early[0][0]}, so no mask can rest on them; nothing was saved'
      ' after the last good checkpoint (what is the criterion of its prune group made of?)'
    )
  if bad.any():
    raise FloatingPointError(
      f'the loss or its gradient is not finite at step {step}; nothing was saved after the last good checkpoint'
      ' (lower optimizer.learning_rate, or lengthen optimizer.warmup)'
    )
