"""Measures the time a weight of one mask update, from a million weights to a billion."""

import io
import pathlib
from collections.abc import Callable, Iterator, Mapping

import jax.numpy as jnp
import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from prunejax.bench import measure, selection, sizes
from prunejax.report import drawing

LEAVES = 16
SIDES = {'tiny': (16,), 'small': (256, 512, 1024), 'base': (256, 512, 1024, 2048, 4096, 8192)}
SIDES['large'] = SIDES['base']
TARGET_SIZES = ('base', 'large')  # both measure the same sides
FLAT_FROM = 16 * 2**20  # weights; fewer fit into the cache
COLOURS = {'uniform': '#0072B2', 'global': '#D55E00', 'one read': '#777777'}


def run(
  size: str, say: Callable[[str], None], *, out: pathlib.Path | None = None, **options
) -> Iterator[dict]:
  """Times a mask update at every number of weights that fits into memory.

  Args:
    size: a name of `sizes.SIZES`: how many numbers of weights are tried.
    say: prints one line.
    out: the file of results; the plot <out>-scaling.png is written beside it.
    **options: not used.

  Yields:
    Rows: nanoseconds a weight, and how far the slowest and fastest size lie apart.
  """
  del options
  curves = {}
  for side in SIDES[size]:
    weights = LEAVES * side * side
    # Weights, masks, and a copy of the keys for a selection that does not work in place.
    if lack := measure.lacks(weights * 10):
      yield measure.row(f'{_words(weights)} weights', None, 'ns a weight', '', lack)
      continue
    say(f'  {_words(weights)} weights')
    scores = sizes.weights({f'layer_{i}/kernel': (side, side) for i in range(LEAVES)})
    times = _times(scores)
    for name, candidate in times.items():
      curves.setdefault(name, {})[weights] = candidate
      if name != 'one read':
        yield measure.row(
          f'{name}, {_words(weights)} weights',
          1e9 * candidate.median / weights,
          'ns a weight',
          '',
          f'{candidate}; one read {1e9 * times["one read"].median / weights:.3f} ns',
        )
    del scores
  yield from _flat(curves)
  if out is not None and curves:
    out.with_name(f'{out.stem}-scaling.png').write_bytes(
      draw(curves, f'One mask update, {measure.kind()}')
    )


def _flat(curves):
  """Rows of slowest against fastest size beyond the cache, in reads, so that load cancels out."""
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
      f'{len(large)} sizes of at least {_words(FLAT_FROM)}: {min(reads):.1f} to {max(reads):.1f}'
      f' reads, {min(nanoseconds):.2f} to {max(nanoseconds):.2f} ns a weight',
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


def draw(curves: Mapping[str, Mapping[int, measure.Times]], title: str) -> bytes:
  """Plots the time a weight against the number of weights, with the spread of rounds as bars.

  Args:
    curves: {name: {number of weights: times}}.
    title: of the plot.

  Returns:
    A PNG.
  """
  with matplotlib.rc_context(drawing.STYLE):
    figure = Figure(figsize=(6.4, 4.2), facecolor='white', layout='constrained')
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for name, curve in curves.items():
      each = [1e9 * np.array(times.rounds) / weights for weights, times in curve.items()]
      medians = [np.median(rounds) for rounds in each]
      spread = [
        [median - rounds.min() for median, rounds in zip(medians, each, strict=True)],
        [rounds.max() - median for median, rounds in zip(medians, each, strict=True)],
      ]
      axes.errorbar(
        list(curve), medians, spread, marker='o', capsize=2, color=COLOURS[name], label=name
      )
    axes.set(xscale='log', xlabel='weights', ylabel='nanoseconds a weight', title=title)
    axes.set_ylim(bottom=0)
    axes.legend()
    data = io.BytesIO()
    figure.savefig(data, format='png', dpi=150, metadata={'Software': None})
  return data.getvalue()
