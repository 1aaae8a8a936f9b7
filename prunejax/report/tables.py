"""Tables as text, Markdown and HTML; the paper's Table 1 with intervals from ledger rows."""

import html as escape
import math
from typing import NamedTuple

from prunejax.report import arms, statistics

NAMES = arms.NAMES
ARMS = {**{name: arm for arm, name in NAMES.items()}, **{arm: arm for arm in NAMES}}
LONG = ' class="long"'


class Table(NamedTuple):
  """A title, column heads, rows of cells that are text already, and a note under it."""

  title: str
  head: tuple
  rows: tuple
  note: str = ''


def table1(rows, *, level=0.95, seed=0):
  """The paper's Table 1: arm x sparsity; pre-train loss, each task 'accuracy | train loss', AVG.

  Scores are in points of 100 as the paper prints them; +- is half the bootstrap interval.
  """
  rows = statistics.comparable(statistics.one_grid(rows))
  scores = statistics.points(rows)
  train = statistics.points(rows, statistics.train_loss)
  losses = statistics.pretrain(rows)
  tasks = statistics.tasks_of(scores)
  mean_scores, mean_train = statistics.averages(scores), statistics.averages(train)
  estimate = lambda values: statistics.bootstrap(values, level=level, seed=seed)

  def cell(score, loss):
    return f'{points(estimate(score))} | {number(estimate(loss))}'

  def line(arm, sparsity):
    key = arm, sparsity
    source = arms.SOURCE.get(arm, arm)
    own = sparsity or source not in arms.CURVES  # else what the 0 of a pruned arm started from
    place = losses.get((source, sparsity), {}) if own else statistics.zero(losses, source)
    # Pruned after fine-tuning: its checkpoint was dense, so no pre-train loss at this sparsity.
    loss = [] if arm == 'after' else place.values()
    per_task = [cell(_of(scores, key, task), _of(train, key, task)) for task in tasks]
    average = cell(mean_scores.get(key, {}).values(), mean_train.get(key, {}).values())
    seeds = {k[1] for k in scores.get(key) or losses.get(key, {})}
    return (
      arms.name(arm),
      f'{sparsity:g}',
      str(len(seeds)),
      number(estimate(loss)),
      *per_task,
      average,
    )

  keys = sorted(set(scores) | set(losses), key=arms.order)
  names = sorted({(row['task'], statistics.metric_of(row)) for row in statistics.select(rows)})
  unlike = [f'{task}: {metric}' for task, metric in names if metric != 'accuracy']
  apart = sorted(set(tasks) - set(statistics.averaged(scores)))
  note = (
    f'Score in points of 100 | loss over the training set; mean ± half of the '
    f'{level:.0%} bootstrap interval over seeds, - where there are too few ({statistics.FEW}). '
    'Learning rates: the best dev score of each task, arm, sparsity and seed, of those rates that all arms and '
    'sparsities of the task have.'
  )
  return Table(
    'Table 1: sparsity, pre-train loss, dev score and train loss',
    ('arm', 'sparsity', 'seeds', 'pre-train loss', *tasks, 'AVG'),
    tuple(line(*key) for key in keys),
    note
    + (f' Scores other than accuracy: {", ".join(unlike)}.' if unlike else '')
    + (f' Not in AVG, since most places lack it: {", ".join(apart)}.' if apart else ''),
  )


def records(title, items, note=''):
  """A table from a sequence of dicts; columns in the order they first appear."""
  head = tuple(dict.fromkeys(str(key) for item in items for key in item))
  lines = [{str(k): v for k, v in item.items()} for item in items]
  return Table(title, head, tuple(tuple(_shown(line.get(k)) for k in head) for line in lines), note)


def text(table):
  """Plain text with aligned columns."""
  lines = [table.head, *table.rows]
  width = [max(len(line[i]) for line in lines) for i in range(len(table.head))]
  lines = [
    '  '.join(c.ljust(w) for c, w in zip(line, width, strict=True)).rstrip() for line in lines
  ]
  lines.insert(1, '  '.join('-' * w for w in width))
  return '\n'.join([table.title, *lines, *([table.note] if table.note else [])]) + '\n'


def markdown(table):
  """A Markdown table; bars inside cells are escaped."""

  def line(cells):
    safe = [c.replace('\\', '\\\\').replace('|', r'\|').replace('\n', ' ') for c in cells]
    return '| ' + ' | '.join(safe) + ' |'

  rule = '|' + '---|' * len(table.head)
  lines = [f'**{table.title}**', '', line(table.head), rule, *map(line, table.rows)]
  return '\n'.join([*lines, *(['', table.note] if table.note else [])]) + '\n'


def html(table):
  """An HTML table, all text escaped; an arm's name has its colour beside it, long text may wrap."""
  head = ''.join(f'<th>{escape.escape(c)}</th>' for c in table.head)
  lines = ('<tr>' + ''.join(map(_cell, line)) + '</tr>' for line in table.rows)
  title = escape.escape(table.title, quote=True)
  note = f'<p class="note">{escape.escape(table.note)}</p>' if table.note else ''
  return (
    f'<div class="table" tabindex="0" role="region" aria-label="{title}"><table><caption>{title}</caption>'
    f'<thead><tr>{head}</tr></thead><tbody>' + '\n'.join(lines) + f'</tbody></table></div>{note}'
  )


def _cell(text):
  mark = (
    f'<span class="arm" style="background:{arms.colour(ARMS[text])}"></span>'
    if text in ARMS
    else ''
  )
  return f'<td{LONG if len(text) > 60 else ""}>{mark}{escape.escape(text)}</td>'


def points(estimate, sign=''):
  """A fraction as points of 100 with its interval: '83.1 ± 0.4'."""
  return _plus_minus(*[100 * v for v in estimate[:3]], f'{sign}.1f', '.1f')


def number(estimate, sign=''):
  """A loss with its interval: '1.82 ± 0.01'."""
  return _plus_minus(*estimate[:3], f'{sign}.2f', '.2f')


def span(low, high, scale=1, form='.2f'):
  """An interval: '[-0.4, +0.1]', or '-' when it has no ends."""
  if not (math.isfinite(low) and math.isfinite(high)):
    return '-'
  return f'[{scale * low:{form}}, {scale * high:{form}}]'


def p_value(p):
  """A probability with two digits: '0.034', '< 0.001'."""
  return '-' if not math.isfinite(p) else '< 0.001' if p < 0.001 else f'{p:.2g}'


def _plus_minus(middle, low, high, form, reach):
  if not math.isfinite(middle):
    return '-'
  half = (high - low) / 2
  return f'{middle:{form}} ± ' + (f'{half:{reach}}' if math.isfinite(half) else '-')


def _of(table, key, task):
  return [v for (name, _), v in table.get(key, {}).items() if name == task]


def _shown(value, form='.4g'):
  if value is None or isinstance(value, float) and not math.isfinite(value):
    return '-'
  return f'{value:{form}}' if isinstance(value, float) else str(value)
