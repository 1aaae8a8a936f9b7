"""Judge the claims of Gordon et al. 2020 on images, by the rules of `experiments.gordon2020`.

The unit of replication is a seed, which is a network with its own pre-training. Intervals are those
of 99 % over seeds.
"""

from experiments.gordon2020.claims import judging
from experiments.gordon2020.claims.loss import (
  deletion_explains_the_middle,
  deletion_follows_loss,
  loss_rises,
)
from experiments.gordon2020.claims.tasks import (
  accuracy_falls,
  deletion_recovers,
  finetuning_first_does_not_help,
  low_sparsity_is_free,
  magnitude_beats_random,
)
from prunejax.report import verdicts

grid = judging.grid
BEYOND = 0.7  # where BERT has lost 3.3 points on average (Gordon et al. 2020, table 1)
SAME = 0.06  # share of a mask's entries; theirs differ in less (figure 3)


def claims(data: judging.Grid) -> list[verdicts.Verdict]:
  """Judge every claim."""
  return [
    _as_on_text('low_sparsity_is_free', low_sparsity_is_free, data),
    _free_beyond_bert(data),
    _as_on_text('loss_rises', loss_rises, data),
    _as_on_text('accuracy_falls', accuracy_falls, data),
    _as_on_text('deletion_explains_the_middle', deletion_explains_the_middle, data),
    _as_on_text('deletion_follows_loss', deletion_follows_loss, data),
    _as_on_text('deletion_recovers', deletion_recovers, data),
    _as_on_text('magnitude_beats_random', magnitude_beats_random, data),
    _as_on_text('finetuning_first_does_not_help', finetuning_first_does_not_help, data),
    _masks_change_little(data),
  ]


def mask_differences(data: judging.Grid) -> dict:
  """Collect {sparsity: {(task, seed): share of a mask's entries that fine-tuning changes}}."""
  shares = {}
  for row in data.rows:
    if row['metrics'].get('mask_difference') is not None:
      at = shares.setdefault(row['sparsity'], {})
      at[row['task'], row['seed']] = row['metrics']['mask_difference']
  return shares


def _as_on_text(name, rule, data):
  """A claim under the rule it has on text."""
  judged = rule(data)
  return verdicts.Verdict(
    name,
    judged.claim,
    judged.verdict,
    judged.evidence,
    judged.figures,
    judged.number,
    judged.tables,
  )


def _free_beyond_bert(data):
  """Pruned minus dense at `BEYOND`, against a loss of MARGIN.

  Reproduced: the interval lies above -MARGIN. Not reproduced: it lies below.
  """
  diffs = judging.against(data, 'pruned', 'dense', lambda s: s == BEYOND)
  side = judging.side(diffs[BEYOND], -judging.MARGIN) if diffs else 0
  return verdicts.Verdict(
    'free_beyond_bert',
    f'A convolutional network loses nothing at {BEYOND:g}, where BERT has lost 3.3 points.',
    verdicts.word(side > 0, side < 0),
    f'margin {100 * judging.MARGIN:g} points.' if diffs else 'No rows to compare.',
    ('figure1',),
    judging.at(diffs, BEYOND, 'points'),
    judging.by_sparsity(judging.Series('pruned - dense (points)', diffs)),
  )


def _masks_change_little(data):
  """The share of entries that fine-tuning changes, at each sparsity, against `SAME`.

  Reproduced: at every sparsity the interval lies below. Not reproduced: at one it lies above, at
  the level 1 - 0.01 / sparsities.
  """
  shares = mask_differences(data)
  below = bool(shares) and all(judging.side(v, SAME) < 0 for v in shares.values())
  broken = any(judging.side(v, SAME, judging.share(shares)) > 0 for v in shares.values())
  most = max(shares, key=lambda s: judging.estimate(shares[s]).high, default=None)
  return verdicts.Verdict(
    'masks_change_little',
    'Masks found after fine-tuning differ from those of pre-training in less than 6 % of their '
    'entries.',
    verdicts.word(below and not broken, broken),
    'after as many dense steps as the arm has before its cut.' if shares else 'No rows to compare.',
    ('figure1',),
    judging.at(shares, most, '% of the entries'),
    judging.by_sparsity(judging.Series('entries that differ (%)', shares)),
  )
