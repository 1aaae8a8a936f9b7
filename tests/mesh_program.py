"""What `test_mesh.py` runs in one process on eight simulated devices: a JSON line for each check.

With the argument `all`, every allocation runs with every structure on every mesh, which takes
minutes.
"""

import json
import math
import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import prunejax
from prunejax.pruning import scores_to_masks, selection
from prunejax.train import sharding

MESHES = [(shape, kind) for shape in ((8, 1), (4, 2), (2, 4)) for kind in ('Auto', 'Explicit')]
# All three float types, a leading layer axis, two leaves of one shape with different shardings.
SHAPES = {
  'q': ((64, 128), 'float32'),
  'o': ((64, 128), 'float32'),
  'up': ((64, 256), 'bfloat16'),
  'stack': ((8, 32, 64), 'float16'),
}
LIES = [
  {
    'q': (None, 'model'),
    'o': ('model', None),
    'up': ('data', 'model'),
    'stack': ('data', None, None),
  },
  {'q': ('data', None), 'o': (None, 'data'), 'up': (), 'stack': (None, 'data', 'model')},
  {'q': ('model', 'data'), 'o': (), 'up': (('data', 'model'), None), 'stack': (None, None, 'data')},
]
# The smallest shard has 1024 weights, and a quarter as many groups of n:m: no weight, score, mask
# or n:m unit can move in an array of at most this many elements, while thresholds, counts and the
# scores of large units can.
LARGEST = 200
MOVES = (
  r'= (.*?) ((?:ragged-)?all-to-all|all-gather|collective-permute|collective-broadcast|sort)'
  r'(?:-start)?\('
)
ALLOCATIONS = {
  'uniform': prunejax.uniform(),
  'by_class': prunejax.by_class({'q|o': 0.25, '.*': 0.4}),
  'global_threshold': prunejax.global_threshold(),
  'class_distribution': prunejax.class_distribution(),
  'erk': prunejax.erk(),
}
STRUCTURES = {
  'unstructured': prunejax.unstructured(),
  'n_m': prunejax.n_m(2, 4),
  'block': prunejax.block(8, 8),
  'rows': prunejax.rows(),
  'columns': prunejax.columns(4),
  # Eight units in q and o, like attention heads, and eight in each layer of a stack.
  'tied': prunejax.tied(
    {'q': ('heads', -1, 16), 'o': ('heads', -2, 8), 'up|stack': (r'\g<0>', -1, 8)}
  ),
}
# For each mesh: every allocation with single weights as units, and every structure with another
# allocation.
PAIRS = [
  [('uniform', 'unstructured'), ('global_threshold', 'n_m')],
  [('global_threshold', 'unstructured'), ('erk', 'rows')],
  [('by_class', 'unstructured'), ('uniform', 'columns')],
  [('class_distribution', 'unstructured'), ('global_threshold', 'tied')],
  [('erk', 'unstructured')],
  [('class_distribution', 'block')],
]


def told(check, **values):
  print(json.dumps({'check': check, **values}), flush=True)


def moved(compiled, largest=LARGEST):
  """Collectives and sorts of a program with more than `largest` output elements."""
  found = []
  for result, name in re.findall(MOVES, compiled.as_text()):
    sizes = [
      math.prod(int(n) for n in dims.split(',') if n)
      for dims in re.findall(r'\[([\d,]*)\]', result)
    ]
    found += [f'{name} {result.split("{")[0]}'] if max(sizes) > largest else []
  return found


def on_mesh(number, layout):
  """(mesh, {leaf: sharding}) of MESHES[number] and LIES[layout]."""
  shape, kind = MESHES[number]
  mesh = jax.make_mesh(shape, ('data', 'model'), axis_types=(AxisType[kind],) * 2)
  return mesh, {name: NamedSharding(mesh, PartitionSpec(*LIES[layout][name])) for name in SHAPES}


