"""The table and the figure of the report, from the ledger."""

import numpy as np

from experiments.cheong2019.claims import by_cell
from prunejax.report import drawing
from prunejax.report import tables as tabular
from prunejax.report.verdicts import shown

COLOURS = {
  'pruned': '#d1495b',
  'k-means': '#1b6ca8',
  'binarised': '#2e8b57',
  'pruned + binarised': '#8d6a9f',
  'dense': '#555555',
}
CAPTIONS = {
  'compression': (
    'BLEU against compression rate. Small dots are seeds. Squares: nothing is trained after '
    'compression.'
  )
}


def tables(rows: list[dict]) -> list[tabular.Table]:
  """Tabulate BLEU and both compression rates, one line a method."""
  bleu, rate = by_cell(rows), by_cell(rows, 'compression')
  rate_with_embeddings = by_cell(rows, 'compression_with_embeddings')
  mean = lambda by_seed: f'{np.mean(list(by_seed.values())):.2f}'
  lines = [
    {
      'method': key[0],
      'sparsity': f'{key[1]:g}',
      'bits a weight': key[2],
      'trained after': key[3],
      'seeds': len(by_seed),
      'BLEU': shown(list(by_seed.values()), '.2f'),
      'compression': mean(rate[key]),
      'embeddings counted': mean(rate_with_embeddings[key]),
    }
    for key, by_seed in bleu.items()
  ]
  names = sorted({row['data'] for row in rows})
  note = (
    'cipher is a made-up language, no real translation'
    if 'cipher' in names
    else 'test_2016_flickr, the sentences that are short enough'
  )
  return [tabular.records(f'BLEU on {", ".join(names)} and counted bits', lines, note)]


def figures(rows: list[dict]) -> dict[str, bytes]:
  """Draw {'compression': PNG}: BLEU against compression rate."""
  bleu, rate = by_cell(rows), by_cell(rows, 'compression')
  mean = lambda by_seed: float(np.mean(list(by_seed.values())))
  with drawing.canvas(7, 4.6, 1) as (figure, (axes,)):
    for trained, mark, fill in ((True, 'o', None), (False, 's', 'white')):
      for method, colour in COLOURS.items():
        keys = sorted(
          (key for key in bleu if key[0] == method and key[3] == trained),
          key=lambda key: (key[1], -key[2]),
        )
        if not keys:
          continue
        rates = [mean(rate[key]) for key in keys]
        axes.plot(
          rates,
          [mean(bleu[key]) for key in keys],
          marker=mark,
          linestyle='-' if trained else ':',
          color=colour,
          markerfacecolor=fill or colour,
          label=method + (', trained after' if trained else ''),
        )
        for key, x in zip(keys, rates, strict=True):
          axes.scatter([x] * len(bleu[key]), bleu[key].values(), s=9, color=colour, alpha=0.6)
    axes.set(
      xscale='log',
      xlabel='compression by counted bits, embeddings not counted',
      ylabel='BLEU',
      title=', '.join(sorted({row['data'] for row in rows})),
    )
    axes.set_xticks([1, 2, 4, 8, 16, 32], ['1', '2', '4', '8', '16', '32'])
    drawing.below(figure, axes, columns=2)
    return {'compression': drawing.png(figure)}
