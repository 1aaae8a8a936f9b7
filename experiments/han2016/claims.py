"""Judge the claims of the two papers on the ledger.

Accuracies are in points of 100. Rates are bytes of whole files.
"""

from experiments.han2016 import paper
from prunejax.report import statistics, verdicts

# A loss of accuracy below this, in points, is "no loss"; the papers' networks gain 0.03 to 0.06.
MARGIN = 0.25
# A dense network whose error is further than this, in points, above the paper's is not judged.
READY = 0.3
NAMES = {'lenet-300-100': 'LeNet-300-100', 'lenet-5': 'LeNet-5'}


def claims(rows: list[dict]) -> list[verdicts.Verdict]:
  """Judge every claim."""
  own = [
    rule(rows, net)
    for net in NAMES
    for bits, rule in (('fitted', _fitted), ('own', _to_the_end))
    if select(rows, net, bits=bits)
  ]
  if own and all(row['bits'] in ('own', 'fitted') for row in rows):
    return own
  by_net = [
    verdict
    for net in NAMES
    for verdict in (_pruned_without_loss(rows, net), _file(rows, net), _huffman(rows, net))
  ]
  return [
    *by_net,
    _retraining(rows),
    *(_linear_beats(rows, other) for other in ('forgy', 'density')),
    _together(rows),
    *own,
  ]


def select(rows: list[dict], net: str = 'lenet-300-100', **labels) -> dict:
  """Pick the cells of a network with these labels: {seed: metrics}."""
  return {
    row['seed']: row['metrics']
    for row in rows
    if row['net'] == net and all(row[key] == value for key, value in labels.items())
  }


def points(metrics: dict, key: str = 'accuracy') -> float:
  """Read an accuracy in points of 100."""
  return 100 * metrics[key]


def sizes(rows: list[dict]) -> dict:
  """Group LeNet-300-100's accuracies by arm and size.

  Returns:
    {'pruned', 'shared' or 'both': [(fraction of the dense bytes, {seed: accuracy in points})]},
    by size.
  """
  arms = {'pruned': [], 'shared': [], 'both': []}
  variants = {(row['scale'], str(row['bits'])) for row in rows if row['net'] == 'lenet-300-100'}
  for scale, bits in sorted(variants):
    bits = int(bits) if bits.isdigit() else bits
    cells = select(rows, scale=scale, bits=bits, init='linear')
    if not cells or (scale == 0 and bits == 0):
      continue
    arm = 'pruned' if bits == 0 else 'both' if scale else 'shared'
    size = statistics.mean([m['bytes'] / m['bytes_dense'] for m in cells.values()])
    arms[arm].append((size, {seed: points(m) for seed, m in cells.items()}))
  return {arm: sorted(models, key=lambda model: model[0]) for arm, models in arms.items()}


def _no_loss(diffs):
  """The loss of accuracy is below `MARGIN`."""
  return verdicts.Comparison('points', diffs, -MARGIN, form='+.2f')


def _smaller(cells, rate):
  """(evidence, comparisons): the file is `rate` times smaller than the dense one, without loss."""
  diffs = [points(m) - points(m, 'accuracy_dense') for m in cells.values()]
  rates = [m['rate'] for m in cells.values()]
  evidence = (
    f'rate of the file {verdicts.shown(rates, ".1f")}; accuracy minus dense '
    f'{verdicts.shown(diffs, "+.2f")} points'
  )
  return evidence, (_no_loss(diffs), verdicts.Comparison('times smaller', rates, rate, form='.1f'))


def _judge(name, claim, cells, comparisons, evidence, figures):
  """The verdict; undecided where the dense networks err by more than `READY` above the paper's."""
  net = name.split('_')[0]
  if not cells:
    return verdicts.Verdict(name, claim, verdicts.UNDECIDED, 'no cells', figures)
  errors = [100 - points(m, 'accuracy_dense') for m in cells.values()]
  published = paper.DEEP[net][0]
  if statistics.mean(errors) > published + READY:
    evidence += (
      f"; not judged: the dense net errs at {verdicts.shown(errors, '.2f')} %, the paper's at "
      f'{published}'
    )
    dense = verdicts.Comparison('% error, dense', errors, published + READY, False, '.2f')
    number = verdicts.decided_by([dense])
    return verdicts.Verdict(name, claim, verdicts.UNDECIDED, evidence, figures, number)
  number = verdicts.decided_by(comparisons)
  return verdicts.Verdict(name, claim, verdicts.all_hold(comparisons), evidence, figures, number)


def _pruned_without_loss(rows, net):
  cells = select(rows, net, scale=1.0, bits='paper')
  diffs = [points(m, 'accuracy_pruned') - points(m, 'accuracy_dense') for m in cells.values()]
  evidence = ''
  if cells:
    kept = statistics.mean([m['kept_in_all'] for m in cells.values()])
    evidence = f'kept {kept:.3f} of the weights; '
  evidence += f'accuracy, pruned and retrained minus dense: {verdicts.shown(diffs, "+.2f")} points'
  if dense_longer := select(rows, net, scale=0.0, bits=0):
    control = [
      points(cells[s], 'accuracy_pruned') - points(dense_longer[s])
      for s in cells
      if s in dense_longer
    ]
    evidence += f'; minus dense trained as long: {verdicts.shown(control, "+.2f")}'
  before, after, fewer = paper.PRUNED[net]
  claim = (
    f'{NAMES[net]} loses nothing with {fewer} times fewer weights (error {before} to {after} %; '
    f'within {MARGIN})'
  )
  name = f'{net}_pruned_without_loss'
  return _judge(name, claim, cells, [_no_loss(diffs)], evidence, ('curves',))


