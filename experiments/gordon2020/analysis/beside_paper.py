"""Our numbers beside a paper's: differences to dense, task by task where tasks are the same, slopes and correlations.

paper: {arm: {sparsity: {'loss': number or None, 'tasks': {task: (points, train loss)}, 'average': points,
'average_train_loss': number}}}, each arm with its own 0.0 entry; one run a cell, no intervals.
"""

import math

from experiments.gordon2020.analysis import arms, scoring
from prunejax.report import ledger, statistics, tables

# What a paper's task is called in a ledger, whatever road its data came by: the last part of the name.
GLUE = {
  'mnli': 'MNLI',
  'qqp': 'QQP',
  'qnli': 'QNLI',
  'sst2': 'SST-2',
  'cola': 'CoLA',
  'mrpc': 'MRPC',
  'rte': 'RTE',
  'stsb': 'STS-B',
}
SIDES = ('ours', 'paper', 'ours - paper')


def task_of(task):
  """The paper's name of a ledger's task, or None: 'tfds/glue/sst2' is 'SST-2'."""
  head, _, last = task.partition('@')[0].rpartition('/')  # 'glue/sst2@500': so many examples of it
  return GLUE.get(last) if head.endswith('glue') else None


def differences(rows, paper, *, level=0.95, seed=0):
  """Each arm at each sparsity minus its own 0 %: average score, pre-train loss, average train loss."""
  rows = arms.standard(ledger.one_grid(rows))
  scores = scoring.averages(scoring.points(rows))
  train = scoring.averages(scoring.points(rows, scoring.train_loss))
  losses = scoring.pretrain(rows)
  lines = []
  for arm, s in sorted(scores, key=arms.order):
    if s == 0 or arm not in paper:
      continue
    there, zero = paper[arm].get(s), paper[arm][0.0]
    # Pruned after fine-tuning: its checkpoint was dense, so no pre-train loss at this sparsity.
    source = losses.get((arms.SOURCE[arm], s), {}) if arm != 'after' else {}
    lines.append(
      (
        arms.name(arm),
        f'{s:g}',
        *_sides(
          scores[arm, s],
          scoring.zero(scores, arm),
          _less(there, zero, 'average'),
          100,
          '.1f',
          level,
          seed,
        ),
        *_sides(
          source,
          scoring.zero(losses, arms.SOURCE[arm]),
          _less(there, zero, 'loss'),
          1,
          '.2f',
          level,
          seed,
        ),
        *_sides(
          train.get((arm, s)),
          scoring.zero(train, arm),
          _less(there, zero, 'average_train_loss'),
          1,
          '.2f',
          level,
          seed,
        ),
      )
    )
  head = tuple(
    f'{what}, {side}'
    for what in ('AVG score', 'pre-train loss', 'AVG train loss')
    for side in SIDES
  )
  note = (
    'Each arm minus its own 0 % of the same seed (a dense model trained as long, where the ledger has one; else the '
    "dense arm), in points of 100 and in nats; the paper's minus its own 0 %. "
    f"± half of the {level:.0%} interval, the wider of Student's and the bootstrap; the paper has one run of each."
  )
  return tables.Table(
    'Beside the paper: differences to dense', ('arm', 'sparsity', *head), tuple(lines), note
  )


def by_task(rows, paper, *, level=0.95, seed=0):
  """Tasks that the paper has too, each by itself: accuracy as it stands and against dense, and train loss."""
  rows = arms.standard(ledger.one_grid(rows))
  scores, train = scoring.points(rows), scoring.points(rows, scoring.train_loss)
  estimate = lambda values: statistics.bootstrap(values, level=level, seed=seed)
  lines = []
  for task in scoring.tasks_of(scores):
    name = task_of(task)
    mine = lambda table, key, task=task: {
      p: v for p, v in table.get(key, {}).items() if p[0] == task
    }
    for arm, s in sorted(scores, key=arms.order):
      known = paper.get('pruned' if arm == 'dense' else arm, {})
      if name not in known.get(s, {'tasks': {}})['tasks'] or not (here := mine(scores, (arm, s))):
        continue
      accuracy, loss = known[s]['tasks'][name]
      zero = {pair: v for pair, v in scoring.zero(scores, arm).items() if pair[0] == task}
      value, fit = estimate(here.values()), estimate(mine(train, (arm, s)).values())
      change = _sides(here, zero, accuracy - known[0.0]['tasks'][name][0], 100, '.1f', level, seed)
      lines.append(
        (
          task,
          arms.name(arm),
          f'{s:g}',
          tables.points(value),
          f'{accuracy:.1f}',
          _minus(100 * value.mean, accuracy, '.1f'),
          *(change if s else ('-',) * 3),
          tables.number(fit),
          f'{loss:.2f}',
          _minus(fit.mean, loss, '.2f'),
        )
      )
  head = tuple(
    f'{what}, {side}' for what in ('score', 'score - dense', 'train loss') for side in SIDES
  )
  note = (
    "Dev score in points of 100, loss over the training set in nats. The paper's are BERT-Base, the best of four "
    'learning rates, one run; 0 % is the first row of each of its blocks, here that of its pruned arm.'
    f' ± of a score: the {level:.0%} bootstrap interval; {statistics.FEW}.'
  )
  return tables.Table(
    'Beside the paper, task by task', ('task', 'arm', 'sparsity', *head), tuple(lines), note
  )


