"""Guo et al. 2019: cells, strengths by the rule, verdicts on planted ledgers, the real command."""

import json
import re

import numpy as np
import pytest

from experiments.guo2019 import claims, penalty_strength, report, study, zeros
from prunejax import __main__ as command
from prunejax.models import bert
from prunejax.models.hf import bert as bert_hf
from prunejax.pruning.paths import named_leaves
from prunejax.train import inputs, program, recipe


def test_cells_differ_in_numbers_only_within_a_method_and_end_at_their_sparsity():
  plan = study.plan(study.PRESETS['quick'], {})
  first = [cell for cell in plan if cell.labels['stage'] == 'pretrain']
  assert len(plan) == 3 * len(first) == 3 * 3 * 16
  keys = {cell.labels['arm']: set() for cell in first}
  for cell in first:
    keys[cell.labels['arm']].add(program.program_key(recipe.resolve(cell.config)))
    spec = cell.config.prune.weights.schedule
    assert cell.labels['sparsity'] == float(re.match(r'\w+\(([\d.]+),', spec)[1])
  assert {arm: len(programs) for arm, programs in keys.items()} == {
    'dense': 1,
    'nip': 1,
    'rpp': 1,
    'l1': 1,
  }
  assert keys['dense'] == keys['nip'] and len(set.union(*keys.values())) == 3


def test_strengths_are_those_of_the_rule():
  params, _ = bert_hf.load(inputs.NANO, heads=())
  leaves = [
    w.ravel() for name, w in named_leaves(params).items() if re.fullmatch(bert.PRUNABLE, name)
  ]
  p = study.PRESETS['quick']
  how = dict(
    peak=p.pretrain.optimizer.learning_rate,
    steps=p.pretrain.steps,
    warmup=p.pretrain.optimizer.warmup,
  )
  for s in (0.5, 0.9):
    strength = penalty_strength.calibrate(
      np.concatenate(leaves)[::7], s, **how, end=p.ramp, every=p.every, eps=p.eps
    )
    assert strength == study.STRENGTHS[s]


def planted(rpp=0.0, nip=0.3, l1=0.3, nsp=0.97, seeds=3):
  rows, rng = [], np.random.default_rng(0)
  for seed in range(seeds):
    for arm, s in [
      ('dense', 0.0),
      *((arm, s) for arm in ('rpp', 'nip', 'l1') for s in study.SPARSITIES),
    ]:
      worse = {'dense': 0.0, 'rpp': rpp, 'nip': nip, 'l1': l1}[arm] * max(
        s, 0.1
      ) + 1e-3 * rng.normal()
      labels = {'arm': arm, 'sparsity': s, 'seed': seed, 'strength': 0.0}
      metrics = {'mlm_loss': 3 + worse, 'nsp_loss': 0.1, 'nsp_accuracy': nsp - 0.001 * rng.random()}
      rows.append({'stage': 'pretrain', 'task': '', **labels, 'metrics': metrics})
      rows += [
        {'stage': 'finetune', 'task': task, **labels, 'metrics': {'accuracy': 0.9 - worse / 3}}
        for task in ('pydoc/order', 'pydoc/words')
      ]
  return rows


@pytest.mark.parametrize(
  ('how', 'words'),
  [
    ({}, ['reproduced'] * 6),
    ({'rpp': 0.6}, ['not reproduced', 'not reproduced', 'reproduced'] + ['not reproduced'] * 3),
    ({'seeds': 1}, ['undecided'] * 6),
    ({'nsp': 0.8}, ['reproduced', 'reproduced', 'undecided'] + ['reproduced'] * 3),
  ],
)
def test_verdicts_say_what_was_planted(how, words):
  assert [verdict.verdict for verdict in claims.claims(planted(**how))] == words


def test_of_several_strengths_the_best_is_judged_and_all_are_shown():
  rows = planted()
  worse = [
    {**row, 'strength': 1.0, 'metrics': {k: v + 1 for k, v in row['metrics'].items()}}
    for row in rows
    if row['arm'] == 'rpp'
  ]
  better = [{**row, 'strength': 2.0} for row in rows if row['arm'] == 'rpp']
  rest = [row for row in rows if row['arm'] != 'rpp']
  assert claims.claims([*worse, *better, *rest]) == claims.claims(rows)
  first, second = report.tables([*worse, *better, *rest])
  assert len(report.tables(rows)) == 1 and len(second.rows) == 2 * len(study.SPARSITIES)
  assert {row[first.head.index('strength')] for row in first.rows} == {'-', '2'}
  plan = study.plan(study.PRESETS['long'], {})
  assert all(cell.labels['strength'] > 0 for cell in plan if cell.labels['arm'] == 'l1')


