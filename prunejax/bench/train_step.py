"""Measures BERT's train step against a plain Flax loop, and its FLOPs against matmuls."""

import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from prunejax.bench import measure, sizes
from prunejax.models import bert
from prunejax.train import configs, inputs, objectives, optimizer, recipe, sharding
from prunejax.train import program as programs

ROOT = pathlib.Path(__file__).resolve().parents[2]
LENGTH, PREDICTIONS = 128, 20
# Sides of square matrices, and products a call.
CPU_SIDES = ((512, 16), (1024, 4), (2048, 1))
GPU_SIDES = ((4096, 16), (8192, 8), (16384, 2))


def run(size: str, say: Callable[[str], None], **options) -> Iterator[dict]:
  """Times the project's step with and without pruning, the plain loop's, and matmuls, in turn.

  Args:
    size: a name of `sizes.SIZES`.
    say: prints one line.
    **options: not used.

  Yields:
    Rows: tokens a second, the project's step against the plain loop, what the pruning link adds,
    the fraction of the matmul rate, memory.
  """
  del options
  gpu = measure.on_gpu()
  dtype, rows = ('bfloat16', 256) if gpu else ('float32', 4)
  shape = bert_shapes(size)
  if lack := measure.lacks(
    3 * 12 * _count(shape) + 8 * _count(shape) + rows * 2**28 * (_count(shape) / 1e8)
  ):
    yield measure.row('train step', None, 'tokens/s', '', lack)
    return
  sides = GPU_SIDES if gpu else CPU_SIDES[:1] if size == 'tiny' else CPU_SIDES
  _, hidden, _, intermediate, vocabulary = sizes.SIZES[size]
  own = [(rows * LENGTH, hidden, intermediate), (rows * PREDICTIONS, hidden, vocabulary)]
  products, work, how = matmuls(jnp.dtype(dtype), sides, own[:1] if size == 'tiny' else own)
  batch = blank_batch(rows, sizes.SIZES[size][-1])
  say('  compiling three train steps')
  steps, memory = {}, {}
  for name, sparsity in (('pruned', 0.9), ('dense', None)):
    steps[name], memory[name] = stepping(*ours(size, dtype, rows, sparsity), batch)
  steps['plain'], memory['plain'] = _plain(size, dtype, batch)
  calls = {name: lambda step=step: step(batch) for name, step in steps.items()} | {
    'products': products
  }
  times = measure.interleaved(calls, rounds=25 if gpu else 9, seconds=90)
  flops = rows * float(objectives.flops(sizes.bert(size), shape, LENGTH, PREDICTIONS))
  peak = work / times['products'].best
  share = lambda name: flops / times[name].median / peak
  several = f', on one of {jax.device_count()} devices' if jax.device_count() > 1 else ''
  what = f'{dtype}, batch {rows} x {LENGTH}{several}'
  yield measure.row('matmul rate', peak / 1e9, 'GFLOP/s', '', how)
  for name, words in (('pruned', 'prunejax, off mask steps'), ('plain', 'plain Flax loop')):
    yield measure.row(
      words, rows * LENGTH / times[name].median, 'tokens/s', '', f'{what}: {times[name]}'
    )
  yield measure.row(
    'prunejax against the plain loop',
    measure.ratio(times['plain'], times['pruned']),
    'x its tokens/s',
    '>= 0.95',
    'with sharding, clipping, pruning and metrics against none of them; same model, loss and batch',
  )
  yield measure.row(
    'prune_transform, off mask steps',
    measure.ratio(times['pruned'], times['dense']),
    'x the step without',
    '<= 1.01',
    f'{times["pruned"]} with, {times["dense"]} without',
  )
  yield measure.row(
    'model FLOPs',
    share('pruned'),
    'of the matmul rate',
    '>= 0.5',
    f'{flops / 1e9:.0f} GFLOP a step: 6 a weight a token, the softmax at predicted positions,'
    ' and attention',
    where=gpu,
  )
  yield measure.row(
    'plain loop, model FLOPs', share('plain'), 'of the matmul rate', '', 'for comparison'
  )
  if memory['plain']:
    yield measure.row(
      'temporary memory',
      memory['pruned'] / memory['plain'],
      "x the plain loop's",
      '',
      '{pruned:.2f} GiB with pruning, {dense:.2f} without, {plain:.2f} in the plain loop;'.format(
        **{name: temporary / measure.GIB for name, temporary in memory.items()}
      )
      + ' the first includes what a mask step needs',
    )


