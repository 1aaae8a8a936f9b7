"""What the ledger says to the claims of Guo et al. 2019. Only the abstract was read; the rest is second hand."""

from experiments.guo2019.study_cells import METHODS
from prunejax.report import statistics, verdicts

SMALL = {'pydoc/order': 0.02, 'pydoc/words': 0.02}  # a loss of accuracy that counts as none
NEGLIGIBLE = 0.05  # nats of pre-training loss


def table(rows, stage, metric, task=''):
  """{(method, sparsity): {seed: value}}."""
  out = {}
  for row in rows:
    if row['stage'] == stage and row['task'] == task and metric in row['metrics']:
      out.setdefault((row['arm'], row['sparsity']), {})[row['seed']] = row['metrics'][metric]
  return out


def chosen(rows):
  """The rows without those of all but one strength of a method at a sparsity: the one of the lowest mean loss."""
  losses = {}
  for row in rows:
    if row['stage'] == 'pretrain':
      key, metrics = (row['arm'], row['sparsity']), row['metrics']
      losses.setdefault(key, {}).setdefault(row['strength'], []).append(
        metrics['mlm_loss'] + metrics['nsp_loss']
      )
  best = {
    key: min(of, key=lambda strength, of=of: statistics.mean(of[strength]))
    for key, of in losses.items()
  }
  return [row for row in rows if row['strength'] == best.get((row['arm'], row['sparsity']))]


def loss(rows):
  """Held-out pre-training loss, masked words and next sentence together."""
  parts = [table(rows, 'pretrain', metric) for metric in ('mlm_loss', 'nsp_loss')]
  return {
    key: {seed: value + parts[1][key][seed] for seed, value in of.items()}
    for key, of in parts[0].items()
  }


def beside(values, a, b):
  """a - b, seed by seed."""
  a, b = values.get(a, {}), values.get(b, {})
  return [a[seed] - b[seed] for seed in sorted(a.keys() & b.keys())]


def claims(rows):
  """The verdicts, in the order of the README. Of several strengths of a penalty the best is judged, see `chosen`."""
  rows = chosen(rows)
  losses, nsp = loss(rows), table(rows, 'pretrain', 'nsp_accuracy')
  tasks = sorted({row['task'] for row in rows if row['task']})
  scores = {task: table(rows, 'finetune', 'accuracy', task) for task in tasks}
  sparsities = sorted({s for method, s in losses if method != 'dense'})
  high = [s for s in sparsities if s >= 0.8]
  dense = 'dense', 0.0
  return [
    _keeps(scores, tasks, sparsities, dense),
    _negligible(losses, dense),
    _nsp(nsp, dense),
    _better(
      losses, 'nip', high, 'nip', 'At high prune ratios RPP loses less of the pre-training than NIP'
    ),
    _better(
      losses,
      'l1',
      high,
      'l1',
      'A penalty in the loss hurts, the proximal step does not: RPP against L1 in the'
      ' loss, pre-training loss at high prune ratios',
    ),
    _tuned(scores, tasks, high),
  ]


def _keeps(scores, tasks, sparsities, dense):
  at = 0.8 if 0.8 in sparsities else max(sparsities, default=0.0)
  drops = {task: beside(scores[task], ('rpp', at), dense) for task in tasks}
  sides = [verdicts.side(drops[task], -SMALL.get(task, 0.02)) for task in tasks]
  text = '; '.join(f'{task} {verdicts.shown(drops[task], "+.3f")}' for task in tasks)
  return verdicts.Verdict(
    'accuracy kept',
    f'Fine-tuned, RPP keeps the accuracy at a prune ratio of {at:g} (a drop below 0.02)',
    verdicts.all_of(sides),
    f'accuracy beside dense at {at:g}: {text}',
    ('scores',),
  )


def _negligible(losses, dense):
  rise = beside(losses, ('rpp', 0.6), dense)
  side = verdicts.side(rise, NEGLIGIBLE)
  return verdicts.Verdict(
    'negligible at 0.59',
    'RPP removes 59.3 % of the weights with a negligible rise of the pre-training loss (second'
    f' hand); here 0.6, negligible being {NEGLIGIBLE} nats',
    verdicts.word(side < 0, side > 0),
    f'rise at 0.6: {verdicts.shown(rise)} nats' if rise else 'no runs at 0.6',
    ('loss',),
  )


def _nsp(nsp, dense):
  whole, pruned = list(nsp.get(dense, {}).values()), list(nsp.get(('rpp', 0.9), {}).values())
  if verdicts.side(whole, 0.95) <= 0:
    word = verdicts.UNDECIDED  # our model cannot do, dense, what is claimed of a pruned one
  else:
    word = verdicts.word(verdicts.side(pruned, 0.95) > 0, verdicts.side(pruned, 0.95) < 0)
  text = (
    f'dense {verdicts.shown(whole)}, RPP at 0.9 {verdicts.shown(pruned)}'
    if pruned
    else 'no runs at 0.9'
  )
  return verdicts.Verdict(
    'next sentence',
    'Pruned by 90 %, NSP accuracy stays above 95 % (second hand); undecided where the dense model is'
    ' not above 95 % itself',
    word,
    text,
    (),
  )


def _better(losses, other, high, name, claim):
  rises = {s: beside(losses, (other, s), ('rpp', s)) for s in high}
  text = ', '.join(f'at {s:g} {verdicts.shown(rises[s], "+.3f")}' for s in high)
  word = verdicts.all_of(verdicts.side(rises[s]) for s in high)
  text = f'{METHODS[other]} minus RPP, nats: {text or "-"}'
  return verdicts.Verdict(f'loss beside {name}', claim, word, text, ('loss',))


def _tuned(scores, tasks, high):
  word, text = [], []
  for task in tasks:
    for s in high:
      gain = beside(scores[task], ('rpp', s), ('nip', s))
      word.append(verdicts.side(gain))
      text.append(f'{task} at {s:g} {verdicts.shown(gain, "+.3f")}')
  return verdicts.Verdict(
    'score beside nip',
    'At high prune ratios RPP fine-tunes to a higher score than NIP',
    verdicts.all_of(word),
    'RPP minus NIP, accuracy: ' + '; '.join(text),
    ('scores',),
  )


def means(values, key):
  """'0.912 ± 0.004', or '-'."""
  of = list(values.get(key, {}).values())
  if not of:
    return '-'
  e = statistics.cautious(of)
  return f'{e.mean:.3f} ± {(e.high - e.low) / 2:.3f}' if len(of) > 1 else f'{e.mean:.3f}'
