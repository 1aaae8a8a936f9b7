"""A run that scans over its layers is the run that does not: masks, hashes, files, tables."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_runs

import prunejax
from prunejax.models import gpt2, layer_stack
from prunejax.models.hf import bert as bert_hf
from prunejax.models.hf import gpt2 as gpt2_hf
from prunejax.pruning import paths
from prunejax.report import ledger
from prunejax.sweep import grid
from prunejax.train import optimizer, program, recipe, saved_model

DEEP = {'model__num_hidden_layers': 3, 'model__dropout': 0.1, 'log__who_pays': True}
GPT2 = {'model__kind': 'gpt2', 'data__vocab_size': 300, 'prune__weights__where': gpt2.PRUNABLE}
FAST = {
  'global': {'prune__weights__allocation': 'global_threshold()'},
  'gpt2': GPT2 | {'model__remat': 'full'},
}
LAYERS = r'encoder/layer_\d+/.*/kernel'
SLOW = {
  'random': {'prune__weights__criterion': 'random(seed=3)', 'optimizer__l1': 1e-4},
  'classes': {
    'prune__weights__allocation': "by_class({'.*layer_0/.*': 0.2, '.*': 1.0}, relative=True)",
    'optimizer__fresh_moments': True,
  },
  'wanda': {'prune__weights__criterion': 'wanda()', 'prune__weights__where': LAYERS},
  'sparsegpt': {'prune__weights__criterion': 'sparsegpt()', 'prune__weights__where': LAYERS},
  'fisher': {
    'prune__weights__criterion': 'block_fisher(block=8)',
    'prune__weights__where': LAYERS,
  },
  'movement': {
    'prune__weights__criterion': 'movement()',
    'prune__weights__zero_pruned': False,
    'view': 'straight_through',
    'keep_latent': True,
  },
  'heads': {
    'prune__weights__structure': 'heads(8)',
    'prune__weights__where': r'encoder/layer_\d+/attention/((query|key|value)/.*|output/kernel)',
  },
  'proximal': {
    'prox__penalty': 'soft_threshold(0.01)',
    'prox__where': LAYERS,
    'prune__weights__schedule': '',
  },
  'low_rank': {
    'low_rank__schedule': 'constant(0.5)',
    'low_rank__where': LAYERS,
    'prune__weights__schedule': '',
  },
  'rewind': {'optimizer__rewind': 'every(6, begin=6)', 'prune__weights__when': 'every(3)'},
}


def pair(name, changes):
  return [
    tiny_runs.finished(f'{name}-{scan}', **DEEP, **changes, model__scan_layers=scan)
    for scan in (False, True)
  ]


def check_equal(one, other):
  assert other.result['mask_hash'] == one.result['mask_hash']
  assert other.result['sparsity'] == one.result['sparsity']
  for name, value in one.result['metrics'].items():
    assert other.result['metrics'][name] == pytest.approx(value, rel=1e-4), name
  for before, after in zip(tiny_runs.rows(one.folder), tiny_runs.rows(other.folder), strict=True):
    assert before.keys() == after.keys()
    for key, value in before.items():
      close = isinstance(value, float) and 'second' not in key
      # A soft threshold may leave the last digit of one weight, or nothing.
      most = 1e-3 if key == 'zeros' else None
      assert not close or after[key] == pytest.approx(value, rel=1e-4, abs=most), key
  names = lambda run: sorted(path.name for path in run.folder.glob('who_pays_*.json'))
  assert names(one) == names(other)
  for name in names(one):  # the table is about the first weights, which are equal bit for bit
    tables = [json.loads((run.folder / name).read_text()) for run in (one, other)]
    for before, after in zip(tables[0]['leaves'], tables[1]['leaves'], strict=True):
      # Scores of gradients or activations are rounded as the program has them, which an inverse
      # Fisher matrix amplifies. The masks that they give are compared bit for bit above.
      assert after == {
        k: pytest.approx(v, rel=1e-2) if type(v) is float else v for k, v in before.items()
      }
    assert {**tables[0], 'leaves': ()} == {**tables[1], 'leaves': ()}


def check_close(one, other):
  for (name, a), b in zip(paths.named_leaves(one).items(), jax.tree.leaves(other), strict=True):
    assert np.array_equal(a == 0, b == 0), name
    # A key's bias moves no softmax: its gradient is rounding, which Adam divides by its own size.
    if not name.endswith('key/bias'):
      np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4, err_msg=name)


def weights(run, files, folder='model', **how):
  return files.load(run.folder / folder, **how)[0]


@pytest.mark.parametrize('name', ['global', pytest.param('gpt2', marks=pytest.mark.slow)])
def test_results_are_those_of_the_unrolled_model(name):
  one, other = pair(name, FAST[name])
  check_equal(one, other)
  files, how = (gpt2_hf, {}) if 'gpt2' in name else (bert_hf, {'heads': ('mlm', 'nsp')})
  trees = [weights(run, files, **how) for run in (one, other)]
  check_close(*trees)
  assert one.result['bytes'] == other.result['bytes']


@pytest.mark.slow
@pytest.mark.parametrize('name', SLOW)
def test_every_link_sees_the_layers_of_the_unrolled_model(name):
  one, other = pair(name, SLOW[name])
  check_equal(one, other)
  if SLOW[name].get('keep_latent'):
    latent = [weights(run, bert_hf, 'latent', heads=('mlm', 'nsp')) for run in (one, other)]
    check_close(*latent)


@pytest.mark.slow
def test_it_resumes_from_its_checkpoint_which_reads_as_an_unrolled_model(tmp_path):
  changes = {**DEEP, **FAST['global'], 'model__scan_layers': True}
  whole = tiny_runs.finished('global-True', **changes)
  folder = tiny_runs.stopped(tmp_path / 'run', 'train 9/12', **changes)
  stored = saved_model.load(folder)
  assert stored.what == 'the checkpoint of step 8 of 12'
  assert {'layer_0', 'layer_1', 'layer_2'} == set(stored.params['encoder'])
  result = tiny_runs.train(tiny_runs.config(**changes), folder)
  assert result['mask_hash'] == whole.result['mask_hash']
  assert result['metrics'] == whole.result['metrics']


@pytest.mark.slow
def test_members_of_a_population_scan_and_start_from_a_folder(tmp_path):
  born = tiny_runs.finished('global-True', **DEEP, **FAST['global'], model__scan_layers=True)
  tables = {}
  for scan in (False, True):
    cells = [
      grid.Cell(
        {'stage': 'pretrain', 'sparsity': sparsity},
        tiny_runs.config(
          init=str(born.folder / 'model'),
          model__scan_layers=scan,
          prune__weights__schedule=f'cubic({sparsity}, end=6)',
        ),
      )
      for sparsity in (0.6, 0.8)
    ]
    quiet = lambda line: None
    rows = grid.run(cells, tmp_path / str(scan), experiment='test', preset='scan', say=quiet)
    tables[scan] = [(row['mask_hash'], row['sparsity']) for row in rows]
    assert len(ledger.read(tmp_path / str(scan) / 'ledger.jsonl')) == 2
  assert tables[True] == tables[False] and len(set(tables[True])) == 2


@pytest.mark.parametrize('scan', [False, True])
def test_weights_moments_and_scores_stay_float32_where_the_model_computes_in_bfloat16(scan):
  config = tiny_runs.config(
    model__dtype='bfloat16', model__scan_layers=scan, prune__weights__criterion='taylor()'
  )
  resolved = recipe.resolve(config)
  source, data = program.read_inputs(resolved)
  tx = optimizer.make(resolved)
  functions = program.build(resolved, source, data, tx, tiny_runs.COMPILED)
  before = program.abstract_state(resolved, functions, tx)
  after, metrics = jax.eval_shape(functions.step, before, data.train(0))
  for state in (before, after):
    floats = [x for x in jax.tree.leaves(state) if jnp.issubdtype(x.dtype, jnp.floating)]
    assert len(floats) > 30 and {x.dtype for x in floats} == {jnp.dtype('float32')}
  assert metrics['loss'].dtype == jnp.float32
  batch = data.train(0)
  inputs = batch['input_ids'], batch['segment_ids'], batch['valid']
  out = jax.eval_shape(functions.model.apply, {'params': before['params']}, *inputs)
  assert out['sequence'].dtype == jnp.bfloat16 and out['mlm'].dtype == jnp.float32


def test_a_shrunk_model_is_refused_by_name(tmp_path):
  run = tiny_runs.finished('global-False', **DEEP, **FAST['global'], model__scan_layers=False)
  params, size = bert_hf.load(run.folder / 'model')
  params = jax.tree.map(np.array, params)
  for leaf in ('kernel', 'bias'):
    part = params['encoder']['layer_1']['ffn']['intermediate']
    part[leaf] = part[leaf][..., :8]
  part = params['encoder']['layer_1']['ffn']['output']
  part['kernel'] = part['kernel'][:8]
  size.intermediate_per_layer = [32, 8, 32]
  bert_hf.save(tmp_path / 'small', params, size, vocab=run.folder / 'model')
  config = tiny_runs.config(init=str(tmp_path / 'small'), model__scan_layers=True)
  with pytest.raises(ValueError, match='scan_layers=True: layer 1 has other shapes than layer 0'):
    tiny_runs.train(config, tmp_path / 'run')
  assert not (tmp_path / 'run').exists()


def test_masks_of_a_state_are_stacked_as_its_weights_are():
  stacked = layer_stack.stack({'layer_0': {'w': jnp.ones(2)}, 'layer_1': {'w': jnp.zeros(2)}})
  assert stacked['layers']['w'].tolist() == [[1, 1], [0, 0]]
  masks = prunejax.masks.from_zeros(stacked)
  assert layer_stack.unstack(masks)['layer_1']['w'].tolist() == [False, False]
