"""What differs between two ledgers of this experiment, A and B."""

import functools
import math

from experiments.gordon2020.analysis import arm_curves, arms, as_dense, scoring
from prunejax.report import drawing, equivalence, statistics, tables

CAPTIONS = {
  'figure1': 'Average dev score and train loss against sparsity, A full and B broken lines; 95 % '
  'bootstrap intervals over seeds.',
  'pretrain_loss': 'Held-out pre-train loss against sparsity, A full and B broken lines.',
}
# Keys that change no number.
QUIET = (
  'log.',
  'checkpoint.',
  'eval.every',
  'keep_model',
  'data.root',
  'data.cache',
  'population.',
)


def settings(a, b):
  """What differs in size, machines, versions and configs; only lines that differ, but for the size."""
  listed = _listed
  tuned = lambda rows: [row for row in rows if row['stage'] == 'finetune']
  facts = {
    'cells': lambda rows: str(len(rows)),
    'preset': lambda rows: listed(rows, lambda row: row.get('preset', '-')),
    'seeds': lambda rows: listed(rows, lambda row: row['seed']),
    'tasks': lambda rows: listed(tuned(rows), lambda row: row['task']),
    'sparsities': lambda rows: listed(rows, lambda row: f'{row["sparsity"]:g}'),
    'arms': lambda rows: listed(rows, lambda row: row['arm']),
    'device': lambda rows: listed(rows, lambda row: row.get('device', '-')),
    'seconds of devices': lambda rows: f'{sum(row.get("seconds") or 0 for row in rows):.0f}',
  }
  for package in sorted({name for row in (*a, *b) for name in row.get('versions') or {}}):
    facts[f'version of {package}'] = functools.partial(_versions, package)
  lines = [(name, tell(a), tell(b)) for name, tell in facts.items()]
  lines = [
    line
    for line in lines
    if line[1] != line[2] or line[0] in ('cells', 'preset', 'seeds', 'device')
  ]
  lines += [(f'config: {key}', *values) for key, values in _configs(a, b).items()]
  note = 'Configs of the cells that both have (stage, arm, sparsity, task, seed); several values are all listed.'
  return tables.Table('What differs', ('what', 'A', 'B'), tuple(lines), note)


def _listed(rows, key):
  return ', '.join(sorted({str(key(row)) for row in rows}, key=lambda s: (len(s), s))) or '-'


def _versions(package, rows):
  return _listed(rows, lambda row: (row.get('versions') or {}).get(package, '-'))


def _configs(a, b):
  def listed(rows, place):
    found = {}
    for row in rows:
      found.setdefault(place(row), []).append(row.get('config') or {})
    return found

  # Without the learning rate: a cell that was tuned at several has several configs.
  cell = lambda row: (
    row['stage'],
    row['arm'],
    scoring.level_of(row),
    row.get('task') or '',
    row['seed'],
    row.get('epochs'),
  )
  first, second = listed(a, cell), listed(b, cell)
  both = [(first[key], second[key]) for key in first if key in second]
  if not both:  # no cell in common: the first of each stage and arm
    first, second = (
      {key[:2]: configs[:1] for key, configs in reversed(side.items())} for side in (first, second)
    )
    both = [(first[key], second[key]) for key in first if key in second]
  found = {}
  for ones, twos in both:
    for key in sorted({key for config in (*ones, *twos) for key in config}):
      values = [sorted({str(config.get(key, '-')) for config in side}) for side in (ones, twos)]
      # A parent's hash says no more than that its own config differs.
      if values[0] != values[1] and not key.startswith(QUIET) and 'cell:' not in f'{values}':
        sides = found.setdefault(key, ({}, {}))
        for side, told in zip(sides, values, strict=True):
          side.update(dict.fromkeys(told))
  return {key: tuple(', '.join(list(side)[:4]) for side in sides) for key, sides in found.items()}


