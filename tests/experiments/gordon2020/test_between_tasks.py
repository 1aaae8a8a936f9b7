"""Claims that set task against task: their rules on made-up scores."""

import pytest

from experiments.gordon2020 import claims
from experiments.gordon2020.claims import between_tasks

SEEDS = range(4)


def row(arm, s, task, seed, score):
  stage = 'finetune' if task else 'pretrain'
  metrics = {'accuracy': score, 'majority': 0.5, 'train_loss': 0.1} if task else {'loss': score}
  return {
    'cell': f'{arm}{s}{task}{seed}',
    'experiment': 'gordon2020',
    'preset': 'made-up',
    'stage': stage,
    'arm': arm,
    'sparsity': s,
    'task': task,
    'seed': seed,
    'learning_rate': 1e-4,
    'metrics': metrics,
  }


def grid(falls, gains=None, noise=0.002):
  """Rows in which `pruned` loses `falls[task]` of what is learned, and `deleted` gets some back."""
  rows = []
  for seed in SEEDS:
    shift = noise * (seed - 1.5)
    for task, fall in falls.items():
      rows += [row('dense', 0.0, task, seed, 0.9), row('fresh', 0.0, task, seed, 0.5)]
      for s in (0.5, 0.7, 0.9):
        pruned = 0.9 - 0.4 * fall + shift
        rows.append(row('pruned', s, task, seed, pruned))
        rows.append(row('deleted', s, task, seed, pruned + (gains or {}).get(task, 0.0) - shift))
  return claims.grid(rows)


def word(data, claim):
  return {v.name: v for v in claims.check(data)}[claim.__name__].verdict


@pytest.mark.parametrize(
  'falls, verdict',
  [
    ({'glue/a': 0.2, 'glue/b': 0.6}, 'reproduced'),
    ({'glue/a': 0.4, 'glue/b': 0.4}, 'not reproduced'),
    ({'glue/a': 0.4, 'glue/b': 0.4, 'glue/c': 0.8}, 'reproduced'),
  ],
)
def test_tasks_fall_at_different_rates_or_do_not(falls, verdict):
  data = grid(falls)
  assert word(data, between_tasks.tasks_fall_at_different_rates) == verdict
  found = between_tasks.tasks_fall_at_different_rates(data)
  assert all(task in str(found.tables) for task in falls)


@pytest.mark.parametrize('seeds', [SEEDS, (2, 3), (3,)], ids=['all', 'two', 'one'])
def test_tasks_are_compared_at_sparsities_that_both_have(seeds):
  rows = [
    {**r, 'metrics': {**r['metrics'], 'accuracy': r['metrics']['accuracy'] - 0.3 * r['sparsity']}}
    for r in grid({'glue/a': 0.2, 'glue/b': 0.2, 'glue/c': 0.2}).rows
  ]
  lacking = lambda r: (
    r['arm'] == 'pruned' and r['task'] == 'glue/b' and r['sparsity'] > 0.5 and r['seed'] in seeds
  )
  data = claims.grid([r for r in rows if not lacking(r)])
  assert word(data, between_tasks.tasks_fall_at_different_rates) == 'not reproduced'


def test_tasks_without_a_sparsity_in_common_are_not_compared():
  rows = grid({'glue/a': 0.2, 'glue/b': 0.6}).rows
  at = {'glue/a': 0.5, 'glue/b': 0.7}
  data = claims.grid([r for r in rows if r['arm'] != 'pruned' or r['sparsity'] == at[r['task']]])
  found = between_tasks.tasks_fall_at_different_rates(data)
  assert (found.verdict, found.number) == ('undecided', '')


def test_a_noisy_difference_is_undecided():
  rows = list(grid({'glue/a': 0.3, 'glue/b': 0.4}).rows)
  for r in rows:
    if r['task'] == 'glue/a' and r['arm'] == 'pruned':
      r['metrics']['accuracy'] += 0.1 * (r['seed'] - 1.5)
  assert word(claims.grid(rows), between_tasks.tasks_fall_at_different_rates) == 'undecided'


@pytest.mark.parametrize(
  'gains, verdict',
  [
    ({'glue/a': 0.2, 'glue/a@500': 0.05}, 'reproduced'),
    ({'glue/a': 0.05, 'glue/a@500': 0.2}, 'not reproduced'),
  ],
)
def test_recovery_is_compared_within_a_task(gains, verdict):
  data = grid(dict.fromkeys(gains, 0.6), gains)
  assert word(data, between_tasks.recovery_is_largest_with_much_data) == verdict


def test_neither_speaks_where_a_ledger_has_no_such_tasks():
  names = {v.name for v in claims.check(grid({'pydoc/order': 0.2, 'pydoc/words': 0.6}))}
  assert (
    not {
      f.__name__
      for f in (
        between_tasks.tasks_fall_at_different_rates,
        between_tasks.recovery_is_largest_with_much_data,
      )
    }
    & names
  )
  # A variant with fewer labels is no task of its own.
  names = {v.name for v in claims.check(grid({'glue/a': 0.2, 'glue/a@500': 0.6}))}
  assert 'tasks_fall_at_different_rates' not in names
