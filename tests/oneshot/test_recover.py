"""After every recovery the masks hold exactly, and the model is better than before."""

import jax
import ml_dtypes
import numpy as np
import pytest
import toy_decoder
from flax import traverse_util
from tiny_decoder import SIZE, model_and_params, tokens

import prunejax
from prunejax import oneshot
from prunejax.models.hf import stored_masks
from prunejax.oneshot import decoders, recover
from prunejax.pruning.paths import named_leaves, with_leaves

MODEL = decoders.of_size(SIZE)


@pytest.fixture(scope='module')
def pruned():
  """Half of the weights by magnitude; one survivor is 0, which no mask says."""
  params = model_and_params()[1]
  leaves = dict(traverse_util.flatten_dict(params, sep='/'))
  got = oneshot.prune(MODEL, params, tokens(1), criterion=prunejax.magnitude(), sparsity=0.5)
  name = 'encoder/layer_1/ffn/output/kernel'
  at = tuple(np.argwhere(named_leaves(got.masks)[name])[0])
  leaves = {k: np.array(v) for k, v in named_leaves(got.params).items()}
  leaves[name][at] = 0
  return got._replace(params=traverse_util.unflatten_dict(leaves, sep='/')), name, at


def batches(steps):
  return (tokens(4, seed=100 + i % 3) for i in range(steps))


def held(before, after, masks):
  """Pruned weights are 0, and what the masks remove is what they removed."""
  after, masks = named_leaves(after), named_leaves(masks)
  for name, mask in masks.items():
    assert not np.asarray(after[name])[~mask].any(), name
  removed = sum(int(np.sum(~mask)) for mask in masks.values())
  zeros = sum(int(np.sum(np.asarray(after[n])[~m] == 0)) for n, m in masks.items())
  assert zeros == removed > 0
  assert any(not np.array_equal(after[name], x) for name, x in named_leaves(before).items())


def loss(params, teacher=None):
  out = recover.logits(MODEL, params, tokens(4, seed=100))
  if teacher is None:
    return float(recover.next_token_loss(out, tokens(4, seed=100)))
  return float(np.mean((out - recover.logits(MODEL, teacher, tokens(4, seed=100))) ** 2))


