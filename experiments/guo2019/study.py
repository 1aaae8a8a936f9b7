"""Guo, Liu, Mungall, Lin & Wang 2019, Reweighted Proximal Pruning for Large-Scale Language Representation.

python -m prunejax reproduce guo2019 --preset=quick
"""

import numpy as np

from experiments.guo2019 import claims
from experiments.guo2019 import study_cells as cells
from prunejax.report import drawing, statistics, tables
from prunejax.sweep import study

COLOURS = {'rpp': '#c0392b', 'nip': '#2471a3', 'l1': '#b7950b', 'dense': '#555555'}


def shown(rows):
  """One row a method and sparsity: pre-training, then each task; and what each strength of a penalty does."""
  every, rows = rows, claims.chosen(rows)
  strengths = {(row['arm'], row['sparsity']): row['strength'] for row in rows}
  losses = claims.loss(rows)
  measures = {
    'pre-train loss': losses,
    'NSP accuracy': claims.table(rows, 'pretrain', 'nsp_accuracy'),
  }
  for task in sorted({row['task'] for row in rows if row['task']}):
    measures[task] = claims.table(rows, 'finetune', 'accuracy', task)
  order = sorted(losses, key=lambda key: (key[1], list(cells.METHODS).index(key[0])))
  return [
    tables.records(
      'Pre-training and fine-tuning',
      [
        {
          'method': cells.METHODS[method],
          'sparsity': s,
          'seeds': len(losses[method, s]),
          'strength': f'{strengths[method, s]:g}' if strengths[method, s] else '-',
          **{name: claims.means(values, (method, s)) for name, values in measures.items()},
        }
        for method, s in order
      ],
    )
  ] + _by_strength(every)


def _by_strength(rows):
  """[a table], where penalties had several strengths: the held-out pre-training loss of each."""
  found = {}
  for row in rows:
    if row['stage'] == 'pretrain' and row['strength']:
      found.setdefault((row['arm'], row['sparsity'], row['strength']), []).append(row)
  lines = [
    {
      'method': cells.METHODS[arm],
      'sparsity': s,
      'strength': f'{strength:g}',
      'seeds': len(of),
      'pre-train loss': claims.means(claims.loss(of), (arm, s)),
    }
    for (arm, s, strength), of in sorted(
      found.items(), key=lambda place: (place[0][1], place[0][0], place[0][2])
    )
  ]
  several = len(lines) > len({key[:2] for key in found})
  note = 'Of each method and sparsity the strength of the lowest mean is the one shown elsewhere.'
  return [tables.records('Strengths of the penalties', lines, note)] if several else []


def figures(rows):
  """Score and loss against sparsity, one colour a method; bars are 95 % intervals over seeds."""
  rows = claims.chosen(rows)
  tasks = sorted({row['task'] for row in rows if row['task']})
  scores = {task: claims.table(rows, 'finetune', 'accuracy', task) for task in tasks}
  out = {'loss': _figure({'held-out pre-training loss, nats': claims.loss(rows)})}
  return out | (
    {'scores': _figure({f'{task}, dev accuracy': scores[task] for task in tasks})} if tasks else {}
  )


def _figure(panels):
  with drawing.canvas(5.2 * len(panels), 4.2, len(panels)) as (figure, axes):
    for place, (title, values) in zip(axes, panels.items(), strict=True):
      for at, method in enumerate(('nip', 'l1', 'rpp')):
        points = sorted(s for name, s in values if name == method)
        if points:
          of = [statistics.cautious(values[method, s].values()) for s in points]
          bars = np.nan_to_num([[e.mean - e.low for e in of], [e.high - e.mean for e in of]])
          place.errorbar(
            np.array(points) + 0.004 * (at - 1),
            [e.mean for e in of],
            yerr=bars,
            color=COLOURS[method],
            marker='o',
            capsize=3,
            elinewidth=1.2,
            label=cells.METHODS[method],
          )
      if whole := values.get(('dense', 0.0)):
        level = np.mean(list(whole.values()))
        place.axhline(level, color=COLOURS['dense'], linestyle='--', linewidth=1.4, label='dense')
      place.set_title(title)
      place.set_xlabel('sparsity (fraction of weights removed)')
    drawing.below(figure, *axes, columns=4 if len(panels) > 1 else 1)
    return drawing.png(figure)


CAPTIONS = {
  'loss': 'Held-out loss after pruning in continued pre-training (masked words + next sentence), 95 % over seeds.',
  'scores': 'Dev accuracy after fine-tuning with the zeros held, 95 % over seeds.',
}
STUDY = study.Study(
  'guo2019',
  'Reweighted proximal pruning',
  'Guo, Liu, Mungall, Lin & Wang 2019, arXiv 1909.12486',
  cells.PRESETS,
  cells.plan,
  None,
  claims.claims,
  shown,
  figures,
  CAPTIONS,
)
reproduce, write_report, redraw, compare = study.verbs(STUDY)
