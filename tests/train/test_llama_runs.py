"""A tiny Llama with grouped queries, and a tiny OPT: pre-trained, pruned, fine-tuned, exported."""

import re
import shutil

import jax
import numpy as np
import pytest
import tiny_runs
from checkpoint_cases import flat

import prunejax
from prunejax import __main__ as command
from prunejax.models import llama, opt
from prunejax.models.hf import carried_texts
from prunejax.models.hf import llama as llama_hf
from prunejax.models.hf import opt as opt_hf
from prunejax.train import configs, families, saved_model

SHARED = {'data__vocab_size': 300, 'model__num_attention_heads': 4}
LLAMA = {
  **SHARED,
  'model__kind': 'llama',
  'model__num_key_value_heads': 2,
  'prune__weights__where': llama.PRUNABLE,
}
OPT = {**SHARED, 'model__kind': 'opt', 'prune__weights__where': opt.PRUNABLE}
CASES = {'llama': (LLAMA, llama_hf, llama), 'opt': (OPT, opt_hf, opt)}


@pytest.fixture(scope='module', params=CASES)
def born(request):
  config, files, module = CASES[request.param]
  return tiny_runs.finished(request.param, **config), files, module


def test_it_learns_and_is_pruned_as_asked(born):
  run, files, module = born
  rows = tiny_runs.rows(run.folder)
  train = [row['loss'] for row in rows if row['kind'] == 'train']
  assert train[-1] < train[0] and run.result['metrics']['lm_loss'] < np.log(300)
  params, size = files.load(run.folder / 'model')
  assert size.vocab_size == 300 and size.num_attention_heads == 4
  for path, leaf in flat(params).items():
    wanted = leaf.size // 2 if re.fullmatch(module.PRUNABLE, path) else 0
    assert (leaf == 0).sum() == wanted or (not wanted and path.endswith('bias')), path
  if files is llama_hf:
    assert params['encoder']['layer_0']['attention']['key']['kernel'].shape == (16, 8)


def test_stopped_it_goes_on_bit_for_bit(tmp_path):
  run = tiny_runs.finished('llama', **LLAMA)
  folder = tiny_runs.stopped(tmp_path / 'run', 'train 9/12', **LLAMA)
  result = tiny_runs.train(tiny_runs.config(**LLAMA), folder, say=lambda line: None)
  assert tiny_runs.plain(result) == tiny_runs.plain(run.result)
  assert tiny_runs.same_weights(folder, run.folder)


def test_fine_tuned_it_stays_pruned_and_is_exported(born, tmp_path):
  run, files, module = born
  init = shutil.copytree(run.folder / 'model', tmp_path / 'init')
  carried_texts.write(init, {carried_texts.TEMPLATE: '{{ messages }}'})
  task = {'data__task': 'glue/cola', 'hold_zeros': True, 'init': str(init)}
  config = tiny_runs.config(False, **task, prune__weights__schedule='')
  tiny_runs.train(config, tmp_path / 'tuned', say=lambda line: None)
  before = flat(files.load(run.folder / 'model', heads=())[0])
  params, size = files.load(tmp_path / 'tuned' / 'model', heads=('classifier',))
  after = flat(params)
  assert size.num_labels == 2 and size.pad_token_id is not None
  for path, leaf in before.items():
    if re.fullmatch(module.PRUNABLE, path):
      assert (after[path][leaf == 0] == 0).all() and (after[path] != leaf).any(), path
  for form, name in (('hf', 'folder'), ('sparse', 'file')):
    argv = ['export', str(tmp_path / 'tuned'), f'--out={tmp_path / name}', f'--to={form}']
    assert command.main(argv) == 0
    again = saved_model.load(tmp_path / name)
    assert again.carried == {carried_texts.TEMPLATE: '{{ messages }}'}
    assert again.tokenizer.to_str() == saved_model.load(tmp_path / 'tuned').tokenizer.to_str()
    for path, leaf in flat(again.params).items():
      np.testing.assert_array_equal(leaf, after[path])
  onnx = ['export', str(tmp_path / 'tuned'), f'--out={tmp_path / "x.onnx"}', '--to=onnx']
  assert command.main(onnx) == 2 and not (tmp_path / 'x.onnx').exists()


