"""Whole methods: what each paper says it does, on small problems, and every config of the table."""

import cases_dynamic
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny_runs
from toy import grads_of, make_params

import prunejax
from configs import base, methods
from prunejax.pruning import allocations, criteria, schedules, scores_to_masks, sensitivity
from prunejax.pruning.links.rewind import rewind
from prunejax.pruning.paths import named_leaves
from prunejax.sweep import grid
from prunejax.train import configs, optimizer, recipe

TABLE = methods.methods(steps=40)


def made(name, **changes):
  return configs.override(base.get_config(), {'steps': 40, **TABLE[name], **changes})


@pytest.mark.parametrize('name', TABLE)
def test_every_method_is_a_config_that_can_be_made(name):
  config = configs.override(methods.get_config(name), {})
  recipe.resolve(config)
  recipe.resolve(made(name))


@pytest.mark.parametrize('arg', ['', ':dense', ':rigl,steps=60', ':low_rank,sparsity=0.9'])
def test_a_sweep_has_a_cell_for_each_method_whatever_the_argument_says(arg):
  config, module = configs.load(f'configs/methods.py{arg}', tiny_runs.ROOT)
  cells = grid.sweep_cells(config, list(module.sweep()), '', name='methods')
  content = {'data.identity': cells[0].config.data.identity}
  own = [configs.override(methods.get_config(name), content) for name in methods.methods()]
  assert [grid.key(cell) for cell in cells] == [grid.key(grid.Cell({}, one)) for one in own]
  assert len(cells) == 29


def test_a_method_for_other_steps_and_another_sparsity_follows_them():
  config = methods.get_config('rigl,steps=60,sparsity=0.9')
  assert config.steps == 60 and config.prune.weights.schedule == 'constant(0.9)'
  assert config.prune.weights.when == 'every(1, until=45)'
  for arg, words in (
    ('rigl,step=60', 'steps=NUMBER'),
    ('rigl,steps=some', "'steps=some'"),
    ('rigl,sparsity=1.5', r'outside \[0, 1\)'),
    ('riggl', "did you mean 'rigl'"),
    ('rigl,steps=9', 'at least 40'),
  ):
    with pytest.raises(ValueError, match=words):
      methods.get_config(arg)


@pytest.mark.slow
@pytest.mark.parametrize('name', ['rigl', 'lottery', 'wanda', 'rpp'])
def test_a_method_runs_in_the_train_loop(name, tmp_path):
  changes = {
    **TABLE[name],
    'steps': 40,
    'checkpoint.every': 0,
    'log.every': 20,
    'keep_model': False,
  }
  changes['prune.weights.where'] = (
    r'encoder/layer_0/ffn/.*/kernel'  # two leaves: what costs is compiling
  )
  config = configs.override(tiny_runs.config(False), changes)
  result = tiny_runs.train(config, tmp_path / 'run', say=lambda line: None)
  assert np.isfinite(result['metrics']['loss'])
  asked = (
    13 / 16 if name == 'wanda' else 0.8
  )  # whole weights of each output: 3 of 16 inputs, 6 of 32
  assert result['sparsity'] == pytest.approx(asked, abs=1e-3)


def test_new_keys_at_their_defaults_change_no_cell():
  """The hash of a config as it was before there were such keys."""
  keys = ('l1', 'l2', 'fresh_moments', 'rewind', 'rewind_to')
  plain = base.get_config()
  counted, kept = configs.counted(plain), configs.identity(plain)['optimizer']
  assert not any(f'optimizer.{key}' in counted or key in kept for key in keys)
  cell = lambda **changes: grid.Cell(config=configs.override(base.get_config(), changes), labels={})
  hashes = {
    grid.key(cell(**{f'optimizer.{k}': v}))
    for k, v in (('l1', 0.0), ('l1', 1e-5), ('rewind', 'every(9)'))
  }
  assert len(hashes) == 3 and grid.key(cell()) in hashes


