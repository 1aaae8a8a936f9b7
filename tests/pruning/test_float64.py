"""Float64 scores are refused wherever they are given: they would be ranked as float32."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import prunejax
from prunejax.pruning import selection
from prunejax.pruning.allocations import histogram
from prunejax.pruning.criteria.weights import stateless

TINY = np.array([[1e-50, 2e-50], [3e-50, 4e-50], [5e-50, 6e-50], [7e-50, 8e-50]])
DOUBLE = stateless(lambda params, **_: jax.tree.map(lambda w: w.astype(jnp.float64), params))
SINGLE = prunejax.magnitude()
ALLOCATIONS = {
  'uniform': prunejax.uniform,
  'global': prunejax.global_threshold,
  'class_uniform': lambda: prunejax.class_uniform(['.*']),
  'class_distribution': prunejax.class_distribution,
  'by_class': lambda: prunejax.by_class({'.*': 0.5}),
  'per_output': prunejax.per_output,
  'erk': prunejax.erk,
  'above': lambda: prunejax.above(2.5e-50),
  'histogram': histogram,
}
STRUCTURES = {
  'unstructured': prunejax.unstructured,
  'n_m': lambda: prunejax.n_m(2, 4),
  'block': lambda: prunejax.block(2, 1),
  'rows': prunejax.rows,
  'columns': prunejax.columns,
  'tied': lambda: prunejax.tied({'w': ('unit', -2, 1)}),
}


@pytest.fixture(params=[True, False], ids=['x64', 'no x64'])
def x64(request):
  with jax.enable_x64(request.param):
    yield request.param


@pytest.mark.parametrize('structure', STRUCTURES)
@pytest.mark.parametrize('allocation', ALLOCATIONS)
def test_select_masks_refuses_them(allocation, structure, x64):
  """Also a numpy array in a program without x64, which would become float32 on its way."""
  for scores in [TINY] + ([jnp.asarray(TINY)] if x64 else []):
    with pytest.raises(ValueError, match="the scores of 'w' are float64; cast them to float32"):
      prunejax.select_masks(
        {'w': scores},
        0.5,
        allocation=ALLOCATIONS[allocation](),
        structure=STRUCTURES[structure](),
      )


LINKS = {
  'unstructured': {},
  'global': {'allocation': prunejax.global_threshold()},
  'pruned already': {'masks': 'zeros'},
  'units': {'structure': prunejax.rows()},
  'units pruned already': {'structure': prunejax.rows(), 'masks': 'zeros'},
  'n_m': {'structure': prunejax.n_m(2, 4)},
  'histogram': {'allocation': histogram()},
}
CRITERIA = {
  'keep': lambda: prunejax.regrow(DOUBLE, SINGLE, 0.3),
  'grow': lambda: prunejax.regrow(SINGLE, DOUBLE, 0.3),
  'first': lambda: prunejax.regrow(SINGLE, SINGLE, 0.3, first=DOUBLE),
}


@pytest.mark.parametrize('name', [*LINKS, *CRITERIA])
def test_the_link_and_who_pays_refuse_them(name):
  how = LINKS.get(name, {})
  criterion = CRITERIA.get(name, lambda: DOUBLE)()
  with jax.enable_x64(True):
    params = {'w': jnp.asarray(TINY)}
    link = prunejax.prune_transform(criterion, prunejax.constant(0.5), **how)
    with pytest.raises(ValueError, match='are float64; cast them to float32'):
      link.update(params, link.init(params), params)
    if name in LINKS and name != 'histogram':
      with pytest.raises(ValueError, match='are float64; cast them to float32'):
        prunejax.who_pays(params, DOUBLE, 0.5, **how)


def test_selection_itself_refuses_them():
  with jax.enable_x64(True):
    scores = selection.plain({'w': jnp.asarray(TINY)})
    for wanted in ({('w',): jnp.int32(4)}, {('w',): jnp.full((1, 2), 2, jnp.int32)}):
      with pytest.raises(ValueError, match='float64'):
        selection.select(scores, wanted)
    with pytest.raises(ValueError, match='float64'):
      selection.order_key(jnp.asarray(TINY))


@pytest.mark.parametrize('structure', STRUCTURES)
def test_float64_weights_that_float32_cannot_tell_apart_are_a_fault(structure):
  """The scores of magnitude are float32: weights of 1e-50 would all be 0, and the first be kept."""
  how = {'structure': STRUCTURES[structure]()}
  link = prunejax.prune_transform(SINGLE, prunejax.constant(0.5), **how)
  with jax.enable_x64(True):
    for weights, is_fault in ((TINY, True), (TINY * 1e90, True), (TINY * 1e50, False)):
      params = {'w': jnp.asarray(weights)}
      _, state = link.update(jax.tree.map(jnp.zeros_like, params), link.init(params), params)
      reasons = [fault.reason for fault in prunejax.faults(state).values()]
      assert reasons == (
        ['float64 weights were too small or too large for float32 scores'] if is_fault else []
      )
      if not is_fault and structure == 'unstructured':
        assert np.asarray(state.prune_mask['w']).ravel().tolist() == [False] * 4 + [True] * 4
