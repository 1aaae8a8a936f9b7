"""Time a weight of one mask update, from a million weights to a billion, as rows and as a plot."""

import io

import jax.numpy as jnp
import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from prunejax.bench import measure, selection, sizes
from prunejax.report import drawing

LEAVES = 16
SIDES = {'tiny': (16,), 'small': (256, 512, 1024), 'base': (256, 512, 1024, 2048, 4096, 8192)}
SIDES['large'] = SIDES['base']
FLAT_FROM = 16 * 2**20  # smaller ones lie in the cache
COLOURS = {'uniform': '#0072B2', 'global': '#D55E00', 'one read': '#777777'}


def run(size, say, *, out=None, **options):
  """Rows: nanoseconds a weight at every size that fits, and how flat they are. Draws <out>-scaling.png."""
  del options
  curves = {}
  for side in SIDES[size]:
    weights = LEAVES * side * side
    # Weights, masks, and for a selection that is not done in place a copy of its keys.
    if lack := measure.lacks(weights * 10):
      yield measure.row(f'{_words(weights)} weights', None, 'ns a weight', '', lack)
      continue
    say(f'  {_words(weights)} weights')
    scores = sizes.weights({f'layer_{i}/kernel': (side, side) for i in range(LEAVES)})
    times = _times(scores)
    for name, taken in times.items():
      curves.setdefault(name, {})[weights] = taken
      if name != 'one read':
        yield measure.row(
          f'{name}, {_words(weights)} weights',
          1e9 * taken.median / weights,
          'ns a weight',
          '',
          f'{taken}; one read {1e9 * times["one read"].median / weights:.3f} ns',
        )
    del scores
  yield from _flat(curves)
  if out is not None and curves:
    out.with_name(f'{out.stem}-scaling.png').write_bytes(
      draw(curves, f'One mask update, {measure.kind()}')
    )


def _flat(curves):
  """How far the sizes beyond the cache lie apart, in reads: a machine that is slower for a while does not bend it."""
  for name, curve in curves.items():
    large = [weights for weights in curve if weights >= FLAT_FROM]
    if name == 'one read' or len(large) < 2:
      continue
    reads = [measure.ratio(curve[weights], curves['one read'][weights]) for weights in large]
    nanoseconds = [1e9 * curve[weights].median / weights for weights in large]
    yield measure.row(
      f'{name}, slowest against fastest size',
      max(reads) / min(reads),
      'x',
      '<= 1.5',
      f'{len(large)} sizes from {_words(FLAT_FROM)} on: {min(reads):.1f} to {max(reads):.1f} reads,'
      f' {min(nanoseconds):.2f} to {max(nanoseconds):.2f} ns a weight',
    )


def _times(scores):
  read = measure.compiled(selection.one_read, scores)
  calls = {'one read': lambda: read(scores)}
  for name, make in selection.ALLOCATIONS.items():
    program = measure.compiled(selection.update(make()), scores, 0.9)
    calls[name] = lambda program=program: program(scores, jnp.float32(0.9))
  return measure.interleaved(calls, rounds=5, seconds=5)


def _words(weights):
  return f'{weights / 2**30:.0f} G' if weights >= 2**30 else f'{weights / 2**20:.3g} M'


def draw(curves, title) -> bytes:
  """PNG of {name: {weights: Times}}: time a weight against the number of weights, the spread of rounds as bars."""
  with matplotlib.rc_context(drawing.STYLE):
    figure = Figure(figsize=(6.4, 4.2), facecolor='white', layout='constrained')
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for name, curve in curves.items():
      weights = list(curve)
      nanoseconds = lambda value, w: 1e9 * value / w
      medians = [nanoseconds(t.median, w) for w, t in curve.items()]
      spread = [
        [
          m - nanoseconds(min(t.rounds), w)
          for m, (w, t) in zip(medians, curve.items(), strict=True)
        ],
        [
          nanoseconds(max(t.rounds), w) - m
          for m, (w, t) in zip(medians, curve.items(), strict=True)
        ],
      ]
      axes.errorbar(
        weights, medians, spread, marker='o', capsize=2, color=COLOURS[name], label=name
      )
    axes.set(xscale='log', xlabel='weights', ylabel='nanoseconds a weight', title=title)
    axes.set_ylim(bottom=0)
    axes.legend()
    data = io.BytesIO()
    figure.savefig(data, format='png', dpi=150, metadata={'Software': None})
  return data.getvalue()
