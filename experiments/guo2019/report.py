"""The tables and figures of the report, from the ledger."""

import numpy as np

from experiments.guo2019.claims import (
  DENSE,
  METHODS,
  best_strengths,
  by_method,
  pretraining_loss,
)
from prunejax.report import drawing, statistics
from prunejax.report import tables as tabular

COLOURS = {'rpp': '#c0392b', 'nip': '#2471a3', 'l1': '#b7950b', 'dense': '#555555'}
CAPTIONS = {
  'loss': (
    'Held-out loss after pruning in continued pre-training (masked words + next sentence), 95 % '
    'over seeds.'
  ),
  'scores': 'Dev accuracy after fine-tuning with the zeros held, 95 % over seeds.',
}


def tables(rows: list[dict]) -> list[tabular.Table]:
  """Tabulate the results by method and sparsity, and the strengths of the penalties if several."""
  best = best_strengths(rows)
  strengths = {(row['arm'], row['sparsity']): row['strength'] for row in best}
  losses = pretraining_loss(best)
  columns = {
    'pre-train loss': losses,
    'NSP accuracy': by_method(best, 'pretrain', 'nsp_accuracy'),
  }
  for task in sorted({row['task'] for row in best if row['task']}):
    columns[task] = by_method(best, 'finetune', 'accuracy', task)
  order = sorted(losses, key=lambda key: (key[1], list(METHODS).index(key[0])))
  lines = [
    {
      'method': METHODS[key[0]],
      'sparsity': key[1],
      'seeds': len(losses[key]),
      'strength': f'{strengths[key]:g}' if strengths[key] else '-',
      **{name: _show(values.get(key, {})) for name, values in columns.items()},
    }
    for key in order
  ]
  return [tabular.records('Pre-training and fine-tuning', lines), *_strengths(rows)]


def _strengths(rows):
  """[a table] of the loss by strength, where a penalty had several."""
  by_strength = {}
  for row in rows:
    if row['stage'] == 'pretrain' and row['strength']:
      key = row['sparsity'], row['arm'], row['strength']
      by_strength.setdefault(key, []).append(row)
  if len(by_strength) == len({key[:2] for key in by_strength}):
    return []
  zeros = {}
  for row in rows:
    if row['stage'] == 'zeros' and 'zeros' in row['metrics']:
      key = row['sparsity'], row['arm'], row['strength']
      zeros.setdefault(key, {})[row['seed']] = row['metrics']['zeros']
  lines = [
    {
      'method': METHODS[method],
      'sparsity': sparsity,
      'strength': f'{strength:g}',
      'seeds': len(cells),
      'pre-train loss': _show(pretraining_loss(cells).get((method, sparsity), {})),
      **(
        {'zeros before the cut': _show(zeros.get((sparsity, method, strength), {}))}
        if zeros
        else {}
      ),
    }
    for (sparsity, method, strength), cells in sorted(by_strength.items())
  ]
  note = (
    'Elsewhere each method and sparsity is shown with the strength that has the lowest mean loss.'
  )
  return [tabular.records('Strengths of the penalties', lines, note)]


def _show(by_seed):
  """'0.912 ± 0.004', or '-'."""
  if not by_seed:
    return '-'
  e = statistics.cautious(list(by_seed.values()))
  return f'{e.mean:.3f} ± {(e.high - e.low) / 2:.3f}' if len(by_seed) > 1 else f'{e.mean:.3f}'


def figures(rows: list[dict]) -> dict[str, bytes]:
  """Draw {'loss': PNG}, and 'scores' where a task was fine-tuned; bars are 95 % intervals."""
  rows = best_strengths(rows)
  tasks = sorted({row['task'] for row in rows if row['task']})
  pngs = {'loss': _draw({'held-out pre-training loss, nats': pretraining_loss(rows)})}
  if tasks:
    scores = {task: by_method(rows, 'finetune', 'accuracy', task) for task in tasks}
    pngs['scores'] = _draw({f'{task}, dev accuracy': scores[task] for task in tasks})
  return pngs


def _draw(panels):
  """A value against the sparsity, one panel each, one colour a method."""
  with drawing.canvas(5.2 * len(panels), 4.2, len(panels)) as (figure, all_axes):
    for axes, (title, values) in zip(all_axes, panels.items(), strict=True):
      for position, method in enumerate(('nip', 'l1', 'rpp')):
        sparsities = sorted(s for name, s in values if name == method)
        if not sparsities:
          continue
        estimates = [statistics.cautious(values[method, s].values()) for s in sparsities]
        reach = [[e.mean - e.low for e in estimates], [e.high - e.mean for e in estimates]]
        axes.errorbar(
          np.array(sparsities) + 0.004 * (position - 1),
          [e.mean for e in estimates],
          yerr=np.nan_to_num(reach),
          color=COLOURS[method],
          marker='o',
          capsize=3,
          elinewidth=1.2,
          label=METHODS[method],
        )
      if dense := values.get(DENSE):
        level = np.mean(list(dense.values()))
        axes.axhline(level, color=COLOURS['dense'], linestyle='--', linewidth=1.4, label='dense')
      axes.set_title(title)
      axes.set_xticks(sorted({s for _, s in values if s}))
      axes.set_xlabel('sparsity (fraction of weights removed)')
    drawing.below(figure, *all_axes, columns=4 if len(panels) > 1 else 1)
    return drawing.png(figure)
