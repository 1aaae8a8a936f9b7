"""The rules by which a claim is judged.

A check compares a number with a threshold by the 99 % interval of `statistics.cautious`, the wider
of the bootstrap and Student's, over the means of the seeds. 99 and not 95, since a dozen claims are
judged at once. The seed is the unit: tasks of one seed share a checkpoint, so (task, seed) pairs
are not independent (`analysis/replication.py` shows how alike they are). The check says *undecided*
unless two seeds stand behind the number and the interval lies on one side of the threshold. Three
seeds decide little: the interval reaches 5.7 standard deviations of a seed to either side.

A task that the dense model has not learned is left out: such a model has nothing to delete. Where a
claim speaks of k sparsities, one of them refutes it only at the level 1 - 0.01 / k, so that a long
list finds none by luck.
"""

import math
from typing import NamedTuple

from experiments.gordon2020.analysis import arms, scoring
from prunejax.report import ledger, statistics, tables
from prunejax.report.verdicts import UNDECIDED, Verdict, word

LEVEL = 0.99  # of every interval a verdict rests on
MARGIN = 0.02  # loss of accuracy that counts as none; the paper's AVG loses 0.005 at 0.4
LEARNED = 0.02  # how far above its floor a dense model must be for its task to count
FIT = 0.05  # nats of train loss within which a model fits as well as a dense one
LOW, MEDIUM, HIGH = 0.4, 0.5, 0.7  # the paper's regimes (section 4)
NOTHING = 'A model that learned nothing has nothing to delete'
ZERO = 'zero'  # in the place of an arm's name, see `against`


class Grid(NamedTuple):
  """The quantities of a whole grid that claims, tables and figures read.

  rows: every finished ledger row.
  standard: the rows of the paper's own arms, dense and fresh among them.
  comparable: those, at learning rates that all arms, sparsities and seeds of the task have.
  learned: those, without the tasks that the dense model has not learned.
  chance: {task: score of the constant answer}, where the rows tell it.
  scores: {(arm, sparsity): {(task, seed): dev score}}, learned tasks only.
  train: as scores: loss over the training set.
  losses: {(arm, sparsity): {('pretrain', seed): held-out loss}}, of MLM + NSP or of the next token.
  floors: {task: the better of chance and the mean of the fresh models}.
  left_out: {task not learned: why}.
  probes: the rows of stage 'probe'.
  corpus: the rows of the arms 'corpus:SHARE'.
  """

  rows: tuple
  standard: tuple
  comparable: tuple
  learned: tuple
  chance: dict
  scores: dict
  train: dict
  losses: dict
  floors: dict
  left_out: dict
  probes: tuple
  corpus: tuple


def grid(rows, chance=None):
  """Computes the quantities of a grid from its ledger rows.

  Args:
    rows: finished rows of one experiment and preset.
    chance: {task: score of a constant answer}; by default the rows tell it.
  """
  rows = ledger.one_grid(list(rows))
  if chance is None:
    chance = {
      row['task']: row['metrics']['majority']
      for row in rows
      if 'majority' in row.get('metrics', {})
    }
  standard = arms.standard(rows)
  # The best of four learning rates is no match for the best of one.
  comparable = scoring.comparable(standard)
  scores = scoring.points(comparable)
  floors, left_out = {}, {}
  for task in scoring.tasks_of(scores):
    floors[task], reason = _floor(scores, task, chance.get(task))
    if reason:
      left_out[task] = reason

  def learned(table):
    kept = {
      key: {p: v for p, v in numbers.items() if p[0] not in left_out}
      for key, numbers in table.items()
    }
    return {key: numbers for key, numbers in kept.items() if numbers}

  return Grid(
    rows=tuple(rows),
    standard=tuple(standard),
    comparable=tuple(comparable),
    learned=tuple(row for row in comparable if row.get('task') not in left_out),
    chance=chance,
    scores=learned(scores),
    train=learned(scoring.points(comparable, scoring.train_loss)),
    losses=scoring.pretrain(comparable),
    floors=floors,
    left_out=left_out,
    probes=tuple(row for row in rows if row['stage'] == 'probe'),
    corpus=tuple(row for row in rows if row['arm'].startswith('corpus:')),
  )


class Series(NamedTuple):
  """A quantity at several sparsities, one line of the evidence of a claim.

  what: the quantity with its unit.
  values: {sparsity: {(task, seed): number}}.
  scale: 100 for fractions that are shown as points or per cent, 1 for nats.
  """

  what: str
  values: dict
  scale: int = 100


