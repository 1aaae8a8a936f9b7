"""What Cheong & Daniel say, each as a check of the ledger; its table and its figure."""

import numpy as np

from prunejax.report import drawing, tables
from prunejax.report.verdicts import Verdict, all_of, shown, side

PAPER = {
  'bits': 4,
  'compression': 5.85,
  'quality': 0.9843,
}  # PAPERS.md section 6: read in summaries of the report
COLOURS = {
  'pruned': '#d1495b',
  'k-means': '#1b6ca8',
  'binarised': '#2e8b57',
  'pruned + binarised': '#8d6a9f',
  'dense': '#555555',
}


def scores(rows, metric='bleu'):
  """{(method, sparsity, bits, trained): {seed: number}}."""
  out = {}
  for row in rows:
    key = row['method'], row['sparsity'], row['bits'], row['trained']
    out.setdefault(key, {})[row['seed']] = row['metrics'][metric]
  return out


def claims(rows):
  """The verdicts. Every comparison is within a seed."""
  found, rate = scores(rows), scores(rows, 'compression')
  dense = found.get(('dense', 0.0, 32, False), {})
  share = lambda key: [v / dense[s] for s, v in sorted(found.get(key, {}).items()) if dense.get(s)]
  mean = lambda values: float(np.mean(list(values))) if values else float('nan')
  four, pruned = ('k-means', 0.0, 4, True), sorted(key for key in found if key[0] == 'pruned')
  # Equal bytes: the pruned model that is smaller than none of the shared ones is given the benefit of its size.
  ahead = {}
  for key in pruned:
    larger = mean(rate[key].values()) <= mean(rate.get(four, {}).values())
    if larger:
      ahead[f'{key[1]:g} ({mean(rate[key].values()):.2f}x)'] = [
        found[four][s] - found[key][s] for s in sorted(found[key]) if s in found.get(four, {})
      ]
  say = lambda values, form='+.2f': shown(values, form) if values else 'not measured'
  raw = share(('k-means', 0.0, 4, False))
  one = share(('binarised', 0.0, 1, True))
  return [
    Verdict(
      '4-bit k-means',
      f'4-bit k-means keeps {PAPER["quality"]:.2%} of the BLEU at {PAPER["compression"]}x; here '
      'at least 0.97',
      all_of([side(share(four), 0.97)]),
      f'share of dense BLEU {say(share(four), ".3f")} at {mean(rate.get(four, {}).values()):.2f}x counted bits, '
      f'embeddings not counted; before the centroids are trained {say(raw, ".3f")}',
      ('compression',),
    ),
    Verdict(
      'pruning is worse',
      'Pruning is worse than quantisation at equal bytes; here: 4-bit k-means has the higher '
      'BLEU against every pruned model that is no smaller',
      all_of(map(side, ahead.values())),
      'BLEU of 4-bit k-means ahead of pruned to '
      + '; '.join(f'{k} {say(v)}' for k, v in ahead.items()),
      ('compression',),
    ),
    Verdict(
      'binarised',
      'Two centroids a matrix cost quality that 4 bits do not (the paper gives no number that we '
      'could read)',
      all_of([side([a - b for a, b in zip(share(four), one, strict=False)])]),
      f'share of dense BLEU {say(one, ".3f")}',
      ('compression',),
    ),
  ]


def shown_tables(rows):
  """One table: BLEU and both compression rates a method."""
  found, rate, whole = (
    scores(rows),
    scores(rows, 'compression'),
    scores(rows, 'compression_with_embeddings'),
  )
  mean = lambda place: f'{np.mean(list(place.values())):.2f}'
  lines = [
    {
      'method': key[0],
      'sparsity': f'{key[1]:g}',
      'bits a weight': key[2],
      'trained after': key[3],
      'seeds': len(found[key]),
      'BLEU': shown(list(found[key].values()), '.2f'),
      'compression': mean(rate[key]),
      'embeddings counted': mean(whole[key]),
    }
    for key in found
  ]
  names = sorted({row['data'] for row in rows})
  note = (
    'cipher is a made-up language, no real translation'
    if 'cipher' in names
    else 'test_2016_flickr, short half'
  )
  return [tables.records(f'BLEU on {", ".join(names)} and counted bits', lines, note)]


def figures(rows):
  """{'compression': BLEU against compression rate, PNG bytes}."""
  found, rate = scores(rows), scores(rows, 'compression')
  with drawing.canvas(7, 4.6, 1) as (figure, (axes,)):
    for trained, mark, fill in ((True, 'o', None), (False, 's', 'white')):
      for method, colour in COLOURS.items():
        keys = sorted(
          (key for key in found if key[0] == method and key[3] == trained),
          key=lambda k: (k[1], -k[2]),
        )
        if keys:
          x, y = (
            [float(np.mean(list(table[key].values()))) for key in keys] for table in (rate, found)
          )
          axes.plot(
            x,
            y,
            marker=mark,
            linestyle='-' if trained else ':',
            color=colour,
            markerfacecolor=fill or colour,
            label=method + (', trained after' if trained else ''),
          )
          for key, at in zip(keys, x, strict=True):
            axes.scatter([at] * len(found[key]), found[key].values(), s=9, color=colour, alpha=0.6)
    axes.set(
      xscale='log',
      xlabel='compression by counted bits, embeddings not counted',
      ylabel='BLEU',
      title=', '.join(sorted({row['data'] for row in rows})),
    )
    axes.set_xticks([1, 2, 4, 8, 16, 32], ['1', '2', '4', '8', '16', '32'])
    drawing.below(figure, axes, columns=2)
    return {'compression': drawing.png(figure)}
