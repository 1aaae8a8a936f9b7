"""Units across leaves (heads, neurons, any table) against numpy twins; whole steps; wrong use."""

import cases
import cases_tied
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import prunejax
from prunejax.pruning import scores_to_masks

# One allocation for each structure, and `erk` too for the structure with a stack of layers.
ALLOCATIONS = {
  'heads': ['uniform'],
  'ffn': ['global_threshold'],
  'tied': ['global_threshold', 'erk'],
  'heads of a group': ['uniform'],
  'ffn with a gate': ['global_threshold'],
}


def drawn(case, seed=0):
  """Random eighths, so that sums are exact and ties common; leaves differ in scale."""
  rng = np.random.default_rng(seed)
  draw = lambda i, shape: (rng.integers(0, 40 + 9 * i, shape) / 8).astype(np.float32)
  return {n: draw(i, s) for i, (n, s) in enumerate(sorted(case.shapes.items()))}


def units_of_slices(case, means):
  """(means, shapes) by part; each slice of a stacked unit is a part."""
  shapes, parts, where = case.joined(), {}, {}
  for unit, values in means.items():
    layers = 3 if unit == 'stack' else 1
    for i, part in enumerate(np.split(values, layers)):
      name = f'{unit}[{i}]' if layers > 1 else unit
      parts[name], where[name] = part, (shapes[unit][0], part.size)
  return parts, where


@pytest.mark.parametrize('name', cases_tied.ALL)
def test_masks_match_the_oracle_are_exact_and_nest(name):
  case = cases_tied.ALL[name]
  structure, scores = case.make(), drawn(case)

  @jax.jit
  def select(scores, sparsity):
    masks = {}
    for which in ALLOCATIONS[name]:
      how = dict(allocation=cases.ALLOCATIONS[which].make(), structure=structure)
      masks[which] = prunejax.select_masks(scores, sparsity, stacked=case.stacked, **how)
    return scores_to_masks.pooled_units(scores, structure, case.stacked).scores, masks

  means = case.means(scores)
  parts, shapes = units_of_slices(case, means)
  before = None
  for sparsity in (0.0, 0.35, 0.5, 0.8):
    units, masks = select(scores, jnp.float32(sparsity))
    for unit, values in units.items():
      np.testing.assert_array_equal(np.ravel(values), np.float32(means[unit]))
    for which in ALLOCATIONS[name]:
      kept = cases.ALLOCATIONS[which].oracle(parts, shapes, sparsity)
      stays = {}
      for part, values in parts.items():
        flags = np.zeros(values.size, bool)
        flags[np.argsort(-values, kind='stable')[: kept[part]]] = True
        stays.setdefault(part.split('[')[0], []).append(flags)
      expected = case.opened({unit: np.concatenate(flags) for unit, flags in stays.items()})
      assert list(masks[which]) == list(scores)
      for leaf, mask in masks[which].items():
        np.testing.assert_array_equal(mask, expected[leaf], err_msg=f'{which} {leaf} {sparsity}')
        assert before is None or not np.any(mask & ~before[which][leaf]), (
          'raising sparsity revived a weight'
        )
    before = masks
  assert select._cache_size() == 1


