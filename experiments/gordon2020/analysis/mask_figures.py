"""Figures of masks and features from probe rows: 2b, 3, heads, and overlap against chance."""

import numpy as np

from experiments.gordon2020.analysis import arms, probe_rows, scoring
from prunejax.report import drawing, statistics

CAPTIONS = {
  'figure2b': 'Figure 2b: cosine similarity of the hidden states to those of the dense model, by '
  'sparsity and by '
  'layer; dashed, two dense models that differ in their seed only.',
  'figure3a': 'Figure 3a: share of mask entries in which the mask of a fine-tuned dense model '
  'differs from the one '
  'found in pre-training, and from the one-shot mask of the same model before fine-tuning.',
  'figure3b': 'Figure 3b: difference between the masks before and after fine-tuning at sparsity '
  '0.6, and the dev '
  'score of the model pruned then, over epochs.',
  'heads': 'Share of each attention head that is pruned: mean, lowest and highest head by '
  'sparsity; in grey, two '
  'standard deviations of a head under random masks.',
  'overlap': 'Agreement of two masks beyond chance, (observed - expected) / (most possible - '
  'expected) of the weights '
  'that both keep: 1 the same, 0 chance; and nesting: how many of the weights that a sparser '
  'mask keeps the '
  'next denser one keeps too.',
}
PAIRS = {
  'pruned, seed': 'pruned, two seeds',
  'random, seed': 'random, two seeds',
  'pruned, random': 'pruned and random',
  'pruned, dense': 'pruned and one-shot',
  'after, pruned': 'pruned and after fine-tuning',
  'after, seed': 'after fine-tuning, two seeds',
  'after, task': 'after fine-tuning, two tasks',
}


def figure2b(rows):
  """Mean cosine similarity of features to the dense model, by sparsity and by layer."""
  measured = probe_rows.of(rows, 'features')
  ours = [row for row in measured if row['arm'] != 'dense']
  table = probe_rows.over(ours, lambda metrics, i: statistics.mean(metrics['cosine'][i][1:]))
  floor = [row['metrics']['cosine'][0] for row in measured if row['arm'] == 'dense']
  with drawing.canvas(11, 4.6, 2) as (figure, (left, right)):
    lines = probe_rows.curves(table)
    estimates(
      left, {arms.name(arm): curve for arm, curve in lines.items()}, [_arm(arm) for arm in lines]
    )
    left.set(
      title='Mean over layers and tokens',
      xlabel='sparsity (fraction of weights removed)',
      ylabel='cosine similarity to dense',
    )
    by_level = {}
    for row in ours:
      for s, layers in zip(row['metrics']['sparsity'], row['metrics']['cosine'], strict=True):
        if row['arm'] == 'pruned':
          by_level.setdefault(s, []).append(layers)
    import matplotlib  # where something is drawn: see `drawing.canvas`

    shades = matplotlib.colormaps['viridis'](np.linspace(0.9, 0.05, max(len(by_level), 1)))
    for shade, s in zip(shades, sorted(by_level), strict=False):
      layers = probe_rows.mean_lists(by_level[s])
      right.plot(range(len(layers)), layers, marker='o', markersize=4, color=shade)
      right.text(len(layers) - 0.93, layers[-1], f'{s:g}', color=shade, va='center', fontsize=9)
    if floor:
      level = probe_rows.mean_lists(floor)
      left.axhline(
        level[1:].mean(),
        color=arms.colour('dense'),
        linestyle='--',
        linewidth=1.4,
        label='dense, another seed',
      )
      right.plot(
        range(len(level)), level, color=arms.colour('dense'), linestyle='--', linewidth=1.4
      )
    right.set(
      title='By layer, pruned in pre-training',
      xlabel='layer (0: embeddings)',
      ylabel='cosine similarity to dense',
    )
    right.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(integer=True))
    drawing.below(figure, left, right)
    return drawing.png(figure)


