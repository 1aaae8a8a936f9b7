"""A pruned BERT made smaller: equal logits, empty layers, folded constants, its config, ONNX."""

import json

import jax
import numpy as np
import onnxruntime
import pytest
from flax import traverse_util
from shrunk_bert import HEADS, INNER, KINDS, inputs, outputs, tree, whole

from prunejax import __main__ as command
from prunejax.compress import deep_compression, onnx_bert, shrink, sparse_file
from prunejax.models import bert
from prunejax.models.hf import bert as bert_hf
from prunejax.train import export, saved_model


def by_runtime(path, rows=2, length=7):
  session = onnxruntime.InferenceSession(str(path))
  given = {
    name: x[:rows, :length].astype(np.int64)
    for name, x in zip(onnx_bert.INPUTS, inputs(), strict=True)
  }
  return dict(
    zip([out.name for out in session.get_outputs()], session.run(None, given), strict=True)
  )


@pytest.fixture(scope='module')
def models(tmp_path_factory):
  """(outputs of the whole model, folder with it as `whole` and shrunk as `small`)."""
  folder = tmp_path_factory.mktemp('models')
  leaves, size = whole()
  bert_hf.save(folder / 'whole', tree(leaves), size)
  export.export(folder / 'whole', folder / 'small', to='shrunk')
  return outputs(leaves, size), folder


def test_the_shrunk_model_has_the_same_logits_and_a_folder_with_its_widths(models):
  want, folder = models
  params, size = bert_hf.load(folder / 'small', heads=KINDS)
  assert (size.heads_per_layer, size.intermediate_per_layer, size.intermediate_size) == (
    HEADS,
    INNER,
    12,
  )
  assert bert_hf.read_size(folder / 'small').heads_per_layer == HEADS
  leaves = traverse_util.flatten_dict(params, sep='/')
  for i in range(3):
    assert leaves[f'encoder/layer_{i}/attention/key/kernel'].shape == (16, 4 * HEADS[i])
    assert leaves[f'encoder/layer_{i}/ffn/output/kernel'].shape == (INNER[i], 16)
  got = outputs(leaves, size)
  for name, value in want.items():
    np.testing.assert_allclose(got[name], value, atol=1e-5)
  model = bert.Bert(size, KINDS)
  fresh = jax.eval_shape(lambda k: model.init(k, *inputs())['params'], jax.random.key(0))
  assert jax.tree.map(lambda leaf: leaf.shape, fresh) == jax.tree.map(np.shape, params)


def test_a_padded_shrunk_model_is_a_plain_folder(models):
  want, folder = models
  export.export(folder / 'small', folder / 'padded')
  params, size = bert_hf.load(folder / 'padded')
  assert json.loads((folder / 'padded' / 'config.json').read_text()).get('heads_per_layer') is None
  assert params['encoder']['layer_0']['attention']['query']['kernel'].shape == (16, 16)
  export.export(folder / 'padded', folder / 'padded.onnx', to='onnx')
  np.testing.assert_allclose(by_runtime(folder / 'padded.onnx')['mlm'], want['mlm'], atol=1e-4)


@pytest.mark.parametrize('act', ['gelu', 'gelu_new', 'relu'])
def test_outputs_of_constant_neurons_are_kept_under_every_activation(act):
  leaves, _ = whole(act)
  small, _, inner = shrink.shrink(leaves, 4, act)
  bias = leaves['encoder/layer_1/ffn/intermediate/bias']
  constant = np.asarray(bert.ACTIVATIONS[act](bias)) @ leaves['encoder/layer_1/ffn/output/kernel']
  got = small['encoder/layer_1/ffn/output/bias'] - leaves['encoder/layer_1/ffn/output/bias']
  np.testing.assert_allclose(got, constant, atol=1e-6)
  assert inner == INNER
  again, heads, _ = shrink.shrink(small, 4, act)
  assert heads == HEADS and all(np.array_equal(small[name], leaf) for name, leaf in again.items())


