"""Tables and figures of the probes, ours beside the paper's, from ledger rows and nothing else."""

import math

import numpy as np

from experiments.gordon2020 import paper
from experiments.gordon2020.analysis import (
  arms,
  drift,
  drift_figures,
  mask_figures,
  movement_figures,
  probe_rows,
  regimes,
)
from prunejax.report import statistics, tables

CAPTIONS = {**mask_figures.CAPTIONS, **movement_figures.CAPTIONS, **drift_figures.CAPTIONS}
THRESHOLDS = (0.99, 0.98, 0.95, 0.9, 0.85, 0.8, 0.7, 0.6, 0.5)


def shown(rows, scored):
  """The tables that the probe rows among `rows` can fill.

  Args:
    rows: finished ledger rows.
    scored: the rows whose scores feature drift is held against, those of tasks that were learned.
  """
  have = _measured(rows)
  tables_of = {
    'difference': mask_difference,
    'movement': table2,
    'weights': table3,
    'heads': of_heads,
    'overlap': overlaps,
  }
  drifts = drift_figures.of(rows, scored) if 'features' in have else ()
  first = stopping(*drifts, scored) if all(drifts) and drifts else []
  return first + [table(rows) for name, table in tables_of.items() if name in have]


def figures(rows, scored):
  """{name: PNG} of the figures that the probe rows among `rows` can fill; arguments as for `shown`."""
  have = _measured(rows)
  drawn = {}
  if 'features' in have:
    drawn['figure2b'] = mask_figures.figure2b(rows)
    drifts = drift_figures.of(rows, scored)
    if all(drifts):
      drawn['drift'] = drift_figures.figure(*drifts)
  if 'difference' in have:
    drawn['figure3a'] = mask_figures.figure3a(rows, most=paper.MOST_DIFFERENT)
    if any(row['stage'] == 'probe' for row in probe_rows.of_epochs(rows)):
      drawn['figure3b'] = mask_figures.figure3b(rows)
  if 'movement' in have:
    theirs = {
      name: dict(zip(paper.EPOCHS, line, strict=True)) for name, line in paper.FIGURE4.items()
    }
    drawn['figure4'] = movement_figures.figure4(rows, theirs, paper.MATRICES)
    drawn['figure6'] = movement_figures.figure6(rows)
  if have & {'words', 'embeddings'}:
    drawn['figure8'] = movement_figures.figure8(rows)
  if 'heads' in have:
    drawn['heads'] = mask_figures.heads(rows)
  if 'overlap' in have:
    drawn['overlap'] = mask_figures.overlap(rows)
  return drawn


def _measured(rows):
  return {row['probe'] for row in rows if row['stage'] == 'probe'}


def table2(rows):
  """Table 2: movement in magnitude order while a dense model is fine-tuned, task by task and rate by rate."""
  lines = []
  for (task, rate, epochs), found in grouped(probe_rows.of(rows, 'movement'), ('dense', 'before')):
    name = paper.task(task)
    theirs = paper.TABLE2.get(rate, {}).get(name)
    if epochs:
      theirs = None
      if name and epochs in paper.EPOCHS:
        theirs = paper.FIGURE4[name][paper.EPOCHS.index(epochs)], math.nan
    elif name and not theirs:
      theirs = paper.TABLE2[5e-5][name]  # ours has no such rate: the paper's highest
    lines.append(
      {
        'task': task,
        'learning rate': f'{rate:g}',
        'epochs': str(epochs) if epochs else 'as the grid',
        'seeds': len(found),
        'mean, ours': tables.points(statistics.bootstrap([m['mean'] for m in found])),
        'deviation, ours': f'{100 * statistics.mean([m["std"] for m in found]):.1f}',
        'word embeddings': f'{100 * statistics.mean([m["words"][0] for m in found]):.1f}'
        if all('words' in m for m in found)
        else '-',
        'mean, paper': f'{theirs[0]:.2f}' if theirs else '-',
        'deviation, paper': f'{theirs[1]:.2f}' if theirs and math.isfinite(theirs[1]) else '-',
      }
    )
  return tables.records(
    'Table 2: movement in magnitude order during fine-tuning (% of the matrix)',
    lines,
    'Over all prunable weights but the word embeddings, as in the paper; ± half of the 95 % bootstrap interval over '
    "seeds. Where the learning rate is none of the paper's, its numbers for 5e-5 stand beside ours.",
  )