def bert_shapes(size: str) -> Any:
  """Returns the shapes of the parameters of BERT with its pre-training heads."""
  model, blank = bert.Bert(sizes.bert(size)), jax.ShapeDtypeStruct((1, 8), jnp.int32)
  return jax.eval_shape(
    lambda k, x: model.init(k, x, x, x == 0)['params'], jax.random.key(0), blank
  )


def blank_batch(
  rows: int, vocab: int, length: int = LENGTH, predictions: int = PREDICTIONS, seed: int = 0
) -> dict[str, np.ndarray]:
  """Makes a batch of random pieces in the layout of `data.pretraining`.

  Args:
    rows: examples.
    vocab: number of pieces.
    length: tokens an example.
    predictions: predicted positions an example.
    seed: of the draw.

  Returns:
    {name: array [rows, ...]}.
  """
  rng = np.random.default_rng(seed)
  draw = lambda high, *shape: rng.integers(0, high, shape, dtype=np.int32)
  return {
    'input_ids': draw(vocab, rows, length),
    'segment_ids': draw(2, rows, length),
    'valid': np.ones((rows, length), bool),
    'positions': np.sort(draw(length, rows, predictions), axis=1),
    'targets': draw(vocab, rows, predictions),
    'weights': np.ones((rows, predictions), np.float32),
    'is_random': draw(2, rows),
  }


def recipe_of(size: str, **changes) -> recipe.Recipe:
  """Resolves configs/base.py at a size.

  Args:
    size: a name of `sizes.SIZES`.
    **changes: config keys; `a__b=value` sets the key a.b.

  Returns:
    The recipe.
  """
  layers, hidden, heads, intermediate, _ = sizes.SIZES[size]
  config, _ = configs.load('configs/base.py', ROOT)
  fixed = {
    'model.hidden_size': hidden,
    'model.num_hidden_layers': layers,
    'model.num_attention_heads': heads,
    'model.intermediate_size': intermediate,
    'data.seq_len': LENGTH,
    'data.max_predictions': PREDICTIONS,
  }
  changes = {key.replace('__', '.'): value for key, value in changes.items()}
  return recipe.resolve(configs.override(config, fixed | changes))


def ours(
  size: str,
  dtype: str = 'float32',
  rows: int = 4,
  sparsity: float | None = None,
  compiled: programs.Compiled | None = None,
  **changes,
) -> tuple[recipe.Recipe, optax.GradientTransformation, Any]:
  """Builds the project's own train step.

  Args:
    size: a name of `sizes.SIZES`.
    dtype: the model computes in.
    rows: examples a batch.
    sparsity: masks move at the first step only; None for no pruning.
    compiled: what several calls share; None to compile anew.
    **changes: config keys, see `recipe_of`.

  Returns:
    The recipe, the optimizer, and the program.
  """
  schedule = '' if sparsity is None else f'constant({sparsity})'
  run = recipe_of(
    size,
    model__dtype=dtype,
    batch_size=rows,
    prune__weights__schedule=schedule,
    prune__weights__when='every(1000000)',
    **changes,
  )
  tx = optimizer.make(run)
  source = inputs.Source(sizes.bert(size), None, None)
  data = inputs.Data(None, None, None, None, 0)
  return run, tx, programs.build(run, source, data, tx, compiled)


