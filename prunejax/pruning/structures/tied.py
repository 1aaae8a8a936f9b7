"""Structures whose units lie across leaves: a unit is a slice of each of several matrices.

An attention head is such a unit. Allocations see units by the name of what they are slices of
('encoder/layer_3/attention/heads'), not by leaf: `uniform` removes the same share of heads in each
layer, `global_threshold` compares all heads of the model, and regexes of `by_class` match these
names.
"""

import math
import re

import jax.numpy as jnp
import numpy as np
from jax import lax

from prunejax.pruning.leaf_kinds import map_kinds
from prunejax.pruning.paths import compiled
from prunejax.pruning.selection import counts
from prunejax.pruning.types import Structure

FOREIGN = 'for a model with other names write tied({regex: (unit, axis, size)})'


def tied(table) -> Structure:
  r"""Units that lie in several leaves.

  Leaves of one unit name share its units: unit i is slice i of each of them.

  Args:
    table: {regex: (unit, axis, size)}, or pairs. A leaf takes the first row whose regex matches its
      whole path. `unit` is the unit name, with the groups of the regex filled in (r'\1/heads'). A
      slice is `size` neighbours on `axis`, -1 or -2, of a kernel [..., in, out]; of a bias
      [..., out] the axis is -1.

  Raises:
    ValueError: a row is malformed. When the link is initialised: no row matches a leaf, a size does
      not divide its axis, or leaves of one unit name have different numbers of slices.
  """
  rows = [
    (compiled(pattern, 'tied table'), *_row(pattern, row)) for pattern, row in dict(table).items()
  ]
  return _tied('tied', rows, f'a leaf that matches one of {[row[0].pattern for row in rows]}')


def heads(size: int) -> Structure:
  """Attention heads: columns of query, key and value with their biases, and rows of the output.

  Leaves are named as in `prunejax.models`: .../attention/{query,key,value}/{kernel,bias} and
  .../attention/output/kernel. The unit name is '.../attention/heads'. Biases, and any of the four
  matrices, may be left out with where=. The output's bias belongs to no head.

  Args:
    size: the width of a head.

  Raises:
    ValueError: as `tied` raises.
  """
  _check_size('heads', size)
  rows = [
    (r'(|.*/)attention/(?:query|key|value)/(?:kernel|bias)', r'\1attention/heads', -1, size),
    (r'(|.*/)attention/output/kernel', r'\1attention/heads', -2, size),
  ]
  named = '.../attention/{query,key,value}/{kernel,bias} or .../attention/output/kernel'
  return _tied(
    f'heads({size})', [(re.compile(row[0]), *row[1:]) for row in rows], f'{named}; {FOREIGN}'
  )


def ffn(size: int = 1) -> Structure:
  """Inner neurons of a feed-forward block: a column of intermediate, its bias, and a row of output.

  Leaves are named .../ffn/{intermediate,output}/kernel and .../ffn/intermediate/bias. The unit name
  is '.../ffn/neurons'.

  Args:
    size: the neighbours that go together.

  Raises:
    ValueError: as `tied` raises.
  """
  _check_size('ffn', size)
  rows = [
    (r'(|.*/)ffn/intermediate/(?:kernel|bias)', r'\1ffn/neurons', -1, size),
    (r'(|.*/)ffn/output/kernel', r'\1ffn/neurons', -2, size),
  ]
  named = '.../ffn/{intermediate,output}/kernel or .../ffn/intermediate/bias'
  return _tied(
    f'ffn({size})', [(re.compile(row[0]), *row[1:]) for row in rows], f'{named}; {FOREIGN}'
  )


