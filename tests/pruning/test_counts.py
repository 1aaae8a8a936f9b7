"""Counts beyond 2^24 and 2^31, tested on counts alone: no array of that size is made."""

import types

import cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import prunejax
from prunejax.pruning import counts, selection
from prunejax.pruning.selection import passes, ties
from prunejax.pruning.types import Units

# Leaves near the largest possible, odd sizes beyond 2^24, small ones between: 5.2e10 weights.
SHAPES = {f'layer_{i}/kernel': (65_536, 32_767) for i in range(24)}
SHAPES |= {f'layer_{i}/up': (4097, 16_385) for i in range(3)} | {
  'head': (1000, 3),
  'attention/o': (110_000_003, 1),
}
TOTAL = sum(rows * columns for rows, columns in SHAPES.values())
SPARSITIES = (0.0, 0.1, 0.3, 0.5, 0.9, 0.99, 0.9999)
plain = lambda wide: (np.asarray(wide.hi, np.int64) * 65536 + np.asarray(wide.lo)).tolist()


def abstract(dtype=jnp.bfloat16):
  return {name: jax.ShapeDtypeStruct(shape, dtype) for name, shape in SHAPES.items()}


@pytest.mark.parametrize('which', ['uniform', 'by_class', 'erk'])
def test_allocations_are_exact_over_more_weights_than_int32_counts(which):
  allocation = cases.ALLOCATIONS[which].make()
  sizes = {
    name: types.SimpleNamespace(size=rows * columns) for name, (rows, columns) in SHAPES.items()
  }
  share = jax.jit(
    lambda sparsity: allocation.allocate(
      Units(abstract(), selection.plain(abstract()), SHAPES), sparsity
    )
  )
  assert TOTAL > 2**35
  for sparsity in SPARSITIES:
    keep = {name: int(kept) for (name,), kept in share(jnp.float32(sparsity)).items()}
    assert keep == cases.ALLOCATIONS[which].oracle(sizes, SHAPES, sparsity), sparsity
    if which == 'erk':
      assert sum(keep.values()) == cases.kept(TOTAL, sparsity)


def test_erk_keeps_the_exact_number_of_huge_vectors():
  leaves = {f'table_{i}': jax.ShapeDtypeStruct((2**31 - 1 - i,), jnp.float32) for i in range(3)}
  shapes = {name: leaf.shape for name, leaf in leaves.items()}
  units = Units(leaves, selection.plain(leaves), shapes)
  keep = prunejax.erk().allocate(units, jnp.float32(0.9))
  assert sum(int(kept) for kept in keep.values()) == cases.kept(3 * (2**31 - 1) - 3, 0.9)


def test_one_threshold_decides_over_more_weights_than_int32_counts():
  """Each leaf keeps ties by its counts: earlier leaves first, the total exact."""
  rng = np.random.default_rng(0)
  sizes = np.array([rows * columns for rows, columns in SHAPES.values()], np.int64)
  above = (sizes * rng.uniform(0.1, 0.3, sizes.size)).astype(np.int32)
  tied = (sizes * rng.uniform(0.2, 0.6, sizes.size)).astype(np.int32)
  block = passes.Block(
    tuple(SHAPES), (), ((0, sizes.size),), sizes.astype(np.int32), 1, np.uint32(0)
  )

  @jax.jit
  def decide(wanted, above, tied):
    goal = passes.goal_of(block, wanted)
    missing = counts.subtract(wanted, goal.total(above))
    needed = ties._served(block, missing, tied)
    return needed, goal.total(above), goal.total(tied)

  lowest = int(above.sum(dtype=np.int64))
  highest = lowest + int(tied.sum(dtype=np.int64))
  assert lowest > 2**31 and highest - lowest > 2**31
  for goal in (lowest, lowest + 1, 2 * lowest, highest - 1, highest):
    needed, over, level = decide(counts.wide([goal] * sizes.size), above, tied)
    assert set(plain(over)) == {lowest} and set(plain(level)) == {highest - lowest}
    left, want = goal - lowest, np.zeros(sizes.size, np.int64)
    for leaf in range(sizes.size):
      want[leaf] = min(left, int(tied[leaf]))
      left -= want[leaf]
    np.testing.assert_array_equal(needed, want)
    assert lowest + int(np.asarray(needed, np.int64).sum()) == goal


def test_reported_counts_are_python_integers():
  """Beyond 2^24 a float32 would skip every second integer."""
  masks = {'a': jnp.zeros((3, 2**23 + 1), bool), 'b': jnp.ones((2, 5), bool)}
  said = prunejax.masks.sparsity(masks)
  assert said['removed'] == 3 * (2**23 + 1) and said['weights'] == said['removed'] + 10
  assert said['leaves'] == {'a': 1.0, 'b': 0.0}


def test_a_step_over_billions_of_weights_is_traced_without_arrays():
  """Masks and criteria of billions of weights have the shapes of their leaves."""
  link = prunejax.prune_transform(
    prunejax.magnitude(), prunejax.cubic(0.9, end=10), allocation=prunejax.global_threshold()
  )
  state = jax.eval_shape(link.init, abstract())
  updates, after = jax.eval_shape(link.update, abstract(jnp.float32), state, abstract())
  assert {name: leaf.shape for name, leaf in after.prune_mask.items()} == SHAPES
  assert jax.tree.structure(after) == jax.tree.structure(state)
  assert {name: leaf.shape for name, leaf in updates.items()} == SHAPES
