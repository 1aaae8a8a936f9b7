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

from prunejax.pruning import counts
from prunejax.pruning.leaf_kinds import map_kinds
from prunejax.pruning.paths import compiled, first_match
from prunejax.pruning.types import Structure

FOREIGN = 'for a model with other names write tied({regex: (unit, axis, size)})'


def tied(table) -> Structure:
  r"""Units that lie in several leaves.

  Leaves of one unit name share its units: unit i is slice i of each of them.

  Args:
    table: {regex: (unit, axis, size)}, or pairs. A leaf takes the first row whose regex matches its
      whole path. `unit` is the unit name, with the groups of the regex filled in (r'\1/heads'). A
      slice is `size` neighbours on `axis`, -1 or -2, of a kernel [..., in, out], with all positions
      of a convolution's window; of a bias [out] the axis is -1.

  Raises:
    ValueError: a row is malformed. When the link is initialised: no row matches a leaf, a size does
      not divide its axis, or leaves of one unit name have different numbers of slices.
  """
  rows = [
    (compiled(pattern, 'tied table'), *_row(pattern, row)) for pattern, row in dict(table).items()
  ]
  return _tied('tied', rows, f'a leaf that matches one of {[row[0].pattern for row in rows]}')


def heads(size: int, group: int = 1) -> Structure:
  """Attention heads: columns of query, key and value with their biases, and rows of the output.

  With grouped queries (Ainslie et al. 2023) the unit is a group: a key, a value, and the queries
  and rows of the output of all the heads that read them. Leaves are named as in `prunejax.models`:
  .../attention/{query,key,value}/{kernel,bias} and .../attention/output/kernel. The unit name is
  '.../attention/heads'. Biases, and any of the four matrices, may be left out with where=. The
  output's bias belongs to no head.

  Args:
    size: the width of a head.
    group: heads that share a key and a value, 3 where 9 heads read 3 keys.

  Raises:
    ValueError: as `tied` raises.
  """
  _check_size('heads', size)
  _check_size('heads', group, 'group')
  wide = size * group
  rows = [
    (r'(|.*/)attention/query/(?:kernel|bias)', r'\1attention/heads', -1, wide),
    (r'(|.*/)attention/(?:key|value)/(?:kernel|bias)', r'\1attention/heads', -1, size),
    (r'(|.*/)attention/output/kernel', r'\1attention/heads', -2, wide),
  ]
  named = '.../attention/{query,key,value}/{kernel,bias} or .../attention/output/kernel'
  label = f'heads({size})' if group == 1 else f'heads({size}, group={group})'
  return _tied(
    label,
    [(re.compile(row[0]), *row[1:]) for row in rows],
    f'{named}; {FOREIGN}',
    f'; of heads that share keys and values name how many, such as heads({size}, group=4)',
  )


def ffn(size: int = 1) -> Structure:
  """Inner neurons of a feed-forward block: a column of intermediate, its bias, and a row of output.

  Leaves are named .../ffn/{intermediate,output}/kernel and .../ffn/intermediate/bias. Where a gate
  multiplies the neurons, its columns, .../ffn/gate, belong to them too. The unit name is
  '.../ffn/neurons'.

  Args:
    size: the neighbours that go together.

  Raises:
    ValueError: as `tied` raises.
  """
  _check_size('ffn', size)
  rows = [
    (r'(|.*/)ffn/(?:intermediate|gate)/(?:kernel|bias)', r'\1ffn/neurons', -1, size),
    (r'(|.*/)ffn/output/kernel', r'\1ffn/neurons', -2, size),
  ]
  named = (
    '.../ffn/{gate,intermediate,output}/kernel, .../ffn/gate/bias or .../ffn/intermediate/bias'
  )
  return _tied(
    f'ffn({size})', [(re.compile(row[0]), *row[1:]) for row in rows], f'{named}; {FOREIGN}'
  )