def test_groups_and_gated_neurons_are_pruned_and_cut_out(tmp_path):
  """A group, its key, value and queries go together; the shrunk model computes the same."""
  size = families.fresh_size(
    families.FAMILIES['llama'],
    {
      'hidden_size': 24,
      'num_hidden_layers': 2,
      'num_attention_heads': 6,
      'intermediate_size': 20,
      'max_position_embeddings': 16,
      'num_key_value_heads': 3,
    },
    40,
  )
  size.attention_bias = True
  ids = np.random.default_rng(0).integers(0, 40, (2, 9)).astype(np.int32)
  valid = np.ones((2, 9), bool)
  run = lambda params, size: jax.device_get(
    llama.Llama(size).apply({'params': params}, ids, None, valid)['lm']
  )
  params = llama.Llama(size).init(jax.random.key(0), ids, None, valid)['params']
  params = jax.tree.map(
    lambda leaf: leaf + 0.2 * jax.random.normal(jax.random.key(leaf.size), leaf.shape), params
  )
  where = r'.*/(attention/(query|key|value)/(kernel|bias)|attention/output/kernel)'
  scores = {k: abs(v) for k, v in flat(params).items()}
  heads = {k: v for k, v in scores.items() if re.fullmatch(where, k)}
  masks = prunejax.select_masks(heads, 1 / 3, structure=prunejax.heads(4, group=2))
  neurons = {k: v for k, v in scores.items() if re.fullmatch(r'.*/ffn/.*/kernel', k)}
  masks |= prunejax.select_masks(neurons, 0.5, structure=prunejax.ffn())
  leaves = {k: np.asarray(v) * np.asarray(masks.get(k, True)) for k, v in flat(params).items()}
  from flax import traverse_util

  tree = traverse_util.unflatten_dict(leaves, sep='/')
  llama_hf.save(tmp_path / 'pruned', tree, size)
  for form in ('shrunk', 'hf'):
    source = tmp_path / ('pruned' if form == 'shrunk' else 'shrunk')
    assert command.main(['export', str(source), f'--out={tmp_path / form}', f'--to={form}']) == 0
    small, its_size = llama_hf.load(tmp_path / form)
    np.testing.assert_allclose(run(small, its_size), run(tree, size), rtol=0, atol=2e-5)
    if form == 'shrunk':
      assert its_size.heads_per_layer == [4, 4] and its_size.intermediate_per_layer == [10, 10]
      assert small['encoder']['layer_1']['attention']['key']['kernel'].shape == (24, 8)
      assert small['encoder']['layer_1']['attention']['query']['kernel'].shape == (24, 16)
      assert small['encoder']['layer_1']['ffn']['gate']['kernel'].shape == (24, 10)


def test_the_error_about_grouped_queries_says_what_to_write():
  scores = {
    'attention/query/kernel': np.ones((4, 8), np.float32),
    'attention/key/kernel': np.ones((4, 4), np.float32),
  }
  with pytest.raises(ValueError, match=r'heads\(2\).*cannot be the units.*heads\(2, group=4\)'):
    prunejax.select_masks(scores, 0.5, structure=prunejax.heads(2))


def test_the_new_keys_change_no_name_of_an_older_run():
  assert 'num_key_value_heads' not in configs.identity(tiny_runs.config())['model']
  assert configs.identity(tiny_runs.config(**LLAMA))['model']['num_key_value_heads'] == 2


@pytest.mark.parametrize(
  ('changes', 'words'),
  [
    ({'model__num_key_value_heads': 2}, ['num_key_value_heads=2', 'bert has a key for every']),
    ({**LLAMA, 'model__num_key_value_heads': 3}, ['num_key_value_heads=3', 'does not divide']),
    ({**LLAMA, 'model__num_key_value_heads': -1}, ['num_key_value_heads=-1', 'at least 0']),
  ],
)
def test_wrong_input_is_one_line(changes, words, capsys):
  assert command.main(tiny_runs.argv('train', tiny_runs.home() / 'never', **changes)) == 2
  error = capsys.readouterr().err.strip()
  assert '\n' not in error and all(word in error for word in words), error