def test_long_has_four_strengths_by_the_same_rule():
  params, _ = bert_hf.load(inputs.NANO, heads=())
  leaves = [
    w.ravel() for name, w in named_leaves(params).items() if re.fullmatch(bert.PRUNABLE, name)
  ]
  p = study.PRESETS['long']
  how = dict(
    peak=p.pretrain.optimizer.learning_rate,
    steps=p.pretrain.steps,
    warmup=p.pretrain.optimizer.warmup,
  )
  strength = penalty_strength.calibrate(
    np.concatenate(leaves)[::7], 0.8, **how, end=p.ramp, every=p.every, eps=p.eps
  )
  assert (
    strength == study.STRENGTHS_LONG[0.8]
    and len(p.strengths['rpp'][0.8]) == len(p.strengths['l1'][0.8]) == 4
  )


@pytest.mark.slow
def test_smoke_by_the_real_command(tmp_path, capsys):
  folder = tmp_path / 'work'
  assert command.main(['reproduce', 'guo2019', '--preset=smoke', f'--workdir={folder}']) == 0
  rows = [json.loads(line) for line in (folder / 'ledger.jsonl').read_text().splitlines()]
  runs = [row for row in rows if row['stage'] != 'zeros']
  # One penalised run, whose share of zeros before the cut has a row of its own.
  assert len(runs) == 6 and len(rows) == 7
  for row in runs:
    assert abs(row['metrics']['sparsity'] - row['sparsity']) < 1e-4
  assert 'undecided' in capsys.readouterr().out
  assert report.tables(rows)[0].rows and report.figures(rows)['scores'][:4] == b'\x89PNG'


@pytest.mark.slow
def test_a_penalised_run_logs_its_zeros_and_the_ledger_has_those_before_the_cut(tmp_path, capsys):
  words = ['reproduce', 'guo2019', '--preset=smoke', f'--workdir={tmp_path}']
  assert command.main([*words, '--config.log.every=1']) == 0
  rows = [json.loads(line) for line in (tmp_path / 'ledger.jsonl').open()]
  run = next(row for row in rows if row['stage'] == 'pretrain' and row['arm'] == 'rpp')
  log = (tmp_path / 'cells' / run['cell'] / 'metrics.jsonl').read_text()
  logged = {
    row['step']: row['zeros'] for row in map(json.loads, log.splitlines()) if 'zeros' in row
  }
  assert list(logged) == [1, 2, 3, 4, 5, 6] and logged[5] >= 0.5 > 0
  [before] = [row for row in rows if row['stage'] == zeros.STAGE]
  # The cut comes in the update of step 4, the fifth.
  assert before['metrics'] == {'zeros': logged[4], 'zeros_step': 4}
  assert before['strength'] == run['strength'] and before['cell'] != run['cell']
  # Dense and gradual runs have no proximal step, so they log none.
  other = next(row for row in rows if row['stage'] == 'pretrain' and row['arm'] == 'nip')
  assert 'zeros' not in (tmp_path / 'cells' / other['cell'] / 'metrics.jsonl').read_text()


def test_the_longer_preset_moves_weights_as_far_as_they_are_large():
  preset, reach = study.PRESETS['longer'], {}
  for name, p in study.PRESETS.items():
    c = p.pretrain
    ramp = max(round(c.steps * c.optimizer.warmup), 1)
    rates = [min((t + 1) / ramp, (c.steps - t) / (c.steps - ramp)) for t in range(p.ramp)]
    reach[name] = c.optimizer.learning_rate * sum(rates)
  assert (round(reach['quick'], 3), round(reach['long'], 3)) == (0.017, 0.086)
  assert round(reach['longer'], 1) == 2.1
  assert preset.pretrain.steps == 2500 and preset.pretrain.optimizer.learning_rate == 2e-3
  assert len(preset.strengths['rpp'][0.8]) == 5 and preset.seeds == (0, 1, 2)
  assert preset.ramp % preset.pretrain.log.every == 0  # The step before the cut is logged.