def _tied(label, rows, accepted, advice='') -> Structure:
  """The structure of a table of rows (regex, unit name, axis, size).

  `advice` ends the error about leaves of one unit that have different numbers of slices.
  """

  def leaves_of_units(shapes):
    """{unit name: [(leaf, row of the table)]}."""
    leaves: dict[str, list] = {}
    for name in shapes:
      row = first_match(name, [pattern for pattern, *_ in rows])
      if row is None:
        raise ValueError(
          f'{label}: {name!r} is part of no unit: leave the leaf out with where=; accepted:'
          f' {accepted}'
        )
      pattern, template, *_ = rows[row]
      try:
        unit = pattern.fullmatch(name).expand(template)
      except (re.error, IndexError) as error:
        raise ValueError(
          f'{label}: the unit {template!r} of {pattern.pattern!r}: {error}'
        ) from None
      leaves.setdefault(unit, []).append((name, row))
    return leaves

  def plan(shapes):
    """({unit name: [leaf]}, {leaf: row of the table}, {unit name: number of slices})."""
    members, roles, units = {}, {}, {}
    for unit, leaves in leaves_of_units(shapes).items():
      members[unit] = [name for name, _ in leaves]
      for name, row in leaves:
        shape, (_, _, axis, size) = tuple(shapes[name]), rows[row]
        if len(shape) < -axis:
          raise ValueError(
            f'{label}: {name!r} has shape {shape} and so no axis {axis} that could hold its slices'
          )
        if shape[axis] % size:
          raise ValueError(
            f'{label}: {size} does not divide axis {axis} of {name!r}, whose shape is {shape};'
            ' choose a size that does'
          )
        roles[name] = row
        slices = shape[axis] // size
        if units.setdefault(unit, slices) != slices:
          first = members[unit][0]
          raise ValueError(
            f'{label}: {name!r} of shape {shape} has {slices} slices of {size}, unlike'
            f' {first!r} of shape {tuple(shapes[first])}: they cannot be the units {unit!r}'
            f' together{advice}'
          )
    return members, roles, units

  def map_roles(fn, scores, roles, *more):
    """`fn(row of the table)` of every leaf, traced once for the leaves of one row and kind."""
    out = {}
    for role in dict.fromkeys(roles[name] for name in scores):
      names = [name for name in scores if roles[name] == role]
      tables = ({name: table[name] for name in names} for table in (scores, *more))
      out |= map_kinds(fn(role), *tables)
    return {name: out[name] for name in scores}

  def block_sizes(score, row):
    """The size of a slice on every axis."""
    _, _, axis, size = rows[row]
    sizes = list(score.shape)
    sizes[axis] = size
    return sizes

  def sums_of(row):
    def sums(score):
      return counts.block_sum(score, block_sizes(score, row)).reshape(-1)

    return sums

  def alive_of(row):
    def alive(score):
      bits = lax.bitcast_convert_type(jnp.asarray(score, jnp.float32), jnp.uint32)
      is_alive = bits != np.uint32(1 << 31)  # -0.0 marks a weight that is pruned already
      sizes = block_sizes(score, row)
      return counts.count_blocks(is_alive.astype(jnp.int32), sizes).reshape(-1)

    return alive

  def pool(scores):
    shapes = {name: score.shape for name, score in scores.items()}
    members, roles, units = plan(shapes)
    sums, alive = map_roles(sums_of, scores, roles), map_roles(alive_of, scores, roles)
    out = {}
    for unit, names in members.items():
      number = units[unit]
      weights = sum(math.prod(shapes[name]) for name in names) // max(number, 1)
      # As in local._block_mean: a true division, and -0.0 for a unit that is pruned already. Under
      # vmap a divisor that is one for all layers would again become a factor, so each has its own.
      total = sum(sums[name] for name in names)
      divisor = jnp.full((number,), weights, jnp.float32)
      mean = total / lax.optimization_barrier(jnp.where(jnp.isnan(total), divisor, divisor))
      out[unit] = jnp.where(sum(alive[name] for name in names) > 0, mean, -0.0)
    return out

  def expand(kept, scores):
    members, roles, _ = plan({name: score.shape for name, score in scores.items()})
    kept_of = {name: kept[unit] for unit, names in members.items() for name in names}

    def mask_of(row):
      _, _, axis, size = rows[row]

      def mask(score, kept):
        shape = [1] * score.ndim
        shape[axis] = -1
        return jnp.broadcast_to(jnp.repeat(kept, size).reshape(shape), score.shape)

      return mask

    return map_roles(mask_of, scores, roles, kept_of)

  def unit_members(shapes):
    members, _, units = plan(shapes)
    out = {}
    for unit, names in members.items():
      number = units[unit]
      whole = sum(math.prod(shapes[name]) for name in names)
      out[unit] = tuple(names), (whole // max(number, 1), number)
    return out

  return Structure(pool, expand, members=unit_members, reads_axes=label)


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


def _check_size(label, size, name='size'):
  if not isinstance(size, int | np.integer) or isinstance(size, bool) or size < 1:
    raise ValueError(
      f'{label}: {name}={size!r}; a whole number of neighbours is needed, such as {label}(64)'
    )