BAD = [
  ({'view': 'apply'}, 'rigl', 'needs the gradient of pruned weights'),
  ({'optimizer.l1': -1.0}, 'l1', 'optimizer.l1=-1.0'),
  ({'optimizer.rewind': 'every(0)'}, 'lottery', r"optimizer.rewind='every\(0\)'"),
  ({'optimizer.rewind': 'every(100, begin=90)'}, 'lottery', 'due at no step'),
  ({'optimizer.rewind': 'every(38, begin=38)'}, 'lottery', 'leaves none to train'),
  ({'prune.weights.when': 'every(1)'}, 'lottery', 'masks may not move at step 9'),
  ({'optimizer.fresh_moments': True}, 'dense', 'no group of prune has a schedule'),
  ({'prune.weights.structure': 'rows()'}, 'rigl', 'needs structure=unstructured'),
]


@pytest.mark.parametrize('changes, name, message', BAD, ids=[message for *_, message in BAD])
def test_what_cannot_be_is_refused_by_key(changes, name, message):
  with pytest.raises(ValueError, match=message):
    optimizer.make(recipe.resolve(made(name, **changes))).init(
      {'encoder': {'layer_0': {'ffn': {'kernel': jnp.ones((4, 4))}}}}
    )


def test_rigl_drops_the_smallest_and_grows_where_the_gradient_is_largest():
  rng = np.random.default_rng(0)
  criterion = criteria.rigl(0.4, first='magnitude')
  link = prunejax.prune_transform(
    criterion, prunejax.constant(0.5), prunejax.every(2), where='.*kernel'
  )
  tx = prunejax.with_fresh_moments(optax.adam(0.1), link)
  params = make_params()
  state, step = tx.init(params), jax.jit(lambda g, s, p: tx.update(g, s, p, grad=g))
  for t in range(5):
    grad = jax.tree.map(lambda p: jnp.asarray(rng.normal(size=p.shape), p.dtype), params)
    before = named_leaves(prunejax.get_masks(state, params))
    old = named_leaves(params)
    updates, state = step(grad, state, params)
    params = optax.apply_updates(params, updates)
    masks = named_leaves(prunejax.get_masks(state, params))
    for name in ('enc/kernel', 'head/kernel'):
      mask = np.asarray(masks[name])
      assert mask.sum() == mask.size // 2
      assert not np.any(np.asarray(named_leaves(params)[name])[~mask])
      if t and t % 2 == 0:
        come = np.abs(np.asarray(named_leaves(grad)[name]))
        want, _ = cases_dynamic.regrown_masks(
          np.asarray(old[name]), come, np.asarray(before[name]), 0.4
        )
        np.testing.assert_array_equal(mask, want)
        born = mask & ~np.asarray(before[name])
        assert born.any() and not np.any(np.asarray(named_leaves(params)[name])[born])
        assert not np.any(np.asarray(named_leaves(state[0][0].mu)[name])[born])
      elif t:
        np.testing.assert_array_equal(mask, before[name])


def test_a_view_that_cuts_the_gradient_off_is_told_of():
  params = {'w': jnp.arange(1.0, 9.0)}
  masks = {'w': jnp.arange(8) >= 4}
  criterion = criteria.gradient()
  score = lambda grad: criterion.score((), params, grad={'w': grad}, masks=masks)['w']
  assert np.isnan(score(jnp.where(masks['w'], 1.0, 0.0))).all()
  assert not np.isnan(score(jnp.ones(8))).any() and not np.isnan(score(jnp.zeros(8))).any()


def test_acdc_opens_and_closes_and_ends_sparse():
  phases = schedules.cycle(0.5, steps=2, begin=2, end=6)
  tx = optax.chain(
    optax.sgd(0.1),
    prunejax.prune_transform(
      prunejax.magnitude(),
      phases,
      prunejax.every(2),
      where='.*kernel',
      allocation=prunejax.global_threshold(),
    ),
  )
  params, state, seen = make_params(), None, []
  step = jax.jit(tx.update)
  state = tx.init(params)
  for t in range(9):
    updates, state = step(grads_of(params, t), state, params)
    params = optax.apply_updates(params, updates)
    seen.append(prunejax.masks.sparsity(prunejax.get_masks(state, params), '.*kernel')['total'])
    prunejax.check_pruned(params, state)
  assert seen == [0, 0, 0.5, 0.5, 0, 0, 0.5, 0.5, 0.5]


