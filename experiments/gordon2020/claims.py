"""The paper's claims as named checks over ledger rows, each with its verdict; judging.py has the rules."""

from experiments.gordon2020 import judging
from experiments.gordon2020.claims_loss import (
  deletion_explains_the_middle,
  deletion_fits_but_does_not_transfer,
  deletion_follows_loss,
  loss_rises,
)
from experiments.gordon2020.claims_probes import (
  features_follow,
  heads_are_not_singled_out,
  large_weights_move_less,
  masks_change_little,
  more_text_less_prunable,
  order_moves_little,
)
from experiments.gordon2020.claims_tasks import (
  accuracy_falls,
  deletion_recovers,
  finetuning_first_does_not_help,
  low_sparsity_is_free,
  magnitude_beats_random,
)
from experiments.gordon2020.judging import LEVEL, MARGIN, NOTHING, Grid, Verdict, grid

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


def check(rows, chance=None):
  """The verdicts over all learned tasks together, in the order of CLAIMS."""
  data = judging.grid(rows, chance)
  return [claim(data) for claim in CLAIMS]


def by_task(rows, chance=None):
  """{task: verdicts} of the claims that speak of tasks, each task by itself."""
  rows = list(rows)
  tasks = sorted({row['task'] for row in rows if row['stage'] == 'finetune'})
  one = lambda task: judging.grid(
    [row for row in rows if row.get('task') in (task, None, '')], chance
  )
  return {
    task: [claim(data) for claim in CLAIMS if claim not in OF_MODELS]
    for task in tasks
    for data in [one(task)]
  }