def draw(seed, coarse=False):
  """Leaves of every type; `coarse` leaves have many ties."""
  rng = np.random.default_rng(seed)
  values = lambda shape: rng.integers(-300, 300, shape) / 8 if coarse else rng.normal(size=shape)
  return {
    name: jnp.asarray(values(shape), jnp.float32).astype(dtype)
    for name, (shape, dtype) in SHAPES.items()
  }


def differing(a, b):
  """Paths of leaves that differ in any bit."""
  named = lambda tree: {
    jax.tree_util.keystr(path): np.asarray(x) for path, x in jax.tree.leaves_with_path(tree)
  }
  a, b = named(a), named(b)
  assert a.keys() == b.keys()
  return [name for name in a if a[name].tobytes() != b[name].tobytes()]


def straying(tree, lies):
  """Paths of arrays in {..: {leaf: array}} whose sharding differs from the leaf."""
  return [
    f'{of} {name}'
    for of, leaves in tree.items()
    for name, leaf in leaves.items()
    if not leaf.sharding.is_equivalent_to(lies[name], leaf.ndim)
  ]


def selector(pairs, lies=None):
  """A jitted function of (scores, sparsity): masks by pair. `lies` is the requested sharding."""

  def select(scores, asked):
    recipes = {
      f'{a} {s}': {'allocation': ALLOCATIONS[a], 'structure': STRUCTURES[s]} for a, s in pairs
    }
    return {
      name: prunejax.select_masks(scores, asked, layout={'stack': 'each in out'}, **recipe)
      for name, recipe in recipes.items()
    }

  # On Auto axes the compiler chooses the sharding of a result, unless the caller gives one.
  return jax.jit(select, out_shardings=lies and {f'{a} {s}': lies for a, s in pairs})


def selected(everything):
  scores, asked = jax.tree.map(jnp.abs, draw(0, coarse=True)), jnp.float32(0.3)
  pairs = [[(a, s) for a in ALLOCATIONS for s in STRUCTURES]] * len(MESHES) if everything else PAIRS
  alone = selector(sorted(set(sum(pairs, []))))(scores, asked)
  for number, (shape, kind) in enumerate(MESHES):
    mesh, lies = on_mesh(number, number % len(LIES))
    spread = jax.device_put(scores, lies)
    compiled = (
      selector(pairs[number], lies if kind == 'Auto' else None).lower(spread, asked).compile()
    )
    masks = compiled(spread, asked)
    told(
      'selection',
      mesh=[*shape, kind],
      pairs=list(masks),
      moved=moved(compiled),
      stray=straying(masks, lies),
      differ=differing(masks, {pair: alone[pair] for pair in masks}),
    )


