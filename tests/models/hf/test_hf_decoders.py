"""Folders of Llama's class and of OPT: read, written, sharded, refused."""

import json
import pathlib
import shutil

import jax
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
import tiny_llama
import tokenizers
import transformers
from flax import traverse_util

from prunejax.data import bpe, finetuning, tokenizer_file
from prunejax.data.examples import Examples
from prunejax.models.hf import folder as hf_folder
from prunejax.models.hf import llama as llama_hf
from prunejax.models.hf import opt as opt_hf
from prunejax.models.hf.folder import CheckpointError

REFERENCE = pathlib.Path(__file__).parents[2] / 'reference' / 'decoders'
CASES = sorted(path.name for path in REFERENCE.iterdir() if path.is_dir())


def files_of(case):
  return opt_hf if case.startswith('opt') else llama_hf


def heads_of(case):
  return ('classifier',) if case.endswith('classifier') else ('lm',)


def stored(folder):
  shards = [safetensors.numpy.load_file(path) for path in sorted(folder.glob('*.safetensors'))]
  return {name: array for shard in shards for name, array in shard.items()}


@pytest.mark.parametrize('case', CASES)
def test_what_is_written_is_what_was_read(case, tmp_path):
  """Tensors equal PyTorch's bit for bit: nothing is scaled, transposed twice, lost or added."""
  files, heads = files_of(case), heads_of(case)
  params, size = files.load(REFERENCE / case, heads=heads)
  before = stored(REFERENCE / case)
  dtype = 'bfloat16' if case == 'llama-tied' else 'float32'
  assert files.save(tmp_path / 'out', params, size, dtype=dtype) == 0
  after = stored(tmp_path / 'out')
  assert after.keys() == before.keys()
  for name, array in before.items():
    assert after[name].dtype == array.dtype == (ml_dtypes.bfloat16 if dtype != 'float32' else 'f4')
    np.testing.assert_array_equal(after[name], array, err_msg=name)
  old, new = (
    json.loads((f / 'config.json').read_text()) for f in (REFERENCE / case, tmp_path / 'out')
  )
  for config in (old, new):
    for key in ('transformers_version', 'attn_implementation', 'dtype', 'use_cache'):
      config.pop(key, None)
  assert {key: new.get(key) for key in old} == old


def test_query_kernels_are_those_of_the_file():
  params, _ = llama_hf.load(REFERENCE / 'qwen3')
  kernel = params['encoder']['layer_1']['attention']['query']['kernel']
  tensor = stored(REFERENCE / 'qwen3')['model.layers.1.self_attn.q_proj.weight']
  assert kernel.shape == (24, 60) and kernel.flags.c_contiguous
  np.testing.assert_array_equal(kernel, tensor.T)
  assert (
    llama_hf.hf_name('encoder/layer_1/ffn/gate/kernel') == 'model.layers.1.mlp.gate_proj.weight'
  )


def test_shards_are_written_and_read_and_a_missing_one_is_named(tmp_path):
  params, size = llama_hf.load(REFERENCE / 'llama')
  llama_hf.save(tmp_path / 'out', params, size, most=9000)
  names = sorted(path.name for path in (tmp_path / 'out').glob('*.safetensors'))
  assert len(names) > 2 and names[0] == f'model-00001-of-{len(names):05}.safetensors'
  assert all((tmp_path / 'out' / name).stat().st_size < 12_000 for name in names)
  again, _ = llama_hf.load(tmp_path / 'out')
  jax.tree.map(np.testing.assert_array_equal, params, again)
  llama_hf.save(tmp_path / 'out', params, size)  # one file takes the place of the shards
  assert not (tmp_path / 'out' / hf_folder.INDEX).exists()
  llama_hf.save(tmp_path / 'out', params, size, most=9000)
  assert not (tmp_path / 'out' / hf_folder.WEIGHTS).exists()
  jax.tree.map(np.testing.assert_array_equal, params, llama_hf.load(tmp_path / 'out')[0])
  (tmp_path / 'out' / names[1]).unlink()
  (tmp_path / 'out' / hf_folder.CHECKSUMS).unlink()
  with pytest.raises(CheckpointError, match=f'{names[1]} is missing: .*index.json lists it'):
    llama_hf.load(tmp_path / 'out')


