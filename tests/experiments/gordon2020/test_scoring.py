"""From ledger rows to scores: selection of learning rates, averages over tasks."""

import pytest
import synthetic_ledger as synthetic

from experiments.gordon2020.analysis import controls, learning_rates, scoring


def _cell(score, rate, **change):
  made = synthetic.row(
    'finetune',
    'pruned',
    0.5,
    0,
    {'accuracy': score, 'train_loss': 10 * score},
    task='t',
    learning_rate=rate,
  )
  return {**made, **change}


def test_select_takes_the_best_rate_of_each_place():
  rows = [
    _cell(0.7, 1e-3),
    _cell(0.8, 2e-3),
    _cell(0.6, 3e-3),
    _cell(0.5, 1e-3, seed=1),
    _cell(0.9, 1e-3, arm='random'),
    _cell(0.95, 1e-3, task='u'),
  ]
  best = scoring.select(rows)
  assert [(r['learning_rate'], scoring.score(r)) for r in best] == [
    (2e-3, 0.8),
    (1e-3, 0.5),
    (1e-3, 0.9),
    (1e-3, 0.95),
  ]
  losses = scoring.points(rows, scoring.train_loss)
  assert losses['pruned', 0.5]['t', 0] == 8.0  # of the selected rate, not the lowest loss


def test_score_is_accuracy_else_what_the_task_has():
  assert scoring.score(_cell(0.7, 1e-3, metrics={'f1': 0.9, 'accuracy': 0.7})) == 0.7
  assert scoring.score(_cell(0.7, 1e-3, metrics={'pearson': 0.4, 'accuracy': None})) == 0.4
  with pytest.raises(ValueError, match='none of accuracy'):
    scoring.score(_cell(0.7, 1e-3, metrics={'dev_loss': 1.0}))


def test_averages_need_every_task_of_a_seed():
  table = {('dense', 0.0): {('a', 0): 1.0, ('b', 0): 3.0, ('a', 1): 9.0}}
  assert scoring.averages(table) == {('dense', 0.0): {0: 2.0}}


def test_one_cell_of_a_new_task_leaves_the_averages_as_they_are():
  place = lambda *tasks: {(task, seed): 1.0 + seed for task in tasks for seed in (0, 1)}
  table = {('dense', 0.0): {**place('a', 'b'), ('c', 0): 9.0}, ('pruned', 0.5): place('a', 'b')}
  assert scoring.averaged(table) == ['a', 'b']
  assert scoring.averages(table) == {key: {0: 1.0, 1: 2.0} for key in table}


@pytest.mark.parametrize(
  'metrics, majority, level',
  [
    ({'a': 'accuracy'}, {'a': 0.6}, 0.6),
    ({'a': 'accuracy', 'b': 'pearson'}, {'a': 0.6}, 0.3),
    ({'b': 'matthews', 'c': 'spearman'}, {}, 0.0),
    ({'a': 'accuracy', 'd': 'accuracy'}, {'a': 0.6}, None),  # unknown for one task of the curve
    ({'a': 'accuracy', 'b': 'f1'}, {'a': 0.6, 'b': 0.6}, None),  # no accuracy, so no majority
    ({}, {'a': 0.6}, None),
  ],
)
def test_chance_is_that_of_the_tasks_of_the_curve(metrics, majority, level):
  rows = [
    _cell(0.7, 1e-3, task=task, seed=seed, metrics={metric: 0.7})
    for task, metric in metrics.items()
    for seed in (0, 1)
  ]
  assert scoring.chance(rows, majority) == level
  one = _cell(0.7, 1e-3, task='new', seed=0, metrics={'pearson': 0.7})
  many = [{**row, 'sparsity': s} for row in rows for s in (0.1, 0.5)]
  if rows:  # a task that the curve does not average does not count
    assert scoring.chance([*many, one], majority) == level


def test_only_rates_that_all_places_have_are_comparable():
  rows = [_cell(0.5, 1e-3), _cell(0.9, 2e-3), _cell(0.6, 1e-3, arm='deleted')]
  assert scoring.comparable(rows) == [rows[0], rows[2]]
  apart = [_cell(0.5, 1e-3), _cell(0.9, 2e-3, arm='deleted')]
  assert scoring.comparable(apart) == apart  # no rate in common


def test_the_best_of_two_rates_of_a_seed_does_not_stand_beside_the_best_of_one():
  both = [_cell(0.5, 1e-3), _cell(0.9, 2e-3)]
  one = [_cell(0.6, 1e-3, seed=1)]
  assert scoring.comparable(both + one) == [both[0], *one]
  assert scoring.points(scoring.comparable(both + one)) == {
    ('pruned', 0.5): {('t', 0): 0.5, ('t', 1): 0.6}
  }
  # Both ways: a seed that lacks a rate does not count, and the others do.
  dense = [dict(row, arm='dense', sparsity=0.0) for row in both]
  table = learning_rates.table([*dense, *both, *one])
  assert [line[2] for line in table.rows] == ['90.0 ± - | 90.0 ± -'] * 2


def test_controls_are_compared_at_rates_that_each_of_their_seeds_has():
  rows = [
    _cell(score, rate, arm=arm, seed=seed)
    for arm, gain in (('pruned', 0.0), ('switch:x', 0.1))
    for seed, rates in ((0, {1e-3: 0.5, 2e-3: 0.7}), (1, {1e-3: 0.5}))
    for rate, score in {rate: score + gain for rate, score in rates.items()}.items()
  ]
  rows.append(_cell(0.7, 2e-3, seed=1))
  (line,) = controls.switches(rows).rows
  assert line[4].startswith('+10.0 ')


def test_the_zero_of_an_arm_is_its_own_where_it_has_one():
  table = {('dense', 0.0): {0: 1.0}, ('deleted', 0.0): {0: 2.0}}
  assert scoring.zero(table, 'deleted') == {0: 2.0} and scoring.zero(table, 'pruned') == {0: 1.0}
  assert scoring.zero({}, 'pruned') == {}


def test_sparsities_that_differ_by_rounding_are_one_point():
  rows = [_cell(0.5, 1e-3, sparsity=0.1 * 3), _cell(0.6, 1e-3, sparsity=0.3, seed=1)]
  assert list(scoring.points(rows)) == [('pruned', 0.3)]
