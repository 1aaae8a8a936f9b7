"""Weights in many files: written above a size, read whole or part by part."""

import json

import jax
import numpy as np
import pytest
import safetensors
import transformers

from prunejax.models import bert, gpt2, layer_stack
from prunejax.models.hf import bert as bert_hf
from prunejax.models.hf import folder as hf_folder
from prunejax.models.hf import gpt2 as gpt2_hf
from prunejax.models.hf import stored

BERT = transformers.BertConfig(
  vocab_size=40,
  hidden_size=16,
  num_hidden_layers=2,
  num_attention_heads=2,
  intermediate_size=32,
  max_position_embeddings=16,
)
GPT2 = transformers.GPT2Config(
  vocab_size=40, n_embd=16, n_layer=2, n_head=2, n_positions=16, bos_token_id=0, eos_token_id=0
)
FAMILIES = {'bert': (bert_hf, bert.Bert, BERT), 'gpt2': (gpt2_hf, gpt2.Gpt2, GPT2)}
is_leaf = stored.is_stored


def params_of(name):
  _, module, size = FAMILIES[name]
  blank = jax.ShapeDtypeStruct((1, 8), np.int32), jax.ShapeDtypeStruct((1, 8), bool)
  shapes = jax.eval_shape(module(size).init, jax.random.key(0), blank[0], *blank)['params']
  rng = np.random.default_rng(0)
  return jax.tree.map(lambda leaf: np.float32(rng.normal(size=leaf.shape)), shapes)


@pytest.fixture
def shards(request, tmp_path):
  """(family, params, a folder of shards of at most 6,000 bytes)."""
  files, _, size = FAMILIES[request.param]
  params = params_of(request.param)
  files.save(tmp_path / 'model', params, size, most=6000)
  return request.param, params, tmp_path / 'model'


both = pytest.mark.parametrize('shards', FAMILIES, indirect=True)
one = pytest.mark.parametrize('shards', ['bert'], indirect=True)


def index_of(folder):
  return json.loads((folder / 'model.safetensors.index.json').read_text())


@both
def test_shards_are_those_of_the_index_and_none_is_too_large(shards):
  name, params, folder = shards
  index, files = index_of(folder), sorted(path.name for path in folder.glob('*.safetensors'))
  assert files == sorted(set(index['weight_map'].values())) and len(files) > 3
  assert files[-1].endswith(f'-of-{len(files):05}.safetensors')
  total = 0
  for file in files:
    with safetensors.safe_open(folder / file, framework='np') as opened:
      sizes = [opened.get_tensor(tensor).nbytes for tensor in opened.keys()]  # noqa: SIM118
      assert {tensor for tensor, at in index['weight_map'].items() if at == file} == set(
        opened.keys()
      )
    assert sum(sizes) <= 6000 or len(sizes) == 1
    total += sum(sizes)
  weights = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
  assert index['metadata']['total_size'] == total == weights
  loaded, _ = FAMILIES[name][0].load(folder)
  jax.tree.map(np.testing.assert_array_equal, loaded, params)


@both
@pytest.mark.parametrize('index', [(), (slice(3, 9),), (slice(2, 4), slice(5, 11))])
def test_a_part_that_is_read_is_that_part_of_the_leaf(shards, index):
  name, params, folder = shards
  lazy, _ = FAMILIES[name][0].load(folder, parts=True)
  leaves = jax.tree.leaves(lazy, is_leaf=is_leaf)
  assert all(map(stored.is_stored, leaves))
  for leaf, whole in zip(leaves, jax.tree.leaves(params), strict=True):
    at = index[: whole.ndim]
    assert leaf.shape == whole.shape and leaf.dtype == np.float32
    np.testing.assert_array_equal(leaf.read(at), whole[at])
  stacked = layer_stack.stack(lazy)['encoder']['layers']['attention']['value']['kernel']
  kernels = [params['encoder'][f'layer_{i}']['attention']['value']['kernel'] for i in (0, 1)]
  at = (slice(1, 2), *index)
  np.testing.assert_array_equal(stacked.read(at), np.stack(kernels)[at])


@one
def test_only_the_bytes_of_a_part_are_read(shards, monkeypatch):
  _, _, folder = shards
  lazy, _ = bert_hf.load(folder, parts=True)
  asked, opened = [], safetensors.safe_open

  class Spy:
    def __init__(self, *args, **kwargs):
      self.file = opened(*args, **kwargs)

    def __enter__(self):
      return self

    def __exit__(self, *_):
      pass

    def get_slice(self, name):
      spy, part = self.file.get_slice(name), lambda index: asked.append((name, index))
      return type('Slice', (), {'__getitem__': lambda _, index: part(index) or spy[index]})()

  monkeypatch.setattr(safetensors, 'safe_open', Spy)
  kernel = lazy['encoder']['layer_1']['ffn']['output']['kernel']
  assert kernel.read((slice(8, 16),)).shape == (8, 16)
  name = 'bert.encoder.layer.1.output.dense.weight'  # [out, in]
  assert asked == [(name, (slice(0, 16), slice(8, 16)))]


@one
def test_a_shard_that_is_missing_is_named(shards):
  _, _, folder = shards
  (folder / 'checksums.json').unlink()
  index = index_of(folder)
  second = sorted(set(index['weight_map'].values()))[1]
  kept = {name: file for name, file in index['weight_map'].items() if file != second}
  path = folder / 'model.safetensors.index.json'
  path.write_text(json.dumps({'weight_map': kept}))
  for parts in (False, True):
    with pytest.raises(hf_folder.CheckpointError, match=f'lists no tensor of {second}: expected'):
      bert_hf.load(folder, parts=parts)
  path.write_text(json.dumps(index))
  (folder / second).unlink()
  for parts in (False, True):
    with pytest.raises(hf_folder.CheckpointError, match=f'{second} is missing: .* lists it'):
      bert_hf.load(folder, parts=parts)


@one
def test_a_folder_written_again_keeps_no_file_of_the_old_weights(shards):
  _, params, folder = shards
  bert_hf.save(folder, params, BERT)
  assert [path.name for path in folder.glob('model*')] == ['model.safetensors']
  bert_hf.save(folder, params, BERT, most='20KB')
  names = {path.name for path in folder.glob('model*')}
  assert 'model.safetensors' not in names and 'model.safetensors.index.json' in names
  jax.tree.map(np.testing.assert_array_equal, bert_hf.load(folder)[0], params)


@one
def test_numbers_that_are_not_finite_are_found_in_the_part_that_is_read(shards):
  _, params, folder = shards
  params['pooler']['kernel'][0, 3] = np.nan
  bert_hf.save(folder, params, BERT)
  lazy, _ = bert_hf.load(folder, parts=True)
  with pytest.raises(stored.Damaged, match='NaN or infinite numbers in bert.pooler.dense.weight'):
    lazy['pooler']['kernel'].read((slice(0, 2),))
  assert lazy['pooler']['kernel'].read((slice(2, 4),)).shape == (2, 16)


@pytest.mark.parametrize('size', ['0', 'five', '5 TB', '-1'])
def test_another_size_of_a_shard_is_refused(size, tmp_path):
  with pytest.raises(hf_folder.CheckpointError, match=f"a shard of '{size}': expected bytes"):
    hf_folder.write(tmp_path / 'model', {}, {}, most=size)
  assert hf_folder.bytes_of('5GB') == 5 * 10**9 and hf_folder.bytes_of('1GiB') == 2**30