def test_a_head_may_be_missing_or_left_out(tmp_path):
  params, size = llama_hf.load(REFERENCE / 'llama', heads=())
  assert 'lm' not in params
  with pytest.raises(CheckpointError, match="head 'classifier' was asked for and is not there"):
    llama_hf.load(REFERENCE / 'llama', heads=('classifier',))
  both, _ = llama_hf.load(REFERENCE / 'llama', heads=('lm', 'classifier'), optional=('classifier',))
  assert 'classifier' not in both and both['lm']['kernel'].shape == (24, 40)
  with pytest.raises(CheckpointError, match='missing: lm_head.weight'):
    llama_hf.load(REFERENCE / 'llama-classifier')


def config(case, **changes):
  raw = json.loads((REFERENCE / case / 'config.json').read_text())
  return {**raw, **changes}


ROPE = {'rope_type': 'default', 'rope_theta': 100.0}


@pytest.mark.parametrize(
  ('case', 'changes', 'message'),
  [
    ('llama', {'hidden_act': 'gelu'}, "hidden_act='gelu'"),
    ('llama', {'model_type': 'gemma'}, "model_type 'gemma': expected"),
    ('llama', {'architectures': ['LlamaForTokenClassification']}, 'LlamaForTokenClassification'),
    (
      'llama',
      {'rope_parameters': {**ROPE, 'rope_type': 'yarn', 'factor': 2.0}},
      "rope_type='yarn'",
    ),
    ('llama', {'rope_parameters': {**ROPE, 'rope_type': 'linear', 'factor': 2.0}}, "'linear'"),
    ('llama', {'rope_parameters': {**ROPE, 'partial_rotary_factor': 0.5}}, 'partial_rotary_factor'),
    ('llama', {'rope_parameters': {**ROPE, 'rope_theta': -1.0}}, 'rope_theta=-1.0'),
    ('llama', {'num_key_value_heads': 4}, 'num_key_value_heads=4'),
    ('llama', {'num_key_value_heads': 0}, 'num_key_value_heads=0'),
    ('llama', {'head_dim': 5}, 'head_dim'),
    ('llama', {'rms_norm_eps': -1.0}, 'rms_norm_eps=-1.0'),
    ('llama', {'num_hidden_layers': 10**6}, 'num_hidden_layers=1000000'),
    ('llama', {'hidden_size': 32}, 'hidden'),
    ('llama', {'quantization_config': {'bits': 4}}, 'quantization_config='),
    ('llama', {'mlp_bias': True}, 'missing: .*gate_proj.bias'),
    ('llama', {'heads_per_layer': [4, 6]}, r'heads_per_layer has 4: expected multiples of 3'),
    ('qwen2', {'layer_types': ['full_attention', 'chunked_attention']}, 'layer_types'),
    ('opt', {'activation_function': 'swish'}, "activation_function='swish'"),
    ('opt', {'_remove_final_layer_norm': True}, '_remove_final_layer_norm=True'),
    ('opt', {'layer_norm_elementwise_affine': False}, 'layer_norm_elementwise_affine=False'),
    ('opt', {'layerdrop': 0.1}, 'layerdrop=0.1'),
    ('opt', {'tie_word_embeddings': False}, 'tie_word_embeddings=False'),
  ],
)
def test_a_config_that_is_not_understood_is_one_clear_error(case, changes, message, tmp_path):
  shutil.copytree(REFERENCE / case, tmp_path / 'model')
  (tmp_path / 'model' / 'config.json').write_text(json.dumps(config(case, **changes)))
  with pytest.raises(CheckpointError, match=message) as error:
    files_of(case).load(tmp_path / 'model')
  assert '\n' not in str(error.value)


def test_configs_as_they_were_published_are_read(tmp_path):
  """rope_theta and rope_scaling beside the other keys, as before transformers 5."""
  raw = config('llama-rope-llama3')
  rope = raw.pop('rope_parameters')
  raw['rope_theta'] = rope.pop('rope_theta')
  raw['rope_scaling'] = rope
  shutil.copytree(REFERENCE / 'llama-rope-llama3', tmp_path / 'model')
  (tmp_path / 'model' / 'config.json').write_text(json.dumps(raw))
  _, size = llama_hf.load(tmp_path / 'model')
  _, today = llama_hf.load(REFERENCE / 'llama-rope-llama3')
  assert size.rope_parameters == today.rope_parameters