def grouped(rows, order):
  """[((task, learning rate, epochs or 0), [metrics of each seed])] of the first arm of `order`, then by epochs."""
  groups = {}
  plain = [{**row, 'epochs': None} for row in probe_rows.first_of(rows, order)]
  for row in [*plain, *probe_rows.of_epochs(rows)]:
    groups.setdefault((row['task'], row['learning_rate'], row['epochs'] or 0), []).append(
      row['metrics']
    )
  return sorted(groups.items())


def table3(rows):
  """Table 3: mean and deviation of the weights of each kind of matrix, over layers and seeds."""
  found, lines, zero = [row['metrics'] for row in probe_rows.of(rows, 'weights')], [], 'about 0'
  # Both ends once they look the same are one; a zero has no sign.
  span = lambda values, form: ' to '.join(
    dict.fromkeys(f'{round(v, int(form[1])) + 0.0:{form}}' for v in values)
  )
  ends = lambda lists: (min(min(v) for v in lists), max(max(v) for v in lists))
  for kind in sorted({kind for metrics in found for kind in metrics['std']}):
    mine = [metrics for metrics in found if kind in metrics['std']]
    lines.append(
      {
        'matrix': kind,
        'mean, ours': span(ends([m['mean'][kind] for m in mine]), '.4f'),
        'mean, paper': span(paper.MEANS[kind], '.4f')
        if kind in paper.MEANS
        else zero
        if kind in paper.TABLE3
        else '-',
        'deviation, ours': span(ends([m['std'][kind] for m in mine]), '.3f'),
        'deviation, paper': span(paper.TABLE3[kind], '.3f') if kind in paper.TABLE3 else '-',
      }
    )
  return tables.records(
    'Table 3: weights of each matrix of the dense model',
    lines,
    'Lowest to highest over layers and seeds; the paper: BERT-Base.',
  )


def mask_difference(rows):
  """Figure 3 as a table: the largest mask difference of each task, and what chance would give there."""
  lines = []
  for (task, rate, epochs), found in grouped(
    probe_rows.of(rows, 'difference'), ('before', 'dense')
  ):
    line = {
      'task': task,
      'learning rate': f'{rate:g}',
      'epochs': str(epochs) if epochs else 'as the grid',
    }
    for name, title in (('pruned', 'to the pre-training mask'), ('start', 'to the one before')):
      means = {
        s: statistics.mean([m[name][m['sparsity'].index(s)] for m in found if s in m['sparsity']])
        for s in found[0]['sparsity']
      }
      means = {s: v for s, v in means.items() if math.isfinite(v)}
      top = max(means, key=means.get, default=None)
      line[title] = f'{100 * means[top]:.1f} % at {top:g}' if top is not None else '-'
      if name == 'pruned' and top is not None:
        line['two random masks there'] = (
          f'{100 * found[0]["chance"][found[0]["sparsity"].index(top)]:.0f} %'
        )
    lines.append(line)
  return tables.records(
    'Figure 3: where masks found after fine-tuning differ most',
    lines,
    f'Share of mask entries that differ; below {paper.MOST_DIFFERENT:.0%} everywhere in the paper.',
  )


def of_heads(rows):
  """The head figure as a table: lowest, mean and highest share of a head, and its spread against chance."""
  lines = []
  table = {
    name: probe_rows.over(probe_rows.of(rows, 'heads'), name)
    for name in ('expected', 'lowest', 'highest', 'deviation', 'sd')
  }
  mean = lambda name, key: statistics.mean(probe_rows.by_seed(table[name][key]).values())
  for key in sorted(table['lowest'], key=arms.order):
    lines.append(
      {
        'arm': arms.name(key[0]),
        'sparsity': f'{key[1]:g}',
        **{name: f'{mean(name, key):.3f}' for name in ('lowest', 'expected', 'highest')},
        'deviation over heads': f'{mean("deviation", key):.4f}',
        'by chance': f'{mean("sd", key):.4f}',
      }
    )
  return tables.records(
    'Share of each attention head that is pruned',
    lines,
    'Means over seeds. By chance: the deviation of one head under random masks.',
  )


