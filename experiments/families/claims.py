"""Judge claims of several papers: which family is ahead at equal bytes.

The unit of replication is a seed, which is a first draw of all networks (of BERT, of the head and
of the order of the examples; all its seeds start from one checkpoint). A claim compares two
families within a seed, by the mean over the bytes at which both have a network.
"""

from typing import NamedTuple

from experiments.families.subjects import NAMES
from prunejax.report import statistics, verdicts


class Question(NamedTuple):
  """A claim that one family is ahead of another at equal bytes.

  Attributes:
    name: of the claim, after that of the network.
    ahead, behind: families.
    words: the claim, after the name of the network.
  """

  name: str
  ahead: str
  behind: str
  words: str


QUESTIONS = (
  Question(
    'pruned_beats_small',
    'pruned',
    'small',
    'a large pruned network beats a small dense one (Zhu & Gupta 2017)',
  ),
  Question(
    'pruned_beats_low_rank', 'pruned', 'low rank', 'pruning beats low rank (Kurtic et al. 2022)'
  ),
  Question(
    'shared_beats_pruned', 'shared', 'pruned', 'shared values beat pruning (Cheong & Daniel 2019)'
  ),
  Question(
    'distilled_beats_small',
    'distilled',
    'small',
    'a student learns more from a teacher than from labels alone (Hinton et al. 2015)',
  ),
  Question(
    'pruned_beats_distilled', 'pruned', 'distilled', 'pruning beats distillation into a student'
  ),
  Question(
    'separable_beats_small',
    'separable',
    'small',
    'separable filters beat full filters of fewer channels (Howard et al. 2017)',
  ),
  Question(
    'squeezed_beats_small',
    'squeezed',
    'small',
    'squeezed filters beat full filters of fewer channels (Iandola et al. 2016)',
  ),
)


def claims(rows: list[dict]) -> list[verdicts.Verdict]:
  """Judge every question on every network that has both families."""
  return [
    _ahead(rows, f'{net}_{question.name}', net, question)
    for net in NAMES
    for question in QUESTIONS
    if {question.ahead, question.behind} <= {row['family'] for row in rows if row['net'] == net}
  ]


def select(rows: list[dict], net: str, family: str) -> dict:
  """Pick the cells of a network and family: {share of the dense bytes: {seed: metrics}}."""
  by_share = {}
  for row in rows:
    if row['net'] == net and row['family'] == family:
      by_share.setdefault(row['share'], {})[row['seed']] = row['metrics']
  return dict(sorted(by_share.items(), reverse=True))


def differences(rows: list[dict], net: str, ahead: str, behind: str) -> dict:
  """Compute {share: {seed: points that one family is ahead of another}} where both are."""
  first, second = select(rows, net, ahead), select(rows, net, behind)
  points = lambda metrics: 100 * metrics['accuracy']
  return {
    share: {
      seed: points(first[share][seed]) - points(second[share][seed])
      for seed in first[share]
      if seed in second[share]
    }
    for share in first
    if share in second
  }


def _ahead(rows, name, net, question):
  """The mean over bytes of the difference within a seed, against 0."""
  diffs = differences(rows, net, question.ahead, question.behind)
  by_seed = {}
  for at in diffs.values():
    for seed, diff in at.items():
      by_seed.setdefault(seed, []).append(diff)
  complete = [statistics.mean(d) for d in by_seed.values() if len(d) == len(diffs)]
  more = [verdicts.Comparison('points, mean over bytes', complete, form='+.2f')]
  parts = [
    f'at 1/{1 / share:.0f} {verdicts.shown(list(at.values()), "+.2f")}'
    for share, at in diffs.items()
  ]
  return verdicts.Verdict(
    name,
    f'{NAMES[net]}: at equal bytes {question.words}',
    verdicts.all_hold(more),
    f'{question.ahead} minus {question.behind}, points: {"; ".join(parts)}',
    ('families',),
    verdicts.decided_by(more),
  )