def test_soft_movement_prunes_what_the_loss_does_not_hold():
  """Half of the inputs carry the target; the penalty, and no schedule, takes the others."""
  rng = np.random.default_rng(0)
  x = rng.normal(size=(256, 8)).astype(np.float32)
  x[:, 4:] *= 0.01
  y = x @ np.float32([3, -2, 2, -3, 0.1, 0.1, -0.1, 0.1])
  criterion = criteria.soft_movement(0.02, learning_rate=0.05)
  link = prunejax.prune_transform(
    criterion,
    prunejax.constant(0.3),
    allocation=allocations.above(1.0, relative=True),
    zero_pruned=False,
  )
  tx = optax.chain(optax.sgd(0.01), link)

  @jax.jit
  def step(carry, _):
    params, state = carry
    seen = lambda p: prunejax.masks.straight_through(p, prunejax.get_masks(state, p))
    grad = jax.grad(lambda p: jnp.mean((x @ seen(p)['w'] - y) ** 2))(params)
    updates, state = tx.update(grad, state, params, grad=grad)
    return (optax.apply_updates(params, updates), state), None

  params = {'w': jnp.ones(8, jnp.float32) * np.float32([1, -1, 1, -1, 1, -1, 1, -1])}
  (params, state), _ = jax.lax.scan(step, (params, tx.init(params)), None, 200)
  assert prunejax.get_masks(state, params)['w'].tolist() == [True] * 4 + [False] * 4


def test_platon_and_snip_and_deviations_mind_their_numbers():
  with pytest.raises(ValueError, match='platon: b1=1.0'):
    criteria.platon(b1=1.0)
  with pytest.raises(ValueError, match='needs grad= in tx.update'):
    prunejax.who_pays({'w': jnp.ones(3)}, criteria.snip(), 0.5)
  with pytest.raises(ValueError, match='soft_movement: penalty=-1'):
    criteria.soft_movement(-1)
  with pytest.raises(ValueError, match='movement: learning_rate'):
    criteria.movement(optax.sgd(1.0), learning_rate=0.1)
  with pytest.raises(ValueError, match='fraction=1.5'):
    criteria.rigl(1.5)
  with pytest.raises(ValueError, match="first='small'"):
    criteria.sparse_evolution(first='small')


def test_han_keeps_what_lies_beyond_quality_times_sigma():
  rng = np.random.default_rng(1)
  weights = {'a/kernel': rng.normal(0.1, 2, (30, 20)), 'b/kernel': rng.normal(0, 0.1, (30, 20))}
  params = {name: jnp.asarray(w, jnp.float32) for name, w in weights.items()}
  scores = criteria.deviations().score((), params)
  masks = scores_to_masks.select_masks(
    scores, 0.5, allocation=allocations.above({r'a/.*': 0.5, r'b/.*': 1.2})
  )
  for name, quality in (('a/kernel', 0.5), ('b/kernel', 1.2)):
    w = weights[name]
    np.testing.assert_array_equal(masks[name], abs(w) > quality * w.std())


def test_the_scan_finds_the_sensitive_layer_and_dropout_follows_the_square_root():
  rng = np.random.default_rng(2)
  params = {
    'first': jnp.asarray(rng.normal(size=(10, 10))),
    'last': jnp.asarray(rng.normal(size=(10, 10))),
  }
  loss = lambda p: float(
    9 * jnp.sum((p['first'] - params['first']) ** 2) + jnp.sum((p['last'] - params['last']) ** 2)
  )
  levels = (0.0, 0.25, 0.5, 1.0)
  table = sensitivity.scan(params, loss, levels)
  for name, factor in (('first', 9), ('last', 1)):
    w = np.asarray(params[name], np.float64)
    want = [factor * (w[abs(w) <= q * w.std()] ** 2).sum() for q in levels]
    np.testing.assert_allclose(table[name], want, rtol=1e-5, atol=1e-12)
  chosen = sensitivity.tolerated(table, levels, 0.0, table['last'][2])
  assert chosen['last'] == 0.5 and chosen['first'] < 0.5
  halves = sensitivity.scan(
    params, lambda p: float(jnp.sum(p['last'] == 0)), (0.3,), by='sparsity', where='last'
  )
  assert halves == {'last': [30.0]}
  assert sensitivity.adjusted_dropout(0.5, 400, 100) == 0.25
  with pytest.raises(ValueError, match='by='):
    sensitivity.scan(params, loss, levels, by='size')
  with pytest.raises(ValueError, match=r'left=11 is not in 0\.\.connections=10'):
    sensitivity.adjusted_dropout(0.5, 10, 11)


