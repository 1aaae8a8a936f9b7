"""Reading the state of a link, and errors for the state of another link."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from toy import grads_of, make_params, prune, train

import prunejax
from prunejax.pruning.state import PruneState


def plain(state):
  """A state as a restore without a target returns it: dicts and lists."""
  if hasattr(state, '_asdict'):
    return {name: plain(value) for name, value in state._asdict().items()}
  if isinstance(state, (tuple, list)):
    return [plain(value) for value in state]
  if isinstance(state, dict):
    return {name: plain(value) for name, value in state.items()}
  return state


@pytest.mark.parametrize('lost', [plain, jax.tree.leaves, lambda state: None])
def test_masks_of_a_state_without_types_are_refused(lost):
  params, state = train(optax.chain(optax.adam(0.1), prune()), make_params())
  with pytest.raises(ValueError, match='types were lost|opt_state is None'):
    prunejax.get_masks(lost(state), params)
  if lost(state) is not None:
    with pytest.raises(ValueError, match='types were lost'):
      prunejax.check_pruned(params, lost(state))
  with pytest.raises(ValueError, match='types were lost'):
    prunejax.faults(plain(state))
  assert prunejax.faults({'flags': jnp.ones((2, 3), bool)}) == {}
  assert prunejax.faults(optax.adam(0.1).init(params)) == {}


def test_a_state_without_a_pruning_link_is_refused_unless_the_run_does_not_prune():
  params = make_params()
  for tx in (optax.sgd(0.1), optax.adam(0.1), optax.apply_if_finite(optax.adam(0.1), 3)):
    state = tx.init(params)
    with pytest.raises(ValueError, match=r'no state of a pruning link.*unpruned=True'):
      prunejax.get_masks(state, params)
    masks = prunejax.get_masks(state, params, unpruned=True)
    assert all(mask.all() for mask in jax.tree.leaves(masks))


OTHERS = {
  'where': (prune(where='enc/kernel'), r"has no mask for 'head/kernel', unlike where='\.\*kernel'"),
  'a latent link': (prune(zero_pruned=False), r'made by prune_transform\(zero_pruned=False\), and'),
  'hold_zeros': (prunejax.hold_zeros('.*kernel'), 'made by hold_zeros, and this is prune_tr'),
  'criterion': (prune(criterion=prunejax.movement()), r'is MovementState\(.*another criterion'),
}


@pytest.mark.parametrize('name', OTHERS)
@pytest.mark.parametrize('jitted', [True, False])
def test_the_state_of_another_link_is_refused_by_name(name, jitted):
  other, said = OTHERS[name]
  link, params = prune(), make_params()
  update = jax.jit(link.update) if jitted else link.update
  with pytest.raises(ValueError, match=said):
    update(params, other.init(params), params)
  with pytest.raises(ValueError, match='the state is a dict, not a PruneState'):
    update(params, plain(link.init(params)), params)


@pytest.mark.parametrize('link', [prune(), prunejax.hold_zeros('.*kernel')])
def test_masks_of_other_shapes_or_dtypes_are_refused_by_name(link):
  params = make_params()
  state, shape = link.init(params), params['head']['kernel'].shape
  for change in (lambda mask: mask[:1], lambda mask: mask.astype(np.int32)):
    masks = {**state.prune_mask, 'head': {**state.prune_mask['head']}}
    masks['head']['kernel'] = change(masks['head']['kernel'])
    with pytest.raises(ValueError, match=f"'head/kernel': expected bool {re.escape(str(shape))}"):
      link.update(params, state._replace(prune_mask=masks), params)


def test_hold_zeros_refuses_the_state_of_another_link():
  link, params = prunejax.hold_zeros('.*kernel'), make_params()
  for state, said in (
    (prunejax.hold_zeros('enc/kernel').init(params), "has no mask for 'head/kernel'"),
    (prune().init(params), 'made by prune_transform.*and this is hold_zeros'),
    (plain(link.init(params)), 'the state is a dict, not a PruneState'),
  ):
    with pytest.raises(ValueError, match=said):
      link.update(params, state, params)


def test_hold_zeros_chooses_leaves_once():
  link = prunejax.hold_zeros(lambda name, leaf: bool((leaf != 0).any()))
  params = {'a': jnp.array([0.0, 1.0]), 'b': jnp.zeros(2)}
  state = link.init(params)  # 'b' is not chosen, and is not later, when it has grown
  for grown in (params, {**params, 'b': jnp.ones(2)}):
    updates, state = link.update(jax.tree.map(jnp.ones_like, params), state, grown)
  assert updates['a'].tolist() == [0, 1] and updates['b'].tolist() == [1, 1]


@pytest.mark.parametrize('flag', ['zero_pruned', 'hold'])
def test_a_flag_is_true_or_false(flag):
  with pytest.raises(ValueError, match=f"{flag}='no': expected True or False"):
    prune(**{flag: 'no'})


def test_an_eager_update_is_compiled_once_and_equals_the_jitted_one():
  link, params = prune(when=prunejax.every(2)), make_params()
  jitted, counted = jax.jit(link.update), []
  jax.monitoring.register_event_duration_secs_listener(
    lambda event, seconds, **_: counted.append(event) if 'backend_compile' in event else None
  )
  state = other = link.init(params)
  compiles = []
  for t in range(4):
    grads = grads_of(params, t)
    expected, other = jitted(grads, other, params)
    before = len(counted)
    updates, state = link.update(grads, state, params)
    compiles.append(len(counted) - before)
    jax.tree.map(np.testing.assert_array_equal, (updates, state), (expected, other))
    params = optax.apply_updates(params, updates)
  assert compiles[1:] == [0, 0, 0], compiles
  assert isinstance(state, PruneState)


def test_an_eager_update_takes_functions_and_other_extra_arguments():
  link = prune(criterion=prunejax.obd('hutchinson', probes=2))
  params = make_params()
  loss = lambda params: sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(params))
  updates, _ = link.update(params, link.init(params), params, value_fn=loss, note='text')
  jax.tree.map(lambda u, p: np.testing.assert_array_equal(u.shape, p.shape), updates, params)
