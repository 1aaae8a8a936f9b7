"""The claims about models and masks, from rows of stage 'probe', and about shares of the corpus."""

import itertools
import math

from experiments.gordon2020 import paper
from experiments.gordon2020.analysis import arms, controls, probe_rows, scoring
from experiments.gordon2020.claims import judging
from experiments.gordon2020.claims.judging import Series
from prunejax.report import statistics, tables

DIFFERENT = paper.MOST_DIFFERENT  # share of mask entries; the paper stays below it everywhere
MOVED = 0.05  # of a matrix's size; the paper's largest mean is 0.0412
# Deviation over heads of the share pruned above which heads are singled out; the threshold is ours.
SPREAD = 0.1
# The loss may rise by this share of what the dense model has learned. For the model of the whole
# text that is 0.1 nats.
LEARNED = 0.04
# Loss of a model that knows nothing: one of 1,024 word pieces, and one of two answers.
UNTRAINED = math.log(1024) + math.log(2)
LARGE = 25  # of 100 bins of starting magnitude, the largest


def masks_change_little(data):
  """Entries in which masks found after fine-tuning differ from those found in pre-training.

  Of several learning rates the largest difference counts. Reproduced: at every sparsity the
  interval lies below 0.06.
  Not reproduced: at one it lies above (level 1 - 0.01 / k).
  """
  rows = probe_rows.first_of(
    probe_rows.of(data.probes, 'difference'), ('before', 'dense')
  )  # as Figure 3a
  diffs, start, chance = (
    {s: _largest(numbers) for (_, s), numbers in sorted(probe_rows.over(rows, name, _one).items())}
    for name in ('pruned', 'start', 'chance')
  )
  every = bool(diffs) and all(judging.side(d, DIFFERENT) < 0 for d in diffs.values())
  broken = any(judging.side(d, DIFFERENT, judging.share(diffs)) > 0 for d in diffs.values())
  largest = max(diffs, key=lambda s: statistics.mean(diffs[s].values()), default=None)
  return judging.verdict(
    data,
    'masks_change_little',
    'Masks found after fine-tuning differ from those of pre-training in less than 6 % '
    'of their entries.',
    every and not broken,
    broken,
    number=judging.at(diffs, largest, '%'),
    evidence=judging.by_sparsity(
      Series('to the masks of pre-training (%)', diffs),
      Series('to the masks before fine-tuning (%)', start),
      Series('two random masks (%)', chance),
    )
    if diffs
    else (),
    rule=f'threshold {100 * DIFFERENT:g} %; decided by the largest difference',
    figures=('figure3a',),
    of_tasks=False,
  )


def order_moves_little(data):
  """Mean movement in magnitude order during dense fine-tuning, a share of the matrix (Table 2).

  Of several learning rates the largest counts. Reproduced: the interval lies below 0.05. Not
  reproduced: above.
  """
  moved = _moved(data, lambda metrics: metrics['mean'])
  side = judging.side(moved, MOVED)
  return judging.verdict(
    data,
    'order_moves_little',
    'Fine-tuning moves a weight by 0 to 4 % of its matrix in the order of magnitudes.',
    side < 0,
    side > 0,
    number=_number(moved, '% of the matrix'),
    evidence=judging.alone('movement (% of the matrix)', moved, 100),
    rule=f'threshold {100 * MOVED:g} %',
    figures=('figure4',),
    of_tasks=False,
  )


def large_weights_move_less(data):
  """Movement of the quarter of largest starting magnitude minus that of all others (Figure 6).

  Reproduced: the interval lies below zero. Not reproduced: above.
  """

  def gap(metrics):
    bins = [math.nan if v is None else v for v in metrics['by_magnitude']]
    return statistics.mean(bins[-LARGE:]) - statistics.mean(bins[:-LARGE])

  moved = _moved(data, gap)
  side = judging.side(moved, 0.0)
  return judging.verdict(
    data,
    'large_weights_move_less',
    'In fine-tuning large weights move less in that order than small ones.',
    side < 0,
    side > 0,
    number=_number(moved, '% of the matrix'),
    evidence=judging.alone('largest quarter - others (% of the matrix)', moved, 100),
    figures=('figure6',),
    of_tasks=False,
  )


