"""The effect of one change: switches, controls and shares of the corpus.

An arm 'switch:NAME' pairs with 'pruned' of the same sparsity, task and seed. An arm 'corpus:SHARE'
is dense at sparsity 0 and pruned above it, so each share has its own dense model.
"""

import fractions
import math

import numpy as np

from experiments.gordon2020.analysis import arms, as_dense, regimes, scoring
from prunejax.report import drawing, equivalence, statistics, tables

RISE = regimes.LOSS  # nats of pre-train loss that count as the end of what can be pruned
HEAD = ('pre-train loss', 'score', 'train loss', 'p, same score', 'p, different', 'pairs')


def switches(rows, *, level=0.95, margin=as_dense.MARGIN):
  """The effect of each switch: 'switch:NAME' minus 'pruned' at the same sparsity, task and seed."""
  named = {f'switch:{name}': name for name in arms.family(rows, 'switch')}
  rows = _at_rates_of(rows, named)
  lines = _against(rows, named, level, margin)
  note = _note(
    'Each switch minus the standard arm, *pruned in pre-training*, at the same sparsity, task '
    'and seed. "reached" is '
    'the sparsity the switched run really has',
    level,
    margin,
  )
  return tables.Table(
    'What each fidelity switch changes',
    ('switch', 'sparsity', 'reached', *HEAD),
    tuple(lines),
    note,
  )


def others(rows, *, level=0.95, margin=as_dense.MARGIN):
  """Controls that are no arm of Table 1, minus dense, pruned and deleted."""
  rows = [row for row in rows if row['stage'] in ('pretrain', 'finetune')]
  known = (*arms.ORDER, 'before', 'epochs', 'after epochs')  # 'after' starts from 'before'
  rows = _at_rates_of(
    rows, {row['arm'] for row in rows if row['arm'] not in known and ':' not in row['arm']}
  )
  scores, losses = scoring.points(rows), scoring.pretrain(rows)
  lines = []
  for arm, s in sorted(
    key for key in {**scores, **losses} if key[0] not in known and ':' not in key[0]
  ):
    here = scores.get((arm, s), {})
    minus = lambda other, at, here=here: statistics.paired(here, scores.get((other, at), {}))
    # The last is a dense model fine-tuned for as long as *deleted* and *masks removed*.
    others = (('dense', 0.0), ('pruned', s), ('deleted', s), ('deleted', 0.0))
    estimate = lambda values: statistics.cautious(values, level=level)
    t = equivalence.test(minus('dense', 0.0), margin)
    lines.append(
      (
        arms.name(arm),
        f'{s:g}',
        tables.number(estimate(losses.get((arm, s), {}).values())),
        tables.points(estimate(here.values())),
        *(tables.points(estimate(minus(*other).values()), '+') for other in others),
        t.word if here else '-',
        str(t.n),
      )
    )
  head = (
    'control',
    'sparsity',
    'pre-train loss',
    'score',
    '- dense',
    '- pruned',
    '- deleted',
    '- deleted at 0 %',
    'in words',
    'pairs',
  )
  return tables.Table(
    'Controls',
    head,
    tuple(lines),
    (
      f'Nats and points of 100, paired by task and seed at the same sparsity; ± half of the '
      f'{level:.0%} interval, the '
      "wider of Student's and the bootstrap. All at the learning rates that the controls have. "
      'In words: against '
      'dense, '
      f'with a margin of {100 * margin:g} points.'
    ),
  )


def corpus(rows, *, level=0.95):
  """What pruning costs a model that was pre-trained on a share of the corpus."""
  lines = []
  for share, of_share in _shares(rows):
    losses, scores = scoring.pretrain(of_share), scoring.points(of_share)
    arm = of_share[0]['arm']
    dense_loss, dense_score = losses.get((arm, 0.0), {}), scores.get((arm, 0.0), {})
    end = end_of(of_share, level=level)
    for s in sorted({s for _, s in (*losses, *scores)}):
      loss, score = losses.get((arm, s), {}), scores.get((arm, s), {})
      rise, fall = statistics.paired(loss, dense_loss), statistics.paired(score, dense_score)
      estimate = lambda diffs: statistics.cautious(diffs.values(), level=level)
      lines.append(
        (
          share,
          f'{s:g}',
          tables.number(estimate(loss)),
          tables.points(estimate(score)),
          *(
            (tables.number(estimate(rise), '+'), tables.points(estimate(fall), '+'))
            if s
            else ('-', '-')
          ),
          _end(end) if not s else '-',
          tables.span(end.low, end.high) if not s else '-',
          str(len({seed for _, seed in (*loss, *score)})),
        )
      )
  head = (
    'share of the corpus',
    'sparsity',
    'pre-train loss',
    'score',
    'loss - dense',
    'score - dense',
    f'prunable up to (+{RISE:g} nats)',
    'interval',
    'seeds',
  )
  note = (
    f"Nats and points of 100, mean ± half of the {level:.0%} interval (the wider of Student's "
    f'and the bootstrap). '
    f'Prunable up to: the sparsity at which the loss has risen by {RISE:g} nats over the dense '
    f'model of the same '
    'share, estimated as the ends of the regimes are.'
  )
  return tables.Table('Does prunability depend on the amount of text?', head, tuple(lines), note)


