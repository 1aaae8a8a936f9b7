"""What Zhu & Gupta 2017 say of their language models, judged on the ledger; the table and the figure."""

import math

from experiments.zhu2017 import paper
from prunejax.report import drawing, statistics, verdicts
from prunejax.report import tables as tabular

SIZES = ('small', 'medium', 'large')
COLOURS = {'small': '#7b6888', 'medium': '#2a9d8f', 'large': '#d1495b'}
NOT_RUN = 'no seed has both yet'
SAME = 0.02  # of log perplexity: closer is 'no difference'


def check(rows):
  """One `Verdict` a claim. Perplexities are compared as their logarithms, seed by seed."""
  found = losses(rows)
  gap = lambda a, b: [
    found[a][seed] - found[b][seed]
    for seed in sorted(set(found.get(a, ())) & set(found.get(b, ())))
  ]
  dense = {size: (size, 0.0) for size in SIZES}
  judged = []

  def lower(name, claim, one, other):
    """`one` has the lower perplexity."""
    diffs = gap(one, other)
    way = verdicts.side(diffs)
    text = f'{_named(one, found)} against {_named(other, found)}: log difference {verdicts.shown(diffs, "+.3f")}'
    text = text if diffs else NOT_RUN
    judged.append(
      verdicts.Verdict(name, claim, verdicts.word(way < 0, way > 0), text, ('perplexity',))
    )

  lower(
    'large_sparse_beats_small_dense',
    'At equal non-zeros a large model pruned by 90 % beats a small dense one',
    ('large', 0.9),
    dense['small'],
  )
  lower(
    'large_sparse_beats_medium_dense',
    'Large at 90 % (a third of the non-zeros) beats medium dense, 80.24 against 83.37',
    ('large', 0.9),
    dense['medium'],
  )
  lower(
    'medium_sparse_beats_small_dense',
    'Medium at 80 % beats small dense, 83.87 against 115.30',
    ('medium', 0.8),
    dense['small'],
  )
  lower(
    'pruning_helps_at_80',
    'Large at 80 % is better than large dense, 77.52 against 78.45',
    ('large', 0.8),
    dense['large'],
  )
  lower(
    '95_is_clearly_worse',
    'Large at 90 % is clearly better than large at 95 %, 80.24 against 87.83',
    ('large', 0.9),
    ('large', 0.95),
  )
  judged.append(_bends(gap))
  judged.append(_interval(rows))
  return judged


def losses(rows, every=None):
  """{(size, sparsity): {seed: log perplexity}} of the cells at the first interval, or at `every`."""
  table, first = {}, min(row['interval'] for row in rows)
  for row in rows:
    if row['interval'] == (first if every is None else every):
      table.setdefault((row['size'], row['sparsity']), {})[row['seed']] = row['metrics']['loss']
  return table


def _bends(gap):
  """The curve bends: the last half of the non-zeros costs more than the ten per cent before it."""
  late, early = gap(('large', 0.95), ('large', 0.9)), gap(('large', 0.9), ('large', 0.8))
  diffs = [a - b for a, b in zip(late, early, strict=False)]
  way = verdicts.side(diffs)
  text = f'90 to 95 %: {verdicts.shown(late, "+.3f")}; 80 to 90 %: {verdicts.shown(early, "+.3f")}'
  text = text if diffs else NOT_RUN
  claim = 'From 90 to 95 % perplexity rises more than from 80 to 90 % (+7.59 against +2.72)'
  return verdicts.Verdict(
    'the_curve_bends', claim, verdicts.word(way > 0, way < 0), text, ('perplexity',)
  )


