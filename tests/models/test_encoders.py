"""RoBERTa, ModernBERT and XLNet against logits stored from the PyTorch classes.

tests/reference/make_encoder_references.py made them.
"""

import json
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
import transformers
from checkpoint_cases import assert_same_bits, flat, refusal

from prunejax.data import encoder_bpe
from prunejax.models import bert, modernbert, roberta, xlnet
from prunejax.models.hf import bert as bert_hf
from prunejax.models.hf import modernbert as modernbert_hf
from prunejax.models.hf import roberta as roberta_hf
from prunejax.models.hf import xlnet as xlnet_hf

REFERENCE = pathlib.Path(__file__).parents[1] / 'reference'
FILES = {'roberta': roberta_hf, 'modernbert': modernbert_hf, 'xlnet': xlnet_hf}
MODELS = {'roberta': roberta.Roberta, 'modernbert': modernbert.ModernBert, 'xlnet': xlnet.Xlnet}
MODULES = {'roberta': roberta, 'modernbert': modernbert, 'xlnet': xlnet}
HEAD = {'roberta': 'mlm', 'modernbert': 'mlm', 'xlnet': 'lm'}


@pytest.fixture(scope='module', params=sorted(FILES))
def family(request):
  return request.param


def stored(name):
  with np.load(REFERENCE / name / 'logits.npz') as file:
    return dict(file)


def run(name, part='', **given):
  """Outputs of the model in a folder of the references, in full float32 on any backend."""
  heads = ('classifier',) if part else (HEAD[name],)
  params, size = FILES[name].load(REFERENCE / name / part, heads=heads)
  model, batch = MODELS[name](size, heads, 3), stored(name)
  segments = batch.get('segment_ids', np.zeros_like(batch['input_ids']))
  apply = jax.jit(lambda *x, **more: model.apply({'params': params}, *x, **more))
  with jax.default_matmul_precision('highest'):
    return jax.device_get(apply(batch['input_ids'], segments, batch['valid'], **given))


def close(ours, theirs, where=None):
  where = np.ones(theirs.shape[:2], bool) if where is None else where
  assert np.abs(theirs[where]).max() > 0.1  # nothing is compared with zeros
  np.testing.assert_allclose(ours[where], theirs[where], rtol=0, atol=3e-4)


def test_logits_of_pretraining(family):
  want, out = stored(family), run(family)
  close(out['sequence'], want['sequence'], want['valid'])
  close(out[HEAD[family]], want[HEAD[family]], want['valid'])


def test_logits_of_a_classifier(family):
  close(run(family, 'classification')['classifier'], stored(family)['classifier'])


# The positions of an XLNet are its query stream.
@pytest.mark.parametrize('family', sorted(FILES.keys() - {'xlnet'}), indirect=True)
def test_only_predicted_positions(family):
  positions = np.array([[3, 0], [6, 2], [0, 0], [9, 1]], np.int32)
  some = run(family, positions=positions)['mlm']
  every = run(family)['mlm']
  np.testing.assert_allclose(
    some, np.take_along_axis(every, positions[..., None], axis=1), rtol=0, atol=1e-5
  )


def two_streams(**given):
  want = stored('xlnet')
  return want, run('xlnet', positions=want['positions'], permuted=want['permuted'], **given)


def test_two_streams_of_xlnet():
  want, out = two_streams()
  close(out['query'], want['query'])
  close(out['lm'], want['two_streams'])


def test_memories_of_xlnet():
  want = stored('xlnet')
  params, size = xlnet_hf.load(REFERENCE / 'xlnet')
  ids = want['memory_ids']
  apply = jax.jit(lambda ids: xlnet.Xlnet(size).apply({'params': params}, ids, 0 * ids, ids >= 0))
  before = apply(ids)['memories']
  close(np.asarray(before).reshape(-1, *before.shape[2:]), want['memories'].reshape(-1, 5, 24))
  _, out = two_streams(memories=before)
  close(out['lm'], want['remembered'])
  # Memories that may not be seen change no token that sees something else.
  hidden = two_streams(memories=before, memory_valid=np.zeros(ids.shape, bool))[1]
  visible = want['valid'][:, None, :] & ~want['permuted']
  sees = np.take_along_axis(visible.any(2), want['positions'], axis=1)
  assert sees.sum() > 6
  close(hidden['lm'], want['two_streams'], sees)


def test_no_gradient_passes_into_memories():
  want = stored('xlnet')
  params, size = xlnet_hf.load(REFERENCE / 'xlnet')
  model, ids = xlnet.Xlnet(size), want['memory_ids']

  def loss(memories):
    out = model.apply({'params': params}, ids, 0 * ids, ids >= 0, memories=memories)
    return out['lm'].sum() + out['memories'].sum()

  memories = jnp.ones((2, 4, 3, 24))
  assert not np.any(jax.jit(jax.grad(loss))(memories))
  assert abs(jax.jit(loss)(memories) - jax.jit(loss)(-memories)) > 0.1