def _floor(scores, task, chance):
  pick = lambda arm: {p: v for p, v in scores.get((arm, 0.0), {}).items() if p[0] == task}
  dense, fresh = pick('dense'), pick('fresh')
  bars = ([chance] if chance is not None else []) + (
    [statistics.mean(fresh.values())] if fresh else []
  )
  if not bars:
    return math.nan, 'neither a fresh model nor chance to compare with'
  if len(dense) < 2:
    return max(bars), f'{len(dense)} dense seed(s), two needed to know it was learned'
  above = [{p: v - bar for p, v in dense.items()} for bar in bars]
  if any(statistics.bootstrap(d.values()).low <= LEARNED for d in above):
    return max(bars), (
      f'dense {statistics.mean(dense.values()):.3f} is not clear above {max(bars):.3f}'
    )
  return max(bars), ''


def against(data, arm, other, wanted, *, alive=False, scores=None):
  """The differences of two arms at each sparsity, paired by task and seed.

  Args:
    data: a `Grid`.
    arm: the arm whose sparsities count.
    other: an arm; 'dense' is the same model at every sparsity. ZERO is the 0 of `arm`, a dense
      model trained as long as the arm, or 'dense' where there is none.
    wanted: sparsity -> whether it counts.
    alive: leave out the pairs in which both arms stand at the floor of their task.
    scores: `data.scores` by default, or `data.train`.

  Returns:
    {sparsity: {(task, seed): arm - other}}.
  """
  table, result = data.scores if scores is None else scores, {}
  for name, s in sorted(table):
    if name != arm or not wanted(s):
      continue
    theirs = (
      scoring.zero(table, arm)
      if other == ZERO
      else table.get((other, 0.0 if other == 'dense' else s), {})
    )
    ours = table[arm, s]
    diffs = statistics.paired(ours, theirs)
    if alive:
      diffs = {
        p: d for p, d in diffs.items() if max(ours[p], theirs[p]) > data.floors[p[0]] + LEARNED
      }
    if diffs:
      result[s] = diffs
  return result


def of_seeds(values):
  """The mean of each seed, of {(task, seed): number}; tasks of a seed are averaged."""
  seeds = sorted({seed for _, seed in values})
  return [statistics.mean([v for pair, v in values.items() if pair[1] == seed]) for seed in seeds]


def estimate(values, level=LEVEL):
  """The mean of {(task, seed): number} with its interval over the means of the seeds."""
  return statistics.cautious(of_seeds(values), level=level)


def side(values, threshold, level=LEVEL):
  """Tells on which side of a threshold {(task, seed): number} lies.

  Returns:
    +1 where the interval over the means of the seeds lies above the threshold, -1 where it lies
    below, else 0. Fewer than two seeds give 0.
  """
  means = of_seeds(values)
  # Two or three equal numbers say nothing about how far others may lie.
  few = len(means) < 4 and max(means, default=0) == min(means, default=0)
  if len(means) < 2 or few and max(means) != threshold:
    return 0
  interval = estimate(values, level)
  return int(interval.low > threshold) - int(interval.high < threshold)


def agreed(diffs, threshold, measured=None):
  """(above, below): the side of the average over sparsities, unless one sparsity contradicts.

  Args:
    diffs: {sparsity: {(task, seed): number}}.
    threshold: what the average is compared with.
    measured: see `over_sparsities`.
  """
  mean = side(over_sparsities(diffs, measured), threshold)
  # One sparsity casts doubt at a lower level than it would take to refute.
  each = [side(d, threshold, share(diffs, 0.05)) for d in diffs.values()]
  return mean > 0 and -1 not in each, mean < 0 and 1 not in each


def over_sparsities(diffs, measured=None):
  """The mean of each pair over the sparsities at which every seed of its task was measured.

  Else a seed that lacks the sparsity that costs most would differ from the others by that alone.

  Args:
    diffs: {sparsity: {(task, seed): number}}.
    measured: as `diffs`, with the pairs that a claim leaves out by its rule, which are not missing.
      `diffs` by default.

  Returns:
    {(task, seed): mean}, without tasks whose seeds have no sparsity in common.
  """
  kept = _of_every_seed(diffs, measured)
  pairs = sorted({p for d in kept.values() for p in d})
  return {p: statistics.mean([d[p] for d in kept.values() if p in d]) for p in pairs}


def everywhere(diffs):
  """The sparsities at which every (task, seed) of {sparsity: {(task, seed): number}} has one."""
  pairs = {p for d in diffs.values() for p in d}
  return {s for s, d in diffs.items() if d.keys() >= pairs}


def _of_every_seed(diffs, measured=None):
  """The differences at the sparsities at which every seed of their task was measured."""
  measured = diffs if measured is None else measured
  of_task = lambda task: {
    s: {p: v for p, v in d.items() if p[0] == task} for s, d in measured.items()
  }
  common = {task: everywhere(of_task(task)) for d in measured.values() for task, _ in d}
  kept = {s: {p: v for p, v in d.items() if s in common[p[0]]} for s, d in diffs.items()}
  return {s: d for s, d in kept.items() if d}