@pytest.mark.parametrize('which', ['whole', 'small'])
def test_onnx_runtime_gives_the_same_logits_and_pruned_weights_are_zeros(models, which):
  import onnx

  want, folder = models
  export.export(folder / which, folder / f'{which}.onnx', to='onnx')
  got = by_runtime(folder / f'{which}.onnx')
  assert set(got) == {'sequence', 'pooled', *KINDS}
  for name, value in want.items():
    np.testing.assert_allclose(got[name], value, atol=1e-4)
  assert by_runtime(folder / f'{which}.onnx', 1, 3)['sequence'].shape == (1, 3, 16)
  stored = {
    t.name: onnx.numpy_helper.to_array(t)
    for t in onnx.load(folder / f'{which}.onnx').graph.initializer
  }
  leaves = saved_model.load(folder / which).leaves
  assert all(np.array_equal(stored[path], leaf) for path, leaf in leaves.items() if path in stored)
  assert sum('kernel' in name for name in stored) == sum(
    bool(v.size) for p, v in leaves.items() if 'kernel' in p
  )


@pytest.mark.parametrize(
  'to, read', [('sparse', sparse_file.read), ('deep-compression', deep_compression.read)]
)
def test_files_hold_the_model(models, capsys, to, read):
  _, folder = models
  assert command.main(['export', str(folder / 'whole'), f'--out={folder / to}', f'--to={to}']) == 0
  assert 'zeros are zeros' in capsys.readouterr().out
  again, leaves = read(folder / to), saved_model.load(folder / 'whole').leaves
  assert again.keys() == leaves.keys()
  for path, leaf in leaves.items():
    assert not np.any(again[path][leaf == 0])
    assert to != 'sparse' or np.array_equal(again[path], leaf)


@pytest.mark.parametrize(
  'argv, words',
  [
    (
      ['export', '{}/whole', '--out={}/new', '--to=onx'],
      ['onx', "did you mean 'onnx'", 'deep-compression'],
    ),
    (
      ['export', '{}/whole', '--out={}/new', '--to=onnx', '--dtype=bfloat16'],
      ['bfloat16', '--to=onnx'],
    ),
    (['export', '{}/whole', '--out={}/new', '--to=sparse', '--dtype=float16'], ['float16', 'int8']),
    (['export', '{}/whole', '--out={}/small', '--to=shrunk'], ['small', 'not empty']),
    (
      ['export', '{}/whole', '--out={}/small/config.json', '--to=sparse'],
      ['config.json', 'there already'],
    ),
    (['export', '{}/none', '--out={}/new'], ['none', 'holds no run', 'Hugging Face']),
    (['export', '{}/whole', '--workdir={}/small', '--out={}/new'], ['one of them']),
  ],
)
def test_bad_arguments_are_one_line_and_write_nothing(models, capsys, argv, words):
  _, folder = models
  before = sorted(p.name for p in folder.iterdir())
  assert command.main([word.format(folder) for word in argv]) == 2
  line = capsys.readouterr().err.strip()
  assert line.count('\n') == 0
  for word in words:
    assert word in line
  assert sorted(p.name for p in folder.iterdir()) == before


def test_wrong_widths_and_models_are_refused(models, monkeypatch):
  leaves, size = whole()
  with pytest.raises(ValueError, match="'silu'; known"):
    shrink.shrink(leaves, 4, 'silu')
  with pytest.raises(ValueError, match='heads of 5 do not divide'):
    shrink.shrink(leaves, 5)
  with pytest.raises(ValueError, match='no layers encoder/layer_0'):
    shrink.shrink({'a': leaves['pooler/kernel']}, 4)
  with pytest.raises(ValueError, match='more than 11'):
    shrink.pad(leaves, 4, 4, 11)
  for wrong in ([1, 2], [1, 2, 5], [1, 2, -1], [1, 2, 1.0]):
    size.heads_per_layer = wrong
    with pytest.raises(ValueError, match='heads_per_layer=.*expected 3 integers'):
      bert.check(size)
  monkeypatch.setitem(__import__('sys').modules, 'onnx', None)
  with pytest.raises(ValueError, match=r"pip install -e '\.\[onnx\]'"):
    export.export(models[1] / 'whole', models[1] / 'lost.onnx', to='onnx')
  assert not (models[1] / 'lost.onnx').exists()
