"""What the ledger says: the claims, one table, one figure."""

import numpy as np

from prunejax.report import drawing, tables, verdicts

NAMES = {
  'magnitude': 'magnitude',
  'wanda': 'Wanda',
  'sparsegpt': 'SparseGPT',
  'fisher 1': 'block Fisher, 1 computation',
  'fisher 4': 'block Fisher, 4 computations',
}
COLOURS = {
  'magnitude': '#777777',
  'wanda': '#e69f00',
  'sparsegpt': '#0072b2',
  'fisher 1': '#cc79a7',
  'fisher 4': '#882255',
}


def losses(rows, method, pattern, sparsity):
  """{seed: loss}."""
  return {
    row['seed']: row['metrics']['loss']
    for row in rows
    if (row['method'], row['pattern'], row['sparsity']) == (method, pattern, sparsity)
  }


def lower(rows, name, claim, better, worse, places):
  """A claim that `better` has a lower loss than `worse` at each of `places`; magnitude has one run for all seeds."""
  sides, evidence = [], []
  for pattern, sparsity in places:
    a, b = (losses(rows, method, pattern, sparsity) for method in (better, worse))
    if worse == 'magnitude' and b:
      b = dict.fromkeys(a, next(iter(b.values())))
    gaps = [b[seed] - a[seed] for seed in a if seed in b]
    sides.append(verdicts.side(gaps) if gaps else 0)
    if gaps:
      evidence.append(f'{pattern} {sparsity}: {NAMES[worse]} is higher by {verdicts.shown(gaps)}')
  return verdicts.Verdict(
    name, claim, verdicts.all_of(sides), '; '.join(evidence) or 'no rows', ('loss',)
  )


def verdicts_of(rows):
  half = (('unstructured', 0.5), ('2:4', 0.5))
  high = tuple(('unstructured', s) for s in (0.6, 0.7, 0.8))
  return [
    lower(
      rows,
      'wanda-half',
      'Wanda is better than magnitude at 50 % and 2:4',
      'wanda',
      'magnitude',
      half,
    ),
    lower(
      rows,
      'sparsegpt-half',
      'SparseGPT is better than Wanda at 50 % and 2:4',
      'sparsegpt',
      'wanda',
      half,
    ),
    lower(
      rows,
      'sparsegpt-high',
      'SparseGPT is better than Wanda at 60 to 80 %',
      'sparsegpt',
      'wanda',
      high,
    ),
    lower(
      rows,
      'fisher',
      'block Fisher is better than magnitude at 70 and 80 %',
      'fisher 1',
      'magnitude',
      high[1:],
    ),
    lower(
      rows,
      'recompute',
      'four computations are better than one at 70 and 80 %',
      'fisher 4',
      'fisher 1',
      high[1:],
    ),
  ]


def tables_of(rows):
  places = sorted(
    {(row['pattern'], row['sparsity']) for row in rows},
    key=lambda place: (place[0] == '2:4', place[1]),
  )
  lines = [
    {
      'method': 'dense',
      **{f'{p} {s}': f'{rows[0]["metrics"]["dense_loss"]:.3f}' for p, s in places},
    }
  ]
  for method in NAMES:
    cells = {f'{p} {s}': list(losses(rows, method, p, s).values()) for p, s in places}
    if any(cells.values()):
      shown = {
        place: f'{np.mean(v):.3f} ({np.ptp(v):.3f})' if v else '' for place, v in cells.items()
      }
      lines.append({'method': NAMES[method], **shown})
  return [
    tables.records('Held-out loss just after pruning: mean (range over calibration draws)', lines)
  ]


def figures_of(rows):
  with drawing.canvas(9, 4.6, 2) as (figure, (curve, bars)):
    curve.axhline(
      rows[0]['metrics']['dense_loss'],
      color='#333333',
      linestyle='--',
      linewidth=1.2,
      label='dense',
    )
    for place, method in enumerate(NAMES):
      found = {
        s: list(losses(rows, method, 'unstructured', s).values())
        for s in sorted({r['sparsity'] for r in rows})
      }
      found = {s: v for s, v in found.items() if v}
      if found:
        means, reach = drawing.ranges(list(found.values()))
        style = {'color': COLOURS[method], 'marker': 'o', 'capsize': 3, 'label': NAMES[method]}
        curve.errorbar(list(found), means, yerr=reach, **style)
      if values := list(losses(rows, method, '2:4', 0.5).values()):
        bars.bar(place, np.mean(values), color=COLOURS[method], width=0.7)
        bars.text(place, np.mean(values), f'{np.mean(values):.2f}', ha='center', va='bottom')
    bars.axhline(rows[0]['metrics']['dense_loss'], color='#333333', linestyle='--', linewidth=1.2)
    bars.set_xticks([])
    curve.set_title('single weights')
    bars.set_title('2:4')
    curve.set_xlabel('sparsity (fraction of weights removed)')
    curve.set_ylabel('held-out loss (MLM + NSP), no recovery')
    drawing.below(figure, curve, bars)
    return {'loss': drawing.png(figure)}