def heads_are_not_singled_out(data):
  """Deviation over heads of the share that is pruned of each, at sparsities from 0.3 to 0.7.

  Reproduced: at each sparsity the interval lies below 0.1. Not reproduced: at one it lies above
    (level 1 - 0.01 / k).
  """
  rows = [row for row in probe_rows.of(data.probes, 'heads') if row['arm'] == 'pruned']
  spread, chance = (
    {
      s: _largest(numbers)
      for (_, s), numbers in sorted(probe_rows.over(rows, name, _one).items())
      if 0.3 <= s <= judging.HIGH
    }
    for name in ('deviation', 'sd')
  )
  largest = max(spread, key=lambda s: statistics.mean(spread[s].values()), default=None)
  every = bool(spread) and all(judging.side(d, SPREAD) < 0 for d in spread.values())
  broken = any(judging.side(d, SPREAD, judging.share(spread)) > 0 for d in spread.values())
  return judging.verdict(
    data,
    'heads_are_not_singled_out',
    'Pruning by magnitude singles out no attention heads.',
    every and not broken,
    broken,
    number=judging.at(spread, largest, 'points of deviation')
    + (f', by chance {judging.interval(chance[largest])}' if chance.get(largest) else ''),
    evidence=judging.by_sparsity(
      Series('deviation over heads of the share pruned (points)', spread),
      Series('by chance (points)', chance),
    )
    if spread
    else (),
    rule=f'threshold {100 * SPREAD:g} points, which is ours; decided by the largest deviation',
    figures=('heads',),
    of_tasks=False,
  )


def features_follow(data):
  """Mean cosine of the features to those of the dense model, and the deletion score with it.

  Needs three sparsities. Reproduced: the cosine at the highest lies clear below that at the lowest,
  no step up in its mean of more than 0.01, and on every learned task a line of deletion score on
  cosine with r >= 0.8 whose slope lies clear above zero. Not reproduced: the cosine rises clear, or
  one slope lies clear below zero (level 1 - 0.01 / tasks).
  """
  rows = [
    row
    for row in probe_rows.of(data.probes, 'features')
    if row['arm'] == 'pruned' and not row.get('against')
  ]
  mean = lambda metrics, i: statistics.mean(
    metrics['cosine'][i][1:]
  )  # as Figure 2b: the embeddings' sum is no layer
  cosine = {
    s: _largest(numbers) for (_, s), numbers in sorted(probe_rows.over(rows, mean, _one).items())
  }
  levels = sorted(cosine)
  fall = statistics.paired(cosine[levels[-1]], cosine[levels[0]]) if len(levels) > 1 else {}
  means = [statistics.mean(cosine[s].values()) for s in levels]
  even = all(b <= a + 0.01 for a, b in itertools.pairwise(means))
  side = judging.side(fall, 0.0)
  tasks = scoring.tasks_of(data.scores)
  lines = {task: _line(data, cosine, task, judging.share(tasks)) for task in tasks}
  follow = bool(tasks) and all(
    line.n >= 3 and line.low > 0 and line.r >= 0.8 for line in lines.values()
  )
  broken = side > 0 or any(line.high < 0 for line in lines.values() if line.n >= 3)
  known = {task: line for task, line in lines.items() if math.isfinite(line.r)}
  shown = tuple(
    (task, f'{100 * line.slope:+.1f}', f'{line.r:+.3f}') for task, line in known.items()
  )
  head = ('task', 'points a unit of cosine', 'r')
  of_tasks = (tables.Table('Deletion score on cosine, a line a task', head, shown),)
  weakest = min(known, key=lambda task: known[task].r, default=None)
  return judging.verdict(
    data,
    'features_follow',
    "The features leave the dense model's as sparsity rises, and accuracy falls with them.",
    len(levels) >= 3 and side < 0 and even and follow and not broken,
    broken,
    number=judging.weakest_line(known, weakest, 'points a unit of cosine')
    or judging.at(cosine, levels[-1] if levels else None, 'of cosine', 1),
    evidence=judging.by_sparsity(Series('mean cosine', cosine, 1)) + (of_tasks if shown else ()),
    rule='r at least 0.8 and a slope above zero on every task',
    figures=('figure2b',),
    of_tasks=False,
  )


