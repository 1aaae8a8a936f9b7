"""BERT's train step: this project's beside a plain Flax loop, its FLOPs beside the machine's own matmuls."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from prunejax.bench import measure, sizes
from prunejax.models import bert
from prunejax.train import configs, inputs, objectives, optimizer, sharding
from prunejax.train import program as programs

ROOT = pathlib.Path(__file__).resolve().parents[2]
LENGTH, PREDICTIONS = 128, 20
# Sides of square matrices, and products a call.
CPU_SIDES = ((512, 16), (1024, 4), (2048, 1))
GPU_SIDES = ((4096, 16), (8192, 8), (16384, 2))


def run(size, say, **options):
  """Rows: tokens a second, ours against the plain loop, the share of the matmul rate, what the pruning link adds."""
  del options
  gpu = measure.on_gpu()
  dtype, rows = ('bfloat16', 256) if gpu else ('float32', 4)
  shape = bert_shapes(size)
  if lack := measure.lacks(
    3 * 12 * _count(shape) + 8 * _count(shape) + rows * 2**28 * (_count(shape) / 1e8)
  ):
    yield measure.row('train step', None, 'tokens/s', '', lack)
    return
  products, work, how = matmuls(
    jnp.dtype(dtype), GPU_SIDES if gpu else CPU_SIDES[:1] if size == 'tiny' else CPU_SIDES
  )

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
  share = lambda name: measure.ratio(times['products'], times[name]) * flops / work
  what = f'{dtype}, batch {rows} x {LENGTH}'
  yield measure.row('matmul rate', work / times['products'].median / 1e9, 'GFLOP/s', '', how)
  for name, words in (('pruned', 'prunejax, off mask steps'), ('plain', 'plain Flax loop')):
    yield measure.row(
      words, rows * LENGTH / times[name].median, 'tokens/s', '', f'{what}: {times[name]}'
    )
  yield measure.row(
    'prunejax against the plain loop',
    measure.ratio(times['plain'], times['pruned']),
    'x its tokens/s',
    '>= 0.95',
    'sharding, clipping, pruning, metrics against none of them; same model, loss, weights and batch',
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
    f'{flops / 1e9:.0f} GFLOP a step: 6 a weight a token, the softmax at predicted positions, and attention',
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
      f'{memory["pruned"] / measure.GIB:.2f} GiB with pruning, {memory["dense"] / measure.GIB:.2f} without,'
      f' {memory["plain"] / measure.GIB:.2f} in the plain loop; the first includes what a mask step needs',
    )


def bert_shapes(size):
  """The shapes of the parameters of BERT with its pre-training heads."""
  model, blank = bert.Bert(sizes.bert(size)), jax.ShapeDtypeStruct((1, 8), jnp.int32)
  return jax.eval_shape(
    lambda k, x: model.init(k, x, x, x == 0)['params'], jax.random.key(0), blank
  )


def blank_batch(rows, vocab, length=LENGTH, predictions=PREDICTIONS, seed=0):
  """A batch of random pieces, numpy, in the layout of `data.pretraining`."""
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


def config_of(size, **changes):
  """configs/base.py at a size of `sizes`; `a__b=value` is the key a.b."""
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
  return configs.override(
    config, fixed | {key.replace('__', '.'): value for key, value in changes.items()}
  )


def ours(size, dtype='float32', rows=4, sparsity=None, **changes):
  """(config, tx, program) of this project's own step; at a sparsity, masks move at the first step only."""
  schedule = '' if sparsity is None else f'constant({sparsity})'
  config = config_of(
    size,
    model__dtype=dtype,
    batch_size=rows,
    prune__weights__schedule=schedule,
    prune__weights__when='every(1000000)',
    **changes,
  )
  tx = optimizer.make(config)
  source = inputs.Source(sizes.bert(size), None, None)
  return config, tx, programs.build(config, source, inputs.Data(None, None, None, None, 0), tx)


def stepping(config, tx, program, batch):
  """A step as `loop.train` takes it, batch -> metrics: from the host, over a mesh, through the compiled program; and
  the bytes of temporaries of that program (None where XLA does not tell).
  """
  mesh = sharding.make_mesh()
  shardings = sharding.shard(programs.abstract_state(config, program, tx), mesh)
  box = [sharding.place(programs.initial_state(config, program, tx), shardings)]
  one = sharding.steady(program.step, shardings)
  compiled = one.lower(box[0], sharding.put_batch(batch, mesh)).compile()  # the step finds it done

  def step(batch):
    box[0], metrics = one(box[0], sharding.put_batch(batch, mesh))
    return metrics

  return step, measure.temporary(compiled)


def _plain(size, dtype, batch):
  """What anyone would write: one jit, AdamW, dropout, a loss."""
  config, dense, program = ours(size, dtype)
  params = programs.initial_state(config, program, dense)['params']
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


def matmuls(dtype, sides):
  """(a call that multiplies square matrices at the best rate of a few sizes, its FLOPs, how)."""
  rates = {}
  for side, products in sides:
    x = jax.jit(lambda n=side: jax.random.normal(jax.random.key(0), (n, n)).astype(dtype))()
    many = measure.compiled(
      lambda a, n=products: lax.fori_loop(
        0, n, lambda _, b: (a @ b) * jnp.asarray(1e-2, a.dtype), a
      ),
      x,
    )
    call, work = (lambda many=many, x=x: many(x)), 2 * products * side**3
    taken = measure.interleaved({'products': call}, rounds=7, seconds=2)['products']
    rates[work / taken.median] = (call, work, side)
  call, work, side = rates[max(rates)]
  names = ', '.join(str(side) for side, _ in sides)
  return (
    call,
    work,
    f'{jnp.dtype(dtype).name}, {side} x {side}, the best of {names}; in turn with the steps',
  )


def _count(shape):
  return sum(leaf.size for leaf in jax.tree.leaves(shape))
