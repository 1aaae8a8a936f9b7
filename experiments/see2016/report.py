"""The table and the figures of the report, from the ledger."""

import numpy as np

from experiments.see2016.claims import LEAF_UNIFORM, by_cell
from experiments.see2016.training import SCHEMES
from prunejax.report import drawing, statistics
from prunejax.report import tables as tabular
from prunejax.report.verdicts import shown

DENSE = ('dense', '', 0.0)
COLOURS = {
  'class-blind': '#1b6ca8',
  'class-uniform': '#d1495b',
  'class-distribution': '#2e8b57',
  LEAF_UNIFORM: '#8a8f98',
}
CAPTIONS = {
  'schemes': (
    'BLEU against sparsity, one line a scheme. Small dots are seeds. Stars: pruned and retrained. '
    'Crosses: the same sparse network from new weights. Diamonds: from the first weights of the '
    'dense model. Plus signs: retrained at half of the rate of training, halved again and again; '
    'triangles: at the rate of training.'
  ),
  'classes': 'BLEU lost when one class alone is pruned, without retraining. Dots are seeds.',
}


def tables(rows: list[dict]) -> list[tabular.Table]:
  """Tabulate BLEU, one line a method, scheme and sparsity."""
  lines = [
    {
      'method': method,
      'scheme or class': scheme or '-',
      'sparsity': f'{sparsity:g}',
      'seeds': len(by_seed),
      'BLEU': shown(list(by_seed.values()), '.2f'),
    }
    for (method, scheme, sparsity), by_seed in by_cell(rows).items()
  ]
  names = sorted({row['data'] for row in rows})
  note = (
    'cipher is a made-up language, no real translation'
    if 'cipher' in names
    else 'test_2016_flickr, the sentences that are short enough'
  )
  return [tabular.records(f'BLEU on {", ".join(names)}', lines, note)]


def figures(rows: list[dict]) -> dict[str, bytes]:
  """Draw {'schemes': PNG, 'classes': PNG}."""
  bleu = by_cell(rows)
  means = {key: float(np.mean(list(by_seed.values()))) for key, by_seed in bleu.items()}
  title = ', '.join(sorted({row['data'] for row in rows}))
  pngs = {'schemes': _schemes(bleu, means, title)}
  if any(row['method'] == 'halved' for row in rows):
    return pngs
  return pngs | {'classes': _classes(bleu, title)}


def _schemes(bleu, means, title):
  """BLEU against sparsity."""
  dense = means.get(DENSE, np.nan)
  with drawing.canvas(7, 4.6, 1) as (figure, (axes,)):
    axes.axhline(dense, color='#555555', linestyle='--', linewidth=1.3, label='dense')
    for scheme in (*SCHEMES, LEAF_UNIFORM):
      keys = sorted(key for key in bleu if key[:2] == ('one shot', scheme))
      if not keys:
        continue
      axes.plot(
        [0.0, *(key[2] for key in keys)],
        [dense, *(means[key] for key in keys)],
        'o-',
        color=COLOURS[scheme],
        label=f'{scheme}, one shot',
      )
      for key in keys:
        axes.scatter(
          [key[2]] * len(bleu[key]), bleu[key].values(), s=9, color=COLOURS[scheme], alpha=0.5
        )
    for method, mark, colour in (
      ('retrained', '*', '#1b6ca8'),
      ('halved', 'P', '#2e8b57'),
      ('full rate', 'v', '#d1495b'),
      ('from scratch', 'X', '#8d6a9f'),
      ('ticket', 'D', '#b7950b'),
    ):
      keys = sorted(key for key in bleu if key[0] == method and key[1] in ('', 'class-blind'))
      if keys:
        axes.plot(
          [key[2] for key in keys],
          [means[key] for key in keys],
          mark,
          color=colour,
          markersize=11,
          linestyle=':' if method == 'retrained' else '',
          label=f'class-blind, {method}',
        )
    axes.set(xlabel='sparsity (fraction of weights removed)', ylabel='BLEU', title=title)
    drawing.below(figure, axes, columns=2)
    return drawing.png(figure)


def _classes(bleu, title):
  """BLEU lost with one class pruned."""
  with drawing.canvas(7, 3.6, 1) as (figure, (axes,)):
    # A loss is that of a seed; without its dense model none is known.
    lost = {
      f'{name} ({sparsity:g})': list(
        statistics.paired(bleu.get(DENSE, {}), bleu[method, name, sparsity]).values()
      )
      for method, name, sparsity in bleu
      if method == 'class alone'
    }
    lost = {name: values for name, values in lost.items() if values}
    axes.barh(list(lost), list(map(statistics.mean, lost.values())), color='#1b6ca8', height=0.6)
    for y, values in enumerate(lost.values()):
      axes.scatter(values, [y] * len(values), s=12, color='#222222', zorder=3)
    axes.set(xlabel='BLEU lost, this class alone pruned, no retraining', title=title)
    if not lost:
      drawing.below(figure, axes)
    return drawing.png(figure)