def differences(a, b, *, level=0.95, margin=as_dense.MARGIN):
  """B minus A by arm and sparsity over the tasks that both have: score, pre-train loss, train loss, with intervals."""
  common = set(_tasks(a)) & set(_tasks(b))
  a, b = ([row for row in rows if row['arm'] not in ('epochs', 'after epochs')] for rows in (a, b))
  pick = lambda rows: [row for row in rows if row['stage'] != 'finetune' or row['task'] in common]
  a, b = _alike(pick(a), b), _alike(pick(b), a)
  of = lambda rows: (
    scoring.points(rows),
    scoring.pretrain(rows),
    scoring.points(rows, scoring.train_loss),
  )
  first, second = of(a), of(b)
  lines = []
  for key in sorted(
    set(first[0]) | set(first[1]) | set(second[0]) | set(second[1]), key=arms.order
  ):
    score, loss, train = (
      _difference(x.get(key, {}), y.get(key, {}), level) for x, y in zip(first, second, strict=True)
    )
    t = equivalence.test(statistics.paired(second[0].get(key, {}), first[0].get(key, {})), margin)
    lines.append(
      (
        arms.name(key[0]),
        f'{key[1]:g}',
        *(tables.points(e) for e in score[:2]),
        tables.points(score[2], '+'),
        *(tables.number(e) for e in loss[:2]),
        tables.number(loss[2], '+'),
        tables.number(train[2], '+'),
        tables.p_value(t.p_same),
        tables.p_value(t.p_different),
        str(t.n),
      )
    )
  head = (
    'arm',
    'sparsity',
    'score, A',
    'score, B',
    'score, B - A',
    'pre-train loss, A',
    'pre-train loss, B',
    'pre-train loss, B - A',
    'train loss, B - A',
    'p, same score',
    'p, different',
    'pairs',
  )
  note = (
    f'Points of 100 and nats, over {", ".join(sorted(common)) or "no common task"}, at learning rates that both have; '
    f'± half of the {level:.0%} interval '
    "(the wider of Student's and the bootstrap). Differences are paired by task and seed where both have the same "
    f"seeds, else Welch's. p of the same score: two one-sided tests with a margin of {100 * margin:g} points."
  )
  return tables.Table('B minus A', head, tuple(lines), note)


def _alike(rows, others):
  """The rows without fine-tuning at learning rates that the others lack, of tasks where they share one."""
  of = lambda rows, task: {
    r['learning_rate'] for r in rows if r['stage'] == 'finetune' and r['task'] == task
  }
  kept = {task: of(rows, task) & of(others, task) or of(rows, task) for task in _tasks(rows)}
  return [
    row for row in rows if row['stage'] != 'finetune' or row['learning_rate'] in kept[row['task']]
  ]


def _tasks(rows):
  return sorted({row['task'] for row in rows if row['stage'] == 'finetune'})


def _difference(ours, theirs, level):
  # (A, B, B - A) as estimates.
  pairs = statistics.paired(theirs, ours)
  one, two = (statistics.cautious(side.values(), level=level) for side in (ours, theirs))
  if pairs or not ours or not theirs:
    return one, two, statistics.cautious(pairs.values(), level=level)
  return one, two, _welch(list(ours.values()), list(theirs.values()), level)


def _welch(a, b, level):
  """The difference of two means with Welch's interval; its degrees of freedom rounded down."""
  middle = statistics.mean(b) - statistics.mean(a)
  if min(len(a), len(b)) < 2:
    return statistics.Estimate(middle, math.nan, math.nan, len(a) + len(b))
  parts = [
    sum((v - statistics.mean(side)) ** 2 for v in side) / (len(side) - 1) / len(side)
    for side in (a, b)
  ]
  spread = sum(parts)
  bottom = sum(part**2 / (len(side) - 1) for part, side in zip(parts, (a, b), strict=True))
  df = max(1, int(spread**2 / bottom)) if bottom > 0 else 1
  reach = statistics.student_quantile(level, df) * math.sqrt(spread)
  return statistics.Estimate(middle, middle - reach, middle + reach, len(a) + len(b))


def figures(a, b):
  """{'figure1', 'pretrain_loss'}: the curves of both, A with full lines and B with broken ones, one colour an arm."""
  a, b = arms.standard(a), arms.standard(b)
  common = set(_tasks(a)) & set(_tasks(b))
  sides = [
    [row for row in rows if row['stage'] != 'finetune' or row['task'] in common] for rows in (a, b)
  ]
  styles = (('-', '{}, A', -0.006, '--'), ('--', '{}, B', 0.006, '-.'))

  def draw(axes, table_of, names):
    for rows, (line, label, nudge, level) in zip(sides, styles, strict=True):
      arm_curves.draw(
        axes, table_of(rows), names, line=line, label=label, nudge=nudge, levels=(level, ':')
      )

  scores = lambda rows: arm_curves.scaled(scoring.averages(scoring.points(rows)), 100)
  train = lambda rows: scoring.averages(scoring.points(rows, scoring.train_loss))
  losses = lambda rows: {
    key: {seed: v for (_, seed), v in place.items()}
    for key, place in scoring.pretrain(rows).items()
  }
  with drawing.canvas(11, 5, 2) as (figure, (left, right)):
    draw(left, scores, arms.CURVES)
    draw(right, train, arms.CURVES)
    left.set(title='Transfer to the tasks', ylabel='average dev score (points)')
    right.set(title='Fit to their training sets', ylabel='average train loss')
    drawing.below(figure, left, right, columns=4)
    first = drawing.png(figure, f'mean over {", ".join(sorted(common))}' if common else '')
  with drawing.canvas(6.8, 4.8, 1) as (figure, (axes,)):
    draw(axes, losses, ('pruned', 'random'))
    axes.set(title='Pre-training', ylabel='held-out pre-train loss (nats)')
    drawing.below(figure, axes)
    return {'figure1': first, 'pretrain_loss': drawing.png(figure)}
