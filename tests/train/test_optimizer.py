"""Learning-rate shapes, weight decay, gradient accumulation, and what a config may not ask for."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny_runs
import transformers

import prunejax
from configs import base
from prunejax.models import bert
from prunejax.pruning import who_pays
from prunejax.train import configs, forecast, objectives, optimizer, program, recipe
from prunejax.train.step import make_train_step


@pytest.mark.parametrize(
  'steps, warmup', [(1000, 0.1), (400, 0.05), (95_000, 0.0001), (7, 0.0), (5, 1.0)]
)
def test_one_linear_decay(steps, warmup):
  ramp = max(round(steps * warmup), 1) if warmup else 0
  want = [(t + 1) / ramp if t < ramp else (steps - t) / (steps - ramp) for t in range(steps)]
  got = optimizer.rate_shape(steps, warmup)(np.arange(steps))
  np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-7)
  assert max(want) == 1 and min(want) > 0 and float(optimizer.rate_shape(steps, warmup)(steps)) == 0


def test_the_sawtooth_of_the_seed_code():
  """Piece k = 1, 2, ... rebuilds the decay for 5000 k steps: it falls from 1/k of the peak to 0."""
  piece, steps = 5000, 20_000
  got = np.asarray(optimizer.rate_shape(steps, 10 / steps, piece)(np.arange(steps)))
  for k in range(1, 5):
    t = np.arange((k - 1) * piece, k * piece)
    want = 1 - t / (k * piece)
    if k == 1:
      want[:10] = np.arange(1, 11) / 10
    np.testing.assert_allclose(got[t], want, rtol=1e-5, atol=1e-6)
    assert k == 1 or got[(k - 1) * piece] == pytest.approx(1 / k)
    assert got[k * piece - 1] == pytest.approx(1 / (k * piece), rel=1e-2)


def test_the_logged_rate_is_the_one_used():
  config = tiny_runs.config(
    pruned=False, optimizer__learning_rate=0.5, optimizer__weight_decay=0.0, steps=10
  )
  tx = optimizer.make(recipe.resolve(config))
  params = {'kernel': jnp.ones((3, 3))}
  state = tx.init(params)
  for step in range(10):
    updates, state = tx.update({'kernel': jnp.full((3, 3), 0.1)}, state, params)
    # Adam's step for a gradient that never changes is the learning rate.
    np.testing.assert_allclose(
      -updates['kernel'], optimizer.learning_rate(recipe.resolve(config), step), rtol=1e-4
    )


def test_decay_leaves_out_biases_and_layer_norm():
  size = transformers.BertConfig(
    vocab_size=30, hidden_size=8, num_hidden_layers=1, num_attention_heads=2
  )
  model = bert.Bert(size, bert.HEADS)
  blank = jax.ShapeDtypeStruct((1, 8), jnp.int32)
  params = jax.eval_shape(
    lambda k, x: model.init(k, x, x, x == 0)['params'], jax.random.key(0), blank
  )
  decays = optimizer._decays(params)
  named = {
    jax.tree_util.keystr(path, simple=True, separator='/'): d
    for path, d in jax.tree.leaves_with_path(decays)
  }
  for name, decayed in named.items():
    assert decayed == name.endswith(('/kernel', '/embedding')), name
  assert sum(named.values()) == 3 + 6 + 1 + 1 + 1 + 1 + 1 and len(named) > 25


def test_weight_decay_pulls_kernels_and_nothing_else():
  config = tiny_runs.config(pruned=False, optimizer__weight_decay=0.1, optimizer__warmup=0.0)
  tx = optimizer.make(recipe.resolve(config))
  bias = {'bias': jnp.ones(3)}
  params = {'norm': {'scale': jnp.ones(3), **bias}, 'dense': {'kernel': jnp.ones((3, 3)), **bias}}
  updates, _ = tx.update(jax.tree.map(jnp.zeros_like, params), tx.init(params), params)
  np.testing.assert_allclose(
    updates['dense']['kernel'], -0.1 * config.optimizer.learning_rate, rtol=1e-6
  )
  assert not any(np.any(leaf) for leaf in (*updates['norm'].values(), updates['dense']['bias']))


def test_accumulated_micro_batches_are_one_big_batch():
  rng = np.random.default_rng(0)
  batch = {
    'x': rng.normal(size=(12, 5)).astype(np.float32),
    'y': rng.normal(size=12).astype(np.float32),
  }
  params = {
    'a': rng.normal(size=(5, 4)).astype(np.float32),
    'b': rng.normal(size=4).astype(np.float32),
  }

  def loss_fn(p, batch, rng):
    error = jnp.tanh(batch['x'] @ p['a']) @ p['b'] - batch['y']
    return jnp.square(error).mean(), {'bias': error.mean()}

  ends = []
  for accumulate in (1, 3, 12):
    tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(0.1))
    step = jax.jit(make_train_step(loss_fn, tx, accumulate=accumulate))
    key = jax.random.key_data(jax.random.key(1))
    ends.append(
      step(
        {'params': params, 'opt_state': tx.init(params), 'step': jnp.int32(0), 'rng': key}, batch
      )
    )
  one, seen = ends[0]
  for many, summed in ends[1:]:
    assert int(many['step']) == 1 and seen.keys() == summed.keys() == {'loss', 'bias', 'grad_norm'}
    for a, b in zip(
      jax.tree.leaves((one['params'], seen)), jax.tree.leaves((many['params'], summed)), strict=True
    ):
      np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_each_step_and_each_micro_batch_draws_other_numbers():
  loss_fn = lambda p, batch, rng: (p['w'] * jax.random.uniform(rng), {})
  drawn = []
  for seed in (0, 1):
    tx = optax.sgd(1.0)
    step = jax.jit(make_train_step(loss_fn, tx, accumulate=2))
    key = jax.random.key_data(jax.random.key(seed))
    params = {'w': jnp.float32(1)}
    state = {'params': params, 'opt_state': tx.init(params), 'step': jnp.int32(0), 'rng': key}
    for _ in range(3):
      state, metrics = step(state, {'x': np.zeros(2)})
      drawn.append(float(metrics['grad_norm']))
  assert len(set(drawn)) == 6


def test_the_step_gives_the_gradient_to_the_criterion_that_needs_it():
  group = {'where': 'w', 'schedule': 'constant(0.5)', 'when': 'every(1)', 'criterion': 'taylor()'}
  changes = {f'prune.weights.{k}': v for k, v in group.items()}
  config = configs.override(base.get_config(), {**changes, 'optimizer.learning_rate': 0.0})
  params = {'w': jnp.array([1.0, 2.0, 3.0, 4.0])}
  slope = jnp.array([9.0, 1.0, 3.0, 0.5])  # |w g| = 9, 2, 9, 2
  tx = optimizer.make(recipe.resolve(config))
  key = jax.random.key_data(jax.random.key(0))
  state = {'params': params, 'opt_state': tx.init(params), 'step': jnp.int32(0), 'rng': key}
  step = jax.jit(make_train_step(lambda p, batch, rng: (p['w'] @ slope, {}), tx))
  state, _ = step(state, {'x': np.zeros(1)})
  np.testing.assert_array_equal(state['params']['w'], [1, 0, 3, 0])
  (group,) = recipe.resolve(config).prune
  rows = forecast.group_rows(group, params, 5, lambda: {'w': slope})
  assert rows[-1].got == 0.5 and rows[0].cutoff == 9


def test_runs_of_one_program_share_the_program_of_who_pays():
  params, plans = {'w': jnp.arange(1.0, 9.0)}, {}
  for schedule in ('constant(0.5)', 'constant(0.25)', 'cubic(0.75, end=4)'):
    changes = {'prune.weights.where': 'w', 'prune.weights.schedule': schedule}
    (group,) = recipe.resolve(configs.override(base.get_config(), changes)).prune
    rows = forecast.group_rows(group, params, 5, None, plans=plans)
    asked = float(group.schedule()(5))
    assert rows == prunejax.who_pays(params, prunejax.magnitude(), asked)
  (plan,) = plans.values()
  assert plan.masks._cache_size() == 1
  with pytest.raises(ValueError, match='outside'):
    who_pays.payers(plan, params, 1.0)


@pytest.mark.parametrize('group', ['prune.weights', 'low_rank'])
def test_another_layout_is_another_program(group):
  both = {'low_rank.schedule': 'constant(0.5)'} if group == 'low_rank' else {}
  config = lambda layout: configs.override(
    base.get_config(),
    {**both, 'steps': 9, f'{group}.layout': layout}
    | ({} if both else {'prune.weights.schedule': 'constant(0.5)'}),
  )
  key = lambda layout: program.program_key(recipe.resolve(config(layout)))
  assert key('') != key('out in') != key('in out')


def test_flops_are_six_a_weight_a_token():
  size = transformers.BertConfig(
    vocab_size=30, hidden_size=8, num_hidden_layers=2, intermediate_size=16
  )
  params = {
    'encoder': {'layer_0': {'kernel': jnp.zeros((8, 16))}},
    'embeddings': {'word': jnp.zeros((30, 8))},
  }
  assert objectives.flops(size, params, 10, 0) == 6 * (8 * 16 * 10 + 2 * 2 * 100 * 8)
  assert (
    objectives.flops(size, params, 10, 3) - objectives.flops(size, params, 10, 0)
    == 6 * 3 * (30 + 8) * 8
  )


@pytest.mark.parametrize(
  'key, value',
  [
    ('optimizer.learning_rate', -1.0),
    ('optimizer.learning_rate', float('inf')),
    ('optimizer.learning_rate', float('nan')),
    ('optimizer.warmup', 1.5),
    ('optimizer.clip', 0.0),
    ('optimizer.sawtooth', -1),
    ('optimizer.weight_decay', -0.1),
    ('optimizer.b1', 1.0),
    ('optimizer.b2', -0.5),
    ('optimizer.eps', 0.0),
    ('steps', 0),
    ('accumulate', 0),
    ('accumulate', 3),
    ('optimizer.eps', float('inf')),
    ('optimizer.weight_decay', float('inf')),
  ],
)
def test_a_number_that_cannot_be_is_named(key, value):
  with pytest.raises(ValueError, match=f'{key}={value!r}'):
    recipe.resolve(configs.override(base.get_config(), {key: value}))


@pytest.mark.parametrize(
  'change, words',
  [
    ({'schedule': 'cubic(1.0, end=10)'}, 'outside [0, 1)'),
    ({'schedule': 'constant(-0.1)'}, 'outside [0, 1)'),
    ({'schedule': 'constant(90)'}, '90 % is 0.9'),
    ({'schedule': 'cubic(0.9, begin=20, end=10)'}, 'begin=20 is after end=10'),
    ({'schedule': 'cubic(0.9)'}, 'end= is missing'),
    ({'schedule': 'constant(0.5)', 'when': 'every(0)'}, 'every: n=0'),
    ({'schedule': 'constant(0.5)', 'where': '('}, 'is not a regular expression'),
    ({'schedule': 'constant(0.5)', 'structure': 'n_m(4, 2)'}, 'n_m'),
    ({'schedule': 'constant(0.5)', 'structure': 'block(0, 4)'}, 'block'),
  ],
)
def test_a_recipe_that_cannot_be_is_named_by_its_key(change, words):
  config = configs.override(base.get_config(), {f'prune.weights.{k}': v for k, v in change.items()})
  with pytest.raises(ValueError) as error:
    recipe.resolve(config)
  key = list(change)[-1]
  assert f'prune.weights.{key}={change[key]!r}' in str(error.value) and words in str(error.value)


@pytest.mark.parametrize(
  'key, value, words',
  [
    ('mesh.model', 0, 'at least 1'),
    ('model.num_attention_heads', 0, 'at least 1'),
    ('model.hidden_size', 0, 'at least 1'),
    ('data.vocab_size', -1, 'at least 1'),
    ('model.intermediate_size', -3, 'at least 1'),
    ('seed', 2**70, '2**63'),
    ('mesh.rules', (('(', ()),), 'expected (regex, axes)'),
    ('mesh.rules', ('x',), 'expected (regex, axes)'),
  ],
)
def test_what_no_run_can_have_is_named_before_it_begins(key, value, words):
  config = configs.override(base.get_config(), {key: value})
  with pytest.raises(ValueError) as error:
    recipe.resolve(config)
  assert str(error.value).startswith(key) and words in str(error.value)


def test_zeros_are_held_in_every_group_also_in_one_that_prunes_nothing():
  config = base.get_config()
  config.hold_zeros = True
  config.prune.weights = base.prune_group(where='a', schedule='constant(0.5)')
  with config.unlocked():
    config.prune.other = base.prune_group(where='b')
  tx = optimizer.make(recipe.resolve(config))
  params = {name: jnp.array([0.0, 2.0, 3.0, 4.0]) for name in 'abc'}
  state, grads = tx.init(params), {name: jnp.ones(4) for name in 'abc'}
  for _ in range(3):
    updates, state = tx.update(grads, state, params)
    params = optax.apply_updates(params, updates)
  assert params['a'][0] == params['b'][0] == 0 != params['c'][0]