def slopes(rows, paper, theirs, *, level=0.95):
  """Score against pre-train loss after information deletion, a line a task (Figure 2a), beside the paper's.

  theirs: {task: how many of the paper's points its line goes through}, the densest ones; its others are left out there.
  """
  rows = arms.standard(ledger.one_grid(rows))
  scores, losses = scoring.points(rows), scoring.pretrain(rows)
  lines, there = [], {task: _of_paper(paper, task, count, level) for task, count in theirs.items()}
  for task in scoring.tasks_of(scores):
    line = _of_ours(scores, losses, task, level)
    other = there.pop(task_of(task), None)
    lines.append(
      (task, *_line(line), *_line(other), _minus(line.slope, other.slope, '.2f') if other else '-')
    )
  if not lines:
    there = {}
  lines += [(task, *_line(None), *_line(line), '-') for task, line in there.items()]
  sides = tuple(
    f'{what}, {side}' for side in SIDES[:2] for what in ('slope', 'interval', 'r', 'points')
  )
  note = (
    'Points of 100 a nat; least squares through the means over seeds at each sparsity, 0 included, with '
    f"Student's {level:.0%} interval. The paper's by the same fit to its Table 1; its line of CoLA leaves out 90 %."
  )
  return tables.Table(
    'Figure 2a: slopes', ('task', *sides, 'slope, ours - paper'), tuple(lines), note
  )


def _of_ours(scores, losses, task, level):
  x, y = [], []
  own = ('deleted', 0.0) in scores
  for arm, s in sorted(scores):
    if arm != 'deleted' and (own or (arm, s) != ('dense', 0.0)):
      continue
    place = losses.get(('pruned', s), {}) if s else scoring.zero(losses, 'pruned')
    both = [
      (place['pretrain', seed], value)
      for (name, seed), value in scores[arm, s].items()
      if name == task and ('pretrain', seed) in place
    ]
    if both:
      x.append(statistics.mean([b[0] for b in both]))
      y.append(100 * statistics.mean([b[1] for b in both]))
  return statistics.fit(x, y, level=level)


def _of_paper(paper, task, count, level):
  known = [paper['deleted'][s] for s in sorted(paper['deleted'])[:count]]
  return statistics.fit(
    [p['loss'] for p in known], [p['tasks'][task][0] for p in known], level=level
  )


def _line(line):
  if line is None or not math.isfinite(line.slope):
    return ('-',) * 4
  return (
    f'{line.slope:+.2f}',
    tables.span(line.low, line.high, 1, '+.2f'),
    f'{line.r:+.3f}',
    str(line.n),
  )


def _less(there, zero, what):
  values = [place.get(what) if place else None for place in (there, zero)]
  return math.nan if None in values else values[0] - values[1]


def _sides(ours, dense, theirs, scale, form, level, seed):
  # (ours with its interval, theirs, the difference of the two), each a difference to dense.
  here = statistics.cautious(
    statistics.paired(ours or {}, dense or {}).values(), level=level, seed=seed
  )
  show = tables.points if scale == 100 else tables.number
  told = f'{theirs:+{form}}' if math.isfinite(theirs) else '-'
  return show(here, sign='+'), told, _minus(scale * here.mean, theirs, form)


def _minus(ours, theirs, form):
  return f'{ours - theirs:+{form}}' if math.isfinite(ours - theirs) else '-'