def more_text_less_prunable(data):
  """The sparsity that the loss can spare: the largest share of the corpus minus the smallest.

  The authors' conjecture, which they did not test. The loss may rise by `LEARNED` of what the dense
  model of the share has learned, which is what it lies below an untrained model: a model that knows
  less has less to lose. Reproduced: the interval over seeds lies below zero. Not reproduced: above.
  Where the loss never rises so far, the seed's highest sparsity stands for an end that lies beyond
  it: then the change is a bound, and only the verdict that a larger end could not undo is
  given.
  """
  ends, beyond, learned = {}, set(), {}
  for share, of_share in arms.family(data.corpus, 'corpus').items():
    seeds = sorted({row['seed'] for row in of_share})
    for seed in seeds:
      of_seed = [row for row in of_share if row['seed'] == seed]
      losses = scoring.pretrain(of_seed)
      dense = losses.get((of_share[0]['arm'], 0.0), {}).get(('pretrain', seed))
      if dense is None:
        continue
      known = UNTRAINED - dense
      learned.setdefault(controls.share_of(share), []).append(known)
      end = controls.end_of(of_seed, LEARNED * known)
      if not math.isnan(end.at):
        most = max(s for _, s in losses)
        ends.setdefault(controls.share_of(share), {})['pretrain', seed] = min(end.at, most)
        beyond |= {controls.share_of(share)} if math.isinf(end.at) else set()
  few, most = (min(ends), max(ends)) if len(ends) > 1 else (0, 0)
  change = statistics.paired(ends[most], ends[few]) if ends and most > few else {}
  side = judging.side(change, 0.0)
  what = f'sparsity spared, share {most:g} - share {few:g}'
  each = tuple(
    (
      f'{share:g}',
      f'{statistics.mean(learned[share]):.2f}',
      f'{LEARNED * statistics.mean(learned[share]):.3f}',
      f'{">= " if share in beyond else ""}{statistics.mean(of_share.values()):.2f}',
    )
    for share, of_share in sorted(ends.items())
  )
  head = ('share of the corpus', 'learned (nats)', 'margin (nats)', 'sparsity spared')
  of_shares = (tables.Table('Each share', head, each),)
  return judging.verdict(
    data,
    'more_text_less_prunable',
    'A model pre-trained on more text can be pruned less, as the authors guess.',
    side < 0 and most not in beyond,
    side > 0 and few not in beyond,
    number=f'{judging.interval(change, 1, "+.2f")} of sparsity' if change else '',
    evidence=judging.alone(what, change, 1) + (of_shares if change else ()),
    rule=f'the loss may rise by {LEARNED:.0%} of what the dense model lies below an untrained one, '
    f'{UNTRAINED:.2f} nats',
    figures=('prunability',),
    of_tasks=False,
  )


def _one(row):
  return ''


def _largest(numbers):
  # {(task, against, rate, seed): number} -> {(task, seed): the largest}: the claims say "never more
  # than".
  largest = {}
  for (task, _, _, seed), number in numbers.items():
    largest[task, seed] = max(number, largest.get((task, seed), -math.inf))
  return largest


def _moved(data, value):
  rows = probe_rows.first_of(
    probe_rows.of(data.probes, 'movement'), ('dense', 'before')
  )  # as Table 2 and Figure 4
  largest = {}
  for row in rows:
    number = value(row['metrics'])
    if number is not None and math.isfinite(number):
      key = row.get('task', ''), row['seed']
      largest[key] = max(number, largest.get(key, -math.inf))
  return largest


def _line(data, cosine, task, level):
  x, y = [], []
  for s, numbers in cosine.items():
    scores = [v for (name, _), v in data.scores.get(('deleted', s), {}).items() if name == task]
    if scores:
      x.append(statistics.mean(numbers.values()))
      y.append(statistics.mean(scores))
  return statistics.fit(x, y, level=level)


def _number(values, unit):
  return f'{judging.interval(values, 100, "+.2f")} {unit}' if values else ''
