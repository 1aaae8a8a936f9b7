"""A run from its config to its folder: what it computes, how it resumes, where it stops."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny_runs

import prunejax
from configs import base
from prunejax.data import tasks
from prunejax.models import bert
from prunejax.models.hf import bert as bert_hf
from prunejax.train import (
  checkpoint,
  configs,
  metrics_log,
  objectives,
  optimizer,
  recipe,
  sharding,
  workdir,
)
from prunejax.train import program as programs
from prunejax.train.step import make_train_step

# What a run leaves behind.


def test_a_run_leaves_its_result_its_rows_and_its_model():
  run = tiny_runs.finished('pruned')
  assert (
    run.result == json.loads((run.folder / 'result.json').read_text()) == workdir.result(run.folder)
  )
  assert run.result['sparsity'] == 0.5 and run.result['steps'] == 12
  assert set(run.result['metrics']) == {
    'loss',
    'mlm_loss',
    'mlm_accuracy',
    'nsp_loss',
    'nsp_accuracy',
  }
  rows = tiny_runs.rows(run.folder)
  assert [(row['kind'], row['step']) for row in rows] == [('train', s) for s in (3, 6, 9, 12)] + [
    ('eval', 12)
  ]
  for row in rows[:-1]:
    assert np.isclose(row['loss'], row['mlm_loss'] + row['nsp_loss']) and row['grad_norm'] > 0
  assert [row['sparsity'] for row in rows[:-1]] == sorted(row['sparsity'] for row in rows[:-1])
  assert rows[3]['sparsity'] == 0.5
  text = '\n'.join(run.lines)
  assert 'steps/s' in text and 'left 0:0' in text and 'sparsity 0.5' in text


def test_who_pays_is_said_and_saved_before_training():
  run = tiny_runs.finished('who-pays', log__who_pays=True)
  assert 'embeddings/word/embedding' in run.lines[0] and 'train 3/12' in run.lines[1]
  pays = json.loads((run.folder / 'who_pays_weights.json').read_text())
  assert pays['total']['got'] == 0.5 and len(pays['leaves']) == 8
  assert tiny_runs.same_weights(run.folder, tiny_runs.finished('pruned').folder)


def test_the_exported_model_is_the_final_state():
  run = tiny_runs.finished('pruned')
  config = tiny_runs.config()
  resolved = recipe.resolve(config)
  tx = optimizer.make(resolved)
  source, data = programs.read_inputs(resolved)
  program = programs.build(resolved, source, data, tx, tiny_runs.COMPILED)
  abstract = programs.abstract_state(resolved, program, tx)
  manager = checkpoint.manager(run.folder / 'checkpoints')
  state, damaged = checkpoint.restore(
    manager, abstract, sharding.shard(abstract, sharding.make_mesh())
  )
  manager.close()
  assert not damaged and int(state['step']) == 12
  loaded, size = bert_hf.load(run.folder / 'model')
  jax.tree.map(np.testing.assert_array_equal, loaded, jax.device_get(state['params']))
  masks = prunejax.get_masks(state['opt_state'], state['params'])
  assert prunejax.mask_hash(masks) == run.result['mask_hash']
  prunejax.check_pruned(state['params'], state['opt_state'])
  assert size.hidden_size == 16 and size.vocab_size == source.size.vocab_size


def test_a_finished_run_is_not_run_again():
  run = tiny_runs.finished('pruned')
  assert tiny_runs.train(tiny_runs.config(), run.folder, say=pytest.fail) == run.result


def test_tensorboard_files_are_written_when_asked(tmp_path):
  writer = metrics_log.Log(tmp_path, 'x', 10, tensorboard=True, say=lambda line: None)
  writer.write(5, 'train', {'loss': 1.5, 'odd': float('nan')})
  writer.close()
  assert [p.stat().st_size > 0 for p in (tmp_path / 'tensorboard').iterdir()] == [True]
  assert tiny_runs.rows(tmp_path) == [{'step': 5, 'kind': 'train', 'loss': 1.5, 'odd': None}]


# Pruning is a link and nothing else.


def test_no_schedule_is_bit_identical_to_a_chain_without_a_pruning_link():
  run = tiny_runs.finished('dense', pruned=False)
  config = tiny_runs.config(pruned=False)
  dense = recipe.resolve(config)
  c = dense.optimizer
  source, data = programs.read_inputs(dense)
  program = programs.build(dense, source, data, optimizer.make(dense))
  loss_fn, *_ = objectives.pretraining(program.model)
  tx = optax.chain(
    optax.clip_by_global_norm(c.clip),
    optax.scale_by_adam(c.b1, c.b2, c.eps),
    optax.add_decayed_weights(c.weight_decay, mask=optimizer._decays),
    optimizer._shape_link(c),
    optax.inject_hyperparams(optax.scale, hyperparam_dtype=jnp.float32)(step_size=-c.learning_rate),
  )
  state = programs.initial_state(dense, program, tx)
  step = jax.jit(make_train_step(loss_fn, tx))
  for i in range(config.steps):
    state, _ = step(state, data.train(i))
  ours, _ = bert_hf.load(run.folder / 'model')
  jax.tree.map(np.testing.assert_array_equal, ours, jax.device_get(state['params']))
  assert run.result['sparsity'] == 0

  # And no group at all is the same chain.
  with config.unlocked():
    config.prune = {}
  links = [
    jax.tree.structure(jax.eval_shape(optimizer.make(recipe.resolve(one)).init, state['params']))
    for one in (config, tiny_runs.config(False))
  ]
  assert links[0] == links[1] and recipe.resolve(config).where == ''
  assert prunejax.masks.sparsity(state['params'], bert.PRUNABLE)['total'] == 0


@pytest.mark.parametrize(
  'view', ['straight_through', pytest.param('apply', marks=pytest.mark.slow)]
)
def test_latent_weights_under_a_view_export_a_sparse_model(view):
  run = tiny_runs.finished(
    f'latent-{view}',
    view=view,
    prune__weights__zero_pruned=False,
    checkpoint__every=0,
    keep_latent=True,
  )
  assert run.result['sparsity'] == 0.5 and not (run.folder / 'checkpoints').exists()
  model, _ = bert_hf.load(run.folder / 'model')
  latent, _ = bert_hf.load(run.folder / 'latent')
  assert prunejax.masks.sparsity(latent, bert.PRUNABLE)['total'] == 0.0
  for seen, whole in zip(jax.tree.leaves(model), jax.tree.leaves(latent), strict=True):
    np.testing.assert_array_equal(seen, np.where(seen != 0, whole, 0))
  assert prunejax.masks.sparsity(model, bert.PRUNABLE)['total'] == 0.5
  assert not tiny_runs.same_weights(run.folder, tiny_runs.finished('pruned').folder)


def test_a_pruned_model_stays_pruned_through_fine_tuning():
  parent = tiny_runs.finished('pruned')
  changes = dict(data__task='glue/cola', hold_zeros=True, eval__batch_size=20)
  run = tiny_runs.finished('tuned', pruned=False, init=str(parent.folder / 'model'), **changes)
  before, _ = bert_hf.load(parent.folder / 'model', heads=())
  after, _ = bert_hf.load(run.folder / 'model', heads=())
  for (path, old), new in zip(
    jax.tree_util.tree_leaves_with_path(before), jax.tree.leaves(after), strict=True
  ):
    if (old == 0).mean() > 0.4:
      np.testing.assert_array_equal(old == 0, new == 0)
    assert (old != new).any(), path
  assert run.result['sparsity'] == 0.5
  assert set(run.result['metrics']) == {
    'dev_loss',
    'matthews',
    'accuracy',
    'train_loss',
    'majority',
  }
  assert 0.5 <= run.result['metrics']['majority'] < 1


def test_a_fine_tuned_model_goes_on_with_its_classifier():
  parent = tiny_runs.finished('pruned')
  changes = dict(data__task='glue/cola', hold_zeros=True, eval__batch_size=20)
  tuned = tiny_runs.finished('tuned', pruned=False, init=str(parent.folder / 'model'), **changes)
  folder = tuned.folder / 'model'
  config = tiny_runs.config(False, init=str(folder), **changes)
  resolved = recipe.resolve(config)
  source, data = programs.read_inputs(resolved)
  tx = optimizer.make(resolved)
  program = programs.build(resolved, source, data, tx)
  shapes = programs.abstract_state(resolved, program, tx)['params']
  loaded = programs.pretrained(resolved, source, program, shapes)
  state = programs.initial_state(resolved, program, tx, loaded)
  stored, _ = bert_hf.load(folder, heads=('classifier',))
  jax.tree.map(np.testing.assert_array_equal, jax.device_get(state['params']), stored)
  # For a task with another number of classes it starts afresh.
  shaped = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.float32)
  shapes['classifier'] = {'kernel': shaped(16, 3), 'bias': shaped(3)}
  three = resolved._replace(task=tasks.get('glue/mnli'))
  lines = []
  assert 'classifier' not in programs.pretrained(three, source, program, shapes, lines.append)
  assert len(lines) == 1 and 'it has 2 outputs, the task 3' in lines[0]
  # And so it does from a model that was only pre-trained.
  source = source._replace(folder=parent.folder / 'model')
  assert 'classifier' not in programs.pretrained(resolved, source, program, shapes, pytest.fail)


# One program for many numbers.


def test_runs_that_differ_in_numbers_share_one_program():
  tiny_runs.finished('pruned')
  resolved, compiled = recipe.resolve(tiny_runs.config()), tiny_runs.COMPILED
  inputs = programs.read_inputs(resolved)
  program = programs.build(resolved, *inputs, optimizer.make(resolved), compiled)
  count, sizes = (
    len(compiled.programs),
    (program.step._cache_size(), program.measure._cache_size()),
  )
  other = tiny_runs.finished(
    'numbers',
    seed=3,
    steps=9,
    optimizer__learning_rate=3e-3,
    prune__weights__schedule='cubic(0.8, end=6)',
    eval__batches=1,
  )
  assert other.result['sparsity'] == pytest.approx(0.8, abs=1e-3)
  assert len(compiled.programs) == count
  assert (program.step._cache_size(), program.measure._cache_size()) == sizes
  assert other.result['mask_hash'] != tiny_runs.finished('pruned').result['mask_hash']


def test_the_seed_of_a_random_criterion_is_data():
  params = {'a': {'kernel': jax.random.normal(jax.random.key(0), (12, 12))}}
  parts, update = [], None
  for seed, text in ((0, 'random()'), (1, 'random(1)'), (7, 'random(seed=7)')):
    group = {'where': '.*', 'schedule': 'constant(0.5)', 'criterion': text}
    config = configs.override(
      base.get_config(), {f'prune.weights.{k}': v for k, v in group.items()}
    )
    resolved = recipe.resolve(config)
    tx = optimizer.make(resolved)
    update = update or jax.jit(tx.update)  # the first one's program serves all
    _, state = update(params, tx.init(params), params, grad=params)
    mask = prunejax.get_masks(state, params)['a']['kernel']
    score = prunejax.random(seed).score((), params, grad=None, step=0)['a']['kernel']
    np.testing.assert_array_equal(mask, score >= np.sort(np.ravel(score))[72])
    parts.append(programs.program_key(resolved))
  assert parts[0] == parts[1] == parts[2] and update._cache_size() == 1


@pytest.mark.parametrize(
  'change',
  [
    {'schedule': 'cubic(0.5, end=7)'},
    {'schedule': 'linear(0.5, end=6)'},
    {'when': 'every(3)'},
    {'structure': 'rows()'},
    {'criterion': 'random()'},
    {'allocation': 'global_threshold()'},
    {'where': 'pooler/kernel'},
  ],
)
def test_another_method_is_another_program(change):
  config, other = (
    tiny_runs.config(),
    tiny_runs.config(**{f'prune__weights__{k}': v for k, v in change.items()}),
  )
  one, another = recipe.resolve(config), recipe.resolve(other)
  source, _ = programs.read_inputs(one)
  assert programs.program_key(one, source) != programs.program_key(another, source)
