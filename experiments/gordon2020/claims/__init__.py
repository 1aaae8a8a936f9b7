"""The paper's claims as named checks over a grid; judging.py has the rules."""

from experiments.gordon2020.claims.between_tasks import (
  fewer_labels,
  glue_tasks,
  recovery_is_largest_with_much_data,
  tasks_fall_at_different_rates,
)
from experiments.gordon2020.claims.judging import LEVEL, MARGIN, NOTHING, Grid, Verdict, grid
from experiments.gordon2020.claims.loss import (
  deletion_explains_the_middle,
  deletion_fits_but_does_not_transfer,
  deletion_follows_loss,
  loss_rises,
)
from experiments.gordon2020.claims.probes import (
  features_follow,
  heads_are_not_singled_out,
  large_weights_move_less,
  masks_change_little,
  more_text_less_prunable,
  order_moves_little,
)
from experiments.gordon2020.claims.tasks import (
  accuracy_falls,
  deletion_recovers,
  finetuning_first_does_not_help,
  low_sparsity_is_free,
  magnitude_beats_random,
)

__all__ = ['CLAIMS', 'LEVEL', 'MARGIN', 'NOTHING', 'Grid', 'Verdict', 'by_task', 'check', 'grid']

# In the order in which the paper tells them (section 4, then 5).
CLAIMS = (
  low_sparsity_is_free,
  loss_rises,
  accuracy_falls,
  deletion_explains_the_middle,
  deletion_follows_loss,
  deletion_recovers,
  deletion_fits_but_does_not_transfer,
  magnitude_beats_random,
  finetuning_first_does_not_help,
  masks_change_little,
  order_moves_little,
  large_weights_move_less,
  heads_are_not_singled_out,
  features_follow,
  more_text_less_prunable,
)
PROBES = CLAIMS[-6:]  # these rest on probes of models and masks, or on a sweep beside the grid
OF_MODELS = (loss_rises, *PROBES)  # these speak of no task, or of all together


def check(data):
  """The verdicts over all learned tasks together: CLAIMS, then what sets task against task."""
  verdicts = [claim(data) for claim in CLAIMS]
  if len(glue_tasks(data)) > 1:
    verdicts.append(tasks_fall_at_different_rates(data))
  if fewer_labels(data):
    verdicts.append(recovery_is_largest_with_much_data(data))
  return verdicts


def by_task(data):
  """{task: verdicts} of the claims that speak of tasks, each task by itself."""
  tasks = sorted({row['task'] for row in data.rows if row['stage'] == 'finetune'})
  parts = {
    task: grid([row for row in data.rows if row.get('task') in (task, None, '')], data.chance)
    for task in tasks
  }
  return {
    task: [claim(part) for claim in CLAIMS if claim not in OF_MODELS]
    for task, part in parts.items()
  }
