"""Penalties and low rank from a config: their place in the chain, numbers as data, off."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny_runs

from configs import base
from prunejax.pruning.links import low_rank
from prunejax.sweep import grid
from prunejax.train import configs, optimizer, program, recipe

OFF = {'prune.weights.schedule': ''}
RPP = {'prox.penalty': 'reweighted(0.5, every=2, eps=0.1, end=4)', 'prox.where': '.*kernel', **OFF}
LOW = {'low_rank.schedule': 'one_shot(0.5, at=2)', 'low_rank.where': '.*kernel', **OFF}


def config(changes):
  return configs.override(tiny_runs.config(pruned=False), changes)


def chain(changes):
  return optimizer.make(recipe.resolve(config(changes)))


def params():
  rng = np.random.default_rng(0)
  return {
    'a': {'kernel': jnp.asarray(0.1 * rng.normal(size=(8, 6)), jnp.float32), 'bias': jnp.ones(6)}
  }


def trained(tx, steps=5):
  # One compile a chain: the numbers of a config are in the state.
  step = jax.jit(tx.update)
  weights, state = params(), tx.init(params())
  for t in range(steps):
    grad = jax.tree.map(lambda w, at=t: jnp.cos(17 * w + at), weights)
    updates, state = step(grad, state, weights, grad=grad)
    weights = optax.apply_updates(weights, updates)
  return weights, state


def zeros(weights):
  return int(jnp.sum(weights['a']['kernel'] == 0))


def test_a_penalty_after_the_step_makes_zeros_in_its_leaves_and_one_in_the_loss_none():
  plain, _ = trained(chain(OFF))
  near, _ = trained(chain(RPP), 4)
  lasso, _ = trained(chain({**RPP, 'prox.penalty': 'l1_penalty(0.5)'}))
  assert zeros(plain) == zeros(lasso) == 0 < zeros(near)
  assert not np.array_equal(lasso['a']['kernel'], plain['a']['kernel'])
  assert (near['a']['bias'] != 0).all()
  weak, _ = trained(chain({**RPP, 'prox.penalty': 'reweighted(0.0, every=2, eps=0.1, end=4)'}))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-7), weak, plain)


def test_low_rank_is_the_last_link():
  weights, state = trained(chain(LOW))
  assert low_rank.ranks(state) == {'a/kernel': 1}
  assert np.linalg.matrix_rank(np.float64(weights['a']['kernel']), tol=1e-4) == 1


def test_numbers_share_a_program_and_parts_do_not():
  key = lambda changes: program.program_key(recipe.resolve(config(changes)))
  other = {**RPP, 'prox.penalty': 'reweighted(0.25, every=2, eps=0.1, end=4)'}
  assert key(RPP) == key(other) == key({**RPP, 'optimizer.learning_rate': 3e-4})
  assert grid.key(grid.Cell({}, config(RPP))) != grid.key(grid.Cell({}, config(other)))
  assert key(LOW) == key({**LOW, 'low_rank.schedule': 'one_shot(0.75, at=2)'})
  unlike = [
    OFF,
    RPP,
    LOW,
    {**RPP, 'prox.where': '.*'},
    {**RPP, 'prox.penalty': 'soft_threshold(0.5, end=4)'},
    {**LOW, 'low_rank.when': 'every(5)'},
  ]
  assert len({key(changes) for changes in unlike}) == len(unlike)


def test_groups_that_do_nothing_leave_every_cell_the_hash_it_had():
  """The committed ledger was written before there were such groups."""
  rows = (
    (pathlib.Path(__file__).parents[2] / 'experiments/gordon2020/results.jsonl')
    .read_text()
    .splitlines()
  )
  for row in map(json.loads, rows[:3]):
    same = base.get_config()
    same.data.pairs = 'first'  # what held before there was the key
    written = {k: tuple(v) if isinstance(v, list) else v for k, v in row['config'].items()}
    configs.override(same, written)
    assert grid.key(grid.Cell({}, same)) == row['cell']
  off = config({'prox.where': 'x', 'low_rank.when': 'every(3)', 'distill.weight': 0.1})
  assert configs.identity(off) == configs.identity(config({}))
  assert not {'prox', 'low_rank', 'distill'} & configs.identity(off).keys()


@pytest.mark.parametrize(
  ('changes', 'words'),
  [
    ({'prox.penalty': 'reweigted(1.0)'}, "prox.penalty='reweigted.*did you mean 'reweighted'"),
    ({'prox.penalty': 'reweighted(-1.0)'}, 'prox.penalty.*strength=-1.0 must be'),
    ({'prox.penalty': 'reweighted("much")'}, "prox.penalty.*strength='much' must be a number"),
    ({'prox.penalty': 'soft_threshold(1.0, 0.1)'}, 'rate comes from optimizer.learning_rate'),
    ({'prox.penalty': 'shrink(1.0, 2.0)'}, 'expected soft_threshold'),
    (
      {'prox.penalty': 'l1_penalty(1.0)', 'prox.where': '('},
      "prox.where='\\(' is not a regular expression",
    ),
    ({'low_rank.schedule': 'cubic(1.5, end=3)'}, 'low_rank.schedule.*sparsity=1.5 is outside'),
    ({**LOW, 'prune.weights.schedule': 'one_shot(0.5)'}, 'cannot be held at a rank and at zeros'),
  ],
)
def test_wrong_values_name_their_key(changes, words):
  with pytest.raises(ValueError, match=words):
    recipe.resolve(config(changes))
