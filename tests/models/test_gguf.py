"""GGUF files, written here with the package `gguf`, against the same model as a folder."""

import jax
import numpy as np
import pytest

pytest.importorskip('gguf')  # the extra of this name
import gguf
from checkpoint_cases import flat
from gguf_files import GROUPS, PIECES, WIDTH, tensors, write

from prunejax.data import tokenizer_file
from prunejax.models import gguf_file
from prunejax.models.hf import llama as llama_hf
from prunejax.models.hf import stored
from prunejax.models.hf.folder import CheckpointError


# The largest error of a weight of a normal draw whose block of 32 holds one of 4 deviations.
@pytest.mark.parametrize(
  ('kind', 'most'),
  [('F32', 0), ('F16', 2e-3), ('BF16', 2e-2), ('Q8_0', 0.03), ('Q4_0', 0.6), ('Q4_1', 0.4)],
)
def test_weights_equal_those_that_were_written(tmp_path, kind, most):
  stored = tensors()
  params, size = llama_hf.load(write(tmp_path / 'model.gguf', stored, kind))
  assert (size.model_type, size.tie_word_embeddings, size.num_key_value_heads) == ('llama', True, 2)
  assert size.rms_norm_eps == 1e-5 and size.rope_parameters['rope_theta'] == 100.0
  layer = params['encoder']['layer_0']
  for leaf, name in (
    (params['embeddings']['word']['embedding'].T, 'model.embed_tokens.weight'),
    (layer['attention']['query']['kernel'], 'model.layers.0.self_attn.q_proj.weight'),
    (layer['attention']['key']['kernel'], 'model.layers.0.self_attn.k_proj.weight'),
    (layer['attention']['output']['kernel'], 'model.layers.0.self_attn.o_proj.weight'),
    (layer['ffn']['output']['kernel'], 'model.layers.0.mlp.down_proj.weight'),
  ):
    difference = np.abs(leaf - stored[name].T).max()
    assert difference <= most and (most == 0 or difference > 0), name
  np.testing.assert_array_equal(params['norm']['scale'], stored['model.norm.weight'])


def test_other_architectures_are_not_permuted(tmp_path):
  stored = tensors()
  stored |= {f'model.layers.0.self_attn.{x}_norm.weight': np.ones(WIDTH, np.float32) for x in 'qk'}
  params, size = llama_hf.load(write(tmp_path / 'model.gguf', stored, arch='qwen3'))
  assert size.model_type == 'qwen3'
  query = params['encoder']['layer_0']['attention']['query']['kernel']
  np.testing.assert_array_equal(query, stored['model.layers.0.self_attn.q_proj.weight'].T)


def test_factors_of_the_rotation_are_those_of_llama_3(tmp_path):
  from prunejax.models import llama

  _, plain = llama_hf.load(write(tmp_path / 'plain.gguf', tensors()))
  scaled = {**plain.rope_parameters, **gguf_file.LLAMA3, 'rope_type': 'llama3', 'factor': 32.0}
  before = llama.frequencies(plain)
  plain.rope_parameters = scaled
  factors = (before / llama.frequencies(plain)).astype(np.float32)
  assert factors.max() == 1  # no wave is that long with a base of 100
  key = {'llama.rope.freq_base': 5e5}
  plain.rope_parameters = {**scaled, 'rope_theta': 5e5}
  wide = plain.rope_parameters
  plain.rope_parameters = {'rope_type': 'default', 'rope_theta': 5e5}
  before = llama.frequencies(plain)
  plain.rope_parameters = wide
  factors = (before / llama.frequencies(plain)).astype(np.float32)
  stored = {**tensors(), gguf_file.FACTORS: factors}
  _, size = llama_hf.load(write(tmp_path / 'scaled.gguf', stored, **key))
  np.testing.assert_allclose(llama.frequencies(size), llama.frequencies(plain), rtol=1e-5)
  assert size.rope_parameters['factor'] == pytest.approx(32.0, rel=1e-5)
  stored[gguf_file.FACTORS] = factors * np.linspace(1, 2, len(factors), dtype=np.float32)
  with pytest.raises(CheckpointError, match='rope_freqs.weight holds factors'):
    llama_hf.load(write(tmp_path / 'other.gguf', stored, **key))


