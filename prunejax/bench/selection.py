"""One mask update against one read of the scores and against argsort, for several distributions."""

import jax
import jax.numpy as jnp

import prunejax
from prunejax.bench import measure, sizes
from prunejax.pruning import criteria, scores_to_masks, selection

SPARSITIES = (0.5, 0.9)
ALLOCATIONS = {'uniform': prunejax.uniform, 'global': prunejax.global_threshold}
DTYPES = {'fp32': jnp.float32, 'bf16': jnp.bfloat16}


def run(size, say, **options):
  """Yields rows on time, memory and ties. Sparsity is data, so one program serves both values."""
  del options
  shapes = sizes.shapes(size)
  weights = sum(rows * columns for rows, columns in shapes.values())
  if lack := measure.lacks(5 * 4 * weights):
    yield measure.row('a mask update', None, 'reads', detail=lack)
    return
  speed, programs = {}, {}
  for precision, dtype in DTYPES.items():
    scores = sizes.weights(shapes, 'gaussian', dtype)
    read = measure.compiled(one_read, scores)
    programs[precision] = {
      name: measure.compiled(update(make()), scores, 0.5) for name, make in ALLOCATIONS.items()
    }
    for name, program in programs[precision].items():
      yield _memory(f'extra memory, {name}, {precision}', program, scores)
    for kind in sizes.KINDS:
      say(f'  {precision}, {kind}')
      scores = sizes.weights(shapes, kind, dtype)
      for name, program in programs[precision].items():
        speed[precision, kind, name] = measure.interleaved(
          _candidates(read, program, scores), rounds=5, seconds=4
        )
    for name in ALLOCATIONS:
      gaussian = {'gaussian': speed[precision, 'gaussian', name]}
      yield _reads(f'{name}, {precision}, gaussian', gaussian, '<= 6')
      hostile = {kind: speed[precision, kind, name] for kind in sizes.KINDS if kind != 'gaussian'}
      yield _reads(f'{name}, {precision}, worst of {len(hostile)} hostile kinds', hostile, '<= 10')
  yield from _on_gpu(speed)
  yield from _links(shapes)
  yield from _ties(shapes, programs['fp32']['uniform'])
  yield from _argsort(shapes, programs['fp32'], say)


def _memory(name, program, scores, inner=0):
  """Memory beside scores and masks; the temporaries hold `inner` bytes of new masks."""
  extra = measure.temporary(program)
  if extra is not None and extra >= inner:  # else the new masks lie in the place of the old ones
    extra -= inner
  share = None if extra is None else 100 * extra / measure.nbytes(scores)
  how = 'temporaries of the compiled update; the new masks, a byte a weight, not counted'
  return measure.row(name, share, '% of the scores', '< 10', how)


def _reads(name, by_kind, target):
  """The slowest sparsity of the slowest kind, as a multiple of one read."""
  reads = {
    (kind, s): measure.ratio(times[s], times['read'])
    for kind, times in by_kind.items()
    for s in SPARSITIES
  }
  kind, sparsity = max(reads, key=reads.get)
  times = by_kind[kind]
  detail = f'{kind}, sparsity {sparsity}: {times[sparsity]}; one read: {times["read"]}'
  return measure.row(
    name, reads[kind, sparsity], 'reads', target, detail, where=not measure.on_gpu()
  )


def _candidates(read, program, scores):
  calls = {'read': lambda: read(scores)}
  return calls | {s: (lambda s=s: program(scores, jnp.float32(s))) for s in SPARSITIES}


def one_read(scores):
  """One read of the scores, the least that a selection needs."""
  return sum(jnp.sum(jnp.abs(score)) for score in scores.values())


def update(allocate):
  """(weights, sparsity) -> masks, by magnitude, as `prune_transform` moves them."""
  magnitudes = lambda weights: criteria.magnitude().score((), weights)
  return lambda weights, sparsity: (
    scores_to_masks.select(selection.Scores(magnitudes, weights), sparsity, allocate).masks
  )