def training():
  """Three steps of several optimizers and criteria with `prune_transform` last."""
  link = lambda criterion, **kwargs: prunejax.prune_transform(
    criterion, prunejax.cubic(0.5, end=2), **kwargs
  )
  everywhere = {'allocation': prunejax.global_threshold()}
  chains = {
    'adamw taylor': optax.chain(optax.adamw(0.1, eps=1e-3), link(prunejax.taylor(), **everywhere)),
    'lion random': optax.chain(optax.lion(0.1), link(prunejax.random(1))),
    'adafactor movement': optax.chain(
      optax.adafactor(0.1, min_dim_size_to_factor=8), link(prunejax.movement())
    ),
  }

  def step(state, grad):
    params, states = {}, {}
    for name, tx in chains.items():
      updates, states[name] = tx.update(
        grad, state['states'][name], state['params'][name], grad=grad
      )
      params[name] = optax.apply_updates(state['params'][name], updates)
    return {'params': params, 'states': states}

  def run(state, grads, program):
    for grad in grads:
      state = program(state, grad)
    params, states = state['params'], state['states']
    for name in chains:
      prunejax.check_pruned(params[name], states[name])
    masks = {name: prunejax.get_masks(states[name], params[name]) for name in chains}
    # Adafactor takes means over rows and columns, up to 512 numbers, which cross devices and are
    # added in another order.
    return {
      f'{of} {name}': tree[name]
      for of, tree in (('params', params), ('masks', masks))
      for name in chains
    }

  params, grads = draw(1), [draw(2), draw(3), draw(4)]
  state = {
    'params': dict.fromkeys(chains, params),
    'states': {name: tx.init(params) for name, tx in chains.items()},
  }
  alone = run(state, grads, jax.jit(step))
  exact = lambda ends: {name: end for name, end in ends.items() if 'adafactor' not in name}
  # Every leaf is divided. The compiler might compute a replicated leaf in parts and gather it.
  for number in (2, 5):
    mesh, lies = on_mesh(number, 0)
    with jax.set_mesh(mesh):
      places = sharding.shard(
        state, mesh, tuple((name, tuple(lie.spec)) for name, lie in lies.items())
      )
      spread, parts = jax.device_put(state, places), [jax.device_put(grad, lies) for grad in grads]
      program = jax.jit(step, out_shardings=places).lower(spread, parts[0]).compile()
      over = run(spread, parts, program)
    told(
      'training',
      mesh=[*MESHES[number][0], MESHES[number][1]],
      moved=moved(program, 512),
      stray=straying(over, lies),
      differ=differing(exact(over), exact(alone)),
      weights=sum(leaf.size for leaf in params.values()),
      removed=[prunejax.masks.sparsity(over[f'masks {name}'])['removed'] for name in chains],
    )


def scored():
  """Criteria that read the old masks, all leaves at once or random draws: two mask steps."""
  whole, cut = {'allocation': prunejax.global_threshold()}, {'allocation': prunejax.above(0.4)}
  recipes = {
    'rigl': (prunejax.rigl(0.3, first='magnitude'), {'allocation': prunejax.erk()}),
    'set': (prunejax.sparse_evolution(0.3), {}),
    'snip': (prunejax.snip(), whole),
    'platon': (prunejax.platon(), whole),
    'deviations': (prunejax.deviations(), cut),
    'soft_movement': (prunejax.soft_movement(1e-3), {'allocation': prunejax.above(0.5)}),
  }
  chains = {
    name: prunejax.prune_transform(
      criterion, prunejax.constant(0.5), zero_pruned=name != 'soft_movement', stacked='stack', **how
    )
    for name, (criterion, how) in recipes.items()
  }

  def step(states, params, grad):
    out = {}
    for name, tx in chains.items():
      updates = jax.tree.map(lambda g: -0.1 * g, grad)
      updates, states[name] = tx.update(updates, states[name], params, grad=grad)
      out[name] = prunejax.get_masks(states[name], params)
    return states, out

  def run(states, params, grads, program):
    for grad in grads:
      states, masks = program(states, params, grad)
    return masks

  params, grads = draw(7), [draw(8), draw(9)]
  states = {name: tx.init(params) for name, tx in chains.items()}
  alone = run(states, params, grads, jax.jit(step))
  mesh, lies = on_mesh(2, 0)
  with jax.set_mesh(mesh):
    places = sharding.shard(
      states, mesh, tuple((name, tuple(lie.spec)) for name, lie in lies.items())
    )
    spread, parts = (
      jax.device_put((states, params), (places, lies)),
      [jax.device_put(grad, lies) for grad in grads],
    )
    kept = {name: lies for name in chains}
    program = jax.jit(step, out_shardings=(places, kept)).lower(*spread, parts[0]).compile()
    over = run(*spread, parts, program)
  told(
    'scored',
    mesh=[*MESHES[2][0], MESHES[2][1]],
    moved=moved(program),
    stray=straying(over, lies),
    differ=differing(over, alone),
    removed={name: prunejax.masks.sparsity(m)['total'] for name, m in over.items()},
  )


