"""Folders as other programs write them: what they say is carried through, or refused by name."""

import json
import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
import tiny_runs
import transformers
from checkpoint_cases import PIECES, REFERENCE, assert_same_bits, flat

from prunejax.compress import sparse_file
from prunejax.data import bpe, vocabulary, wordpiece
from prunejax.models.hf import bert as bert_hf
from prunejax.models.hf import folder as hf_folder
from prunejax.train import export, families, inputs, optimizer, recipe, saved_model
from prunejax.train import program as programs

GPT2 = REFERENCE.parent / 'gpt2'
TEXTS = ['Straße Führt 中文 x', 'foo bar Foo Bar Zürich zürich <e1>bars', "don't stop, 1999!", '']


def source_of(folder, vocab=''):
  return inputs.source(str(folder), {}, vocab, 0, '', None, None)


def rewrite(path, **changes):
  """Changes keys of a JSON file. What is no longer as it was written has no checksums."""
  (path.parent / 'checksums.json').unlink(missing_ok=True)
  path.write_text(
    json.dumps({**(json.loads(path.read_text()) if path.exists() else {}), **changes})
  )


@pytest.fixture
def folder(tmp_path):
  return pathlib.Path(shutil.copytree(REFERENCE, tmp_path / 'bert'))


# ---- the tokenizer


def plain(directory):
  """A folder with vocab.txt of a few words and letters, and no weights."""
  directory.mkdir()
  letters = [chr(c) for c in range(ord('a'), ord('z') + 1)] + list("ABCDEFZSüß0123456789!,’'")
  words = ['foo', 'bar', 'stop', 'zurich', 'zürich', 'Zürich', '中', '文', '[unused1]']
  pieces = [*wordpiece.SPECIAL, *letters, *(f'##{letter}' for letter in letters), *words]
  (directory / 'vocab.txt').write_text(''.join(f'{piece}\n' for piece in pieces))
  rewrite(directory / 'config.json', model_type='bert', vocab_size=len(pieces))
  return directory


def cased(directory):
  rewrite(
    directory / 'tokenizer_config.json',
    tokenizer_class='BertTokenizer',
    do_lower_case=False,
    strip_accents=True,
    tokenize_chinese_chars=False,
  )


def with_accents(directory):
  rewrite(directory / 'tokenizer_config.json', tokenizer_class='BertTokenizer', strip_accents=False)


def with_added_tokens(directory):
  size = len((directory / 'vocab.txt').read_text().splitlines())
  rewrite(directory / 'added_tokens.json', **{'foo bar': size, 'Zürich!': size + 1})


def saved_again(directory):
  """As transformers 5 writes it: tokenizer.json, and no vocab.txt."""
  with_accents(directory)
  theirs = transformers.AutoTokenizer.from_pretrained(directory)
  theirs.add_tokens([transformers.AddedToken('bar', single_word=True), 'foo bar'])
  theirs.add_special_tokens({'additional_special_tokens': ['<e1>', '[unused1]']})
  theirs.save_pretrained(directory)
  (directory / 'vocab.txt').unlink()
  assert (directory / 'tokenizer.json').exists()


@pytest.mark.parametrize(
  'change', [lambda d: None, cased, with_accents, with_added_tokens, saved_again]
)
def test_a_tokenizer_is_that_of_transformers_and_survives_export(change, tmp_path):
  directory = plain(tmp_path / 'theirs')
  change(directory)
  ours = wordpiece.load(directory)
  params, size = bert_hf.load(REFERENCE)
  size.vocab_size = ours.get_vocab_size()
  assert len(hf_folder.read_vocab(directory)) == size.vocab_size
  params['embeddings']['word']['embedding'] = np.ones((size.vocab_size, 24), np.float32)
  params['mlm']['bias'] = np.zeros(size.vocab_size, np.float32)
  families.save(tmp_path / 'ours', params, size, ours)
  again = wordpiece.load(tmp_path / 'ours')
  assert wordpiece.fingerprint(again) == wordpiece.fingerprint(ours)
  for where in (directory, tmp_path / 'ours'):
    theirs = transformers.AutoTokenizer.from_pretrained(where)
    assert len(theirs) == size.vocab_size
    for text in TEXTS:
      assert theirs(text)['input_ids'] == ours.encode(text).ids == again.encode(text).ids


