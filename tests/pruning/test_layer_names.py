"""Stacked leaves whose layers have names are pruned as the leaves of the unrolled model."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import prunejax
from prunejax.pruning import layer_names, paths

LAYERS = 3
NAMES = {r'(.*)/layers/(.*)': r'\1/layer_{}/\2'}
WHERE = r'words/embedding|encoder/layer_\d+/.*/kernel'
SHAPES = {
  'attention/query/kernel': (4, 8),
  'attention/key/kernel': (4, 8),
  'attention/value/kernel': (4, 8),
  'attention/output/kernel': (8, 4),
  'ffn/intermediate/kernel': (4, 6),
  'ffn/output/kernel': (6, 4),
}


def tree(leaves):
  out = {}
  for path, leaf in leaves.items():
    *levels, last = path.split('/')
    node = out
    for level in levels:
      node = node.setdefault(level, {})
    node[last] = leaf
  return out


def unrolled(seed, ties=False):
  rng = np.random.default_rng(seed)
  draw = lambda shape: np.float32(rng.integers(-3, 4, shape) if ties else rng.normal(size=shape))
  leaves = {'words/embedding': draw((9, 4)), 'encoder/bias': draw((4,))}
  for i in range(LAYERS):
    leaves |= {f'encoder/layer_{i}/{name}': draw(shape) for name, shape in SHAPES.items()}
  return tree({name: jnp.asarray(leaf) for name, leaf in leaves.items()})


def stacked(params):
  layers = [params['encoder'][f'layer_{i}'] for i in range(LAYERS)]
  together = jax.tree.map(lambda *leaves: jnp.stack(leaves), *layers)
  return {**params, 'encoder': {'bias': params['encoder']['bias'], 'layers': together}}


def value(params):
  """A function with a curvature of its own at every weight."""
  leaves = jax.tree.leaves(params)
  return sum(jnp.sum(jnp.cos(leaf + i) * (1 + i)) for i, leaf in enumerate(leaves))


CASES = {
  'uniform': dict(),
  'global': dict(allocation=prunejax.global_threshold()),
  'class_uniform': dict(
    allocation=prunejax.class_uniform((r'words/.*', r'encoder/layer_\d+/ffn/.*', '.*'))
  ),
  'by_class': dict(
    allocation=prunejax.by_class({r'.*/layer_[1-3]/.*': 0.25, r'.*/layer_\d+/.*': 0.5, '.*': 0.75})
  ),
  'erk': dict(allocation=prunejax.erk()),
  'per_output': dict(allocation=prunejax.per_output()),
  'random': dict(criterion=prunejax.random(3)),
  'deviations': dict(criterion=prunejax.deviations(), allocation=prunejax.global_threshold()),
  'movement': dict(criterion=prunejax.movement(), zero_pruned=False),
  'platon': dict(criterion=prunejax.platon(), allocation=prunejax.global_threshold()),
  'obd': dict(criterion=prunejax.obd('hutchinson', probes=4)),
  'set': dict(criterion=prunejax.sparse_evolution(0.5), schedule=prunejax.constant(0.5)),
  'n_m': dict(structure=prunejax.n_m(2, 4), schedule=prunejax.constant(0.5), where=r'.*/kernel'),
  'rows': dict(structure=prunejax.rows(), where=r'.*/kernel'),
  'heads': dict(
    structure=prunejax.heads(4),
    allocation=prunejax.global_threshold(),
    where=r'encoder/layer_\d+/attention/.*/kernel',
  ),
  'layout': dict(structure=prunejax.rows(), layout={r'.*layer_\d+/.*': 'out in', '.*': 'in out'}),
}


def link(criterion=None, schedule=None, where=WHERE, **kwargs):
  criterion = prunejax.magnitude() if criterion is None else criterion
  schedule = prunejax.cubic(0.5, end=2) if schedule is None else schedule
  return prunejax.prune_transform(criterion, schedule, where=where, **kwargs)


SLOW = ('class_uniform', 'per_output', 'deviations', 'movement', 'platon', 'rows', 'layout')


@pytest.mark.parametrize(
  'name, ties',
  [
    *((name, False) for name in CASES if name not in SLOW),
    *(pytest.param(name, False, marks=pytest.mark.slow) for name in SLOW),
    *(pytest.param(name, True, marks=pytest.mark.slow) for name in CASES),
    ('global', True),
  ],
)
def test_masks_are_those_of_the_unrolled_model(name, ties):
  params, grads = unrolled(0, ties), unrolled(1, ties)
  plain, layered = link(**CASES[name]), link(**CASES[name], stacked=NAMES)

  def masks(tx, now, grad):
    def step(now, state):
      value_of = lambda p: value(p if 'layers' not in p['encoder'] else unstacked(p))
      updates, state = tx.update(grad, state, now, grad=grad, value_fn=value_of)
      return jax.tree.map(jnp.add, now, updates), state

    step, state = jax.jit(step), tx.init(now)
    for _ in range(3):
      now, state = step(now, state)
    return prunejax.get_masks(state, now)

  one, other = masks(plain, params, grads), masks(layered, stacked(params), stacked(grads))
  assert 0.1 < prunejax.masks.sparsity(one, '.*kernel')['total'] < 0.9
  jax.tree.map(np.testing.assert_array_equal, stacked(one), other)


def unstacked(params):
  layers = params['encoder']['layers']
  encoder = {f'layer_{i}': jax.tree.map(lambda x, i=i: x[i], layers) for i in range(LAYERS)}
  return {**params, 'encoder': {'bias': params['encoder']['bias'], **encoder}}


@pytest.mark.parametrize('name', ['by_class', 'random', 'heads'])
def test_who_pays_has_a_row_for_each_layer(name):
  case = {'criterion': prunejax.magnitude(), 'where': WHERE} | CASES[name]
  params = unrolled(0)
  rows = prunejax.who_pays(params, sparsity=0.5, **case)
  assert rows == prunejax.who_pays(stacked(params), sparsity=0.5, stacked=NAMES, **case)


def test_where_takes_all_stacked_layers_or_none():
  with pytest.raises(ValueError, match=r"chooses 'encoder/layer_1/.*' and not 'encoder/layer_0/"):
    link(where=r'.*/layer_1/.*', stacked=NAMES).init(stacked(unrolled(0)))
  with pytest.raises(ValueError, match='matches no floating-point leaf'):
    link(where=r'.*/layers/.*', stacked=NAMES).init(stacked(unrolled(0)))
  with pytest.raises(ValueError, match='expected the name of a layer with {}'):
    link(stacked={'.*': 'layer'})
  link(where='words/.*', stacked=NAMES).init(stacked(unrolled(0)))  # stacks nothing


def test_a_fault_names_the_stacked_leaf():
  params = stacked(unrolled(0))
  kernel = params['encoder']['layers']['ffn']['output']['kernel']
  params['encoder']['layers']['ffn']['output']['kernel'] = kernel.at[3, 0, 0].set(jnp.nan)
  tx = link(stacked=NAMES)
  _, state = tx.update(jax.tree.map(jnp.zeros_like, params), tx.init(params), params)
  assert list(prunejax.faults(state)) == ['encoder/layers/ffn/output/kernel']


def test_layers_are_in_the_order_of_the_unrolled_tree():
  names = tuple(f'encoder/layer_{i}/kernel' for i in range(11))
  split = layer_names.split(
    {'encoder/layers/kernel': np.arange(11)}, {'encoder/layers/kernel': names}
  )
  plain = tree({name: i for i, name in enumerate(names)})
  assert list(split) == list(paths.named_leaves(plain)) != list(names)
  assert {name: int(leaf) for name, leaf in split.items()} == paths.named_leaves(plain)