def test_the_tokenizer_cuts_as_gpt2_and_knows_its_special_tokens(tmp_path):
  path = write(tmp_path / 'model.gguf', tensors())
  tokenizer = tokenizer_file.load(path)
  assert tokenizer_file.pieces(tokenizer) == PIECES
  assert tokenizer.encode('the the<|im_start|>1919').tokens == [
    *('the', 'Ġthe', '<|im_start|>', '19', '19')
  ]
  assert tokenizer.decode(tokenizer.encode('the  thé\n').ids) == 'the  thé\n'
  first = write(tmp_path / 'first.gguf', tensors(), **{'tokenizer.ggml.add_bos_token': True})
  assert tokenizer_file.load(first).encode('the').ids == [1, PIECES.index('the')]


def test_a_file_is_parsed_once_until_it_changes(tmp_path, monkeypatch):
  parsed, reader = [], gguf.GGUFReader

  def counted(path):
    parsed.append(path)
    return reader(path)

  monkeypatch.setattr(gguf, 'GGUFReader', counted)
  path = write(tmp_path / 'model.gguf', tensors())
  before, _ = llama_hf.load(path)
  tokenizer_file.load(path)
  assert len(parsed) == 1
  write(tmp_path / 'new.gguf', {k: x + 1 for k, x in tensors().items()}).replace(path)
  after, _ = llama_hf.load(path)
  assert len(parsed) == 2
  changed = jax.tree.map(lambda x, y: bool(np.any(x != y)), before, after)
  assert all(jax.tree.leaves(changed))


def test_the_commands_take_the_file_as_a_model(tmp_path, capsys):
  from prunejax import __main__ as command
  from prunejax.train import inputs

  path = write(tmp_path / 'model.gguf', tensors(), 'Q8_0')
  params, _ = llama_hf.load(path)
  (tmp_path / 'a.txt').write_text('the cat and the hat that the man had. ' * 9)
  on = [f'--on=text:{tmp_path}/a.txt', '--window=32', '--windows=2']
  assert command.main(['evaluate', str(path), *on, f'--out={tmp_path}/a.jsonl']) == 0
  said = capsys.readouterr().out.splitlines()[-1]
  assert command.main(['export', str(path), f'--out={tmp_path}/folder']) == 0
  capsys.readouterr()
  assert command.main(['evaluate', f'{tmp_path}/folder', *on, f'--out={tmp_path}/b.jsonl']) == 0
  assert capsys.readouterr().out.splitlines()[-1] == said
  for folder in (tmp_path / 'folder', inputs.folder_of(str(path))):  # `init` unpacks it
    again, size = llama_hf.load(folder)
    assert size.num_key_value_heads == GROUPS
    for leaf, array in zip(flat(again).values(), flat(params).values(), strict=True):
      np.testing.assert_array_equal(leaf, array)
    assert tokenizer_file.load(folder).to_str() == tokenizer_file.load(path).to_str()


