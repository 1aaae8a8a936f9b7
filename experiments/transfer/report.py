"""The tables and figures of the report, from the quantities of the grid."""

from experiments.gordon2020.analysis import arms, score_figures, scoring
from experiments.gordon2020.claims import judging
from experiments.transfer import claims
from prunejax.report import tables as tabular
from prunejax.report import verdicts

CAPTIONS = {
  'figure1': (
    'Average test accuracy and train loss against sparsity, with 95 % bootstrap intervals over '
    'seeds (Gordon et al. 2020, figure 1, on images).'
  ),
  'figure2a': (
    'Held-out loss of pre-training against accuracy after information deletion, one least-squares '
    'line a task (their figure 2a).'
  ),
  'pretrain_loss': 'Held-out loss of pre-training against sparsity, by magnitude and at random.',
}


def tables(data: judging.Grid) -> list[tabular.Table]:
  """Tabulate accuracies, losses of pre-training, and how masks change in fine-tuning."""
  return [_accuracies(data), _losses(data), _masks(data)]


def figures(data: judging.Grid) -> dict[str, bytes]:
  """Draw the figures of Gordon et al. 2020 that rest on scores and losses."""
  rows = list(data.rows)
  return score_figures.standard(rows, chance=scoring.chance(arms.standard(rows), data.chance))


def _accuracies(data):
  table, lines = scoring.points(data.standard), []
  for arm, sparsity in sorted(table, key=arms.order):
    numbers = table[arm, sparsity]
    line = {'arm': arms.name(arm), 'sparsity': f'{sparsity:g}'}
    for task in scoring.tasks_of(table):
      shown = [v for (name, _), v in numbers.items() if name == task]
      line[task] = verdicts.shown(shown, '.1f', 100)
    lines.append(line)
  note = (
    'Accuracy on test images of the digits 5 to 9 in per cent, by the number of training images.'
  )
  return tabular.records('Accuracy after fine-tuning', lines, note)


def _losses(data):
  lines = [
    {
      'arm': arms.name(arm),
      'sparsity': f'{sparsity:g}',
      'loss': verdicts.shown(list(numbers.values())),
    }
    for (arm, sparsity), numbers in sorted(
      data.losses.items(), key=lambda item: arms.order(item[0])
    )
  ]
  note = 'Cross-entropy on test images of the digits 0 to 4, in nats.'
  return tabular.records('Loss of pre-training', lines, note)


def _masks(data):
  lines = [
    {
      'sparsity': f'{sparsity:g}',
      'entries that differ, %': verdicts.shown(list(shares.values()), '.1f', 100),
    }
    for sparsity, shares in sorted(claims.mask_differences(data).items())
  ]
  note = 'Masks by magnitude before fine-tuning and after half of it.'
  return tabular.records('What fine-tuning changes in the masks', lines, note)