def stepping(
  run: recipe.Recipe, tx: optax.GradientTransformation, program: Any, batch: Any
) -> tuple[Callable[[Any], Any], int | None]:
  """Makes a step as `loop.train` takes it: a batch of the host, a mesh, the compiled program.

  The mesh has one device, as the plain loop and the products of matrices do.

  Args:
    run: of `ours`.
    tx: of `ours`.
    program: of `ours`.
    batch: an example batch.

  Returns:
    A function batch -> metrics that carries its own state; and the bytes of temporaries of the
    program, None if unknown to XLA.
  """
  mesh = sharding.make_mesh(devices=jax.devices()[:1])
  shardings = sharding.shard(programs.abstract_state(run, program, tx), mesh)
  state = [sharding.place(programs.initial_state(run, program, tx), shardings)]
  jitted = sharding.steady(program.step, shardings)
  # The step below finds this compiled.
  compiled = jitted.lower(state[0], sharding.put_batch(batch, mesh)).compile()

  def step(batch):
    state[0], metrics = jitted(state[0], sharding.put_batch(batch, mesh))
    return metrics

  return step, measure.temporary(compiled)


def _plain(size, dtype, batch):
  """The step of a plain loop: one jit, AdamW, dropout, a loss."""
  run, dense, program = ours(size, dtype)
  params = programs.initial_state(run, program, dense)['params']
  loss_fn, *_ = objectives.pretraining(program.model)
  tx = optax.adamw(1e-4, weight_decay=0.01)

  def step(state, batch):
    params, opt_state, rng = state
    rng, now = jax.random.split(rng)
    (loss, _), grad = jax.value_and_grad(loss_fn, has_aux=True)(params, batch, now)
    updates, opt_state = tx.update(grad, opt_state, params)
    return (optax.apply_updates(params, updates), opt_state, rng), loss

  state = (params, tx.init(params), jax.random.key(1))
  compiled = measure.compiled(step, state, batch, donate_argnums=0)
  call = measure.carried(lambda s: compiled(s, batch), state, lambda out: out[0])
  return lambda _: call(), measure.temporary(compiled)


def matmuls(
  dtype: jnp.dtype,
  sides: Sequence[tuple[int, int]],
  shapes: Sequence[tuple[int, int, int]] = (),
) -> tuple[Callable[[], Any], int, str]:
  """Finds the products of matrices that this machine computes fastest.

  Tried are square matrices, one product after the other and independent ones, and the products of
  the model's own layers, forward and backward. A rate that leaves one of them out is no maximum: a
  train step may be faster than chained squares.

  Args:
    dtype: of the matrices.
    sides: (side, products a call) of each size of squares that is tried.
    shapes: (m, k, n) of other products, [m, k] by [k, n], also tried transposed.

  Returns:
    A function that multiplies in the best way, its FLOPs, and how it was found, in words.
  """
  calls, work = {}, {}

  def add(name, fn, *given, flops):
    given = [_normal(shape, dtype, seed) for seed, shape in enumerate(given)]
    program = measure.compiled(fn, *given)
    calls[name], work[name] = (lambda: program(*given)), flops

  for side, products in sides:
    square, scale = (side, side), jnp.asarray(1e-2, dtype)
    chain = lambda a, n=products, c=scale: lax.fori_loop(0, n, lambda _, b: (a @ b) * c, a)
    add(f'{side} x {side} in turn', chain, square, flops=2 * products * side**3)
    apart = lambda a, b, c, d: (a @ b, c @ d, a @ d, c @ b)
    add(f'{side} x {side} side by side', apart, *[square] * 4, flops=8 * side**3)
  for m, k, n in shapes:
    three = lambda x, w, g: (x @ w, x.T @ g, g @ w.T)
    add(
      f'{m} x {k} x {n}, forward and backward', three, (m, k), (k, n), (m, n), flops=6 * m * k * n
    )
  times = {
    name: measure.interleaved({name: call}, rounds=9, seconds=2)[name]
    for name, call in calls.items()
  }
  best = max(calls, key=lambda name: work[name] / times[name].best)
  how = f'{jnp.dtype(dtype).name}, {best}, the best run of {len(calls)} kinds of products'
  return calls[best], work[best], f'{how}; in turn with the steps'


def _normal(shape, dtype, seed):
  return jax.jit(lambda: jax.random.normal(jax.random.key(seed), shape).astype(dtype))()


def _count(shape):
  return sum(leaf.size for leaf in jax.tree.leaves(shape))
