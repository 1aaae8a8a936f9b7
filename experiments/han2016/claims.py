"""What the two papers say, judged on the ledger: accuracies in points of 100, rates of real bytes."""

from experiments.han2016 import paper
from prunejax.report import statistics, verdicts

MARGIN = (
  0.25  # points of accuracy: a loss below is 'no loss'; the papers' own nets gain 0.03 to 0.06
)
READY = 0.3  # points of error that a dense net may have above the paper's: one further away is not the paper's net
NAMES = {'lenet-300-100': 'LeNet-300-100', 'lenet-5': 'LeNet-5'}


def judge(rows):
  """One `Verdict` a claim."""
  return [
    *[
      verdict
      for net in NAMES
      for verdict in (_pruned(rows, net), _deep(rows, net), _huffman(rows, net))
    ],
    _retraining(rows),
    *[_init(rows, other) for other in ('forgy', 'density')],
    _together(rows),
  ]


def cells(rows, net='lenet-300-100', **labels):
  """{seed: metrics} of the cells with these labels."""
  return {
    row['seed']: row['metrics']
    for row in rows
    if row['net'] == net and all(row[key] == value for key, value in labels.items())
  }


def points(metrics, key='accuracy'):
  return 100 * metrics[key]


def _no_loss(diffs):
  """+1: the loss is clear below the margin; -1: clear above it."""
  return verdicts.side(diffs, -MARGIN)


def _verdict(name, claim, found, sides, text, figures):
  """Undecided, and why, where the dense nets of the cells are further from the paper's than READY."""
  net = name.split('_')[0]
  if not found:
    return verdicts.Verdict(name, claim, verdicts.UNDECIDED, 'no cells', figures)
  wrong, theirs = [100 - points(m, 'accuracy_dense') for m in found.values()], paper.DEEP[net][0]
  if statistics.mean(wrong) > theirs + READY:
    text += f"; not judged: the dense net errs at {verdicts.shown(wrong, '.2f')} %, the paper's at {theirs}"
    return verdicts.Verdict(name, claim, verdicts.UNDECIDED, text, figures)
  return verdicts.Verdict(name, claim, verdicts.all_of(sides), text, figures)


def _pruned(rows, net):
  found = cells(rows, net, scale=1.0, bits='paper')
  diffs = [points(m, 'accuracy_pruned') - points(m, 'accuracy_dense') for m in found.values()]
  way = _no_loss(diffs)
  before, after, fewer = paper.PRUNED[net]
  text = (
    f'kept {statistics.mean([m["kept_in_all"] for m in found.values()]):.3f} of the weights; '
    if found
    else ''
  )
  text += f'accuracy, pruned and retrained minus dense: {verdicts.shown(diffs, "+.2f")} points'
  if longer := cells(rows, net, scale=0.0, bits=0):
    control = [
      points(found[s], 'accuracy_pruned') - points(longer[s]) for s in found if s in longer
    ]
    text += f'; minus dense trained as long: {verdicts.shown(control, "+.2f")}'
  claim = f'{NAMES[net]} loses nothing with {fewer} times fewer weights (error {before} to {after} %; within {MARGIN})'
  return _verdict(f'{net}_pruned_without_loss', claim, found, [way], text, ('curves',))


def _deep(rows, net):
  found = cells(rows, net, scale=1.0, bits='paper')
  diffs = [points(m) - points(m, 'accuracy_dense') for m in found.values()]
  rates = [m['rate'] for m in found.values()]
  before, after, rate, _ = paper.DEEP[net]
  way, size = _no_loss(diffs), verdicts.side(rates, rate)
  text = f'rate of the file {verdicts.shown(rates, ".1f")}; accuracy minus dense {verdicts.shown(diffs, "+.2f")} points'
  claim = f'{NAMES[net]} is {rate} times smaller without loss (error {before} to {after} %; within {MARGIN})'
  return _verdict(f'{net}_file', claim, found, (way, size), text, ('curves',))


def _huffman(rows, net):
  found = cells(rows, net, scale=1.0, bits='paper')
  saved = [1 - m['bytes'] / m['bytes_fixed'] for m in found.values()]
  low, high = paper.HUFFMAN
  sides = verdicts.side(saved, low), -verdicts.side(saved, high)
  text = f'saved of the file: {verdicts.shown(saved)}'
  claim = f'Huffman coding saves {low:.0%} to {high:.0%} of the storage ({NAMES[net]})'
  return _verdict(f'{net}_huffman', claim, found, sides, text, ('layers',))