def figure3a(rows, *, most=None):
  """Mask difference by sparsity, a line a task and learning rate; `most` is the paper's bound."""
  measured = probe_rows.first_of(probe_rows.of(rows, 'difference'), ('before', 'dense'))
  rates = sorted({row['learning_rate'] for row in measured})
  key = lambda row: (row['task'], row['learning_rate'])
  tasks = probe_rows.tasks(measured)
  titles = {
    'pruned': 'Against the pre-training mask',
    'start': 'Against the mask before fine-tuning',
  }
  with drawing.canvas(11, 4.6, 2) as (figure, panels):
    for axes, (name, title) in zip(panels, titles.items(), strict=True):
      table = probe_rows.over(
        measured, lambda metrics, i, name=name: metrics[name][i] and 100 * metrics[name][i], key
      )
      lines = probe_rows.curves(table)
      named = {
        short(t) + (f', rate {r:g}' if len(rates) > 1 else ''): curve
        for (t, r), curve in lines.items()
      }
      estimates(
        axes,
        named,
        [style(tasks.index(t), rates.index(r) if len(rates) > 1 else None) for t, r in lines],
      )
      if most and lines:
        axes.axhline(
          100 * most, color='#aaaaaa', linestyle=':', linewidth=1.4, label="the paper's bound"
        )
      axes.set(
        title=title,
        xlabel='sparsity (fraction of weights removed)',
        ylabel='mask entries that differ (%)',
      )
      axes.set_ylim(bottom=0)
    drawing.below(figure, *panels)
    return drawing.png(
      figure, 'two random masks differ in 2 s (1 - s): 50 % at 0.5' if measured else ''
    )


def figure3b(rows, at=0.6):
  """Over epochs of dense fine-tuning: mask difference to the start, and dev score once pruned."""
  measured = probe_rows.of_epochs(probe_rows.of(rows, 'difference'))
  scored = [
    row
    for row in probe_rows.of_epochs(rows)
    if row['stage'] == 'finetune' and row['sparsity'] == at
  ]
  tasks = sorted({*probe_rows.tasks(measured), *probe_rows.tasks(scored)})
  places = {}
  for row in measured:
    levels = [round(s, 6) for s in row['metrics']['sparsity']]
    if at in levels:
      value = row['metrics']['start'][levels.index(at)]
      places.setdefault((row['task'], row['epochs']), {})[row['seed']] = 100 * value
  scores = {}
  for row in scored:
    scores.setdefault((row['task'], row['epochs']), {})[row['seed']] = 100 * scoring.score(row)
  with drawing.canvas(11, 4.6, 2) as (figure, (left, right)):
    for axes, table in ((left, places), (right, scores)):
      over_epochs(axes, table, tasks)
    left.set(title=f'Masks at sparsity {at:g}', ylabel='entries that differ from the start (%)')
    left.set_ylim(bottom=0)
    right.set(title='Pruned after so many epochs', ylabel='dev score (points)')
    drawing.below(figure, left, right)
    return drawing.png(figure)


def heads(rows):
  """Share of each attention head pruned by sparsity, and that share less that of its matrices."""
  measured = probe_rows.of(rows, 'heads')
  names = ('expected', 'mean', 'lowest', 'highest', 'sd')
  with drawing.canvas(11, 4.6, 2) as (figure, (left, right)):
    for k, arm in enumerate(
      sorted({row['arm'] for row in measured}, key=lambda a: arms.order((a, 0)))
    ):
      mine = [row for row in measured if row['arm'] == arm]
      tables = {name: probe_rows.curves(probe_rows.over(mine, name))[arm] for name in names}
      levels = np.array(sorted(tables['mean']))
      pick = {name: np.array([tables[name][s].mean for s in levels]) for name in names}
      for axes, less in ((left, 0), (right, pick['expected'])):
        reach = [pick['mean'] - pick['lowest'], pick['highest'] - pick['mean']]
        axes.errorbar(
          levels + 0.008 * k,
          pick['mean'] - less,
          yerr=np.abs(reach),
          color=arms.colour(arm),
          marker=arms.MARKERS.get(arm, 'D'),
          linestyle='',
          capsize=3,
          label=arms.name(arm),
          zorder=3,
        )
      if not k:
        right.fill_between(
          levels, -2 * pick['sd'], 2 * pick['sd'], color='#cccccc', label='chance, two deviations'
        )
    left.set(title='Each head', ylabel='share of its weights pruned')
    right.set(title='Less what its matrices lose', ylabel='difference in share')
    for axes in (left, right):
      axes.set_xlabel('sparsity (fraction of weights removed)')
    drawing.below(figure, left, right)
    return drawing.png(figure, 'bars: lowest and highest head, mean over seeds' if measured else '')


