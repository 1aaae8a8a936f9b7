"""A pruned GPT-2 made smaller: equal logits, empty layers, its folder, ONNX, padded again."""

import json

import jax
import numpy as np
import onnxruntime
import pytest
import safetensors.numpy
import transformers
from flax import traverse_util

from prunejax.compress import onnx_gpt2, shrink, sparse_file
from prunejax.models import gpt2
from prunejax.models.hf import gpt2 as gpt2_hf
from prunejax.train import export, saved_model

SIZE = dict(vocab_size=40, n_embd=16, n_layer=3, n_head=4, n_inner=12, n_positions=10)
HEADS, INNER = [0, 3, 4], [12, 0, 5]


def whole(head):
  """(leaves, size): random kernels and biases. HEADS and INNER count what shrinking leaves."""
  size = transformers.GPT2Config(**SIZE, num_labels=3)
  rng = np.random.default_rng(0)
  leaves = {
    path: rng.normal(size=shape).astype(np.float32) / 3
    for path, shape in gpt2_hf._shapes(size, (head,)).items()
  }
  at = 'encoder/layer_{}/{}'.format
  for name in ('query', 'key', 'value'):
    leaves[at(0, f'attention/{name}/kernel')][:] = 0
  leaves[at(1, 'attention/output/kernel')][4:8] = 0
  leaves[at(1, 'ffn/intermediate/kernel')][:] = 0
  leaves[at(2, 'ffn/output/kernel')][:4] = 0
  leaves[at(2, 'ffn/intermediate/kernel')][:, 4:7] = 0
  return leaves, size


def inputs(rows=2, length=7):
  rng = np.random.default_rng(1)
  valid = np.ones((2, 7), bool)
  valid[1, 4:] = False
  return rng.integers(0, 40, (2, 7))[:rows, :length], valid[:rows, :length]


def outputs(leaves, size, head, **shape):
  ids, valid = inputs(**shape)
  params = traverse_util.unflatten_dict(leaves, sep='/')
  model = gpt2.Gpt2(size, (head,), 3)
  return jax.jit(lambda p: model.apply({'params': p}, ids, ids, valid))(params)


def by_runtime(path, **shape):
  session = onnxruntime.InferenceSession(str(path))
  given = {
    name: x.astype(np.int64) for name, x in zip(onnx_gpt2.INPUTS, inputs(**shape), strict=True)
  }
  names = [out.name for out in session.get_outputs()]
  return dict(zip(names, session.run(None, given), strict=True))


@pytest.fixture(scope='module', params=['lm', 'classifier'])
def models(request, tmp_path_factory):
  """(head, outputs of the whole model, folder with it as `whole` and shrunk as `small`)."""
  folder, head = tmp_path_factory.mktemp('models'), request.param
  leaves, size = whole(head)
  gpt2_hf.save(folder / 'whole', traverse_util.unflatten_dict(leaves, sep='/'), size)
  export.export(folder / 'whole', folder / 'small', to='shrunk', say=lambda line: None)
  return head, outputs(leaves, size, head), folder


def test_the_shrunk_model_has_the_same_logits_and_a_folder_with_its_widths(models):
  head, want, folder = models
  params, size = gpt2_hf.load(folder / 'small', heads=(head,))
  assert (size.heads_per_layer, size.intermediate_per_layer, size.n_inner) == (HEADS, INNER, 12)
  leaves = traverse_util.flatten_dict(params, sep='/')
  for i in range(3):
    assert leaves[f'encoder/layer_{i}/attention/key/kernel'].shape == (16, 4 * HEADS[i])
    assert leaves[f'encoder/layer_{i}/ffn/output/kernel'].shape == (INNER[i], 16)
  stored = safetensors.numpy.load_file(folder / 'small' / 'model.safetensors')
  assert stored['transformer.h.1.attn.c_attn.weight'].shape == (16, 3 * 12)
  got = outputs(leaves, size, head)
  for name, value in want.items():
    np.testing.assert_allclose(got[name], value, atol=1e-5)
  ids, valid = inputs()
  model = gpt2.Gpt2(size, (head,), 3)
  fresh = jax.eval_shape(lambda k: model.init(k, ids, ids, valid)['params'], jax.random.key(0))
  assert jax.tree.map(lambda leaf: leaf.shape, fresh) == jax.tree.map(np.shape, params)


