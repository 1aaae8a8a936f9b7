"""Checks that end a run: is its loss, its gradient and every pruning score finite?"""

import numpy as np

from prunejax.pruning.faults import NAN_SCORE, REASONS


def check_finite(table: dict, at: int, faults=()):
  """Checks the metrics of some steps.

  Args:
    table: {name: [steps]}, metrics of which the last is that of step `at`.
    at: the number of the last step.
    faults: {leaf: (step, reason)} of leaves that moving masks spoiled (`prunejax.faults`).

  Raises:
    FloatingPointError: the first step that is not finite. It names the leaf and the reason if
      moving masks spoiled a leaf before the loss was NaN, since that is the cause then.
  """
  bad = ~(np.isfinite(table['loss']) & np.isfinite(table['grad_norm']))
  step = at - len(bad) + int(bad.argmax()) + 1 if bad.any() else at + 1
  early = sorted((fault, name) for name, fault in dict(faults).items() if fault.step < step)
  if early:
    fault, name = early[0]
    same = sum(other.reason == fault.reason for other, _ in early) - 1
    more = f' and of {same} more leaves' if same else ''
    wrong = f'masks of {name!r}{more} moved at step {fault.step}, when {fault.reason}'
    if fault.reason == REASONS[NAN_SCORE]:
      wrong = f'scores of {name!r}{more} are NaN at step {fault.step}, so no mask can rest on them'
    raise FloatingPointError(
      f'{wrong};'
      ' nothing was saved after the last good checkpoint (check the criterion of its prune group)'
    )
  if bad.any():
    raise FloatingPointError(
      f'the loss or its gradient is not finite at step {step}; nothing was saved after the last'
      ' good checkpoint (lower optimizer.learning_rate, or lengthen optimizer.warmup)'
    )
