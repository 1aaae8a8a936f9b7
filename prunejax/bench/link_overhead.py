"""Measures what the pruning link adds to an AdamW step between mask updates.

Other ways to hold the masks are measured beside it.
"""

from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import optax

import prunejax
from prunejax.bench import measure, sizes
from prunejax.pruning import masks as masks_lib

NEVER = 10**6


def run(size: str, say: Callable[[str], None], **options) -> Iterator[dict]:
  """Times donated AdamW steps with and without links that hold zeros.

  Args:
    size: a name of `sizes.SIZES`.
    say: prints one line.
    **options: not used.

  Yields:
    Rows: ratios to AdamW alone for bool masks, packed masks, held zeros and a finished schedule;
    bytes.
  """
  del options
  shapes = sizes.shapes(size)
  count = sum(rows * columns for rows, columns in shapes.values())
  # The gradient; weights and two moments of every candidate; a copy while one is set up.
  if lack := measure.lacks(4 * count * (4 + 3 * len(_links()))):
    yield measure.row('AdamW with prune_transform', None, 'x AdamW', '<= 1.10', lack)
    return
  say('  compiling')
  grad = sizes.weights(shapes, dtype=jnp.float32)
  calls, memory = {}, {}
  for name, link in _links().items():
    calls[name], memory[name] = _candidate(optax.chain(optax.adamw(1e-4), *link), shapes, grad)
  times = measure.interleaved(calls, rounds=15, seconds=60)
  plain = times['plain']
  for name, target, how in (
    ('bool', '<= 1.10', 'prune_transform at sparsity 0.9, masks a bool each, off mask steps'),
    ('finished', '<= 1.10', 'the same, after the last step that moves masks (until)'),
    ('held', '', 'hold_zeros of weights pruned before'),
    ('packed', '', 'masks packed eight to a byte, unpacked at every step'),
  ):
    detail = f'{how}: {times[name]}; AdamW alone: {plain}; {count:,} weights, donated'
    yield measure.row(
      f'AdamW step, {name}', measure.ratio(times[name], plain), 'x AdamW', target, detail
    )
  saved = 100 * (1 - memory['packed']['state'] / memory['bool']['state'])
  yield measure.row(
    'packed masks, time',
    measure.ratio(times['packed'], times['bool']),
    'x bool masks',
    '',
    f'saves {saved:.1f} % of the bytes of weights, moments and masks, and needs an axis that no'
    ' mesh divides',
  )
  if memory['plain']['temporary'] is not None:
    more = memory['bool']['temporary'] - memory['plain']['temporary'] - count
    yield measure.row(
      'temporaries of the link',
      100 * more / (4 * count),
      '% of the weights',
      '< 10',
      'of a step that may move masks, beyond AdamW alone; without the new masks, a byte each',
    )


def _links():
  """{name: links after AdamW}. Masks move at the first step only, which is not timed."""
  prune = lambda when: prunejax.prune_transform(
    prunejax.magnitude(), prunejax.constant(0.9), when, where='.*/kernel'
  )
  return {
    'plain': (),
    'bool': (prune(prunejax.every(NEVER)),),
    'finished': (prune(prunejax.until(0)),),
    'held': (prunejax.hold_zeros('.*/kernel'),),
    'packed': (_packed(),),
  }


def _packed():
  """A last link that holds the zeros of its init by packed masks: the cost of packing."""

  def init(params):
    return masks_lib.pack(jax.tree.map(lambda p: p != 0, params))

  def update(updates, state, params=None, **extra):
    del extra
    masks = masks_lib.unpack(state, params)
    return jax.tree.map(lambda keep, u, p: jnp.where(keep, u, -p), masks, updates, params), state

  return optax.GradientTransformationExtraArgs(init, update)


def _candidate(tx, shapes, grad):
  """(function that takes one donated step, {'state': bytes, 'temporary': bytes})."""

  def step(state, grad):
    params, opt_state = state
    updates, opt_state = tx.update(grad, opt_state, params, grad=grad)
    return optax.apply_updates(params, updates), opt_state

  params = jax.jit(lambda tree: jax.tree.map(lambda p: jnp.where(jnp.abs(p) > 0.033, p, 0), tree))(
    grad
  )
  state = (params, jax.jit(tx.init)(params))
  program = measure.compiled(step, state, grad, donate_argnums=0)
  size = {'state': measure.nbytes(state), 'temporary': measure.temporary(program)}
  return measure.carried(lambda s: program(s, grad), state), size
