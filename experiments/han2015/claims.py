"""Judge the findings of Han et al. 2015 on the ledger."""

from prunejax.report import statistics
from prunejax.report.verdicts import Comparison, Verdict, all_hold, decided_by, shown

NAMES = {'lenet-300-100': 'LeNet-300-100', 'lenet-5': 'LeNet-5'}
FREE = 0.25  # Points of accuracy that count as no loss.
AS_GOOD = 0.1  # A lead below so many points counts as none.
HALF = 0.5  # Fraction of the weights that is kept at no loss without retraining.
TENTH = 0.1  # The same with retraining.
FEW = 0.02  # Levels up to here are those at which iterative pruning is judged.
LOSES = (0.25, 0.2, 0.15, 0.1)  # Levels at which L1 and L2 are compared without retraining.
ALONE = 0.7  # The sparsity of one layer at which the layers of LeNet-5 are compared.


def select(rows: list[dict], arm: str, net: str = 'lenet-300-100', **labels) -> dict:
  """Pick the cells of an arm, {seed: metrics}; labels such as penalty='l1' narrow them."""
  return {
    row['seed']: row['metrics']
    for row in rows
    if row['arm'] == arm
    and row['net'] == net
    and all(row[name] == value for name, value in labels.items())
  }


def strengths(rows: list[dict], arm: str, penalty: str) -> list[float]:
  """List the strengths of a penalty that an arm has."""
  return sorted({r['strength'] for r in rows if r['arm'] == arm and r['penalty'] == penalty})


def points(metrics: dict, name: str, levels, grid: str = 'levels') -> float:
  """Compute the mean of a curve, in per cent, over some levels of its grid."""
  at = [metrics[grid].index(level) for level in levels if level in metrics[grid]]
  return 100 * statistics.mean([metrics[name][i] for i in at])


def best(rows: list[dict], arm: str, penalty: str, name: str, levels, grid: str = 'levels') -> dict:
  """Pick the cells of the strength with the best held-out accuracy, {seed: metrics}.

  Args:
    rows: of the ledger.
    arm, penalty: whose strengths are compared.
    name: of the accuracies, on the test images.
    levels, grid: where, see `points`.
  """
  held_out = lambda cells: statistics.mean(
    [points(m, f'{name}_held_out', levels, grid) for m in cells.values()]
  )
  cells = [
    select(rows, arm, penalty=penalty, strength=value) for value in strengths(rows, arm, penalty)
  ]
  return max(cells, key=held_out, default={})


def differences(first: dict, second: dict) -> list[float]:
  """Subtract, seed by seed, the second of two {seed: number}."""
  return [first[seed] - second[seed] for seed in sorted(first.keys() & second.keys())]


def each(cells: dict, name: str, levels, grid: str = 'levels') -> dict:
  """Compute `points` of every seed, {seed: per cent}."""
  return {seed: points(m, name, levels, grid) for seed, m in cells.items()}


def claims(rows: list[dict]) -> list[Verdict]:
  """Judge every claim; accuracies are compared within a seed."""
  return [
    _half_for_nothing(rows),
    _tenth_for_nothing(rows),
    _l1_before(rows),
    _l2_after(rows),
    _l1_then_l2(rows),
    _iterative(rows),
    _iterative_longer(rows),
    _chance(rows),
    _adjusted(rows),
    _scanned(rows),
    _first_layer(rows),
  ]


def _default(rows, arm='one shot'):
  """The cells of the arm with the strength of L2 that every other arm has."""
  values = strengths(rows, arm, 'l2')
  return select(rows, arm, penalty='l2', strength=values[-1]) if values else {}


def _levels(rows, arm='one shot'):
  cells = select(rows, arm)
  return tuple(next(iter(cells.values()))['levels']) if cells else ()


def _verdict(name, claim, comparisons, evidence, figure='curves'):
  known = any(len(list(c.values)) for c in comparisons)
  return Verdict(
    name,
    claim,
    all_hold(comparisons),
    evidence if known else 'cells are missing',
    (figure,),
    decided_by(comparisons),
  )


def _half_for_nothing(rows):
  cells = _default(rows)
  lost = differences(
    {s: 100 * m['dense'] for s, m in cells.items()}, each(cells, 'cut', (HALF,), 'cuts')
  )
  free = [Comparison('points lost', lost, FREE, above=False, form='+.2f')]
  return _verdict(
    'half_for_nothing',
    f'Without retraining half of the weights go at no loss (figure 5; within {FREE:g} points)',
    free,
    f'L2, cut to {HALF:g}: {shown(lost, "+.2f")} points lost',
  )


def _tenth_for_nothing(rows):
  cells = _default(rows, 'iterative')
  lost = differences(
    {s: 100 * m['dense'] for s, m in cells.items()}, each(cells, 'retrained', (TENTH,))
  )
  free = [Comparison('points lost', lost, FREE, above=False, form='+.2f')]
  return _verdict(
    'tenth_for_nothing',
    f'Pruned and retrained in turn, nine tenths of the weights go at no loss (figure 5; within '
    f'{FREE:g} points)',
    free,
    f'L2, iterative, {TENTH:g} kept: {shown(lost, "+.2f")} points lost',
  )


def _l1_before(rows):
  cells = {p: best(rows, 'one shot', p, 'cut', LOSES, 'cuts') for p in ('l1', 'l2')}
  lead = differences(*(each(cells[p], 'cut', LOSES, 'cuts') for p in ('l1', 'l2')))
  return _verdict(
    'l1_before_retraining',
    'L1 is better than L2 just after pruning, without retraining (section 3.1)',
    [Comparison('points, L1 over L2, 0.1 to 0.25 kept', lead, form='+.2f')],
    f'L1 minus L2, mean over {", ".join(map(str, LOSES))} kept: {shown(lead, "+.2f")} points',
  )


