"""A tiny GPT-2 by the command: pre-trained, resumed, fine-tuned, exported, in a population."""

import json
import re
import shutil

import jax
import numpy as np
import pytest
import tiny_runs
from checkpoint_cases import flat

import prunejax
from experiments.gordon2020 import study as gordon2020
from experiments.gordon2020.analysis import hidden_states
from prunejax import __main__ as command
from prunejax.models import gpt2
from prunejax.models.hf import convert
from prunejax.models.hf import gpt2 as gpt2_hf
from prunejax.report import ledger
from prunejax.sweep import estimate, grid
from prunejax.train import families, inputs, optimizer, program, recipe

GPT2 = {'model__kind': 'gpt2', 'data__vocab_size': 300, 'prune__weights__where': gpt2.PRUNABLE}
TASK = {'data__task': 'glue/cola', 'hold_zeros': True, 'prune__weights__schedule': ''}


@pytest.fixture(scope='module')
def born():
  """A run that was never stopped."""
  return tiny_runs.finished('gpt2', **GPT2)


@pytest.fixture(scope='module')
def tuned(born, tmp_path_factory):
  """Two fine-tunings as one program, and an export. The config says 'bert'; the folder decides."""
  home = tmp_path_factory.mktemp('tuned')
  start = {'init': str(born.folder / 'model'), 'population__waves': 1}
  config = lambda seed: tiny_runs.config(False, seed=seed, **start, **TASK)
  cells = [
    grid.Cell({'stage': 'finetune', 'task': 'glue/cola', 'seed': seed}, config(seed))
    for seed in (0, 1)
  ]
  rows = grid.run(cells, home, experiment='test', preset='gpt2', say=lambda line: None)
  folder = home / 'cells' / rows[0]['cell']
  assert (
    command.main(['export', f'--workdir={folder}', f'--out={home}/out', '--dtype=bfloat16']) == 0
  )
  return rows, folder, home / 'out'


def zeros(params):
  return prunejax.masks.sparsity(params, gpt2.PRUNABLE)['total']


def test_it_learns_and_is_pruned_as_asked(born):
  rows = tiny_runs.rows(born.folder)
  train = [row['loss'] for row in rows if row['kind'] == 'train']
  assert train[-1] < train[0]
  metrics = born.result['metrics']
  assert metrics['loss'] == metrics['lm_loss'] < np.log(300) and 0 <= metrics['lm_accuracy'] <= 1
  assert set(metrics) == {'loss', 'lm_loss', 'lm_accuracy'}
  params, size = gpt2_hf.load(born.folder / 'model')
  assert born.result['sparsity'] == pytest.approx(zeros(params)) == pytest.approx(0.5, abs=2e-3)
  assert (size.n_embd, size.n_layer, size.n_inner, size.vocab_size) == (16, 1, 32, 300)
  for path, leaf in flat(
    params
  ).items():  # half of each matrix exactly, of an odd one the smaller half
    wanted = leaf.size // 2 if re.fullmatch(gpt2.PRUNABLE, path) else 0
    assert (leaf == 0).sum() == wanted or (not wanted and path.endswith('bias')), path


def test_held_out_loss_is_the_mean_over_tokens(born):
  """Recomputed from the folder alone, with numpy, over the held-out windows one after the other."""
  config = tiny_runs.config(**{**GPT2, 'init': str(born.folder / 'model')})
  source, data = program.read_inputs(recipe.resolve(config))
  params, _ = gpt2_hf.load(born.folder / 'model')
  total, right, count = 0.0, 0, 0
  apply = jax.jit(
    lambda ids, valid: gpt2.Gpt2(source.size).apply({'params': params}, ids, ids, valid)['lm']
  )
  for batch in data.held_out():
    logits = np.asarray(apply(batch['input_ids'], batch['valid']), np.float64)
    chosen = np.take_along_axis(logits, batch['targets'][..., None], -1)[..., 0]
    total += (np.log(np.exp(logits).sum(-1)) - chosen).sum()
    right += (logits.argmax(-1) == batch['targets']).sum()
    count += batch['targets'].size
  assert born.result['metrics']['lm_loss'] == pytest.approx(total / count, abs=1e-4)
  assert born.result['metrics']['lm_accuracy'] == pytest.approx(right / count, abs=1e-3)


def test_stopped_it_goes_on_bit_for_bit(born, tmp_path):
  folder = tiny_runs.stopped(tmp_path / 'run', 'train 9/12', **GPT2)
  lines = []
  result = tiny_runs.train(tiny_runs.config(**GPT2), folder, say=lines.append)
  assert any('goes on at step 8' in line for line in lines)
  assert tiny_runs.plain(result) == tiny_runs.plain(born.result)
  assert tiny_runs.same_weights(folder, born.folder)


