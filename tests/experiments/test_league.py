"""The league: its cells, and the verdicts on planted ledgers."""

import collections
import re

import jax
import numpy as np
import pytest

from experiments.league import arms, claims, prices, report, standing, study
from prunejax.__main__ import main
from prunejax.models.hf import bert as bert_hf
from prunejax.pruning import paths
from prunejax.report import ledger
from prunejax.sweep import dependencies, grid
from prunejax.train import inputs, optimizer, recipe

LEAD = {
  'dense': 0.1,
  'magnitude': 0.0,
  'one_shot': -0.05,
  'class_uniform': -0.02,
  'random': -0.2,
  'rigl': -0.06,
  'set': -0.07,
  'movement': -0.001,
  'global_magnitude': -0.002,
}


def planted(lead, seeds=3):
  """A ledger in which each method has an accuracy of 0.7 + lead and a loss of 4 - 4 x lead."""
  rows = []
  for name, far in lead.items():
    for s in (0.0,) if name == 'dense' else (0.5, 0.8, 0.9):
      for seed in range(seeds):
        label = {
          'method': name,
          'family': arms.family(name),
          'sparsity': s,
          'seed': seed,
          'seconds': 1.0,
        }
        noise = 0.001 * seed + 0.0001 * (seed % 2)
        metrics = {'loss': 4 - 4 * far + noise, 'sparsity': s}
        first = f'{"magnitude" if name == arms.TAUGHT else name}-{s}-{seed}'
        if name != arms.TAUGHT:
          rows.append(
            {
              **label,
              'cell': first,
              'parent': None,
              'stage': 'pretrain',
              'task': '',
              'metrics': metrics,
            }
          )
        for task in study.TASKS:
          rows.append(
            {
              **label,
              'cell': f'{name}-{s}-{seed}-{task}',
              'parent': first,
              'stage': 'finetune',
              'task': task,
              'metrics': {'accuracy': 0.7 + far + noise},
            }
          )
  return rows


def verdicts(lead, **how):
  return {v.name: v.verdict for v in claims.claims(planted(lead, **how))}


def test_every_method_makes_a_valid_run_from_the_same_start():
  cells = study.plan(study.PRESETS['quick'], {})
  assert len({grid.key(cell) for cell in cells}) == len(cells)
  first = [cell for cell in cells if cell.labels['stage'] == 'pretrain']
  assert {c.labels['method'] for c in first} == {'dense', *arms.table(0.8, 80, 5e-4)}
  params = bert_hf.load(inputs.NANO)[0]
  for cell in first:
    config = cell.config
    if (cell.labels['sparsity'], cell.labels['seed']) in ((0.5, 0), (0.0, 0)):
      tx = optimizer.make(recipe.resolve(config))
      jax.eval_shape(tx.init, params)  # every pattern matches leaves
    recipe.resolve(config)
    assert {config.prune.weights.where, config.prox.where, config.low_rank.where} == {study.KERNELS}
    assert config.init == 'nano'
  assert len({(c.config.steps, c.config.batch_size, c.config.data.corpus) for c in first}) == 1
  for cell in cells:
    if cell.labels['stage'] == 'finetune':
      assert cell.config.hold_zeros == (cell.labels['method'] != 'low_rank')
      assert cell.config.init == f'cell:{cell.parent}' and not recipe.resolve(cell.config).prune


def test_the_student_is_the_baseline_with_the_dense_teacher_of_its_seed_and_task():
  cells = {grid.key(cell): cell for cell in study.plan(study.PRESETS['quick'], {})}
  students = [cell for cell in cells.values() if cell.labels['method'] == arms.TAUGHT]
  assert len(students) == 4 * 2
  for cell in students:
    teacher, parent = cells[cell.config.distill.teacher.removeprefix('cell:')], cells[cell.parent]
    assert parent.labels['method'] == arms.BASELINE and teacher.labels['method'] == 'dense'
    assert teacher.config.keep_model and not cell.config.keep_model
    for name in ('seed', 'task'):
      assert teacher.labels[name] == cell.labels[name]
    assert (
      parent.labels['sparsity'] == cell.labels['sparsity']
      and parent.labels['seed'] == cell.labels['seed']
    )
  only = study.plan(study.PRESETS['quick']._replace(methods=(arms.TAUGHT,)), {})
  assert {c.labels['method'] for c in only} == {'dense', arms.BASELINE, arms.TAUGHT}


