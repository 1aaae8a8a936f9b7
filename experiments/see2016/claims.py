"""What See et al. say, each as a check of the ledger; its table and its figures."""

import numpy as np

from experiments.see2016.cells import CLASSES, SCHEMES
from prunejax.report import drawing, tables
from prunejax.report.verdicts import Verdict, all_of, shown, side

LOSS = 0.05  # of dense BLEU: what 'very little loss' may be, our reading
BAND = 0.02  # of dense BLEU: what 'matches' may miss, our reading
MIDDLE = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
COLOURS = {'class-blind': '#1b6ca8', 'class-uniform': '#d1495b', 'class-distribution': '#2e8b57'}


def scores(rows):
  """{(method, scheme, sparsity): {seed: BLEU}}."""
  out = {}
  for row in rows:
    out.setdefault((row['method'], row['scheme'], row['sparsity']), {})[row['seed']] = row[
      'metrics'
    ]['bleu']
  return out


def claims(rows):
  """The verdicts. Every comparison is within a seed."""
  found = scores(rows)
  dense = found.get(('dense', '', 0.0), {})
  get = lambda *key: found.get(key, {})

  def ahead(first, second, margin=0.0):
    return [
      first[s] - second[s] + margin * dense[s] for s in sorted(first) if s in second and s in dense
    ]

  blind = {
    other: [
      np.mean([get('one shot', 'class-blind', x)[s] - get('one shot', other, x)[s] for x in MIDDLE])
      for s in sorted(dense)
      if all(s in get('one shot', name, x) for x in MIDDLE for name in ('class-blind', other))
    ]
    for other in ('class-uniform', 'class-distribution')
  }
  free = ahead(get('one shot', 'class-blind', 0.4), dense, LOSS)
  again, scratch = get('retrained', 'class-blind', 0.8), get('from scratch', 'class-blind', 0.8)
  longer = get('retrained', '', 0.0)
  match, fair, worse = ahead(again, dense, BAND), ahead(again, longer, BAND), ahead(again, scratch)
  drop = {name: ahead(dense, get('class alone', name, 0.9)) for name in CLASSES}
  count = min(map(len, drop.values()))
  spread = {
    name: [
      drop[name][i] - np.mean([drop[f'{where} embedding'][i] for where in ('source', 'target')])
      for i in range(count)
    ]
    for name in ('target layer', 'attention', 'softmax')
  }
  say = lambda values: shown(values, '+.2f') if values else 'not measured'
  return [
    Verdict(
      'class-blind',
      'One threshold for all classes is the best of the three schemes (section 3.2)',
      all_of(map(side, blind.values())),
      'BLEU ahead, mean of sparsities 0.3 to 0.8: '
      + '; '.join(f'of {k} {say(v)}' for k, v in blind.items()),
      ('schemes',),
    ),
    Verdict(
      '40 % for nothing',
      '40 % of the weights go with very little loss and no retraining (abstract); '
      f'here: class-blind, at most {LOSS:.0%} of the dense BLEU',
      all_of([side(free)]),
      f'BLEU against dense {say(ahead(get("one shot", "class-blind", 0.4), dense))}',
      ('schemes',),
    ),
    Verdict(
      '80 % with retraining',
      'With retraining a model pruned by 80 % matches or beats the dense one (abstract); '
      f'here within {BAND:.0%}',
      all_of([side(match)]),
      f'BLEU against dense {say(ahead(again, dense))}; against dense trained as many steps longer '
      f'{say(ahead(again, longer))} ({len(fair)} seeds)',
      ('schemes',),
    ),
    Verdict(
      'classes',
      'Higher layers, attention and softmax matter most, embeddings are the most redundant',
      all_of(map(side, spread.values())),
      'BLEU lost more than by the mean of the two embeddings, one class pruned to 0.9: '
      + '; '.join(f'{k} {say(v)}' for k, v in spread.items()),
      ('classes',),
    ),
    Verdict(
      'from scratch',
      'A sparse model trained from scratch is worse than pruning and retraining',
      all_of([side(worse)]),
      f'BLEU of pruned and retrained ahead of from scratch at 0.8: {say(worse)}',
      ('schemes',),
    ),
  ]


def shown_tables(rows):
  """One table: BLEU a method, scheme and sparsity."""
  lines = [
    {
      'method': method,
      'scheme or class': scheme or '-',
      'sparsity': f'{sparsity:g}',
      'seeds': len(place),
      'BLEU': shown(list(place.values()), '.2f'),
    }
    for (method, scheme, sparsity), place in scores(rows).items()
  ]
  names = sorted({row['data'] for row in rows})
  note = (
    'cipher is a made-up language, no real translation'
    if 'cipher' in names
    else 'test_2016_flickr, short half'
  )
  return [tables.records(f'BLEU on {", ".join(names)}', lines, note)]


def figures(rows):
  """{'schemes': BLEU against sparsity, 'classes': BLEU lost with one class pruned}, PNG bytes."""
  found = scores(rows)
  mean = lambda key: float(np.mean(list(found[key].values())))
  dense = mean(('dense', '', 0.0)) if ('dense', '', 0.0) in found else np.nan
  title = ', '.join(sorted({row['data'] for row in rows}))
  with drawing.canvas(7, 4.6, 1) as (figure, (axes,)):
    axes.axhline(dense, color='#555555', linestyle='--', linewidth=1.3, label='dense')
    for scheme in SCHEMES:
      places = sorted(key for key in found if key[:2] == ('one shot', scheme))
      axes.plot(
        [0.0, *(key[2] for key in places)],
        [dense, *map(mean, places)],
        'o-',
        color=COLOURS[scheme],
        label=f'{scheme}, one shot',
      )
      for key in places:
        axes.scatter(
          [key[2]] * len(found[key]), found[key].values(), s=9, color=COLOURS[scheme], alpha=0.5
        )
    for method, mark, colour in (('retrained', '*', '#1b6ca8'), ('from scratch', 'X', '#8d6a9f')):
      places = sorted(key for key in found if key[0] == method and key[1] in ('', 'class-blind'))
      if places:
        axes.plot(
          [key[2] for key in places],
          list(map(mean, places)),
          mark,
          color=colour,
          markersize=11,
          linestyle=':' if method == 'retrained' else '',
          label=f'class-blind, {method}',
        )
    axes.set(xlabel='sparsity (fraction of weights removed)', ylabel='BLEU', title=title)
    drawing.below(figure, axes, columns=2)
    schemes = drawing.png(figure)
  with drawing.canvas(7, 3.6, 1) as (figure, (axes,)):
    places = [key for key in found if key[0] == 'class alone']
    names = [f'{name} ({sparsity:g})' for _, name, sparsity in places]
    axes.barh(names, [dense - mean(key) for key in places], color='#1b6ca8', height=0.6)
    for at, key in enumerate(places):
      axes.scatter(
        [found[('dense', '', 0.0)].get(s, np.nan) - v for s, v in found[key].items()],
        [at] * len(found[key]),
        s=12,
        color='#222222',
        zorder=3,
      )
    axes.set(xlabel='BLEU lost, this class alone pruned, no retraining', title=title)
    classes = drawing.png(figure)
  return {'schemes': schemes, 'classes': classes}