def _interval(rows):
  """Masks that move ten times as seldom: no difference, that is one within +-SAME."""
  steps = sorted({row['interval'] for row in rows})
  sides = [losses(rows, every) for every in (steps[0], steps[-1])]
  shared = [key for key in sides[1] if key in sides[0]] if len(steps) > 1 else []
  diffs = [sides[1][k][s] - sides[0][k][s] for k in shared for s in sides[1][k] if s in sides[0][k]]
  e = statistics.cautious(diffs)
  inside = math.isfinite(e.low) and -SAME < e.low and e.high < SAME
  outside = math.isfinite(e.low) and (e.low > SAME or e.high < -SAME)
  text = f'log perplexity with every {steps[-1]} steps minus every {steps[0]}: {verdicts.shown(diffs, "+.4f")}'
  text = text if diffs else NOT_RUN
  claim = f'How often masks move, 100 or 1,000 steps, makes no difference (here 1 and 10 % of the ramp, within {SAME})'
  return verdicts.Verdict(
    'interval_makes_no_difference', claim, verdicts.word(inside, outside), text
  )


def tables(rows):
  """Ours beside theirs, one line an arm."""
  first = min(row['interval'] for row in rows)
  arms = sorted({(SIZES.index(r['size']), r['sparsity'], r['interval']) for r in rows})
  lines = []
  for index, sparsity, interval in arms:
    size = SIZES[index]
    mine = [
      r for r in rows if (r['size'], r['sparsity'], r['interval']) == (size, sparsity, interval)
    ]
    e = statistics.cautious([r['metrics']['perplexity'] for r in mine])
    theirs = paper.PERPLEXITY[size].get(sparsity) if interval == first else None
    lines.append(
      {
        'model': size,
        'sparsity': sparsity,
        'masks move every': interval if sparsity else '-',
        'seeds': len(mine),
        'non-zeros': f'{statistics.mean([r["metrics"]["nonzeros"] for r in mine]):,.0f}',
        'perplexity': f'{e.mean:.1f}',
        'of each seed': ' '.join(f'{r["metrics"]["perplexity"]:.1f}' for r in mine),
        'paper, PTB': '-' if theirs is None else f'{theirs:.2f}',
        'paper, M non-zeros': '-' if theirs is None else f'{paper.nonzeros(size, sparsity):.1f}',
      }
    )
  note = 'Held-out perplexity a word. The models of the paper are some sixty times larger.'
  return [tabular.records('Perplexity against non-zero parameters', lines, note)]


def figures(rows):
  """{'perplexity': PNG}: ours on the left, the paper's on the right."""
  found, many = losses(rows), {}
  for row in rows:
    many[row['size'], row['sparsity']] = row['metrics']['nonzeros']
  with drawing.canvas(11, 4.8, 2) as (figure, (ours, theirs)):
    for size in SIZES:
      levels = sorted(s for name, s in found if name == size)
      values = [[math.exp(v) for v in found[size, s].values()] for s in levels]
      middle, reach = drawing.ranges(values)
      at = [many[size, s] for s in levels]
      style = dict(color=COLOURS[size], marker='o', markeredgecolor='white')
      ours.errorbar(at, middle, yerr=reach, capsize=3, label=f'{size}', **style)
      known = sorted(paper.PERPLEXITY[size])
      theirs.plot(
        [1e6 * paper.nonzeros(size, s) for s in known],
        [paper.PERPLEXITY[size][s] for s in known],
        label=f'{size}',
        **style,
      )
      _labels(ours, at, middle, levels)
      _labels(
        theirs,
        [1e6 * paper.nonzeros(size, s) for s in known],
        list(paper.PERPLEXITY[size].values()),
        known,
      )
    for axes, title in ((ours, 'prunejax'), (theirs, 'Zhu & Gupta 2017, Penn Treebank')):
      axes.set_xscale('log')
      axes.set_xlabel('non-zero parameters')
      axes.set_ylabel('perplexity')
      axes.set_title(title)
    drawing.below(figure, ours)
    return {'perplexity': drawing.png(figure)}


def _labels(axes, x, y, levels):
  for a, b, level in zip(x, y, levels, strict=True):
    text = f'{level:g}' if level else 'dense'
    axes.annotate(
      text, (a, b), textcoords='offset points', xytext=(5, 6), fontsize=8, color='#555555'
    )


def _named(arm, found):
  size, sparsity = arm
  values = [math.exp(v) for v in found.get(arm, {}).values()]
  return f'{size} {f"at {sparsity:g}" if sparsity else "dense"} {statistics.mean(values):.1f}'