def test_every_setting_changes_the_fingerprint(tmp_path):
  seen = set()
  for i, change in enumerate((lambda d: None, cased, with_accents, with_added_tokens, saved_again)):
    change(plain(tmp_path / str(i)))
    seen.add(wordpiece.fingerprint(wordpiece.load(tmp_path / str(i))))
  assert len(seen) == 5


def test_added_tokens_of_gpt2_are_that_of_transformers_and_survive(tmp_path):
  shutil.copytree(GPT2, tmp_path / 'theirs')
  theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / 'theirs')
  theirs.add_tokens(['the cat'])
  theirs.add_special_tokens({'pad_token': '<|pad|>'})
  theirs.save_pretrained(tmp_path / 'theirs')
  for name in ('vocab.json', 'merges.txt'):
    (tmp_path / 'theirs' / name).unlink(missing_ok=True)
  ours = bpe.load(tmp_path / 'theirs')
  params, size = families.FAMILIES['gpt2'].files.load(GPT2)
  size.vocab_size = ours.get_vocab_size()
  assert size.vocab_size == len(theirs) == 283
  params['embeddings']['word']['embedding'] = np.ones((283, 24), np.float32)
  families.save(tmp_path / 'ours', params, size, ours)
  again = bpe.load(tmp_path / 'ours')
  assert bpe.fingerprint(again) == bpe.fingerprint(ours) != bpe.fingerprint(bpe.load(GPT2))
  exported = transformers.AutoTokenizer.from_pretrained(tmp_path / 'ours')
  for text in ('on the cat<|pad|>sat', 'the  cat', '<|endoftext|>x'):
    ids = theirs(text)['input_ids']
    assert ids == ours.encode(text).ids == again.encode(text).ids == exported(text)['input_ids']


@pytest.mark.parametrize(
  ('file', 'changes', 'words'),
  [
    ('tokenizer_config.json', {'strip_accents': 'no'}, 'strip_accents=.no.: expected true or fa'),
    ('tokenizer_config.json', {'tokenize_chinese_chars': None}, 'tokenize_chinese_chars=None'),
    ('tokenizer_config.json', {'do_basic_tokenize': False}, 'do_basic_tokenize=False'),
    ('tokenizer_config.json', {'mask_token': '<mask>'}, "mask_token='<mask>': expected '.MASK.'"),
    ('tokenizer_config.json', {'never_split': ['a']}, 'never_split'),
    ('added_tokens.json', {'new': 300}, r'added tokens, \[300\], do not go on'),
    ('added_tokens.json', {'new': 1}, r"added tokens, \['new'\], do not go on"),
    ('added_tokens.json', {'new': '61'}, 'added token'),
    ('added_tokens.json', {'': 61}, 'added token'),
    ('added_tokens.json', {PIECES[9]: 61}, 'has the id 61, and is the piece 9 already'),
    ('special_tokens_map.json', {'additional_special_tokens': [3]}, 'expected names'),
    ('vocab.txt', 'a\nb\n', '61 pieces and vocab.txt beside it has 2'),
  ],
)
def test_what_a_tokenizer_says_and_we_do_not_do_is_refused(file, changes, words, folder, tmp_path):
  if file == 'vocab.txt':
    (folder / 'tokenizer.json').write_text(wordpiece.load(folder).to_str())
    (folder / file).write_text(changes)
  else:
    rewrite(folder / file, **changes)
  with pytest.raises(ValueError, match=words) as error:
    wordpiece.load(folder)
  assert str(folder) in str(error.value) and '\n' not in str(error.value)


