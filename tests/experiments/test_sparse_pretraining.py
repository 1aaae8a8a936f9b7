"""The Journey Matters and SPDF: cells, averages by hand, planted ledgers, the command."""

import math
import re

import jax
import numpy as np
import pytest

from configs import gpt2 as gpt2_config
from experiments.journey2025 import claims as journey
from experiments.journey2025 import report as journey_report
from experiments.journey2025 import study as journey_study
from experiments.spdf2023 import claims as spdf
from experiments.spdf2023 import report as spdf_report
from experiments.spdf2023 import study as spdf_study
from prunejax import __main__ as command
from prunejax.models import gpt2
from prunejax.pruning.paths import named_leaves
from prunejax.report import ledger
from prunejax.sweep import grid


def test_counts_are_those_of_the_model():
  config = gpt2_config.get_config('nano')
  config.model.update(hidden_size=32, intermediate_size=128)
  size = dict(
    vocab_size=config.data.vocab_size,
    n_embd=32,
    n_layer=2,
    n_head=4,
    n_inner=128,
    n_positions=config.model.max_position_embeddings,
  )
  from transformers import GPT2Config

  ids = np.zeros((1, 4), np.int32)
  model = gpt2.Gpt2(GPT2Config(**size))
  shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), ids, ids, ids >= 0))['params']
  leaves = {name: math.prod(leaf.shape) for name, leaf in named_leaves(shapes).items()}
  prunable = sum(n for name, n in leaves.items() if re.fullmatch(gpt2.PRUNABLE, name))
  fixed, counted = journey_study.counts(config)
  assert counted == prunable and fixed == sum(leaves.values()) - prunable


@pytest.mark.parametrize('window', [(25, 75), (0, 50), (50, 100)])
def test_the_mean_density_is_that_of_the_masks_step_by_step(window):
  begin, end = (part * 2 for part in window)
  now, densities = 0.0, []
  for step in range(200):
    if begin <= step <= end and (step - begin) % 5 == 0:
      now = 0.8 * (1 - (1 - (step - begin) / (end - begin)) ** 3)
    densities.append(1 - now)
  mean = journey_study.mean_density(0.8, begin, end, 5, 200)
  assert mean == pytest.approx(np.mean(densities), rel=1e-5)
  assert mean == pytest.approx(journey_study.density_of(0.8, window), abs=0.02)
  assert journey_study.mean_density(0.0, 0, 0, 5, 200) == 1


def test_cells_of_the_journey_reach_their_sparsity_and_have_equal_compute():
  plan = journey_study.plan(journey_study.PRESETS['quick'], {})
  compute = []
  for cell in plan:
    labels, config = cell.labels, cell.config
    if labels['arm'] == 'dense':
      assert not config.prune.weights.schedule and labels['average'] == labels['parameters']
      continue
    end = int(re.search(r'end=(\d+)', config.prune.weights.schedule)[1])
    assert end < config.steps and f'until={end}' in config.prune.weights.when
    assert labels['final'] < labels['average'] < labels['parameters']
    if labels['compare'] == 'compute' or (labels['window'], labels['sparsity']) == ('25-75', 0.8):
      fixed, _ = journey_study.counts(config)
      compute.append((labels['average'] - fixed) * config.steps)
  assert len(plan) == 3 * 13 and max(compute) / min(compute) < 1.03


def journey_rows(sign=1, seeds=3):
  """Rows whose loss follows the average number of weights (sign=1) or the final one."""
  rows = []
  for seed in range(seeds):
    for cell in journey_study.plan(journey_study.PRESETS['quick'], {}):
      labels = cell.labels
      if labels['seed'] != 0:
        continue
      size = labels['average' if sign > 0 else 'final']
      loss = 12 - 0.6 * math.log(size) + 0.001 * seed
      if labels['compare'] == 'compute':
        loss = 4.9 + 0.5 * (sign > 0)
      rows.append({**labels, 'seed': seed, 'metrics': {'loss': loss}, 'steps': 1})
  return rows


def test_verdicts_of_the_journey():
  word = lambda rows: [v.verdict for v in journey.claims(rows)]
  # The size between two widths is interpolated in its logarithm, so the line is met exactly.
  assert word(journey_rows()) == ['reproduced'] * 3
  assert word(journey_rows(-1)) == ['not reproduced'] * 3
  assert word(journey_rows(seeds=1)) == ['undecided'] * 3
  assert word([]) == ['undecided'] * 3


def test_reports_of_parts_of_the_journey_can_be_drawn():
  rows = journey_rows()
  for some in (rows, rows[:4], rows[4:6], rows[-1:]):
    assert journey_report.tables(some)[0].rows is not None and journey_report.figures(some)
  assert set(journey_report.figures(rows)) == set(journey_report.CAPTIONS)