def test_a_link_prunes_whole_heads_and_the_report_names_every_leaf():
  case = cases_tied.TIED['heads']
  params = {name: jnp.asarray(w + 1) for name, w in drawn(case).items()} | {'norm': jnp.ones(3)}
  recipe = dict(
    allocation=prunejax.global_threshold(), structure=prunejax.heads(4), where='.*attention.*'
  )
  link = prunejax.prune_transform(
    prunejax.magnitude(), prunejax.linear(0.5, begin=0, end=2), **recipe
  )
  tx = optax.chain(optax.sgd(0.1), link)
  state, rng = tx.init(params), np.random.default_rng(1)
  step = jax.jit(lambda p, s, g: tx.update(g, s, p, grad=g))
  for _ in range(4):
    updates, state = step(
      params, state, jax.tree.map(lambda p: rng.normal(size=p.shape).astype(np.float32), params)
    )
    params = optax.apply_updates(params, updates)
  masks = prunejax.get_masks(state, params)
  prunejax.check_pruned(params, state)
  gone = [0, 0]
  for layer in (0, 1):
    at = f'layer_{layer}/attention'
    columns = np.asarray(masks[f'{at}/query/kernel']).reshape(10, 3, 4)
    heads = columns.all((0, 2))
    assert (columns.any((0, 2)) == heads).all()
    np.testing.assert_array_equal(masks[f'{at}/query/bias'], np.repeat(heads, 4))
    np.testing.assert_array_equal(
      masks[f'{at}/output/kernel'], np.repeat(heads, 4)[:, None].repeat(10, 1)
    )
    gone[layer] = int((~heads).sum())
  assert sum(gone) == 3 and masks['norm'].all()
  rows = prunejax.who_pays(
    params, prunejax.magnitude(), 0.5, recipe['allocation'], recipe['structure'], recipe['where']
  )
  assert [row.leaf for row in rows] == [*sorted(case.shapes), 'total']
  # Pruned units rank lowest, also below kept units whose weights are 0.0.
  assert [row.got for row in rows[:-1]] == [gone[i // 3] / 3 for i in range(6)]


def test_the_score_of_a_head_is_the_mean_over_its_blocks():
  at = lambda layer, name: f'layer_{layer}/attention/{name}/kernel'
  scores = {
    at(layer, name): np.ones((4, 4), np.float32)
    for layer in (0, 1)
    for name in ('query', 'value', 'output')
  }
  scores[at(0, 'query')][:, :2] = (
    9.0  # head 0 of layer 0 by its query, head 1 of layer 1 by its output's rows
  )
  scores[at(1, 'output')][2:] = 3.0
  whole = dict(allocation=prunejax.global_threshold(), structure=prunejax.heads(2))
  masks, everywhere = jax.jit(
    lambda s: (
      prunejax.select_masks(s, 0.5, structure=prunejax.heads(2)),
      prunejax.select_masks(s, 0.75, **whole),
    )
  )(scores)
  for name in ('query', 'value'):
    assert masks[at(0, name)].all(0).tolist() == [True, True, False, False]
    assert masks[at(1, name)].all(0).tolist() == [False, False, True, True]
  assert everywhere[at(0, 'output')].all(1).tolist() == [True, True, False, False]
  assert not np.any(everywhere[at(1, 'output')])


@pytest.mark.parametrize(
  'make, shapes, stacked, words',
  [
    (lambda: prunejax.heads(0), {}, (), ['heads', 'size=0', 'whole number']),
    (lambda: prunejax.heads(True), {}, (), ['size=True']),
    (lambda: prunejax.heads(4, group=0), {}, (), ['group=0']),
    (lambda: prunejax.tied({'a': ('u', 0, 2)}), {}, (), ["'a'", '-1 or -2']),
    (lambda: prunejax.tied({'a': ('u', 2)}), {}, (), ["('u', 2)", '(unit, axis, size)']),
    (lambda: prunejax.tied({'a(': ('u', -1, 2)}), {}, (), ['a(', 'not a regular expression']),
    (lambda: prunejax.tied({'a': (r'\3', -1, 2)}), {'a': (4, 4)}, (), [r'\\3', 'invalid group']),
    (
      lambda: prunejax.heads(5),
      {'attention/query/kernel': (8, 12)},
      (),
      ['5 does not divide axis -1', '(8, 12)'],
    ),
    (
      prunejax.ffn,
      {'attention/query/kernel': (8, 12)},
      (),
      ['part of no unit', 'where=', '.../ffn/intermediate/bias', 'tied({'],
    ),
    (
      prunejax.ffn,
      {'ffn/output/kernel': (8, 4), 'ffn/intermediate/kernel': (4, 6)},
      (),
      ['unlike', "'ffn/neurons'"],
    ),
    (prunejax.ffn, {'ffn/output/kernel': (8,)}, (), ['no axis -2']),
    (
      prunejax.ffn,
      {'ffn/output/kernel': (2, 8, 4), 'ffn/intermediate/kernel': (2, 4, 8)},
      ('ffn/output/kernel',),
      ['only some are stacked'],
    ),
  ],
)
def test_wrong_use_is_one_clear_error(make, shapes, stacked, words):
  with pytest.raises(ValueError) as found:
    scores = {name: jax.ShapeDtypeStruct(shape, np.float32) for name, shape in shapes.items()}
    jax.eval_shape(
      lambda s: prunejax.select_masks(
        s, 0.5, structure=make(), stacked=stacked, layout='... in out'
      ),
      scores,
    )
  for word in words:
    assert word in str(found.value)