def _on_gpu(speed):
  for name in ALLOCATIONS:
    times = speed['fp32', 'gaussian', name]
    worst = max(times[s].median for s in SPARSITIES)
    detail = str(max((times[s] for s in SPARSITIES), key=lambda t: t.median))
    yield measure.row(
      f'{name}, fp32, gaussian, time', 1e3 * worst, 'ms', '<= 10', detail, where=measure.on_gpu()
    )


def _links(shapes):
  """Rows on a whole `prune_transform`, which computes scores and reads the old masks."""
  weights = sizes.weights(shapes)
  read = measure.compiled(one_read, weights)
  for name, make in ALLOCATIONS.items():
    # Even steps 0.9, odd steps 0.5: the step is data, so this too is one program.
    tx = prunejax.prune_transform(
      prunejax.magnitude(), lambda step: jnp.where(step % 2, *SPARSITIES), allocation=make()
    )
    state = jax.jit(tx.init)(weights)
    masks = measure.nbytes(state.prune_mask)
    moved = measure.compiled(_moved(tx), state, weights, donate_argnums=0)
    two = measure.carried(lambda s, m=moved: m(m(s, weights), weights), state)
    times = measure.interleaved({'read': lambda: read(weights), 'two': two}, rounds=7, seconds=8)
    # The old masks stay until the step is decided, so the new ones are made beside them.
    yield _memory(f'extra memory, {name}, prune_transform', moved, weights, inner=masks)
    yield measure.row(
      f'{name}, fp32, gaussian, prune_transform',
      measure.ratio(times['two'], times['read']) / 2,
      'reads',
      '<= 5',
      f'two mask steps, at sparsity 0.9 and 0.5: {times["two"]}; one read: {times["read"]}',
      where=not measure.on_gpu(),
    )


def _moved(tx):
  """(state, weights) -> the state after a mask step, without the updates."""
  return lambda state, weights: tx.update(weights, state, weights)[1]


def _ties(shapes, uniform):
  """Time that ties add: scores rounded to bfloat16 against the same scores unrounded."""
  free = sizes.weights(shapes)
  tied = jax.tree.map(lambda w: w.astype(jnp.bfloat16).astype(w.dtype), free)
  half = jnp.float32(0.5)
  times = measure.interleaved(
    {'tied': lambda: uniform(tied, half), 'free': lambda: uniform(free, half)}, 9, 20
  )
  yield measure.row(
    'ties, uniform',
    measure.ratio(times['tied'], times['free']) - 1,
    'of the threshold',
    '< 1',
    f'fp32 scores rounded to bfloat16: {times["tied"]}; the same without ties: {times["free"]}',
  )


def _argsort(shapes, programs, say):
  """Leaves are sorted each alone, so a layer's leaves stand for every layer's."""
  say('  argsort of one layer')
  layer = {name: shape for name, shape in shapes.items() if '/layer_0/' in name}
  scores, some = sizes.weights(shapes), sizes.weights(layer)
  sort = measure.compiled(
    lambda tree: jax.tree.map(lambda score: jnp.argsort(-jnp.abs(score).ravel()), tree), some
  )
  calls = {
    name: lambda p=program: p(scores, jnp.float32(SPARSITIES[-1]))
    for name, program in programs.items()
  }
  times = measure.interleaved({'sort': lambda: sort(some), **calls}, 3, 0)
  layers = len(shapes) // len(layer)
  for name in programs:
    yield measure.row(
      f'{name}, fp32, gaussian, against argsort',
      layers * measure.ratio(times['sort'], times[name]),
      'times faster',
      '>= 150',
      f'argsort of {len(layer)} of {len(shapes)} leaves, {times["sort"]}, times {layers};'
      f' the update {times[name]}',
      where=not measure.on_gpu(),
    )