@pytest.mark.parametrize(
  ('part', 'value', 'words'),
  [
    ('normalizer', {'type': 'Lowercase'}, 'normalizer .*Lowercase.*: expected BertNormalizer'),
    ('normalizer', None, 'normalizer None: expected BertNormalizer'),
    ('pre_tokenizer', {'type': 'Whitespace'}, 'pre_tokenizer .*Whitespace'),
    ('post_processor', {'type': 'RobertaProcessing'}, 'post_processor .*Roberta'),
    ('clean_text', False, 'clean_text'),
    ('max_input_chars_per_word', 5, 'max_input_chars_per_word=5 in its model: expected 100'),
    ('unk_token', '<unk>', "unk_token='<unk>' in its model"),
  ],
)
def test_a_tokenizer_json_that_is_not_berts_is_refused(part, value, words, folder):
  rules = json.loads(wordpiece.load(folder).to_str())
  inside = {'clean_text': 'normalizer', 'max_input_chars_per_word': 'model', 'unk_token': 'model'}
  (rules[inside[part]] if part in inside else rules)[part] = value
  (folder / 'tokenizer.json').write_text(json.dumps(rules))
  with pytest.raises(ValueError, match=words) as error:
    wordpiece.load(folder)
  assert str(folder) in str(error.value)


def test_a_tokenizer_of_a_third_kind_is_named(folder):
  rules = {'model': {'type': 'Unigram', 'vocab': [['a', -1.5]]}}
  (folder / 'tokenizer.json').write_text(json.dumps(rules))
  for read in (wordpiece.load, bpe.load, hf_folder.read_vocab):
    with pytest.raises(
      ValueError, match='tokenizer.json.* has 1 pieces and vocab.txt .* not the same'
    ):
      read(folder)
  (folder / 'vocab.txt').unlink()
  with pytest.raises(ValueError, match='tokenizer.json.*expected'):
    wordpiece.load(folder)
  with pytest.raises(ValueError, match='no BPE vocabulary'):
    bpe.load(folder)


def test_devices_are_no_vocabulary():
  for read in (vocabulary.read, hf_folder.read_vocab, wordpiece.load, bpe.load):
    with pytest.raises(ValueError, match='/dev/zero. is no regular file'):
      read('/dev/zero')


# ---- a folder that is trained


def prepared(init, **changes):
  """(recipe, source, program, shapes) of a run that starts from a folder."""
  resolved = recipe.resolve(tiny_runs.config(False, init=str(init), **changes))
  source, data = programs.read_inputs(resolved)
  tx = optimizer.make(resolved)
  program = programs.build(resolved, source, data, tx, tiny_runs.COMPILED)
  return resolved, source, program, programs.abstract_state(resolved, program, tx)['params']