def prunability(rows, *, level=0.95):
  """The figure of `corpus`: the sparsity at which the loss has risen by RISE, against the share.

  Bars are intervals. An arrow at the highest sparsity measured stands for an end beyond it.

  Returns:
    The bytes of a PNG, None where no share has an end.
  """
  ends = [
    (float(fractions.Fraction(share)), end_of(of_share, level=level), of_share)
    for share, of_share in _shares(rows)
  ]
  beyond = [
    (share, max(row['sparsity'] for row in of_share))
    for share, end, of_share in ends
    if math.isinf(end.at)
  ]
  measured = [(share, end) for share, end, _ in ends if math.isfinite(end.at)]
  if not measured and not beyond:
    return None
  x, y = np.array([share for share, _ in measured]), np.array([end.at for _, end in measured])
  reach = [
    [
      e.at - e.low if math.isfinite(e.low) else 0.0,
      min(e.high, 1.0) - e.at if not math.isnan(e.high) else 0.0,
    ]
    for _, e in measured
  ]
  with drawing.canvas(6.4, 4.4, 1) as (figure, (axes,)):
    axes.errorbar(
      x,
      y,
      yerr=np.array(reach).T,
      color=arms.colour('pruned'),
      marker='o',
      capsize=3,
      label=f'pruned in pre-training: loss {RISE:g} nats above dense',
    )
    if beyond:
      axes.plot(
        *zip(*beyond, strict=True),
        linestyle='',
        marker='^',
        markersize=9,
        color=arms.colour('pruned'),
        markerfacecolor='white',
        label='beyond the highest sparsity measured',
      )
    axes.set_xscale('log')
    axes.set_xticks(
      [share for share, end, _ in ends if not math.isnan(end.at)],
      [
        share
        for (share, _), (_, end, _) in zip(_shares(rows), ends, strict=True)
        if not math.isnan(end.at)
      ],
    )
    axes.minorticks_off()
    axes.set(
      xlabel='share of the pre-training corpus',
      ylabel='sparsity reached',
      ylim=(0, 1),
      title='Prunability against the amount of text',
    )
    drawing.below(figure, axes)
    return drawing.png(figure)


def _shares(rows):
  families = arms.family(rows, 'corpus')
  return sorted(families.items(), key=lambda pair: share_of(pair[0]))


def share_of(text):
  """The share in the name of an arm, '0.1' or '1/8', as a float.

  Raises:
    ValueError: the text is no number.
  """
  try:
    return float(fractions.Fraction(text))
  except (ValueError, ZeroDivisionError):
    raise ValueError(
      f"arm 'corpus:{text}': expected a share such as 0.1 or 1/8 after the colon"
    ) from None


def end_of(rows, margin=RISE, *, level=0.95):
  """The `regimes.Crossing` at which the loss of a share has risen by a margin over its dense model.

  Args:
    rows: of one share.
    margin: nats.
    level: of the interval.
  """
  losses = {
    key: {seed: v for (_, seed), v in p.items()} for key, p in scoring.pretrain(rows).items()
  }
  arm = rows[0]['arm']
  rise = {
    s: statistics.paired(v, losses.get((arm, 0.0), {})) for (_, s), v in losses.items() if s > 0
  }
  line = regimes.curve({s: diffs for s, diffs in rise.items() if diffs})
  return regimes.crossing(line, margin, level=level)


def _end(end):
  return '-' if math.isnan(end.at) else f'{end.at:.2f}' if math.isfinite(end.at) else 'beyond'


def _against(rows, named, level, margin):
  scores, losses = scoring.points(rows), scoring.pretrain(rows)
  train = scoring.points(rows, scoring.train_loss)
  reached = scoring.pretrain(rows, 'sparsity')
  lines = []
  for arm, s in sorted({key for key in (*scores, *losses) if key[0] in named}):
    other = 'pruned', s
    pair = lambda table, arm=arm, s=s, other=other: statistics.paired(
      table.get((arm, s), {}), table.get(other, {})
    )
    estimate = lambda diffs: statistics.cautious(diffs.values(), level=level)
    t = equivalence.test(pair(scores), margin)
    lines.append(
      (
        named[arm],
        f'{s:g}',
        _shown(reached.get((arm, s), {})),
        tables.number(estimate(pair(losses)), '+'),
        tables.points(estimate(pair(scores)), '+'),
        tables.number(estimate(pair(train)), '+'),
        tables.p_value(t.p_same),
        tables.p_value(t.p_different),
        f'{len(pair(losses))} + {t.n}',
      )
    )
  return lines


def _at_rates_of(rows, chosen):
  """The rows without fine-tuning at rates that a place of the arms `chosen` lacks."""
  have = scoring.common_rates([row for row in rows if row['arm'] in chosen])
  return [
    row
    for row in rows
    if row['stage'] != 'finetune' or row['learning_rate'] in have.get(row['task'], ())
  ]


def _shown(numbers):
  value = statistics.mean(numbers.values())
  return f'{value:.3f}' if math.isfinite(value) else '-'


def _note(what, level, margin):
  return (
    f'{what}, at the learning rates that the switches have. Nats and points of 100; ± half of '
    f'the {level:.0%} '
    "interval, the wider of Student's and the bootstrap; p of the score by two one-sided tests "
    'with a margin of '
    f'{100 * margin:g} points; pairs of pre-training + fine-tuning.'
  )