def streamed():
  """Selection with old masks and tied zeros: counts cross devices, scores never do."""
  shapes = {'q': (256, 512), 'o': (256, 512), 'up': (512, 256)}
  rng = np.random.default_rng(5)
  draw_one = lambda shape: jnp.asarray(
    rng.integers(0, 30, shape) * (rng.random(shape) > 0.5), jnp.float32
  )
  scores, asked = {name: draw_one(shape) for name, shape in shapes.items()}, jnp.float32(0.3)

  def select(scores, asked, old):
    chosen = lambda allocation: (
      scores_to_masks.select(selection.plain(scores), asked, allocation, old=old).masks
    )
    return {'uniform': chosen(prunejax.uniform()), 'global': chosen(prunejax.global_threshold())}

  old = jax.tree.map(lambda score: score > 4, scores)
  alone = jax.jit(select)(scores, asked, old)
  for number in (1, 4):
    mesh = jax.make_mesh(
      MESHES[number][0], ('data', 'model'), axis_types=(AxisType[MESHES[number][1]],) * 2
    )
    axes = {'q': ('data', None), 'o': (None, 'model'), 'up': ('model', 'data')}
    lies = {name: NamedSharding(mesh, PartitionSpec(*axes[name])) for name in shapes}
    spread, masked = jax.device_put((scores, old), (lies, lies))
    kept = {'uniform': lies, 'global': lies}
    program = jax.jit(
      lambda *args: select(*args), out_shardings=kept if MESHES[number][1] == 'Auto' else None
    )
    compiled = program.lower(spread, asked, masked).compile()
    masks = compiled(spread, asked, masked)
    told(
      'streamed',
      mesh=[*MESHES[number][0], MESHES[number][1]],
      stray=straying(masks, lies),
      moved=moved(compiled, 512 * mesh.size),
      differ=differing(masks, alone),
    )


def surgery():
  """The Fisher matrix in blocks along the input axis gathers neither a weight nor a gradient.

  The mesh divides either axis of a kernel, or both.
  """
  lies = {'first': ('model', None), 'last': (None, 'model'), 'both': ('data', 'model')}
  rng = np.random.default_rng(6)
  draw_one = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)
  params = {name: draw_one(64, 32) for name in lies}
  rows = draw_one(6, 64)
  link = prunejax.prune_transform(prunejax.block_fisher(8, damp=0.1), prunejax.constant(0.5))
  loss = lambda params, i: sum(jnp.sum(jnp.tanh(rows[i] @ w)) for w in params.values())

  def prune(params, state):
    updates, state = link.update(
      jax.tree.map(jnp.zeros_like, params), state, params, examples=(len(rows), loss)
    )
    return optax.apply_updates(params, updates), prunejax.get_masks(state, params)

  alone, masks = jax.jit(prune)(params, link.init(params))
  mesh = jax.make_mesh((2, 4), ('data', 'model'), axis_types=(AxisType.Auto,) * 2)
  places = {name: NamedSharding(mesh, PartitionSpec(*axes)) for name, axes in lies.items()}
  spread = jax.device_put(params, places)
  state = link.init(spread)
  state = state._replace(prune_mask=jax.device_put(state.prune_mask, places))
  compiled = jax.jit(prune, out_shardings=(places, places)).lower(spread, state).compile()
  over, masked = compiled(spread, state)
  # Sums over rows are added in another order.
  off = {
    name: float(jnp.max(jnp.abs(jnp.asarray(np.asarray(over[name])) - alone[name])))
    for name in lies
  }
  told(
    'surgery',
    mesh=[2, 4, 'Auto'],
    moved=moved(compiled),
    differ=differing(masked, masks),
    off=off,
    stray=straying({'params': over, 'masks': masked}, places),
  )


if __name__ == '__main__':
  selected('all' in sys.argv)
  training()
  scored()
  surgery()
  streamed()  # last, because it sets what counts as a small tree