def share(parts, error=1 - LEVEL):
  """The level at which one of so many parts is found by luck no oftener than `error`."""
  return 1 - error / max(len(parts), 1)


def interval(values, scale=100, form=''):
  """The mean of {(task, seed): number} with its interval as text; '' for no values."""
  if not values:
    return ''
  e = estimate(values)
  form = form or ('+.1f' if scale == 100 else '+.3f')
  ends = tables.span(e.low, e.high, scale, form)
  return f'{scale * e.mean:{form}}' + (f' {ends}' if ends != '-' else '')


def at(diffs, s, unit, scale=100):
  """The number that decides a claim as text, at one sparsity: '-1.7 [-4.7, +1.4] points at 0.4'."""
  return f'{_decides(diffs[s], scale)} {unit} at {s:g}' if diffs.get(s) else ''


def average(diffs, unit, scale=100, measured=None):
  """The number that decides a claim as text, averaged as by `over_sparsities`."""
  kept = _of_every_seed(diffs, measured)
  if len(kept) < 2:
    return at(kept, next(iter(kept), None), unit, scale)
  number = _decides(over_sparsities(diffs, measured), scale)
  return f'{number} {unit} over {min(kept):g} to {max(kept):g}'


def _decides(values, scale):
  """`interval`, or the number of a single seed, which says so."""
  number = interval(values, scale)
  return number if number.endswith(']') else f'{number}, one seed,'


def weakest_line(lines, task, unit, form='+.1f'):
  """The number that decides a claim about a line for each task: the slope of the weakest one.

  Args:
    lines: {task: `statistics.Fit` of scores}.
    task: the one with the weakest correlation; None where there is no line.
    unit: of the slope, in points.
    form: of the slope.
  """
  if not lines:
    return ''
  line = lines[task]
  slope = f'{100 * line.slope:{form}} {tables.span(line.low, line.high, 100, form)} {unit}'
  return f'{slope}, r {line.r:+.3f} on {task}, the weakest of {len(lines)}'


def by_sparsity(*series):
  """() or a table with a line for each `Series` and a column for each sparsity."""
  series = [s._replace(values={k: v for k, v in s.values.items() if v}) for s in series]
  levels = sorted({s for line in series for s in line.values})
  lines = []
  for line in series:
    counts = {s: _count(numbers) for s, numbers in line.values.items()}
    same = len(set(counts.values())) == 1
    cells = [
      interval(line.values[s], line.scale) + ('' if same else f' ({counts[s]})')
      if s in line.values
      else '-'
      for s in levels
    ]
    if line.values:
      lines.append((line.what, next(iter(counts.values())) if same else 'in each', *cells))
  head = ('', 'over', *(f'{s:g}' for s in levels))
  note = f'Mean [{LEVEL:.0%} interval over seeds] at each sparsity.'
  return (tables.Table('By sparsity', head, tuple(lines), note),) if lines else ()


def alone(what, values, scale):
  """() or a table of one number that has no sparsity."""
  if not values:
    return ()
  head = ('', 'over', f'mean [{LEVEL:.0%} interval over seeds]')
  return (
    tables.Table('In numbers', head, ((what, _count(values), interval(values, scale, '+.2f')),)),
  )


def verdict(
  data,
  name,
  claim,
  yes,
  no,
  *,
  number='',
  evidence=(),
  rule='',
  figures=('figure1',),
  of_tasks=True,
  alone=False,
):
  """Makes a Verdict.

  Args:
    data: a `Grid`.
    name, claim, number, figures: of the Verdict.
    yes, no: whether the claim is reproduced, and whether it is not.
    evidence: tables; () where no row speaks of the claim.
    rule: the threshold and what else the tables do not say.
    of_tasks: whether the claim speaks of tasks; then it is undecided where none was learned.
    alone: whether `rule` is said even where no row speaks of the claim.
  """
  dead = of_tasks and not data.scores
  if dead:
    number, evidence, rule = '', (), NOTHING if data.left_out else ''
  note = rule if evidence or rule and (dead or alone) else 'No rows to compare'
  notes = [note[:1].upper() + note[1:]]
  if of_tasks:
    notes += [f'{task} left out: {why}' for task, why in data.left_out.items()]
  text = '; '.join(note for note in notes if note)
  return Verdict(
    name=name,
    claim=claim,
    verdict=UNDECIDED if dead else word(yes, no),
    evidence=f'{text}.' if text else '',
    figures=figures,
    number=number,
    tables=evidence,
  )


def _count(values):
  return f'{len(values)} pairs, {len({seed for _, seed in values})} seeds'