def test_fine_tuned_it_stays_pruned_and_is_exported(born, tuned):
  rows, folder, out = tuned
  assert [row['members'] for row in rows] == [2, 2]
  before, _ = gpt2_hf.load(born.folder / 'model', heads=())
  after, size = gpt2_hf.load(folder / 'model', heads=('classifier',))
  assert size.num_labels == 2 and after['classifier']['kernel'].shape == (16, 2)
  after = flat(after)
  for path, leaf in flat(before).items():
    if re.fullmatch(gpt2.PRUNABLE, path):
      assert (after[path][leaf == 0] == 0).all() and (after[path] != leaf).any(), path
  assert set(rows[0]['metrics']) == {
    'dev_loss',
    'matthews',
    'accuracy',
    'train_loss',
    'majority',
    'sparsity',
  }
  assert rows[0]['metrics'] != rows[1]['metrics']
  half, _ = gpt2_hf.load(out, heads=('classifier',))
  for path, leaf in flat(half).items():
    np.testing.assert_allclose(leaf, after[path], rtol=2**-8, atol=1e-30)
  assert (out / 'vocab.json').read_text() == (born.folder / 'model' / 'vocab.json').read_text()


def test_features_of_every_layer(born):
  config = tiny_runs.config(**{**GPT2, 'init': str(born.folder / 'model')})
  source, data = program.read_inputs(recipe.resolve(config))
  params, _ = gpt2_hf.load(born.folder / 'model')
  batches = hidden_states.text(data.held_out(), 100)
  read = hidden_states.reader(gpt2.Gpt2(source.size, ()))
  states = [read(params, batch) for batch in batches]
  mean, _, tokens = hidden_states.compare(read, params, states, batches)
  assert len(mean) == 2 and np.allclose(mean, 1, atol=1e-5) and tokens >= 100


def test_dry_cost_counts_a_decoder():
  config = tiny_runs.config(**GPT2)
  config.update(steps=1, batch_size=1)
  config.prune.weights.schedule = ''
  size = convert.size_class(families.FAMILIES['gpt2'].config)(
    vocab_size=300, n_embd=16, n_layer=1, n_head=2, n_inner=32, n_positions=16
  )
  shapes = gpt2_hf._shapes(size, ('lm',))
  told = estimate.estimate(recipe.resolve(config))
  assert told['parameters'] == sum(int(np.prod(s)) for s in shapes.values())
  kernels = (
    4 * 16 * 16 + 2 * 16 * 32
  )  # each token meets these, and the word table where it is predicted
  assert told['flops'] == 6 * 16 * (kernels + 300 * 16) + 6 * 2 * 16**2 * 16


def test_runs_of_bert_are_called_what_they_were():
  """A key that came later changes no hash and no work directory of a BERT."""
  stored = {
    row['cell']
    for row in ledger.read(tiny_runs.ROOT / 'experiments' / 'gordon2020' / 'results.jsonl')
  }
  assert stored <= {grid.key(cell) for cell in gordon2020.cells('quick', {})}
  from prunejax.train import configs

  assert 'kind' not in configs.identity(tiny_runs.config())['model']
  assert configs.identity(tiny_runs.config(**GPT2))['model']['kind'] == 'gpt2'
  optimizer.make(recipe.resolve(tiny_runs.config(**GPT2)))


def refused(capsys, changes, *words):
  status = command.main(tiny_runs.argv('train', tiny_runs.home() / 'never', **changes))
  said = capsys.readouterr().err.strip()
  assert status == 2 and len(said.splitlines()) == 1 and all(word in said for word in words), said
  assert not (tiny_runs.home() / 'never').exists()


@pytest.mark.parametrize(
  ('changes', 'words'),
  [
    ({'model__kind': 'gpt3'}, ["model.kind='gpt3'", 'gpt2']),
    ({**GPT2, 'data__vocab_size': 120}, ['data.vocab_size=120', '257']),
    ({**GPT2, 'data__vocab': '/nowhere'}, ['/nowhere', 'vocab.json']),
    ({**GPT2, 'data__vocab': str(inputs.NANO)}, ['tokenizer.json']),
    ({**GPT2, 'data__seq_len': 99}, ['data.seq_len=99', '16 positions']),
    ({**GPT2, 'data__seq_len': 1}, ['data.seq_len=1']),
    ({**GPT2, 'model__num_attention_heads': 3}, ['hidden_size=16', 'num_attention_heads=3']),
  ],
)
def test_wrong_input_is_one_line(changes, words, capsys):
  refused(capsys, changes, *words)


def test_a_folder_of_another_model_is_named(born, capsys, tmp_path):
  folder = shutil.copytree(born.folder / 'model', tmp_path / 'model')
  raw = json.loads((folder / 'config.json').read_text())
  (folder / 'config.json').write_text(json.dumps({**raw, 'model_type': 'electra'}))
  refused(capsys, {'init': str(folder)}, 'electra', 'bert, gpt2')