def test_tickets_go_back_to_early_weights_bit_for_bit_and_train_as_if_new():
  """After going back, a run is one whose first weights are early * mask, and resumes anywhere."""
  link = prunejax.prune_transform(
    prunejax.magnitude(),
    schedules.iterative(0.75, rounds=2, steps=5, begin=5),
    prunejax.every(5, begin=5),
    where='.*kernel',
  )
  tx = rewind(optax.adam(0.1), link, when=prunejax.every(5, begin=5, until=10), to=2)
  params, state = make_params(), None
  at = {}
  step = jax.jit(tx.update)
  state = tx.init(params)
  for t in range(14):
    updates, state = step(grads_of(params, t), state, params)
    params = optax.apply_updates(params, updates)
    at[t] = params, state
    prunejax.check_pruned(params, state)
  early, inner = at[1][0], at[1][1].rewind_inner  # what it was before step 2
  for back, share in ((5, 0.5), (10, 0.75)):
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(at[back][0]))
    params, state = at[back + 1]
    masks = prunejax.get_masks(state, params)
    assert prunejax.masks.sparsity(masks, '.*kernel')['total'] == pytest.approx(share, abs=0.05)
    for now, was, mask in zip(*map(jax.tree.leaves, (params, early, masks)), strict=True):
      np.testing.assert_array_equal(now, np.where(mask, was, 0))
    for now, was in zip(jax.tree.leaves(state.rewind_inner), jax.tree.leaves(inner), strict=True):
      np.testing.assert_array_equal(now, was)
  assert np.all(np.asarray(at[6][0]['enc']['bias']) == np.asarray(early['enc']['bias']))


def test_the_rate_starts_anew_in_every_round():
  lottery = recipe.resolve(made('lottery', **{'optimizer.warmup': 0.0}))
  assert lottery.optimizer.rounds == (8, 16, 24, 32) and lottery.optimizer.horizon == 6
  rate = [optimizer.learning_rate(lottery, t) for t in (10, 18, 26, 34)]
  assert rate == [lottery.optimizer.learning_rate] * 4


@pytest.mark.parametrize(
  'criterion, allocation',
  [
    (lambda: criteria.rigl(0.4, first='magnitude'), None),
    (criteria.deviations, allocations.above(0.7)),
  ],
  ids=['rigl', 'deviations'],
)
def test_a_stack_of_layers_is_treated_as_its_layers(criterion, allocation):
  rng = np.random.default_rng(4)
  draw = lambda: jnp.asarray(rng.normal(size=(3, 8, 16)) * [[[1.0]], [[2.0]], [[5.0]]], jnp.float32)
  weights, grads = draw(), [draw() for _ in range(4)]
  apart = lambda w: {str(i): layer for i, layer in enumerate(w)}
  ends = {}
  for name, of, stacked in (('stack', lambda w: {'w': w}, 'w'), ('layers', apart, '')):
    link = prunejax.prune_transform(
      criterion(), prunejax.constant(0.5), allocation=allocation, stacked=stacked
    )
    params, state, masks = of(weights), link.init(of(weights)), []
    for grad in grads:
      updates = jax.tree.map(lambda g: -0.3 * g, of(grad))
      updates, state = link.update(updates, state, params, grad=of(grad))
      params = optax.apply_updates(params, updates)
      masks.append(prunejax.get_masks(state, params))
    ends[name] = masks
  kept = [[int(layer.sum()) for layer in masks['w']] for masks in ends['stack']]
  assert ends['stack'][0]['w'].tolist() != ends['stack'][-1]['w'].tolist() or allocation
  for stack, layers in zip(ends['stack'], ends['layers'], strict=True):
    np.testing.assert_array_equal(stack['w'], jnp.stack([layers[str(i)] for i in range(3)]))
  assert all(0.3 * 128 < n < 0.6 * 128 for n in kept[-1]), (
    kept
  )  # by layer, though their weights differ five times