def test_a_predicted_token_does_not_see_itself():
  want, out = two_streams()
  params, size = xlnet_hf.load(REFERENCE / 'xlnet')
  ids = want['input_ids'].copy()
  ids[:, 10] = (ids[:, 10] + 1) % 61
  # Every token but position 10 sees it last in this order: nothing that is predicted may change.
  permuted = np.zeros(want['permuted'].shape, bool)
  permuted[:, :, 10] = True
  how = {'positions': want['positions'], 'permuted': permuted}
  segments, valid = want['segment_ids'], want['valid']
  apply = jax.jit(
    lambda ids: xlnet.Xlnet(size).apply({'params': params}, ids, segments, valid, **how)
  )
  first, second = apply(want['input_ids']), apply(ids)
  np.testing.assert_array_equal(first['lm'], second['lm'])
  assert np.abs(first['sequence'][:, 10] - second['sequence'][:, 10]).max() > 0.1
  assert not np.allclose(out['lm'], first['lm'])


@pytest.mark.parametrize('part', ['', 'classification'])
def test_round_trip_keeps_every_bit_and_every_name(family, part, tmp_path):
  files, heads = FILES[family], ('classifier',) if part else (HEAD[family],)
  params, size = files.load(REFERENCE / family / part, heads=heads)
  files.save(tmp_path / 'out', params, size)
  again, _ = files.load(tmp_path / 'out', heads=heads)
  assert_same_bits(again, params)
  theirs = safetensors.numpy.load_file(REFERENCE / family / part / 'model.safetensors')
  ours = safetensors.numpy.load_file(tmp_path / 'out' / 'model.safetensors')
  assert ours.keys() == theirs.keys()
  for name in ours:
    np.testing.assert_array_equal(ours[name], theirs[name], name)
  config, was = (
    json.loads((folder / 'config.json').read_text())
    for folder in (tmp_path / 'out', REFERENCE / family / part)
  )
  assert config['architectures'] == was['architectures'] and config['model_type'] == family


def test_the_encoder_of_pretraining_is_that_of_the_classifier(family):
  files = FILES[family]
  one, _ = files.load(REFERENCE / family, heads=())
  other, _ = files.load(REFERENCE / family / 'classification', heads=())
  for path, leaf in flat(one).items():
    if path.split('/')[0] in ('encoder', 'embeddings'):
      np.testing.assert_array_equal(leaf, flat(other)[path], path)


def test_missing_and_unknown_tensors_are_named(family, tmp_path):
  files = FILES[family]
  folder = tmp_path / 'spoiled'
  folder.mkdir()
  source = REFERENCE / family
  (folder / 'config.json').write_text((source / 'config.json').read_text())
  tensors = safetensors.numpy.load_file(source / 'model.safetensors')
  lost = next(name for name in sorted(tensors) if 'layer' in name)
  del tensors[lost]
  tensors['stray.weight'] = np.zeros(3, 'f')
  safetensors.numpy.save_file(tensors, folder / 'model.safetensors')
  message = refusal(files.load, folder)
  assert lost in message and 'stray.weight' in message


@pytest.mark.parametrize(
  ('family', 'change', 'words'),
  [
    ('xlnet', {'attn_type': 'uni'}, 'attn_type'),
    ('xlnet', {'same_length': True}, 'same_length'),
    ('xlnet', {'ff_activation': 'silu'}, 'ff_activation'),
    ('modernbert', {'hidden_activation': 'silu'}, 'hidden_activation'),
    ('modernbert', {'layer_types': ['full_attention']}, 'layer_types'),
    ('roberta', {'pad_token_id': None}, 'pad_token_id'),
    ('roberta', {'tie_word_embeddings': False}, 'tie_word_embeddings'),
    ('roberta', {'num_hidden_layers': 0}, 'num_hidden_layers'),
  ],
)
def test_a_config_that_is_not_computed_is_refused(family, change, words, tmp_path):
  config = json.loads((REFERENCE / family / 'config.json').read_text())
  (tmp_path / 'config.json').write_text(json.dumps({**config, **change}))
  assert words in refusal(FILES[family].read_size, tmp_path)


def test_too_many_tokens_are_refused():
  for family, most in (('roberta', 16), ('modernbert', 18)):
    _, size = FILES[family].load(REFERENCE / family)
    ids = jax.ShapeDtypeStruct((1, most + 1), np.int32)
    with pytest.raises(ValueError, match='longer'):
      jax.eval_shape(MODELS[family](size).init, jax.random.key(0), ids, ids, ids)