@pytest.mark.slow
def test_a_part_has_the_models_that_it_reads():
  every = study.plan(study.PRESETS['quick'], {})
  part = [cell for cell in every if cell.labels['sparsity'] == 0.5 and cell.labels['seed'] == 1]
  keys = [grid.key(cell) for cell in part]
  with_models = [
    cell
    for cell in every
    if grid.key(cell) in dependencies.with_read(keys, {grid.key(c): c for c in every})
  ]
  more = [
    tuple(cell.labels[k] for k in ('method', 'stage', 'seed'))
    for cell in with_models
    if cell not in part
  ]
  assert more == [('dense', 'pretrain', 1), ('dense', 'finetune', 1)]


def test_heads_and_neurons_cover_the_kernels_of_the_league():
  config = next(
    c.config
    for c in study.plan(study.PRESETS['quick'], {})
    if c.labels['method'] == 'heads_and_neurons'
  )
  params = paths.named_leaves(bert_hf.load(inputs.NANO)[0])
  both = '|'.join(f'(?:{config.prune[group].where})' for group in ('heads', 'neurons'))
  chosen = {name for name in params if re.fullmatch(both, name)}
  assert (
    chosen == {name for name in params if re.fullmatch(study.KERNELS, name)} and len(chosen) == 12
  )
  counts = collections.Counter(params[name].shape for name in chosen)
  assert counts == standing.SHAPES and sum(params[name].size for name in chosen) == standing.PRUNED
  assert sum(w.size for w in params.values()) == standing.WHOLE


def test_what_low_rank_and_the_student_keep():
  results = standing.results(
    planted({'dense': 0, 'magnitude': 0, 'low_rank': -0.01, 'distilled': 0.01})
  )
  assert results['distilled', 0.9].kept == results['magnitude', 0.9].kept
  assert results['distilled', 0.9].loss == results['magnitude', 0.9].loss
  factors = lambda shape: int(0.1 * shape[0] * shape[1] + 1) // sum(shape) * sum(shape)
  assert results['low_rank', 0.9].kept[0] == sum(
    n * factors(shape) for shape, n in standing.SHAPES.items()
  )


def test_random_masks_are_drawn_anew_for_each_seed():
  cells = [
    c
    for c in study.plan(study.PRESETS['quick'], {})
    if c.labels['method'] == 'random' and not c.parent
  ]
  assert {c.config.prune.weights.criterion for c in cells} == {'random(seed=0)', 'random(seed=1)'}


# The arms of duels that LEAD lacks: rivals with the allocation of the other method.
DUELS = {**LEAD, 'class_blind': -0.06, 'gradual_erk': -0.01}


def test_planted_leads_are_found():
  got = verdicts(DUELS)
  for what in ('score', 'loss'):
    assert got[f'nothing_beats_gradual_magnitude_{what}'] == 'reproduced'
    assert {
      got[f'{name}_{what}']
      for name in ('gradual_beats_one_cut', 'magnitude_beats_chance', 'rigl_loses')
    } == {'reproduced'}
  assert got['movement_beats_magnitude_loss'] == 'not reproduced'
  # The claim is about high sparsity, where accuracy is near chance.
  assert 'movement_beats_magnitude_score' not in got
  assert not any('second_order' in name for name in got)  # not run, so not judged


# The arm that is gradual magnitude with an allocation; `above` and others have none.
BY_ALLOCATION = {
  'uniform': 'magnitude',
  'global_threshold': 'global_magnitude',
  'erk': 'gradual_erk',
  'class_distribution': 'gradual_class_distribution',
}


def test_the_rival_of_a_method_has_its_allocation():
  for name, row in arms.table(0.8, 80, 5e-4, stop=40).items():
    texts = {value for key, value in row.items() if key.endswith('.allocation')} or {'uniform()'}
    [allocation] = {text.partition('(')[0] for text in texts}
    arm = BY_ALLOCATION.get(allocation)
    assert (name if name in arms.RIVALS else arms.rival(name)) == arm, name