def _l2_after(rows):
  levels = _levels(rows)
  cells = {p: best(rows, 'one shot', p, 'retrained', levels) for p in ('l1', 'l2')}
  lead = differences(*(each(cells[p], 'retrained', levels) for p in ('l2', 'l1')))
  return _verdict(
    'l2_after_retraining',
    'L2 is better than L1 after retraining (section 3.1)',
    [Comparison('points, L2 over L1, retrained', lead, form='+.2f')],
    f'L2 minus L1, mean over {", ".join(map(str, levels))} kept: {shown(lead, "+.2f")} points',
  )


def _l1_then_l2(rows):
  levels = _levels(rows)
  mixed = best(rows, 'l1 then l2', 'l1', 'retrained', levels)
  l2 = best(rows, 'one shot', 'l2', 'retrained', levels)
  lead = differences(*(each(cells, 'retrained', levels) for cells in (mixed, l2)))
  what = 'points, L1 then L2 over L2 throughout'
  return _verdict(
    'l1_then_l2',
    'Pruning with L1 and retraining with L2 is no better than L2 for both (section 3.1; a lead '
    f'below {AS_GOOD:g} points is none)',
    [Comparison(what, lead, AS_GOOD, above=False, form='+.2f')],
    f'L1 then L2 minus L2, mean over {", ".join(map(str, levels))} kept: {shown(lead, "+.2f")} '
    'points',
  )


def _iterative(rows):
  levels = [level for level in _levels(rows, 'iterative') if level <= FEW]
  cells = [_default(rows, 'iterative'), _default(rows)]
  lead = differences(*(each(some, 'retrained', levels) for some in cells))
  return _verdict(
    'iterative_beats_one_shot',
    'Pruning and retraining in turn beats one cut, retrained for as many steps (section 3.4; at '
    f'most {FEW:g} of the weights kept)',
    [Comparison('points, iterative over one shot', lead, form='+.2f')],
    f'iterative minus one shot, mean over {", ".join(map(str, levels))} kept: '
    f'{shown(lead, "+.2f")} points',
  )


def _iterative_longer(rows):
  """The same with rounds as long as the retraining of one cut, and one cut retrained as long."""
  levels = _levels(rows, 'iterative, longer')
  cells = [_default(rows, arm) for arm in ('iterative, longer', 'one shot, longer')]
  lead = differences(*(each(some, 'retrained', levels) for some in cells))
  return _verdict(
    'iterative_beats_one_shot_longer',
    'Pruning and retraining in turn, each round as long as the retraining of one cut elsewhere, '
    'beats one cut that is retrained for as many steps in all',
    [Comparison('points, iterative over one shot', lead, form='+.2f')],
    f'iterative minus one shot, mean over {", ".join(map(str, levels))} kept: '
    f'{shown(lead, "+.2f")} points',
  )


def _chance(rows):
  levels = _levels(rows, 'by chance')
  cells = [_default(rows), _default(rows, 'by chance')]
  lead = differences(*(each(some, 'retrained', levels) for some in cells))
  return _verdict(
    'chance_is_worse',
    'Drawing the weights with chances by their size is worse than a threshold (section 3)',
    [Comparison('points, in order over by chance', lead, form='+.2f')],
    f'in order minus by chance, mean over {", ".join(map(str, levels))} kept, retrained: '
    f'{shown(lead, "+.2f")} points',
  )


def _adjusted(rows):
  cells, levels = select(rows, 'dropout'), _levels(rows, 'dropout')
  leads = {
    other: differences(each(cells, 'adjusted', levels), each(cells, other, levels))
    for other in ('same', 'none')
  }
  evidence = '; '.join(f'minus {k} {shown(v, "+.2f")}' for k, v in leads.items())
  return _verdict(
    'adjusted_dropout',
    'Dropout must shrink with the connections: adjusted (equation 2) beats the dropout of training '
    '(section 3.2)',
    [Comparison('points, adjusted over unchanged', leads['same'], form='+.2f')],
    f'adjusted, mean over {", ".join(map(str, levels))} kept: {evidence} points',
    'dropout',
  )


def _scanned(rows):
  cells = {s: m for s, m in select(rows, 'scan').items() if 'tolerances' in m}
  mean = lambda name: {s: 100 * statistics.mean(m[name]) for s, m in cells.items()}
  leads = {
    other: differences(mean('scanned'), mean(other)) for other in ('one quality', 'one sparsity')
  }
  evidence = '; '.join(f'minus {k} {shown(v, "+.2f")}' for k, v in leads.items())
  return _verdict(
    'scan_chooses_thresholds',
    'A threshold for each layer from the scan of its sensitivity beats one quality for all layers '
    '(section 3), at equal weights',
    [Comparison('points, scanned over one quality', leads['one quality'], form='+.2f')],
    f'scanned and retrained: {evidence} points',
    'layers',
  )


def _first_layer(rows):
  cells = select(rows, 'scan', 'lenet-5')
  rise = lambda m, layer: m[f'alone {layer}'][m['removed'].index(ALONE)] - m['dense_loss']
  more = {
    layer: [rise(m, 'conv1') - rise(m, layer) for m in cells.values() if ALONE in m['removed']]
    for layer in ('conv2', 'fc1', 'fc2')
  }
  evidence = '; '.join(f'over {k} {shown(v, "+.3f")}' for k, v in more.items())
  return _verdict(
    'first_layer_is_most_sensitive',
    'The first convolution is the most sensitive layer (figure 6), here of LeNet-5',
    [Comparison(f'nats, conv1 over {k}, {ALONE:g} of a layer removed', v) for k, v in more.items()],
    f'rise of the loss with {ALONE:g} of conv1 removed, {evidence} nats',
    'layers',
  )