def _file(rows, net):
  cells = select(rows, net, scale=1.0, bits='paper')
  before, after, rate, _ = paper.DEEP[net]
  claim = (
    f'{NAMES[net]} is {rate} times smaller without loss (error {before} to {after} %; within '
    f'{MARGIN})'
  )
  evidence, comparisons = _smaller(cells, rate)
  return _judge(f'{net}_file', claim, cells, comparisons, evidence, ('curves',))


def _to_the_end(rows, net):
  """The paper's factor at its accuracy, with fractions and widths of the network's own."""
  cells = select(rows, net, bits='own')
  before, after, rate, _ = paper.DEEP[net]
  claim = (
    f'{NAMES[net]} is {rate} times smaller without loss when each layer has fractions and widths '
    f'of its own (error {before} to {after} %; within {MARGIN})'
  )
  evidence, comparisons = _smaller(cells, rate)
  return _judge(f'{net}_to_the_end', claim, cells, comparisons, evidence, ('terms',))


def _fitted(rows, net):
  """As `_to_the_end`, with bits as many as the paper's bytes allow."""
  cells = select(rows, net, bits='fitted')
  before, after, rate, _ = paper.DEEP[net]
  claim = (
    f"{NAMES[net]} is {rate} times smaller without loss when each layer spends the paper's bytes "
    f'as it needs them (error {before} to {after} %; within {MARGIN})'
  )
  evidence, comparisons = _smaller(cells, rate)
  return _judge(f'{net}_fitted', claim, cells, comparisons, evidence, ('terms',))


def _huffman(rows, net):
  cells = select(rows, net, scale=1.0, bits='paper')
  saved = [1 - m['bytes'] / m['bytes_fixed'] for m in cells.values()]
  low, high = paper.HUFFMAN
  claim = f'Huffman coding saves {low:.0%} to {high:.0%} of the storage ({NAMES[net]})'
  between = [
    verdicts.Comparison('of the file', saved, end, above, '.3f')
    for end, above in ((low, True), (high, False))
  ]
  evidence = f'saved of the file: {verdicts.shown(saved)}'
  return _judge(f'{net}_huffman', claim, cells, between, evidence, ('layers',))


def _retraining(rows):
  """Retraining gains more than half of what the cut lost."""
  cells = select(rows, scale=1.0, bits=0).values()
  gained = [points(m, 'accuracy_pruned') - points(m, 'accuracy_cut') for m in cells]
  lost = [points(m, 'accuracy_dense') - points(m, 'accuracy_cut') for m in cells]
  beyond = [gain - loss / 2 for gain, loss in zip(gained, lost, strict=True)]
  more = [verdicts.Comparison('points beyond half of what the cut took', beyond, form='+.1f')]
  cut = verdicts.shown([points(m, 'accuracy_cut') for m in cells], '.1f')
  return verdicts.Verdict(
    'retraining',
    'At a twelfth of the weights retraining brings back most of what the cut took (NIPS 2015, '
    'figure 5)',
    verdicts.all_hold(more),
    f'cut to a twelfth {cut} %; retraining adds {verdicts.shown(gained, "+.1f")} points',
    ('curves',),
    verdicts.decided_by(more),
  )


def _linear_beats(rows, other):
  """Linear initialisation beats another at each width by itself, 3 bits left out."""
  widths = sorted(
    {
      row['bits']
      for row in rows
      if isinstance(row['bits'], int) and row['bits'] not in (0, 3) and row['scale'] == 1.0
    }
  )
  better, parts = [], []
  for bits in widths:
    linear, rival = (select(rows, scale=1.0, bits=bits, init=init) for init in ('linear', other))
    diffs = [points(linear[s]) - points(rival[s]) for s in linear if s in rival]
    better.append(verdicts.Comparison(f'points at {bits} bits', diffs, form='+.2f'))
    parts.append(f'{bits} bits {verdicts.shown(diffs, "+.2f")}')
  measured = any(comparison.values for comparison in better)
  return verdicts.Verdict(
    f'linear_beats_{other}',
    f'Linear initialisation beats {other} at every width but 3 bits (ICLR 2016, figure 8)',
    verdicts.all_hold(better),
    f'linear minus {other}, points: {"; ".join(parts)}' if measured else 'cells are missing',
    ('inits',),
    verdicts.decided_by(better),
  )


def _together(rows):
  """Both at about 3 % of the size, against the smallest model of each alone with no fewer bytes."""
  claim = (
    'At 3 % of the size, pruning and sharing together beat either alone with more bytes (ICLR '
    '2016, figure 6)'
  )
  arms = sizes(rows)
  both = min(arms['both'], key=lambda model: max(model[0] / 0.03, 0.03 / model[0]), default=None)
  alone = [
    next((model for model in arms[arm] if both and model[0] >= both[0]), None)
    for arm in ('pruned', 'shared')
  ]
  if both is None or None in alone:
    return verdicts.Verdict('together', claim, verdicts.UNDECIDED, 'cells are missing', ('curves',))
  both_size, both_accuracy = both
  accuracies = verdicts.shown(list(both_accuracy.values()), '.2f')
  leads, parts = [], [f'both at {both_size:.3f} of the size {accuracies} %']
  for name, (size, accuracy) in zip(('pruning', 'sharing'), alone, strict=True):
    diffs = [both_accuracy[s] - accuracy[s] for s in both_accuracy if s in accuracy]
    over = f'points over {name} alone at {size:.3f} of the size'
    leads.append(verdicts.Comparison(over, diffs, form='+.2f'))
    parts.append(f'minus {name} alone at {size:.3f}: {verdicts.shown(diffs, "+.2f")} points')
  return verdicts.Verdict(
    'together',
    claim,
    verdicts.all_hold(leads),
    '; '.join(parts),
    ('curves',),
    verdicts.decided_by(leads),
  )
