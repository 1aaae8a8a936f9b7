"""Judge the questions that a reader asks of the league, on the ledger."""

from experiments.league import arms, standing
from prunejax.report import statistics, verdicts

BASELINE = arms.BASELINE
# Sparsities at which a measure is judged. Pruned by 0.8 or more, the packaged model is near chance
# in its tasks after so few steps (experiments/gordon2020), so accuracy is judged at 0.5 only.
JUDGED_AT = {'score': (0.5,), 'loss': (0.8, 0.9)}
MARGIN = {'score': 0.01, 'loss': 0.02}  # A smaller lead counts as none: accuracy, nats.
WORDS = {'score': 'accuracy', 'loss': 'held-out loss'}
# Claims about high sparsity, where accuracy is not judged.
BY_LOSS_ONLY = ('movement_beats_magnitude',)
# (name, claim, the method that should be better, the other one), both with one allocation
DUELS = (
  (
    'gradual_beats_one_cut',
    'Gradual magnitude beats one cut halfway, one threshold for all layers',
    'global_magnitude',
    'class_blind',
  ),
  (
    'gradual_beats_a_cut_at_the_start',
    'Gradual magnitude beats one cut before the first step',
    BASELINE,
    'one_shot',
  ),
  (
    'magnitude_beats_chance',
    'Gradual magnitude beats weights drawn at random',
    BASELINE,
    'random',
  ),
  (
    'movement_beats_magnitude',
    'Movement beats magnitude at high sparsity',
    'movement',
    BASELINE,
  ),
  *(
    (
      f'{method}_beats_magnitude',
      f'{method} beats gradual magnitude, one threshold for all layers',
      method,
      'global_magnitude',
    )
    for method in ('platon', 'global_movement', 'taylor', 'acdc')
  ),
  *(
    (
      f'second_order_beats_magnitude_{method}',
      f'One cut by {method} beats one cut by magnitude',
      method,
      'one_shot',
    )
    for method in ('obd', 'block_fisher', 'sparsegpt')
  ),
  (
    'second_order_beats_magnitude_wanda',
    'One cut by wanda beats one cut by magnitude, each output by itself',
    'wanda',
    'one_shot_per_output',
  ),
  *(
    (
      f'{method}_loses',
      f'{method} from pre-trained weights loses to gradual magnitude, both with erk',
      'gradual_erk',
      method,
    )
    for method in ('rigl', 'set')
  ),
)
# What is compared here is the allocation itself.
ALLOCATIONS = (
  (
    'global_beats_uniform',
    'One threshold for all layers beats one a layer, by gradual magnitude',
    'global_magnitude',
    BASELINE,
  ),
  (
    'erk_beats_uniform',
    'Shares by erk beat equal shares, by gradual magnitude',
    'gradual_erk',
    BASELINE,
  ),
)


def claims(rows: list[dict]) -> list[verdicts.Verdict]:
  """Judge every question by each measure that can answer it, if the ledger has its methods."""
  results = standing.results(rows)
  methods = list(dict.fromkeys(name for name, _ in results if name != standing.DENSE))
  out = []
  for measure in ('score', 'loss'):
    out.append(_nothing_beats_baseline(results, methods, measure))
    out += [
      _duel(results, *duel, measure)
      for duel in (*DUELS, *ALLOCATIONS)
      if {duel[2], duel[3]} <= set(methods) and (measure == 'loss' or duel[0] not in BY_LOSS_ONLY)
    ]
  return out


def _nothing_beats_baseline(results, methods, measure):
  """No method is clearly better than gradual magnitude with the allocation of the method.

  Methods for which no arm is that, and those that set their own sparsity, are left out. Intervals
  are widened for the number of methods.
  """
  sparsity = JUDGED_AT[measure][-1]
  sign = 1 if measure == 'score' else -1
  rivals = {
    name: arms.rival(name) for name in methods if name != BASELINE and name not in arms.RIVALS
  }
  diffs = {
    name: standing.differences(results, name, sparsity, rival, measure)
    for name, rival in rivals.items()
    if rival
  }
  diffs = {name: values for name, values in diffs.items() if values}
  leads = {
    name: statistics.cautious([sign * diff for diff in values], level=1 - 0.05 / max(len(diffs), 1))
    for name, values in diffs.items()
  }
  winners = [name for name, lead in leads.items() if lead.low > 0]
  safe = bool(leads) and all(lead.high < MARGIN[measure] for lead in leads.values())
  evidence, number = 'no other method', ''
  if leads:
    top = max(leads, key=lambda name: leads[name].mean)
    lead = leads[top]
    evidence = (
      f'{len(leads)} methods; the furthest ahead is {top} by {lead.mean:+.4f} '
      f'[{lead.low:+.4f}, {lead.high:+.4f}] of {WORDS[measure]}'
    )
    # One lead that is clearly there refutes; the one that reaches furthest is the last to be ruled
    # out.
    decisive = max(leads, key=lambda name: leads[name].low if winners else leads[name].high)
    mean, low, high, _ = leads[decisive]
    number = f'{mean:+.4f} [{low:+.4f}, {high:+.4f}] of {WORDS[measure]}, {decisive}'
    number += '' if winners else f', against {MARGIN[measure]:g}'
    evidence += f'; clearly ahead: {", ".join(winners)}' if winners else ''
    left_out = [name for name, rival in rivals.items() if rival is None]
    evidence += f'; no arm to compare with: {", ".join(left_out)}' if left_out else ''
  return verdicts.Verdict(
    f'nothing_beats_gradual_magnitude_{measure}',
    f'Gradual magnitude is matched but not beaten at {sparsity:g} (GMP*, Kurtic & Alistarh 2022), '
    f'by {WORDS[measure]}; each method against gradual magnitude with its own allocation, if the '
    'league has that arm',
    verdicts.word(safe, bool(winners)),
    evidence,
    ('league',),
    number,
  )


def _duel(results, name, claim, better, other, measure):
  """One method is better than another at each judged sparsity that both were run at."""
  sign = 1 if measure == 'score' else -1
  by_sparsity = {}
  for s in JUDGED_AT[measure]:
    diffs = standing.differences(results, better, s, other, measure)
    if diffs:
      by_sparsity[s] = [sign * diff for diff in diffs]
  evidence = '; '.join(f'at {s:g}: {verdicts.shown(d, "+.4f")}' for s, d in by_sparsity.items())
  leads = [
    verdicts.Comparison(f'of {WORDS[measure]} at {s:g}', diffs, form='+.4f')
    for s, diffs in by_sparsity.items()
  ]
  return verdicts.Verdict(
    f'{name}_{measure}',
    f'{claim}, by {WORDS[measure]}',
    verdicts.all_hold(leads),
    evidence or 'not run',
    ('league', 'curves'),
    verdicts.decided_by(leads),
  )