def test_prunable_names_kernels_of_every_layer(family):
  params, size = FILES[family].load(REFERENCE / family / 'classification', heads=('classifier',))
  chosen = {p for p in flat(params) if re.fullmatch(MODULES[family].PRUNABLE, p)}
  layer = {p.split('layer_1/')[1] for p in chosen if 'layer_1/' in p}
  common = {f'attention/{name}/kernel' for name in ('query', 'key', 'value', 'output')}
  common |= {'ffn/intermediate/kernel', 'ffn/output/kernel'}
  own = {'roberta': set(), 'modernbert': {'ffn/gate/kernel'}}
  own['xlnet'] = {'attention/position/kernel'}
  assert layer == common | own[family]
  rest = {p for p in chosen if 'layer_' not in p}
  assert rest == {'embeddings/word/embedding'}
  assert all(flat(params)[p].ndim == 2 for p in chosen)
  # Every matrix of a layer is among them, or is named by none of BERT's either.
  every = {p for p, x in flat(params).items() if 'layer_1/' in p and p.endswith('kernel')}
  assert {p.split('layer_1/')[1] for p in every} == layer


def test_span_logits_of_bert(tmp_path):
  folder = REFERENCE / 'bert' / 'spans'
  params, size = bert_hf.load(folder, heads=('spans',))
  with np.load(folder / 'logits.npz') as file:
    want = dict(file)
  with jax.default_matmul_precision('highest'):
    out = bert.Bert(size, ('spans',)).apply(
      {'params': params}, want['input_ids'], want['segment_ids'], want['valid']
    )
  assert 'pooled' not in out
  for i, name in enumerate(('start', 'end')):
    close(np.asarray(out['spans'][..., i]), want[name], want['valid'])
  bert_hf.save(tmp_path / 'out', params, size)
  theirs = safetensors.numpy.load_file(folder / 'model.safetensors')
  ours = safetensors.numpy.load_file(tmp_path / 'out' / 'model.safetensors')
  assert ours.keys() == theirs.keys()
  for name in ours:
    np.testing.assert_array_equal(ours[name], theirs[name], name)
  config = json.loads((tmp_path / 'out' / 'config.json').read_text())
  assert config['architectures'] == ['BertForQuestionAnswering']


def test_a_modernbert_without_a_bias_of_its_decoder_goes_to_a_folder_and_back(tmp_path):
  size = transformers.ModernBertConfig(
    vocab_size=32,
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=16,
    max_position_embeddings=16,
    decoder_bias=False,
    pad_token_id=0,
  )
  ids = np.zeros((1, 4), np.int32)
  model = modernbert.ModernBert(size)
  params = jax.tree.map(np.asarray, model.init(jax.random.key(0), ids, ids, ids == 0)['params'])
  modernbert_hf.save(tmp_path / 'model', params, size)
  again, _ = modernbert_hf.load(tmp_path / 'model')
  jax.tree.map(np.testing.assert_array_equal, again, params)
  architectures = json.loads((tmp_path / 'model' / 'config.json').read_text())['architectures']
  assert architectures == ['ModernBertForMaskedLM']


def test_the_head_of_roberta_is_gelu_in_any_config():
  size = transformers.RobertaConfig(
    vocab_size=32,
    hidden_size=16,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=16,
    max_position_embeddings=18,
    hidden_act='relu',
  )
  model, ids = roberta.Roberta(size), np.array([[3, 4, 5, 6]], np.int32)
  params = model.init(jax.random.key(0), ids, 0 * ids, ids > 0)['params']
  out, head = model.apply({'params': params}, ids, 0 * ids, ids > 0), params['mlm']
  h = out['sequence'] @ head['transform']['kernel'] + head['transform']['bias']
  h = jax.nn.gelu(h, approximate=False)
  h = (h - h.mean(-1, keepdims=True)) / np.sqrt(h.var(-1, keepdims=True) + size.layer_norm_eps)
  logits = h @ params['embeddings']['word']['embedding'].T + head['bias']
  np.testing.assert_allclose(out['mlm'], logits, rtol=1e-3, atol=1e-4)


def test_a_tokenizer_of_roberta_claims_the_tokens_that_have_positions():
  size = transformers.RobertaConfig(max_position_embeddings=34, pad_token_id=1)
  vocab = encoder_bpe.train(['a small text of a few words'] * 3, 300)
  written = json.loads(roberta_hf.LAYOUT.tokenizer(vocab, size)['tokenizer_config.json'])
  assert written['model_max_length'] == 32 == roberta.longest(size)
