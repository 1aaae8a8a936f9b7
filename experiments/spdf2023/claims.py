"""Judge the findings of SPDF (Thangarasa et al., 2023) on the ledger.

Only the abstract and summaries could be read.
"""

from prunejax.report import statistics
from prunejax.report.verdicts import (
  UNDECIDED,
  Comparison,
  Verdict,
  all_hold,
  decided_by,
  shown,
  supports,
)

LITTLE = 0.05  # A rise of the loss, in nats, that counts as little.
HIGH = 0.75  # The sparsity of the paper's claim.
MIDDLE = 0.5


def losses(rows: list[dict], stage: str, arm: str, sparsity: float) -> dict:
  """Collect the held-out losses of an arm, {(task, seed): nats}.

  Args:
    rows: of the ledger.
    stage: 'pretrain' or 'finetune'.
    arm: of fine-tuning 'dense', 'sparse' or 'fresh'; of pre-training either of the first two.
    sparsity: of pre-training.
  """
  found = {}
  for row in rows:
    if (row['stage'], row['arm'], row['sparsity']) == (stage, arm, sparsity):
      metrics = row['metrics']
      found[row['task'], row['seed']] = metrics.get('dev_loss', metrics.get('loss'))
  return found


def by_seed(first: dict, second: dict) -> dict:
  """Subtract two collections of `losses` and average over tasks: {seed: nats}."""
  seeds = {}
  for task, seed in sorted(first.keys() & second.keys()):
    seeds.setdefault(seed, []).append(first[task, seed] - second[task, seed])
  return {seed: sum(gaps) / len(gaps) for seed, gaps in seeds.items()}


def rises(rows: list[dict], sparsity: float) -> dict:
  """The rise of the loss after dense fine-tuning by sparse pre-training, {seed: nats}."""
  dense = losses(rows, 'finetune', 'dense', 0.0)
  return by_seed(losses(rows, 'finetune', 'dense', sparsity), dense)


def pretraining_rises(rows: list[dict], sparsity: float) -> dict:
  """The rise of the pre-training loss by sparse pre-training, {seed: nats}."""
  dense = losses(rows, 'pretrain', 'dense', 0.0)
  return by_seed(losses(rows, 'pretrain', 'sparse', sparsity), dense)


def claims(rows: list[dict]) -> list[Verdict]:
  """Judge every claim, within a seed."""
  return [
    _costs_little(rows),
    _grows(rows),
    _dense_beats_sparse(rows),
    _recovers(rows),
    _fresh(rows),
  ]


def _compared(what, gaps, *rest, **how):
  return Comparison(what, list(gaps.values()), *rest, **how)


def _shown(gaps):
  return shown(list(gaps.values()), '+.3f')


def _verdict(name, claim, comparison, evidence, figure='losses'):
  return Verdict(
    name,
    claim,
    all_hold([comparison]),
    evidence if comparison.values else 'cells are missing',
    (figure,),
    decided_by([comparison]),
  )


def _costs_little(rows):
  rise = rises(rows, HIGH)
  return _verdict(
    'costs_little',
    f'Pre-trained {HIGH:.0%} sparse and fine-tuned dense, a model loses little on the task (a rise '
    f'below {LITTLE:g} nats)',
    _compared('nats', rise, LITTLE, above=False),
    f'rise of the loss after dense fine-tuning: {_shown(rise)} nats',
  )


def _grows(rows):
  high, middle = rises(rows, HIGH), rises(rows, MIDDLE)
  more = statistics.paired(high, middle)
  return _verdict(
    'cost_grows_with_sparsity',
    f'The cost grows with the sparsity: {HIGH:.0%} costs more than {MIDDLE:.0%}',
    _compared('nats', more),
    f'rise at {HIGH:g} {_shown(high)}, at {MIDDLE:g} {_shown(middle)} nats',
  )


def _dense_beats_sparse(rows):
  gain = by_seed(losses(rows, 'finetune', 'sparse', HIGH), losses(rows, 'finetune', 'dense', HIGH))
  return _verdict(
    'dense_beats_sparse',
    f'Of a model pre-trained {HIGH:.0%} sparse, dense fine-tuning beats sparse fine-tuning',
    _compared('nats', gain),
    f'loss of sparse minus dense fine-tuning: {_shown(gain)} nats',
  )


def _recovers(rows):
  before, after = pretraining_rises(rows, HIGH), rises(rows, HIGH)
  left = statistics.paired(after, {seed: rise / 2 for seed, rise in before.items()})
  cost = _compared('nats, the rise in pre-training', before)
  verdict = _verdict(
    'fine_tuning_recovers',
    'Dense fine-tuning recovers most of what sparse pre-training cost (the rise on the task is '
    'below half of the rise in pre-training)',
    _compared('nats beyond half of the rise in pre-training', left, above=False),
    f'rise at {HIGH:g} in pre-training {_shown(before)}, on the task {_shown(after)} nats',
  )
  if supports(cost) > 0:
    return verdict
  # Where sparse pre-training costs nothing there is nothing to recover.
  return verdict._replace(verdict=UNDECIDED, number=decided_by([cost]))


def _fresh(rows):
  gain = by_seed(losses(rows, 'finetune', 'fresh', 0.0), losses(rows, 'finetune', 'dense', HIGH))
  return _verdict(
    'better_than_no_pretraining',
    f'Pre-training {HIGH:.0%} sparse is better than none (not in the paper: it says that the task '
    'needs pre-training at all)',
    _compared('nats', gain),
    f'loss of new weights minus sparse pre-trained ones: {_shown(gain)} nats',
  )