def _tied(label, rows, accepted) -> Structure:
  def members(shapes):
    """{unit name: [(leaf, row of the table)]}."""
    found = {}
    for name in shapes:
      at, match = next(
        ((i, m) for i, row in enumerate(rows) if (m := row[0].fullmatch(name))), (None, None)
      )
      if match is None:
        raise ValueError(
          f'{label}: {name!r} is part of no unit: leave the leaf out with where=; accepted: {accepted}'
        )
      try:
        unit = match.expand(rows[at][1])
      except (re.error, IndexError) as error:
        raise ValueError(
          f'{label}: the unit {rows[at][1]!r} of {rows[at][0].pattern!r}: {error}'
        ) from None
      found.setdefault(unit, []).append((name, at))
    return found

  def plan(shapes):
    """({unit: [leaf]}, {leaf: (row, axis, leading axes)}, {unit: (leading shape, slices)}). Raises ValueError."""
    leaves, roles, units = {}, {}, {}
    for unit, of in members(shapes).items():
      lead = max(0, max(len(shapes[name]) for name, _ in of) - 2)
      leaves[unit] = [name for name, _ in of]
      for name, at in of:
        shape, (_, _, axis, size) = tuple(shapes[name]), rows[at]
        if len(shape) - lead < -axis:
          raise ValueError(
            f'{label}: {name!r} has shape {shape} and so no axis {axis} that could hold its slices'
          )
        if shape[axis] % size:
          raise ValueError(
            f'{label}: {size} does not divide axis {axis} of {name!r}, whose shape is {shape}; choose a size that does'
          )
        roles[name] = at, axis, lead
        here = shape[:lead], shape[axis] // size
        if units.setdefault(unit, here) != here:
          raise ValueError(
            f'{label}: {name!r} of shape {shape} has {here[1]} slices of {size}, unlike {leaves[unit][0]!r} of shape'
            f' {tuple(shapes[leaves[unit][0]])}: they cannot be the units {unit!r} together'
          )
    return leaves, roles, units

  def by_role(fn, scores, roles, *more):
    """`fn(role)` of every leaf, traced once for the leaves of one role and kind."""
    out = {}
    for role in dict.fromkeys(roles[name] for name in scores):
      chosen = [name for name in scores if roles[name] == role]
      out |= map_kinds(
        fn(role), *({name: given[name] for name in chosen} for given in (scores, *more))
      )
    return {name: out[name] for name in scores}

  def blocks(score, role):
    at, axis, lead = role
    sizes = [1] * lead + list(score.shape[lead:])
    sizes[axis] = rows[at][3]
    return sizes, score.shape[:lead] + (-1,)

  def summed(role):
    def sums(score):
      sizes, flat = blocks(score, role)
      return counts.block_sum(score, sizes).reshape(flat)

    return sums

  def counted(role):
    def alive(score):
      sizes, flat = blocks(score, role)
      gone = lax.bitcast_convert_type(jnp.asarray(score, jnp.float32), jnp.uint32) == np.uint32(
        1 << 31
      )
      return counts.count_blocks((~gone).astype(jnp.int32), sizes).reshape(flat)

    return alive

  def pool(scores):
    shapes = {name: score.shape for name, score in scores.items()}
    leaves, roles, units = plan(shapes)
    sums, alive, out = by_role(summed, scores, roles), by_role(counted, scores, roles), {}
    for unit, names in leaves.items():
      lead, number = units[unit]
      weights = sum(math.prod(shapes[name]) for name in names) // max(math.prod(lead) * number, 1)
      # As in structure._block_mean: a true division, and -0.0 for a unit that is -0.0 throughout, pruned already.
      divisor = lax.optimization_barrier(jnp.asarray(np.full((*lead, number), weights, np.float32)))
      out[unit] = jnp.where(
        sum(alive[n] for n in names) > 0, sum(sums[n] for n in names) / divisor, -0.0
      )
    return out

  def expand(kept, scores):
    leaves, roles, _ = plan({name: score.shape for name, score in scores.items()})
    mine = {name: kept[unit] for unit, names in leaves.items() for name in names}

    def opened(role):
      at, axis, lead = role

      def mask(score, kept):
        wide = jnp.repeat(kept, rows[at][3], axis=-1)
        wide = wide if score.ndim - lead == 1 else jnp.expand_dims(wide, -1 if axis == -2 else -2)
        return jnp.broadcast_to(wide, score.shape)

      return mask

    return by_role(opened, scores, roles, mine)

  def shared(shapes):
    leaves, _, units = plan(shapes)
    whole = lambda names: sum(math.prod(shapes[name]) for name in names)
    seen = lambda unit: (
      *units[unit][0],
      whole(leaves[unit]) // max(math.prod(units[unit][0]) * units[unit][1], 1),
    )
    return {unit: (tuple(names), (*seen(unit), units[unit][1])) for unit, names in leaves.items()}

  return Structure(pool, expand, members=shared)


def _row(pattern, row):
  try:
    unit, axis, size = row
    compiled(pattern, 'tied table')
  except (TypeError, ValueError) as error:
    raise ValueError(
      f'tied: {pattern!r} has {row!r}; (unit, axis, size) is needed, as ("heads", -1, 64)'
    ) from error
  if axis not in (-1, -2) or not isinstance(unit, str):
    raise ValueError(f'tied: {pattern!r} has {row!r}; the unit is a name and the axis -1 or -2')
  _check_size('tied', size)
  return unit, axis, size


def _check_size(label, size):
  if not isinstance(size, int | np.integer) or isinstance(size, bool) or size < 1:
    raise ValueError(
      f'{label}: size={size!r}; a whole number of neighbours is needed, such as {label}(64)'
    )