def test_logits_are_those_of_the_model():
  model, params = model_and_params()
  ids = tokens(3)
  expected = model.apply({'params': params}, ids, ids, ids >= 0)['lm']
  np.testing.assert_allclose(recover.logits(MODEL, params, ids), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('way', ['finetune', 'distil', 'lora'])
def test_training_lowers_the_loss_and_keeps_every_pruned_weight_at_zero(way, pruned):
  got, name, at = pruned
  dense = model_and_params()[1]
  teacher = dense if way == 'distil' else None
  if way == 'lora':
    after = recover.lora(MODEL, got.params, got.masks, batches(20), learning_rate=1e-2)
  else:
    after = recover.finetune(
      MODEL, got.params, got.masks, batches(20), learning_rate=3e-3, teacher=teacher, weight=1.0
    )
  held(got.params, after, got.masks)
  assert loss(after, teacher) < 0.9 * loss(got.params, teacher)
  assert named_leaves(after)[name][at] != 0  # a survivor that happened to be 0 is trained
  frozen = 'embeddings/word/embedding'
  same = np.array_equal(named_leaves(after)[frozen], named_leaves(got.params)[frozen])
  assert same == (way == 'lora')


def test_low_rank_changes_take_masks_in_files(pruned, tmp_path):
  got, _, _ = pruned
  named = named_leaves(got.masks)
  (tmp_path / stored_masks.NAME).write_bytes(stored_masks.encode(named))
  in_files = stored_masks.leaves(tmp_path)
  masks = with_leaves(got.masks, {name: in_files.get(name, x) for name, x in named.items()})
  lora = lambda *given, **how: recover.lora(*given, batches(3), learning_rate=1e-2, **how)
  expected = lora(MODEL, got.params, got.masks)
  jax.tree.map(np.testing.assert_array_equal, lora(MODEL, got.params, masks), expected)


@pytest.mark.parametrize('stacked', [False, True])
@pytest.mark.parametrize('layout', toy_decoder.LAYOUTS)
def test_low_rank_changes_reach_every_pruned_kernel(layout, stacked):
  model, params = toy_decoder.make(layout, stacked)
  how = {'layout': toy_decoder.LAYOUTS[layout]}
  got = oneshot.prune(
    model, params, toy_decoder.SEGMENTS, criterion=prunejax.wanda(), sparsity=0.5, **how
  )
  data = [toy_decoder.SEGMENTS] * 3
  after = recover.lora(model, got.params, got.masks, data, learning_rate=1e-2, **how)
  held(got.params, after, got.masks)
  before, after = named_leaves(got.params), named_leaves(after)
  for name, mask in named_leaves(got.masks).items():
    layers = zip(before[name], after[name], mask, strict=True)
    parts = layers if stacked else [(before[name], after[name], mask)]
    assert all((old == new).all() == kept.all() for old, new, kept in parts), name


@pytest.mark.parametrize('dtype', [np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize('way', ['reconstruct', 'finetune'])
def test_half_precision_is_trained_in_float32(way, dtype):
  params = jax.tree.map(lambda x: x.astype(dtype), model_and_params()[1])
  how = dict(criterion=prunejax.magnitude(), sparsity=0.5)
  got = oneshot.prune(MODEL, params, tokens(4), **how)
  if way == 'finetune':
    after = recover.finetune(MODEL, got.params, got.masks, batches(20), learning_rate=1e-3)
  else:
    fit = oneshot.reconstruct(20, learning_rate=1e-3)
    after = oneshot.prune(MODEL, params, tokens(4), recover=fit, **how).params
  name = 'encoder/layer_1/ffn/output/kernel'
  mask, old, new = (named_leaves(tree)[name] for tree in (got.masks, got.params, after))
  assert new.dtype == dtype and np.isfinite(np.float32(new)).all() and not new[~mask].any()
  assert (new[mask] != old[mask]).mean() > 0.5


@pytest.mark.parametrize(
  'criterion', [pytest.param('magnitude', marks=pytest.mark.slow), 'sparsegpt']
)
def test_reconstruction_moves_each_block_towards_the_dense_one_under_its_mask(criterion):
  params, segments = model_and_params()[1], tokens(8)
  prune = lambda how: oneshot.prune(
    MODEL,
    params,
    segments,
    criterion=getattr(prunejax, criterion)(),
    sparsity=0.6,
    recover=how,
  )
  plain = prune(oneshot.reconstruct(1, 1e-9, segments=4))
  fitted = prune(oneshot.reconstruct(60, 3e-3, segments=4))
  held(plain.params, fitted.params, fitted.masks)
  ratios = [b['change'] / a['change'] for a, b in zip(plain.rows, fitted.rows, strict=True)]
  assert max(ratios[:1]) < 0.8, ratios
  assert [row['removed'] for row in plain.rows] == [row['removed'] for row in fitted.rows]


def test_wrong_recoveries_are_refused(pruned):
  got, name, _ = pruned
  alive = jax.tree.map(np.array, got.params)
  named_leaves(alive)[name][...] = 1
  with pytest.raises(ValueError, match=f"'{name}' has weights that its mask prunes"):
    recover.finetune(MODEL, alive, got.masks, batches(1))
  with pytest.raises(ValueError, match='shaped like params'):
    recover.finetune(MODEL, got.params, {'a': np.ones(2, bool)}, batches(1))
  with pytest.raises(ValueError, match='rank=0 must be'):
    recover.lora(MODEL, got.params, got.masks, batches(1), rank=0)
  with pytest.raises(ValueError, match='prune no kernel'):
    whole = jax.tree.map(lambda x: np.ones(x.shape, bool), got.params)
    recover.lora(MODEL, got.params, whole, batches(1))
  with pytest.raises(ValueError, match='learning_rate=0 must be'):
    oneshot.reconstruct(learning_rate=0)
  with pytest.raises(ValueError, match='is float32: expected bool'):
    recover.finetune(MODEL, got.params, jax.tree.map(np.float32, got.masks), batches(1))
  model, params = toy_decoder.make('heads')
  masks = jax.tree.map(lambda x: np.abs(x) > 0.1, params)
  params = jax.tree.map(lambda x, mask: x * mask, params, masks)
  with pytest.raises(ValueError, match=r"which axes of 'block_0/up', whose shape is \(8, 2, 8\)"):
    recover.lora(model, params, masks, [toy_decoder.SEGMENTS])
  with pytest.raises(FloatingPointError, match='the loss is nan'):
    recover.finetune(MODEL, got.params, got.masks, batches(3), learning_rate=float('nan'))
  for way in (recover.finetune, recover.lora):
    with pytest.raises(ValueError, match='batches has none'):
      way(MODEL, got.params, got.masks, [])
    with pytest.raises(FloatingPointError, match='is not finite after step 0'):
      way(MODEL, got.params, got.masks, batches(1), learning_rate=float('inf'))