@pytest.mark.parametrize(
  ('kind', 'change', 'message'),
  [
    ('Q5_0', {}, r'tensors of type Q5_0 .*expected F32, F16'),
    ('F32', {'arch': 'falcon'}, "general.architecture='falcon'"),
    ('F32', {'llama.expert_count': 8}, 'expert_count=8'),
    ('F32', {'llama.rope.scaling.type': 'yarn'}, "rope.scaling.type='yarn'"),
    ('F32', {'llama.rope.scaling.factor': 4.0}, 'rope.scaling.factor=4.0: expected 1'),
    ('F32', {'llama.rope.scale_linear': 4.0}, 'rope.scale_linear=4.0: expected 1'),
    ('F32', {'llama.block_count': 2}, 'missing: model.layers.1'),
    ('F32', {'llama.attention.head_count_kv': 3}, 'num_key_value_heads=3'),
    ('F32', {'llama.attention.head_count_kv': [2, 2]}, 'head_count_kv'),
    ('F32', {'llama.rope.dimension_count': 8}, 'rope.dimension_count=8: expected 16'),
    ('F32', {'drop': ('llama.block_count',)}, "'llama.block_count' is missing"),
    ('F32', {'drop': ('model.embed_tokens.weight',)}, "'token_embd.weight' is missing"),
    ('F32', {'drop': ('model.norm.weight',)}, 'missing: model.norm.weight'),
  ],
)
def test_what_is_not_supported_is_one_clear_error(tmp_path, kind, change, message):
  path = write(tmp_path / 'model.gguf', tensors(), kind, **change)
  with pytest.raises(CheckpointError, match=message) as error:
    llama_hf.load(path)
  assert '\n' not in str(error.value) and 'model.gguf' in str(error.value)


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'tokenizer.ggml.model': 'llama'}, "tokenizer.ggml.model='llama'"),
    ({'tokenizer.ggml.pre': 'deepseek'}, "tokenizer.ggml.pre='deepseek'"),
    ({'tokenizer.ggml.merges': ['t zz']}, "merges that do not fit .*'t' 'zz'"),
    ({'tokenizer.ggml.merges': ['t h e']}, 'not of two pieces'),
    ({'tokenizer.ggml.tokens': [*PIECES[:-1], 'th']}, 'of which 1 repeat'),
  ],
)
def test_a_tokenizer_that_is_not_supported_is_one_clear_error(tmp_path, change, message):
  path = write(tmp_path / 'model.gguf', tensors(), **change)
  with pytest.raises(ValueError, match=message):
    tokenizer_file.load(path)


def test_a_damaged_file_is_one_clear_error(tmp_path):
  data = write(tmp_path / 'model.gguf', tensors()).read_bytes()
  rng = np.random.default_rng(0)
  for cut in (4, 8, 30, 200, 2000, len(data) // 2, len(data) - 7):
    (tmp_path / 'short.gguf').write_bytes(data[:cut])
    with pytest.raises(CheckpointError, match='short.gguf'):
      llama_hf.load(tmp_path / 'short.gguf')
  for _ in range(10):
    broken = bytearray(data)
    for at in rng.integers(4, 3000, 8):
      broken[at] = rng.integers(256)
    (tmp_path / 'short.gguf').write_bytes(broken)
    try:
      llama_hf.load(tmp_path / 'short.gguf')
      tokenizer_file.load(tmp_path / 'short.gguf')
    except ValueError as error:
      assert 'short.gguf' in str(error)


@pytest.mark.parametrize('kind', ['F16', 'Q8_0', 'Q4_1'])
def test_tensors_that_stay_in_the_file_are_those_that_are_read_at_once(tmp_path, kind, monkeypatch):
  path = write(tmp_path / 'model.gguf', tensors(), kind)
  whole, in_file = (flat(llama_hf.load(path, parts=parts)[0]) for parts in (False, True))
  monkeypatch.setattr(stored, 'PIECE', 100)
  dequantised, read = gguf_file._dequantised, []

  def counted(*given):
    read.append(dequantised(*given))
    return read[-1]

  monkeypatch.setattr(gguf_file, '_dequantised', counted)
  assert whole.keys() == in_file.keys()
  for name, leaf in in_file.items():
    array = whole[name]
    assert (leaf.shape, leaf.dtype) == (array.shape, array.dtype)
    np.testing.assert_array_equal(stored.whole(leaf), array)
    np.testing.assert_array_equal(leaf.read((slice(1, 3),)), array[1:3])
    read.clear()
    np.testing.assert_array_equal(np.concatenate(list(stored.pieces(leaf))), array)
    assert sum(part.size for part in read) == array.size, name  # once, whole or in parts
    assert (len(read) > 1) == (array.nbytes > 100 and leaf.by_rows), name
  assert not all(leaf.by_rows for leaf in in_file.values())
  path.write_bytes(path.read_bytes()[:-200])
  with pytest.raises(stored.Damaged, match=r'model.gguf.*the tensor .* is damaged'):
    for leaf in in_file.values():
      leaf.read()
