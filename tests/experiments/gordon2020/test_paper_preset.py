"""Preset `paper` from end to end, on stand-ins: a TFDS folder and a Hugging Face folder."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_runs
import transformers
from tfds_builders import local_glue, text_corpus

from prunejax import __main__ as command
from prunejax.data import glue
from prunejax.models import bert
from prunejax.models.hf import bert as bert_hf
from prunejax.report import ledger

WORDS = [a + b for a in 'b d f g k l m n p r s t'.split() for b in ('a', 'eni', 'oru', 'ist', 'u')]
HEADS = {
  'mnli': 'index\tgenre\tsentence1\tsentence2\tlabel1\tgold_label\n',
  'sst2': 'sentence\tlabel\n',
}


def rows(task, count, rng):
  text = HEADS[task]
  for i in range(count):
    a, b = (' '.join(rng.choice(WORDS, 5)) for _ in range(2))
    label = ('entailment', 'neutral', 'contradiction')[i % 3]
    text += f'{i}\tg\t{a}\t{b}\tneutral\t{label}\n' if task == 'mnli' else f'{a} \t{i % 2}\n'
  return text


@pytest.fixture(scope='module')
def data_dir(tmp_path_factory):
  """English Wikipedia, MNLI and SST-2 as TFDS prepares them, a few lines of each."""
  folder, raw, rng = (
    tmp_path_factory.mktemp('tfds'),
    tmp_path_factory.mktemp('raw'),
    np.random.default_rng(0),
  )
  for task in HEADS:
    (raw / glue.TASKS[task].folder).mkdir()
    names = {name for _, name in glue.TASKS[task].files} | {
      'test.tsv',
      'test_matched.tsv',
      'test_mismatched.tsv',
    }
    for name in sorted(names):
      (raw / glue.TASKS[task].folder / name).write_text(rows(task, 24, rng))
    local_glue(raw)(config=task, data_dir=folder, file_format='array_record').download_and_prepare()
  texts = [p.read_text() for p in sorted((tiny_runs.home() / 'text').iterdir())]
  wikipedia = text_corpus('wikipedia', texts, '20230601.en')
  wikipedia(
    config='20230601.en', data_dir=folder, file_format='array_record'
  ).download_and_prepare()
  return folder


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
  """A Hugging Face folder with config.json, model.safetensors and vocab.txt: BERT, two layers."""
  folder = tmp_path_factory.mktemp('bert')
  vocab = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', '.', *WORDS]
  size = transformers.BertConfig(
    vocab_size=len(vocab),
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=32,
    max_position_embeddings=32,
    architectures=['BertForPreTraining'],
  )
  model = bert.Bert(size, ('mlm', 'nsp'))
  blank = jnp.zeros((1, 8), jnp.int32)
  params = model.init(jax.random.key(0), blank, blank, blank == 0)['params']
  bert_hf.save(folder, jax.tree.map(np.asarray, params), size, vocab=vocab)
  return folder


@pytest.mark.slow
def test_the_paper_preset_runs_from_tfds_and_hugging_face_folders(
  data_dir, weights, tmp_path, capsys
):
  out = tmp_path / 'run'
  argv = [
    'reproduce',
    'gordon2020',
    '--preset=paper',
    f'--workdir={out}',
    '--tasks=tfds/glue/mnli',
    '--sparsities=0.5',
    '--rates=2e-5',
    '--scale=0.00002',
    f'--config.init={weights}',
    f'--config.data.root={data_dir}',
    f'--config.data.cache={tmp_path / "cache"}',
    '--config.data.seq_len=16',
    '--config.batch_size=4',
    '--config.eval.batches=1',
    '--config.eval.batch_size=8',
    '--config.log.tensorboard=false',
  ]
  assert command.main(argv) == 0
  said = capsys.readouterr().out
  found = ledger.read(out / 'ledger.jsonl')
  cells = [row for row in found if row['stage'] in ('pretrain', 'finetune')]
  arms = {(row['stage'], row['arm'], row['sparsity'], row['task']) for row in cells}
  tuned = {(arm, s, task) for stage, arm, s, task in arms if stage == 'finetune'}
  assert {(arm, s) for arm, s, _ in tuned} == {
    ('dense', 0.0),
    ('before', 0.0),
    ('deleted', 0.0),
    ('random', 0.0),
    ('after', 0.0),
    ('pruned', 0.5),
    ('deleted', 0.5),
    ('random', 0.5),
    ('after', 0.5),
  }
  assert {arm for stage, arm, _, _ in arms if stage == 'pretrain'} == {
    'burned in',
    'dense',
    'pruned',
    'random',
  }
  by = {(row['arm'], row['task'], row['sparsity']): row for row in cells}
  assert all(
    np.isfinite(row['metrics']['loss' if row['stage'] == 'pretrain' else 'train_loss'])
    for row in cells
  )
  start = {row['arm']: row['parent'] for row in cells if row['task'] == 'tfds/glue/mnli'}
  assert start['after'] == by['before', 'tfds/glue/mnli', 0.0]['cell']
  assert by['before', 'tfds/glue/mnli', 0.0]['parent'] == by['burned in', '', 0.0]['cell']
  for arm in ('pruned', 'random', 'after'):
    assert abs(by[arm, 'tfds/glue/mnli', 0.5]['metrics']['sparsity'] - 0.5) < 0.01
  assert by['dense', 'tfds/glue/mnli', 0.0]['metrics']['majority'] == 1 / 3
  assert json.loads((out / 'grid.json').read_text())['preset'] == 'paper'
  assert 'report' in said and (out / 'report.html').exists()


@pytest.mark.parametrize(
  'change, words',
  [
    ({'--config.init': 'nowhere'}, ["init='nowhere'", 'no folder']),
    ({'--config.data.root': 'nowhere'}, ['nowhere', 'tfds']),
    ({'--tasks': 'tfds/glue/mnl'}, ["'tfds/glue/mnl'", 'mnli']),
    ({'--config.seed': '7'}, ['--config.seed=7', '--seeds']),
    ({'--config.prune.weights.schedule': 'constant(0.5)'}, ['--sparsities']),
    ({'--arms': 'controle'}, ["'controle'", "did you mean 'controls'"]),
    ({'--rates': '0'}, ['--rates', '0']),
    ({'--rates': 'fast'}, ["'fast'", 'numbers joined by commas']),
    ({'--tasks': 'tfds/glue/sst2@few'}, ["'tfds/glue/sst2@few'", 'number']),
  ],
)
def test_wrong_input_is_one_line_and_nothing_is_written(
  change, words, data_dir, weights, tmp_path, capsys
):
  given = {
    '--config.init': weights,
    '--config.data.root': data_dir,
    '--tasks': 'tfds/glue/sst2',
    **change,
  }
  argv = [
    'reproduce',
    'gordon2020',
    '--preset=paper',
    f'--workdir={tmp_path / "run"}',
    '--scale=0.00002',
    '--config.data.seq_len=16',
    f'--config.data.cache={tmp_path / "cache"}',
  ]
  assert command.main([*argv, *[f'{k}={v}' for k, v in given.items()]]) != 0
  said = capsys.readouterr().err
  assert len(said.strip().splitlines()) == 1 and all(
    word.lower() in said.lower() for word in words
  ), said
  assert (
    not list((tmp_path / 'run').glob('cells/*/model'))
    and not (tmp_path / 'run' / 'ledger.jsonl').exists()
  )