def test_a_vocabulary_padded_to_a_multiple_trains_and_is_exported(tmp_path):
  parent = tiny_runs.finished('pruned').folder / 'model'
  params, size = bert_hf.load(parent)
  rows = -(-(size.vocab_size + 1) // 8) * 8
  more = rows - size.vocab_size
  words = params['embeddings']['word']
  words['embedding'] = np.pad(words['embedding'], ((0, more), (0, 0)))
  params['mlm']['bias'] = np.pad(params['mlm']['bias'], (0, more))
  size.vocab_size = rows
  bert_hf.save(tmp_path / 'padded', params, size, vocab=parent)
  config = tiny_runs.config(False, init=str(tmp_path / 'padded'), steps=2)
  result = tiny_runs.train(config, tmp_path / 'run')
  assert np.isfinite(result['metrics']['mlm_loss'])
  assert bert_hf.load(tmp_path / 'run' / 'model')[1].vocab_size == rows
  more = ''.join(f'{i}\n' for i in range(more + 1))
  with open(tmp_path / 'padded' / 'vocab.txt', 'a') as stream:
    stream.write(more)
  with pytest.raises(ValueError, match=f'of {rows + 1} pieces does not fit the {rows} rows'):
    source_of(tmp_path / 'padded')


def test_a_folder_as_transformers_saves_it_trains_and_is_exported(tmp_path):
  parent = tiny_runs.finished('pruned').folder / 'model'
  theirs = shutil.copytree(parent, tmp_path / 'theirs')
  transformers.AutoTokenizer.from_pretrained(parent).save_pretrained(theirs)
  for name in ('vocab.txt', 'checksums.json'):
    (theirs / name).unlink()
  assert (theirs / 'tokenizer.json').exists()
  resolved, source, program, shapes = prepared(theirs)
  assert wordpiece.fingerprint(source.tokenizer) == wordpiece.fingerprint(wordpiece.load(parent))
  assert_same_bits(
    programs.pretrained(resolved, source, program, shapes, pytest.fail), bert_hf.load(parent)[0]
  )
  export.export(theirs, tmp_path / 'out', say=lambda line: None)
  assert (tmp_path / 'out' / 'vocab.txt').read_text() == (parent / 'vocab.txt').read_text()


@pytest.mark.parametrize(
  ('architecture', 'gone', 'named'),
  [
    ('BertForMaskedLM', ('bert.pooler', 'cls.seq'), 'nsp, pooler'),
    ('BertModel', ('cls.',), 'mlm, nsp'),
    ('BertForSequenceClassification', ('cls.',), 'mlm, nsp'),
  ],
)
def test_missing_heads_are_drawn_and_named(architecture, gone, named, tmp_path):
  parent = tiny_runs.finished('pruned').folder / 'model'
  shutil.copytree(parent, tmp_path / 'headless')
  path = tmp_path / 'headless' / 'model.safetensors'
  left = {k: v for k, v in safetensors.numpy.load_file(path).items() if not k.startswith(gone)}
  (path.parent / 'checksums.json').unlink(missing_ok=True)
  safetensors.numpy.save_file(left, path)
  rewrite(tmp_path / 'headless' / 'config.json', architectures=[architecture])
  resolved, source, program, shapes = prepared(tmp_path / 'headless')
  lines = []
  loaded = programs.pretrained(resolved, source, program, shapes, lines.append)
  assert lines == [f'init={str(tmp_path / "headless")!r} has no {named}: drawn with seed=0']
  assert sorted(flat(shapes).keys() - flat(loaded).keys()) == sorted(
    name for name in flat(shapes) if name.split('/')[0] in named.split(', ')
  )
  state = programs.initial_state(resolved, program, optimizer.make(resolved), loaded)
  assert flat(state['params']).keys() == flat(shapes).keys()


def test_a_head_that_is_there_in_part_is_an_error(tmp_path):
  parent = tiny_runs.finished('pruned').folder / 'model'
  shutil.copytree(parent, tmp_path / 'partial')
  path = tmp_path / 'partial' / 'model.safetensors'
  tensors = safetensors.numpy.load_file(path)
  del tensors['cls.predictions.bias']
  (path.parent / 'checksums.json').unlink(missing_ok=True)
  safetensors.numpy.save_file(tensors, path)
  with pytest.raises(ValueError, match='missing: cls.predictions.bias'):
    programs.pretrained(*prepared(tmp_path / 'partial'))


def test_a_model_without_pooler_is_exported_in_every_form(tmp_path):
  pytest.importorskip('onnx')
  parent = tiny_runs.finished('pruned').folder / 'model'
  shutil.copytree(parent, tmp_path / 'mlm')
  path = tmp_path / 'mlm' / 'model.safetensors'
  gone = ('bert.pooler', 'cls.seq')
  left = {k: v for k, v in safetensors.numpy.load_file(path).items() if not k.startswith(gone)}
  (path.parent / 'checksums.json').unlink(missing_ok=True)
  safetensors.numpy.save_file(left, path)
  rewrite(tmp_path / 'mlm' / 'config.json', architectures=['BertForMaskedLM'])
  for form in export.FORMS:
    export.export(tmp_path / 'mlm', tmp_path / form, to=form, say=lambda line: None)
  again = safetensors.numpy.load_file(tmp_path / 'hf' / 'model.safetensors')
  assert again.keys() == left.keys()
  assert saved_model.load(tmp_path / 'hf').size.architectures == ['BertForMaskedLM']


# ---- the names of classes


def tuned():
  parent = tiny_runs.finished('pruned')
  return tiny_runs.finished(
    'tuned',
    pruned=False,
    init=str(parent.folder / 'model'),
    data__task='glue/cola',
    hold_zeros=True,
    eval__batch_size=20,
  )


COLA = ('unacceptable', 'acceptable')


@pytest.mark.parametrize(
  ('names', 'order'),
  [
    (COLA, (0, 1)),
    (('Acceptable', 'UNACCEPTABLE'), (1, 0)),
    (('LABEL_0', 'LABEL_1'), (0, 1)),
    (('negative', 'positive'), 'its classes are negative, positive, those of the task unaccepta'),
  ],
)
def test_classes_go_by_their_names(names, order, tmp_path):
  theirs = shutil.copytree(tuned().folder / 'model', tmp_path / 'theirs')
  assert json.loads((theirs / 'config.json').read_text())['id2label'] == {
    str(i): name for i, name in enumerate(COLA)
  }
  permuted = {str(i): name for i, name in enumerate(names)}
  rewrite(
    theirs / 'config.json', id2label=permuted, label2id={v: int(k) for k, v in permuted.items()}
  )
  lines, run = [], prepared(theirs, data__task='glue/cola', eval__batch_size=20)
  loaded = programs.pretrained(*run, lines.append)
  stored, _ = bert_hf.load(theirs, heads=('classifier',))
  if isinstance(order, str):
    assert 'classifier' not in loaded and len(lines) == 1 and order in lines[0]
    return
  assert not lines
  for leaf in ('kernel', 'bias'):
    wanted = np.take(stored['classifier'][leaf], order, -1)
    np.testing.assert_array_equal(loaded['classifier'][leaf], wanted)


def test_a_permuted_model_has_the_same_accuracy_and_exports_its_names(tmp_path):
  theirs = shutil.copytree(tuned().folder / 'model', tmp_path / 'theirs')
  path = theirs / 'model.safetensors'
  tensors = safetensors.numpy.load_file(path)
  turned = {k: v[::-1].copy() if k.startswith('classifier') else v for k, v in tensors.items()}
  (path.parent / 'checksums.json').unlink(missing_ok=True)
  safetensors.numpy.save_file(turned, path)
  rewrite(
    theirs / 'config.json',
    id2label={'0': 'acceptable', '1': 'unacceptable'},
    label2id={'acceptable': 0, 'unacceptable': 1},
  )
  resolved, source, program, shapes = prepared(theirs, data__task='glue/cola', eval__batch_size=20)
  ours, _ = bert_hf.load(tuned().folder / 'model', heads=('classifier',))
  assert_same_bits(programs.pretrained(resolved, source, program, shapes), ours)
  export.export(theirs, tmp_path / 'out', say=lambda line: None)
  assert transformers.AutoConfig.from_pretrained(tmp_path / 'out').id2label == {
    0: 'acceptable',
    1: 'unacceptable',
  }
  np.testing.assert_array_equal(
    safetensors.numpy.load_file(tmp_path / 'out' / 'model.safetensors')['classifier.weight'],
    turned['classifier.weight'],
  )


def test_another_kind_of_problem_is_named():
  stored = {'kernel': np.ones((4, 2)), 'bias': np.ones(2)}
  size = transformers.BertConfig(problem_type='multi_label_classification')
  assert 'multi_label_classification' in families.in_order(stored, size, COLA)
  assert 'it has 2 outputs, the task 1' in families.in_order(
    stored, transformers.BertConfig(), None
  )


# ---- the sparse file as a model


def test_a_sparse_file_is_a_model(tmp_path):
  run = tiny_runs.finished('pruned').folder
  lines = []
  export.export(run, tmp_path / 'a.safetensors', to='sparse', say=lines.append)
  export.export(tmp_path / 'a.safetensors', tmp_path / 'back', say=lines.append)
  ours, _ = bert_hf.load(run / 'model')
  assert_same_bits(bert_hf.load(tmp_path / 'back')[0], ours)
  for name in ('vocab.txt', 'tokenizer_config.json'):
    assert (tmp_path / 'back' / name).read_text() == (run / 'model' / name).read_text()
  settings = prepared(tmp_path / 'a.safetensors')
  assert_same_bits(programs.pretrained(*settings), ours)
  sparse_file.write(tmp_path / 'b.safetensors', flat(ours))
  with pytest.raises(ValueError, match='b.safetensors. holds weights without a config.json'):
    source_of(tmp_path / 'b.safetensors')
  with pytest.raises(ValueError, match='expected a folder, or a sparse file'):
    source_of(run / 'model' / 'model.safetensors')
  with pytest.raises(FileNotFoundError, match='is no folder'):
    source_of('/dev/zero')


# ---- casts


def test_export_counts_the_weights_that_a_cast_makes_zero(tmp_path):
  run = tiny_runs.finished('pruned').folder / 'model'
  params, size = bert_hf.load(run)
  kernel = params['encoder']['layer_0']['ffn']['output']['kernel']
  params['encoder']['layer_0']['ffn']['output']['kernel'] = np.sign(kernel) * np.float32(1e-9)
  lost, weights = np.count_nonzero(kernel), sum(map(np.size, jax.tree.leaves(params)))
  bert_hf.save(tmp_path / 'small', params, size, vocab=run)
  for dtype, words in (
    ('float16', f'{lost:,} of {weights:,} weights were not zero and are zero as float16'),
    ('bfloat16', ''),
  ):
    lines = []
    export.export(tmp_path / 'small', tmp_path / dtype, dtype, say=lines.append)
    assert words in lines[0] and ('were not zero' in lines[0]) == bool(words)
  assert bert_hf.save(tmp_path / 'again', params, size, dtype='float16') == lost
  lines = []
  export.export(tmp_path / 'small', tmp_path / 'int8', 'int8', 'sparse', say=lines.append)
  assert 'zeros are zeros' in lines[0]
  params['encoder']['layer_0']['ffn']['output']['kernel'][0] = 1.0
  bert_hf.save(tmp_path / 'mixed', params, size, vocab=run)
  export.export(tmp_path / 'mixed', tmp_path / 'mixed.int8', 'int8', 'sparse', say=lines.append)
  assert 'weights that were not zero became zero' in lines[1]


def test_the_model_of_a_run_is_what_jax_computes():
  """A spelling of an activation that the core knows computes the same."""
  params, size = bert_hf.load(REFERENCE)
  ids = jnp.arange(6)[None] + 5
  logits = {}
  for name in ('gelu_new', 'gelu_fast', 'gelu_pytorch_tanh', 'gelu', 'gelu_python'):
    size.hidden_act = name
    model = families.make(json.dumps(size.to_dict()), ('mlm',))
    logits[name] = model.apply({'params': params}, ids, 0 * ids, ids > 0)['mlm']
  np.testing.assert_array_equal(logits['gelu_new'], logits['gelu_fast'])
  np.testing.assert_array_equal(logits['gelu_new'], logits['gelu_pytorch_tanh'])
  np.testing.assert_array_equal(logits['gelu'], logits['gelu_python'])
  assert np.abs(logits['gelu'] - logits['gelu_new']).max() > 0
  assert len(PIECES) == 61