def test_a_tokenizer_is_carried_whole(tmp_path):
  _, size = tiny_llama.write(tmp_path / 'plain')
  words = tokenizers.Tokenizer.from_str(tiny_llama.tokenizer().to_str())
  words.normalizer = tokenizers.normalizers.NFC()
  words.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(
    [tokenizers.pre_tokenizers.Digits(individual_digits=True), words.pre_tokenizer]
  )
  words.post_processor = bpe.before('<|endoftext|>', 0)
  words.enable_truncation(3)
  params = tiny_llama.params(size)
  llama_hf.save(tmp_path / 'model', params, size, tokenizer=words)
  again = tokenizer_file.load(tmp_path / 'model')
  text = 'the cat 12 sat'
  words.no_truncation()
  assert again.encode(text).ids == words.encode(text).ids != tiny_llama.tokenizer().encode(text).ids
  theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / 'model')
  assert theirs(text)['input_ids'] == again.encode(text).ids
  assert theirs.eos_token == '<|endoftext|>' and theirs.bos_token is None
  assert bpe.fingerprint(again) != bpe.fingerprint(tiny_llama.tokenizer())
  assert bpe.fingerprint(tokenizer_file.load(tmp_path / 'plain')) == bpe.fingerprint(
    tiny_llama.tokenizer()
  )
  # A decoder reads what its tokenizer puts before a text.
  arrays = finetuning.encode(Examples(['the cat'], ['sat'], np.zeros(1, int)), again, 12)
  ids = arrays['input_ids'][0][arrays['valid'][0]]
  assert again.decode(ids, skip_special_tokens=False) == '<|endoftext|>the cat<|endoftext|>sat'


def test_vocab_json_and_merges_as_opt_has_them(tmp_path):
  pieces, merges = bpe.parts(tiny_llama.tokenizer())
  ids = {
    piece: i for i, piece in enumerate(['<pad>', '</s>', *(p for p in pieces if p != bpe.END)])
  }
  (tmp_path / 'vocab.json').write_text(json.dumps(ids))
  (tmp_path / 'merges.txt').write_text('#version: 0.2\n' + ''.join(f'{a} {b}\n' for a, b in merges))
  settings = {'bos_token': '</s>', 'eos_token': '</s>', 'pad_token': '<pad>', 'add_bos_token': True}
  (tmp_path / 'tokenizer_config.json').write_text(json.dumps(settings))
  words = tokenizer_file.load(tmp_path)
  assert words.encode('the</s>').ids[0] == 1 == words.encode('the</s>').ids[-1]
  assert tokenizer_file.end(words) == '</s>'
  (tmp_path / 'tokenizer_config.json').write_text(json.dumps({**settings, 'bos_token': '<s>'}))
  with pytest.raises(ValueError, match="adds the token '<s>', which is no piece"):
    tokenizer_file.load(tmp_path)


@pytest.mark.parametrize(
  ('name', 'content', 'message'),
  [
    ('tokenizer.json', '{}', 'tokenizer.json'),
    ('tokenizer.json', '{"model": {"type": "Unigram", "vocab": []}}', 'no BPE vocabulary'),
    ('vocab.txt', '[PAD]\n[UNK]\n', 'no BPE vocabulary'),
    ('tokenizer.model', 'x', 'tokenizer.model alone cannot be read'),
  ],
)
def test_another_tokenizer_is_one_clear_error(tmp_path, name, content, message):
  (tmp_path / name).write_text(content)
  with pytest.raises((ValueError, FileNotFoundError), match=message):
    tokenizer_file.load(tmp_path)


def test_a_vocabulary_that_does_not_fit_is_named(tmp_path):
  params, size = tiny_llama.write(tmp_path / 'model', words=False, vocab_size=283)
  words = tiny_llama.tokenizer()
  (tmp_path / 'model' / 'tokenizer.json').write_text(words.to_str())
  with pytest.raises(CheckpointError, match='280 pieces does not fit the 283 rows'):
    llama_hf.load(tmp_path / 'model')
  with pytest.raises(CheckpointError, match='280 pieces does not fit the 283 rows'):
    llama_hf.save(tmp_path / 'other', params, size, tokenizer=words)
  assert not (tmp_path / 'other').exists()


def test_a_tree_that_does_not_fit_is_refused(tmp_path):
  params, size = llama_hf.load(REFERENCE / 'llama')
  leaves = traverse_util.flatten_dict(params, sep='/')
  leaves['encoder/layer_0/ffn/up/kernel'] = leaves.pop('encoder/layer_0/ffn/gate/kernel')
  with pytest.raises(CheckpointError, match='missing: .*ffn/gate/kernel; unknown: .*ffn/up/kernel'):
    llama_hf.save(tmp_path / 'out', traverse_util.unflatten_dict(leaves, sep='/'), size)
  assert not (tmp_path / 'out').exists()