def test_cells_of_spdf_have_parents_and_only_one_arm_holds_zeros():
  plan = spdf_study.plan(spdf_study.PRESETS['quick'], {'data.root': '/books-are-here'})
  keys = {grid.key(cell): cell for cell in plan}
  arms = {}
  for cell in plan:
    arms.setdefault((cell.labels['stage'], cell.labels['arm']), []).append(cell)
    if cell.labels['stage'] == 'finetune':
      assert keys[cell.parent].labels['sparsity'] == cell.labels['sparsity']
      assert cell.config.init == f'cell:{cell.parent}' and cell.config.data.corpus == 'books@0.05'
      assert cell.config.hold_zeros == (cell.labels['arm'] == 'sparse')
      assert cell.config.pretrained == (cell.labels['arm'] != 'fresh')
      assert not cell.config.prune.weights.schedule
  assert {k: len(v) for k, v in arms.items()} == {
    ('pretrain', 'dense'): 3,
    ('pretrain', 'sparse'): 6,
    ('finetune', 'dense'): 9,
    ('finetune', 'sparse'): 6,
    ('finetune', 'fresh'): 3,
  }
  labelled = spdf_study.plan(spdf_study.PRESETS['quick'], {})
  assert {cell.labels['task'] for cell in labelled} == {'', 'pydoc/library'}


def spdf_rows(sign=1, seeds=3):
  """Rows in which every claim holds, or none."""
  rows = []

  def add(seed, stage, arm, sparsity, loss):
    task = 'books' if stage == 'finetune' else ''
    labels = {'stage': stage, 'task': task, 'arm': arm, 'sparsity': sparsity, 'seed': seed}
    rows.append({**labels, 'metrics': {'loss': loss + 1e-3 * seed * sparsity}})

  for seed in range(seeds):
    add(seed, 'pretrain', 'dense', 0.0, 4.0)
    add(seed, 'pretrain', 'sparse', 0.5, 4.1)
    add(seed, 'pretrain', 'sparse', 0.75, 4.3)
    add(seed, 'finetune', 'dense', 0.0, 4.5)
    add(seed, 'finetune', 'dense', 0.5, 4.51 if sign > 0 else 4.9)
    add(seed, 'finetune', 'dense', 0.75, 4.53 if sign > 0 else 4.8)
    add(seed, 'finetune', 'sparse', 0.5, 4.55)
    add(seed, 'finetune', 'sparse', 0.75, 4.7)
    add(seed, 'finetune', 'fresh', 0.0, 5.0 if sign > 0 else 4.6)
  return rows


def test_verdicts_of_spdf():
  word = lambda rows: [v.verdict for v in spdf.claims(rows)]
  assert word(spdf_rows()) == ['reproduced'] * 5
  assert word(spdf_rows(-1)) == ['not reproduced'] * 5
  assert word(spdf_rows(seeds=1)) == ['undecided'] * 5
  assert word([]) == ['undecided'] * 5
  free = spdf_rows()
  for row in free:
    if row['stage'] == 'pretrain' and row['sparsity']:
      row['metrics'] = {'loss': 0.0}
  assert word(free)[3] == 'undecided'  # nothing was lost, so nothing can be recovered
  for some in (spdf_rows(), spdf_rows()[:1], spdf_rows()[-1:]):
    assert spdf_report.tables(some) and spdf_report.figures(some)


@pytest.mark.parametrize('name', ['journey2025', 'spdf2023'])
def test_wrong_keys_and_presets_are_refused(name, tmp_path, capsys):
  args = ['reproduce', name, f'--workdir={tmp_path}/run']
  assert command.main([*args, '--config.optimizer.learning_rat=1']) == 2
  assert 'learning_rate' in capsys.readouterr().err
  assert command.main([*args, '--preset=quik']) == 2
  assert 'quick' in capsys.readouterr().err and not (tmp_path / 'run').exists()


@pytest.mark.slow
@pytest.mark.parametrize(('name', 'cells'), [('journey2025', 4), ('spdf2023', 6)])
def test_smoke_by_the_real_command(name, cells, tmp_path):
  args = ['reproduce', name, '--preset=smoke', f'--workdir={tmp_path}']
  assert command.main(args) == 0
  rows = ledger.read(tmp_path / 'ledger.jsonl')
  assert len(rows) == cells and not any(row.get('failed') for row in rows)
  for row in rows:
    if name == 'journey2025':
      assert row['metrics'].get('sparsity', 0) == pytest.approx(row['sparsity'], abs=1e-3)
  assert command.main([*args, '--dry-run']) == 0
  assert command.main(args) == 0 and len(ledger.read(tmp_path / 'ledger.jsonl')) == cells