@pytest.mark.parametrize('name', arms.WITHOUT_RIVAL)
def test_a_method_without_a_rival_refutes_nothing_and_is_named(name):
  leads = {**DUELS, name: 0.5}
  said = {v.name: v for v in claims.claims(planted(leads))}
  for what in ('score', 'loss'):
    verdict = said[f'nothing_beats_gradual_magnitude_{what}']
    assert verdict.verdict == 'reproduced'
    assert name in verdict.evidence.partition('no arm to compare with: ')[2].split(', ')


def test_a_better_method_refutes_the_baseline_and_one_seed_says_nothing():
  got = verdicts({**DUELS, 'rigl': 0.05})
  assert got['nothing_beats_gradual_magnitude_score'] == got['rigl_loses_loss'] == 'not reproduced'
  assert set(verdicts(LEAD, seeds=1).values()) == {'undecided'}


def test_ranks_and_counts_from_first_principles():
  results = standing.results(planted(LEAD))
  ranks = standing.ranks(results, (0.8, 0.9))
  assert [ranks[n] for n in ('magnitude', 'movement', 'global_magnitude', 'random')] == [1, 2, 3, 8]
  assert set(results['rigl', 0.9].kept.values()) == {39_322}
  table = report.league(results)
  assert [line[0] for line in table.rows][:2] == ['dense', 'magnitude']


def test_an_unknown_method_is_refused():
  with pytest.raises(ValueError, match='no method .magic.'):
    study.plan(study.PRESETS['smoke']._replace(methods=('magic',)), {})


def test_the_steps_at_which_each_method_moves_masks():
  cells = [cell for cell in study.plan(study.PRESETS['quick'], {}) if not cell.parent]
  of = {c.labels['method']: c.config for c in cells if c.labels['sparsity'] == 0.9}
  at = lambda name: np.flatnonzero(prices.moves(of[name])).tolist()
  assert at('one_shot') == at('snip') == [0] and at('class_uniform') == [40]
  assert at('magnitude') == at('low_rank') == list(range(0, 41, 2)) and at('movement') == list(
    range(80)
  )
  assert at('lottery') == [16, 17, 32, 33, 48, 49, 64, 65]  # pruned, then back


def test_timings_are_in_the_table_but_not_among_the_runs():
  rows = planted(LEAD)
  label = {
    'method': 'rigl',
    'family': 'dynamic',
    'sparsity': 0.9,
    'seed': 0,
    'stage': 'price',
    'task': '',
  }
  steps = {
    'dense_step': 0.1,
    'still_step': 0.102,
    'moving_step': 0.122,
    'moves': 20,
    'pruning_seconds': 0.56,
  }
  priced = {**label, 'cell': 'p', 'seconds': 9.0, 'metrics': {**steps, 'file_bytes': 917_000}}
  assert standing.results([*rows, priced]) == standing.results(rows)
  table = report.tables([*rows, priced])[0]
  line = next(dict(zip(table.head, row, strict=True)) for row in table.rows if row[0] == 'rigl')
  assert (line['file bytes'], line['moves s'], line['other steps']) == ('917,000', '0.40', '+2%')


@pytest.mark.slow
def test_smoke_by_the_real_command(tmp_path):
  assert main(['reproduce', 'league', '--preset=smoke', f'--workdir={tmp_path}']) == 0
  rows = ledger.read(tmp_path / 'ledger.jsonl')
  assert len(rows) == 5 and not any(row.get('failed') for row in rows)
  (priced,) = (row for row in rows if row['stage'] == 'price')
  took, weight = priced['metrics']['pruning_seconds'], priced['metrics']['file_bytes']
  # A fifth of the kernels is kept, with one bit a weight for positions. All else is dense. The
  # header has some thousand bytes.
  assert (
    took == took
    and 0 < weight - standing.PRUNED / 8 - 4 * (standing.WHOLE - 0.8 * standing.PRUNED) < 10_000
  )
  assert all((tmp_path / name).exists() for name in ('league.png', 'curves.png'))
  assert 'undecided' in (tmp_path / 'report.md').read_text()