def _retraining(rows):
  found = cells(rows, scale=1.0, bits=0)
  gain = [points(m, 'accuracy_pruned') - points(m, 'accuracy_cut') for m in found.values()]
  lost = [points(m, 'accuracy_dense') - points(m, 'accuracy_cut') for m in found.values()]
  way = verdicts.side([g - most / 2 for g, most in zip(gain, lost, strict=True)])
  cut = [points(m, 'accuracy_cut') for m in found.values()]
  text = f'cut to a twelfth {verdicts.shown(cut, ".1f")} %; retraining adds {verdicts.shown(gain, "+.1f")} points'
  claim = 'At a twelfth of the weights retraining brings back most of what the cut took (NIPS 2015, figure 5)'
  return verdicts.Verdict('retraining', claim, verdicts.word(way > 0, way < 0), text, ('curves',))


def _init(rows, other):
  """Over all bit widths but 3, where the paper has it otherwise: the mean difference of each seed."""
  widths = sorted(
    {
      row['bits']
      for row in rows
      if isinstance(row['bits'], int) and row['bits'] not in (0, 3) and row['scale'] == 1.0
    }
  )
  gaps, texts = {}, []
  for bits in widths:
    linear, beside = (cells(rows, scale=1.0, bits=bits, init=init) for init in ('linear', other))
    diffs = {s: points(linear[s]) - points(beside[s]) for s in linear if s in beside}
    for seed, diff in diffs.items():
      gaps.setdefault(seed, []).append(diff)
    texts.append(f'{bits} bits {verdicts.shown(list(diffs.values()), "+.2f")}')
  diffs = [statistics.mean(values) for values in gaps.values()]
  way = verdicts.side(diffs)
  text = f'linear minus {other}, mean over widths {verdicts.shown(diffs, "+.2f")} points; {"; ".join(texts)}'
  text = text if diffs else 'cells are missing'
  claim = f'Linear initialisation beats {other} at every width but 3 bits (ICLR 2016, figure 8)'
  return verdicts.Verdict(
    f'linear_beats_{other}', claim, verdicts.word(way > 0, way < 0), text, ('inits',)
  )


def _together(rows):
  """About 3 % of the size, pruned and shared, against the smallest of either alone that has no fewer bytes."""
  arms = curve(rows)
  both = _nearest(arms['both'], 0.03)
  alone = [
    next((place for place in arms[arm] if both and place[0] >= both[0]), None)
    for arm in ('pruned', 'shared')
  ]
  if both is None or None in alone:
    return verdicts.Verdict('together', CLAIM, verdicts.UNDECIDED, 'cells are missing', ('curves',))
  sides, texts = (
    [],
    [f'both at {both[0]:.3f} of the size {verdicts.shown(list(both[1].values()), ".2f")} %'],
  )
  for name, (size, found) in zip(('pruning', 'sharing'), alone, strict=True):
    diffs = [both[1][s] - found[s] for s in both[1] if s in found]
    sides.append(verdicts.side(diffs))
    texts.append(f'minus {name} alone at {size:.3f}: {verdicts.shown(diffs, "+.2f")} points')
  return verdicts.Verdict('together', CLAIM, verdicts.all_of(sides), '; '.join(texts), ('curves',))


CLAIM = 'At 3 % of the size, pruning and sharing together beat either alone with more bytes (ICLR 2016, figure 6)'


def curve(rows):
  """{arm: [(share of the dense bytes, {seed: accuracy, points})]}, by size, of LeNet-300-100."""
  arms = {'pruned': [], 'shared': [], 'both': []}
  for scale, bits in sorted(
    {(row['scale'], str(row['bits'])) for row in rows if row['net'] == 'lenet-300-100'}
  ):
    bits = int(bits) if bits.isdigit() else bits
    found = cells(rows, scale=scale, bits=bits, init='linear')
    if not found or (scale == 0 and bits == 0):
      continue
    arm = 'pruned' if bits == 0 else 'both' if scale else 'shared'
    size = statistics.mean([m['bytes'] / m['bytes_dense'] for m in found.values()])
    arms[arm].append((size, {seed: points(m) for seed, m in found.items()}))
  return {arm: sorted(places, key=lambda place: place[0]) for arm, places in arms.items()}


def _nearest(places, size):
  """The place of a curve that is nearest to a size, as a ratio."""
  return min(places, key=lambda place: max(place[0] / size, size / place[0]), default=None)