def test_a_padded_shrunk_model_is_a_plain_folder(models):
  head, want, folder = models
  export.export(folder / 'small', folder / 'padded', say=lambda line: None)
  params, size = gpt2_hf.load(folder / 'padded', heads=(head,))
  assert json.loads((folder / 'padded' / 'config.json').read_text()).get('heads_per_layer') is None
  got = outputs(traverse_util.flatten_dict(params, sep='/'), size, head)
  for name, value in want.items():
    np.testing.assert_allclose(got[name], value, atol=1e-5)


@pytest.mark.parametrize('which', ['whole', 'small'])
def test_onnx_runtime_gives_the_same_logits_and_pruned_weights_are_zeros(models, which):
  import onnx

  head, want, folder = models
  export.export(folder / which, folder / f'{which}.onnx', to='onnx', say=lambda line: None)
  got = by_runtime(folder / f'{which}.onnx')
  assert set(got) == {'sequence', head}
  for name in got:
    np.testing.assert_allclose(got[name], want[name], atol=1e-4)
  assert by_runtime(folder / f'{which}.onnx', rows=1, length=3)['sequence'].shape == (1, 3, 16)
  stored = {
    t.name: onnx.numpy_helper.to_array(t)
    for t in onnx.load(folder / f'{which}.onnx').graph.initializer
  }
  leaves = saved_model.load(folder / which).leaves
  assert all(np.array_equal(stored[path], leaf) for path, leaf in leaves.items() if path in stored)
  assert sum('kernel' in name for name in stored) == sum(
    bool(leaf.size) for path, leaf in leaves.items() if 'kernel' in path
  )


@pytest.mark.parametrize('act', ['gelu', 'gelu_new', 'relu', 'gelu_pytorch_tanh'])
def test_every_activation(act, tmp_path):
  leaves, size = whole('lm')
  size.activation_function = act
  gpt2_hf.save(tmp_path / 'whole', traverse_util.unflatten_dict(leaves, sep='/'), size)
  export.export(tmp_path / 'whole', tmp_path / 'a.onnx', to='onnx', say=lambda line: None)
  export.export(tmp_path / 'whole', tmp_path / 'small', to='shrunk', say=lambda line: None)
  want = outputs(leaves, size, 'lm')
  np.testing.assert_allclose(by_runtime(tmp_path / 'a.onnx')['lm'], want['lm'], atol=1e-4)
  params, small = gpt2_hf.load(tmp_path / 'small')
  got = outputs(traverse_util.flatten_dict(params, sep='/'), small, 'lm')
  np.testing.assert_allclose(got['lm'], want['lm'], atol=1e-5)


def test_widths_that_do_not_fit_are_refused():
  _, size = whole('lm')
  for wrong in ([1, 2], [1, 2, 5], [1, 2, -1], [1, 2, 1.0]):
    size.heads_per_layer = wrong
    with pytest.raises(ValueError, match='heads_per_layer=.*expected 3 integers'):
      gpt2.check(size)


def test_a_sparse_file_of_a_shrunk_model_is_a_model(models):
  head, want, folder = models
  export.export(folder / 'small', folder / 'a.safetensors', to='sparse', say=lambda line: None)
  model = saved_model.load(folder / 'a.safetensors')
  assert model.size.heads_per_layer == HEADS
  got = outputs(model.leaves, model.size, head)
  for name, value in want.items():
    np.testing.assert_allclose(got[name], value, atol=1e-5)
  assert sparse_file.read(folder / 'a.safetensors').keys() == model.leaves.keys()
  again, heads, inner = shrink.shrink(model.leaves, 4, 'gelu_new')
  assert (heads, inner) == (HEADS, INNER)
  assert all(np.array_equal(again[name], leaf) for name, leaf in model.leaves.items())
