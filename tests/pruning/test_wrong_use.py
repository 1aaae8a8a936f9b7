"""Wrong use of the core: one clear error each, naming the value and what would be accepted."""

import functools

import jax
import jax.numpy as jnp
import pytest
from toy import make_params, prune

import prunejax


def update_with(tx, params=None, **extra):
  params = make_params() if params is None else params
  return jax.jit(functools.partial(tx.update, **extra))(params, tx.init(params), params)


SQUARE = {'w': jnp.arange(16.0).reshape(4, 4)}
BAD = [
  (
    lambda: prunejax.select_masks({'w': jnp.array([jnp.nan, 1.0, 2.0, 3.0])}, 0.25),
    "select_masks: the scores of 'w' hold NaN",
  ),
  (
    lambda: prunejax.who_pays(
      SQUARE, prunejax.rigl(), 0.5, structure=prunejax.block(2, 2), grad=SQUARE
    ),
    'who_pays: the scores of this criterion rank single weights',
  ),
  (
    lambda: prune(where='kernel').init(make_params()),
    "where='kernel' matches no .*'enc/bias', 'enc/kernel'",
  ),
  (
    lambda: prune().init({'a': {'kernel': jnp.ones(2)}, 'a/kernel': jnp.ones(2)}),
    "two leaves .* path 'a/kernel'",
  ),
  (lambda: prune(where='(').init(make_params()), r"where='\(' is not a regular expression"),
  (
    lambda: prune(structure=prunejax.n_m(2, 4)).init(make_params()),
    r'4 does not divide .*enc/kernel.*\(6, 4\)',
  ),
  (
    lambda: prune(0.9, structure=prunejax.n_m(2, 4)),
    'sparsity 0.9, but this structure can remove at most 0.5',
  ),
  (
    lambda: prune(structure=prunejax.rows(), where='.*').init(make_params()),
    r"'enc/bias' has shape \(4,\)",
  ),
  (
    lambda: prune(when=prunejax.every(1, until=1)),
    'stops after step 1, before .* target at step 2',
  ),
  (
    lambda: prune(allocation=prunejax.by_class({'enc.*': 0.5})).init(make_params()),
    "no class matches 'head/kernel'",
  ),
  (
    lambda: prune(allocation=prunejax.by_class({'.*': 0.5, 'x': 0.1})).init(make_params()),
    "'x' is the first match",
  ),
  (lambda: prunejax.by_class({'.*': 1.5}), 'has 1.5'),
  (lambda: prunejax.n_m(4, 2), r'n_m\(4, 2\)'),
  (lambda: prunejax.block(0, 4), r'block\(0, 4\)'),
  (lambda: prune(criterion=prunejax.magnitude), 'is no Criterion; is a call missing'),
  (lambda: prunejax.prune_transform(prunejax.magnitude(), 0.5), 'schedule=0.5 must be a function'),
  (
    lambda: update_with(prune(criterion=prunejax.taylor())),
    'criterion needs grad= in tx.update: the raw gradient',
  ),
  (
    lambda: update_with(prune(criterion=prunejax.movement())),
    'criterion needs grad= in tx.update: the raw gradient',
  ),
  (lambda: update_with(prune(), grad={'enc': jnp.ones(3)}), "grad= has no leaf 'enc/kernel'"),
  (lambda: prune().update(make_params(), prune().init(make_params())), 'tx.update needs params'),
  (
    lambda: prunejax.get_masks(prune().init(make_params()), {'enc': {}}),
    'enc/kernel.*no such leaf',
  ),
]


@pytest.mark.parametrize('make, message', BAD, ids=range(len(BAD)))
def test_wrong_use_is_one_clear_error(make, message):
  with pytest.raises(ValueError, match=message):
    make()


def test_a_cut_off_is_no_sparsity():
  """`above` reads the schedule as a cut-off, which a structure does not bound."""
  w = {'w': jax.random.normal(jax.random.key(0), (8, 8))}
  how = {'allocation': prunejax.above(1.5, relative=True), 'structure': prunejax.n_m(2, 4)}
  link = prunejax.prune_transform(prunejax.magnitude(), prunejax.cubic(0.9, end=5), **how)
  link.init(w)
  rows = prunejax.who_pays(w, prunejax.magnitude(), 1.5, **how)
  assert rows[-1].leaf == 'total' and 0 <= rows[-1].got <= 0.5