def overlaps(rows):
  """Weights kept in common, observed over expected and Jaccard, by kind of pair; z is the mean over pairs."""
  found = probe_rows.of(rows, 'overlap')
  names = ('ratio', 'agreement', 'jaccard', 'z')
  ratio, agreement, jaccard, z = (probe_rows.over(found, name, mask_figures.pair) for name in names)
  known = dict.fromkeys([*mask_figures.PAIRS, *sorted(key for key, _ in ratio)])
  names = [name for name in known if any(key == name for key, _ in ratio)]
  lines = []
  for name in names:
    for s in sorted(s for key, s in ratio if key == name):
      of = lambda table, key=(name, s): statistics.bootstrap(
        probe_rows.by_seed(table.get(key, {})).values()
      )
      lines.append(
        {
          'masks': mask_figures.PAIRS.get(name, name),
          'sparsity': f'{s:g}',
          'pairs': len(ratio[name, s]),
          'observed / expected': tables.number(of(ratio)),
          'same mask': f'{1 / (1 - s):.2f}',
          'agreement beyond chance': tables.number(of(agreement)),
          'Jaccard': tables.number(of(jaccard)),
          'z': f'{of(z).mean:.0f}',
        }
      )
  return tables.records(
    'Weights that two masks both keep',
    lines,
    'Expected: masks drawn at random with as many kept in each matrix (hypergeometric). Agreement: '
    '1 is the same mask, 0 is chance.',
  )


def stopping(cosines, differences, scored, tolerance=regimes.SCORE):
  """Two tables: where thresholds on feature drift stop, and where the free regime ends, by task and in the mean."""
  lines = []
  for threshold in THRESHOLDS:
    stops = {task: drift.stop(cosines, places, threshold) for task, places in differences.items()}
    first = next(iter(stops.values()))
    lines.append(
      {
        'cosine at least': f'{threshold:g}',
        'stops at sparsity': f'{first.sparsity:g}',
        **{
          task: f'{100 * stop.cost:+.1f}' if math.isfinite(stop.cost) else '-'
          for task, stop in stops.items()
        },
      }
    )
  rule = tables.records(
    'Feature drift as the rule to stop: the sparsity it would have chosen, and what that costs',
    lines,
    'Mean cosine of the hidden states to the dense model over layers, tokens, seeds; points of dev score less dense.',
  )
  ends = []
  for task, places in sorted(differences.items()):
    free = drift.free_until(places, tolerance)
    low, high = drift.window(cosines, free)
    window = f'{max(low, -1):.3f} to {high:.3f}' if math.isfinite(high) else '-'
    ends.append({'task': task, 'free until': f'{free:g}', 'thresholds that stop there': window})
  curve, margin = regimes.curves(scored)['free, score']
  end, levels = regimes.crossing(curve, margin), [0.0, *sorted(cosines)]
  alike = lambda s: f'{float(np.interp(s, levels, [1.0, *(cosines[at] for at in levels[1:])])):.3f}'
  if math.isfinite(end.at):
    span = f' [{end.low:.2f}, {end.high:.2f}]' if math.isfinite(end.low + end.high) else ''
    drifts = f' [{alike(end.high)}, {alike(end.low)}]' if span else ''
    ends.append(
      {
        'task': 'mean of the tasks, between sparsities',
        'free until': f'{end.at:.2f}{span}',
        'thresholds that stop there': f'{alike(end.at)}{drifts}',
      }
    )
  return [
    rule,
    tables.records(
      'The end of the free regime, task by task',
      ends,
      f'The last sparsity before the mean score first lies {100 * tolerance:g} points or more below dense, and the '
      'thresholds on the cosine that would have stopped exactly there. In the mean: where the curve crosses, with its '
      '95 % interval over seeds, and the cosine there.',
    ),
  ]