def overlap(rows):
  """Agreement of masks beyond chance, a line a kind of pair, and nesting over sparsity."""
  table = probe_rows.over(probe_rows.of(rows, 'overlap'), 'agreement', pair)
  lines = probe_rows.curves(table)
  with drawing.canvas(11, 4.8, 2) as (figure, (left, right)):
    known = [name for name in PAIRS if name in lines]
    estimates(
      left, {PAIRS[n]: lines[n] for n in known}, [style(list(PAIRS).index(n)) for n in known]
    )
    left.axhline(0, color='#aaaaaa', linewidth=1)
    left.set(
      title='Kept by both masks',
      xlabel='sparsity (fraction of weights removed)',
      ylabel='agreement beyond chance',
    )
    left.set(xlim=(0, 1), ylim=(-0.05, 1.02))
    measured = [
      {**row, 'metrics': {**row['metrics'], 'sparsity': row['metrics']['sparser']}}
      for row in probe_rows.of(rows, 'nesting')
    ]
    nests = probe_rows.curves(probe_rows.over(measured, 'nested'))
    estimates(
      right, {arms.name(arm): curve for arm, curve in nests.items()}, [_arm(arm) for arm in nests]
    )
    for curve in list(probe_rows.curves(probe_rows.over(measured, 'expected')).values())[
      :1
    ]:  # the same for every arm
      estimates(right, {'by chance': curve}, [{'color': '#888888', 'marker': '.'}], ':')
    right.set(
      title='Nesting',
      xlabel='sparsity of the sparser mask',
      ylabel='share kept by the denser one too',
    )
    right.set(xlim=(0, 1), ylim=(0, 1.02))
    if nests:  # nesting needs two sparsities
      right.legend(loc='lower left')
    drawing.below(figure, left)
    return drawing.png(figure)


def pair(row):
  """The kind of pair that an overlap row measures, a key of PAIRS."""
  against = row['against']
  other = (
    'seed'
    if against.startswith('seed ')
    else against
    if against in ('random', 'dense', 'pruned')
    else 'task'
  )
  return f'{row["arm"]}, {other}'


def estimates(axes, lines, styles, line='-'):
  """Draws lines {label: {x: Estimate}} with bars of their intervals.

  styles: a dict with 'color' and 'marker' for each line.
  """
  shift = 0.003 * (np.arange(len(lines)) - (len(lines) - 1) / 2)
  for nudge, (label, curve), look in zip(shift, lines.items(), styles, strict=True):
    x = sorted(curve)
    middle = np.array([curve[s].mean for s in x])
    bars = np.nan_to_num(
      [[curve[s].mean - curve[s].low for s in x], [curve[s].high - curve[s].mean for s in x]]
    )
    axes.errorbar(
      np.array(x) + nudge * (max(x) - min(x) or 1),
      middle,
      yerr=np.maximum(bars, 0),
      **look,
      markeredgecolor='white',
      markeredgewidth=0.7,
      capsize=3,
      elinewidth=1.2,
      label=label,
      linestyle=line,
      zorder=3,
    )


def over_epochs(axes, places, tasks):
  """Draws lines over epochs, one a task.

  table: {(task, epochs): {seed: number}}. tasks: their order gives the colours.
  """
  lines = {}
  for (task, epochs), numbers in sorted(places.items()):
    lines.setdefault(task, {})[epochs] = statistics.bootstrap(numbers.values())
  styles = [style(tasks.index(task)) for task in lines]
  estimates(axes, {short(task): curve for task, curve in lines.items()}, styles)
  axes.set_xlabel('epochs of fine-tuning')


def style(i, marker=None):
  """Colour and marker of the i-th of several curves that are not arms."""
  return {'color': arms.SERIES[i % 7], 'marker': 'os^XDvP'[(i if marker is None else marker) % 7]}


def _arm(arm):
  return {'color': arms.colour(arm), 'marker': arms.MARKERS.get(arm, 'D')}


def short(name):
  """The last part of a task's name: 'sst2' of 'glue/sst2'."""
  return name.rsplit('/', 1)[-1] or name
