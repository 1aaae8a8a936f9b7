"""Models with fewer blocks or inner neurons compute what the pruned model computes, and reload."""

import jax
import numpy as np
import pytest
import transformers
from flax import traverse_util
from tiny_decoder import SIZE, model_and_params, tokens

import prunejax
from prunejax import oneshot
from prunejax.models import gpt2
from prunejax.models.hf import gpt2 as gpt2_hf
from prunejax.oneshot import decoders, depth, recover, width

MODEL = decoders.of_size(SIZE)


def test_the_neighbours_that_turn_the_last_token_least_are_chosen():
  params, segments = model_and_params()[1], tokens(3)
  chosen = depth.by_angle(MODEL, params, segments, 2)
  states = [np.asarray(MODEL.embed(params, segments))]
  for i in range(SIZE.n_layer):
    states.append(np.asarray(MODEL.block[i](params['encoder'][f'layer_{i}'], states[-1])[0]))
  last = [np.float64(h[:, -1]) for h in states]

  def angle(a, b):
    cosine = np.sum(a * b, -1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)
    return np.mean(np.arccos(cosine)) / np.pi

  first = np.argmin([angle(last[i], last[i + 2]) for i in range(SIZE.n_layer - 1)])
  assert chosen == [first, first + 1]


def test_the_block_without_which_the_loss_is_lowest_goes_first():
  params, segments = model_and_params()[1], tokens(3)
  chosen = depth.by_perplexity(MODEL, params, segments, 1)
  losses = []
  for i in range(SIZE.n_layer):
    fewer, size = depth.drop(params, SIZE, [i])
    out = recover.logits(decoders.of_size(size), fewer, segments)
    losses.append(float(recover.next_token_loss(out, segments)))
  assert chosen == [int(np.argmin(losses))]
  assert len(depth.by_perplexity(MODEL, params, segments, 2)) == 2


def test_a_number_of_heads_that_transformers_refuses_is_refused_at_once():
  size = transformers.LlamaConfig(
    hidden_size=64, num_attention_heads=8, num_key_value_heads=4, head_dim=8
  )
  assert width.kv_groups(size, 2).kept == 2
  with pytest.raises(ValueError, match='groups=3 .*expected 1 or 2'):
    width.kv_groups(size, 3)
  # Qwen3's config takes any number of heads.
  other = transformers.Qwen3Config(
    hidden_size=64, num_attention_heads=8, num_key_value_heads=4, head_dim=8
  )
  assert width.kv_groups(other, 3).kept == 3


@pytest.mark.parametrize('field', ['heads_per_layer', 'intermediate_per_layer'])
def test_layers_of_different_widths_are_refused_at_once(field):
  size = transformers.LlamaConfig(
    hidden_size=64, num_attention_heads=8, num_key_value_heads=4, head_dim=8
  )
  setattr(size, field, [8, 6])
  with pytest.raises(ValueError, match=rf'ffn_width: .*{field}=\[8, 6\], as `export --to=shrunk`'):
    width.ffn_width(size, 16)
  with pytest.raises(ValueError, match='kv_groups: each layer of this model has a width'):
    width.kv_groups(size, 2)


def test_hidden_states_that_are_not_finite_choose_no_block():
  params = jax.tree.map(np.array, model_and_params()[1])
  params['encoder']['layer_1']['ffn']['output']['bias'][0] = np.nan
  with pytest.raises(FloatingPointError, match='is not finite, or 0'):
    depth.by_angle(MODEL, params, tokens(2), 1)
  # Without the block that holds it the loss is finite.
  assert depth.by_perplexity(MODEL, params, tokens(2), 1) == [1]


def test_a_model_without_a_block_is_plain_and_loads_again(tmp_path):
  params = jax.tree.map(np.array, model_and_params()[1])
  for name in ('attention', 'ffn'):  # a block that changes nothing
    params['encoder']['layer_1'][name]['output'] = jax.tree.map(
      np.zeros_like, params['encoder']['layer_1'][name]['output']
    )
  fewer, size = depth.drop(params, SIZE, [1])
  assert size.n_layer == 2 and SIZE.n_layer == 3
  gpt2_hf.save(tmp_path / 'model', fewer, size)
  loaded, again = gpt2_hf.load(tmp_path / 'model')
  ids = tokens(2)
  apply = lambda size, params: gpt2.Gpt2(size).apply({'params': params}, ids, ids, ids >= 0)['lm']
  np.testing.assert_allclose(apply(again, loaded), apply(SIZE, params), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
  'criterion',
  [*(pytest.param(name, marks=pytest.mark.slow) for name in ('magnitude', 'wanda')), 'sparsegpt'],
)
def test_a_narrower_model_computes_what_the_pruned_one_computes(criterion, tmp_path):
  params = jax.tree.map(np.array, model_and_params()[1])
  how = width.ffn_width(SIZE, 80)
  got = oneshot.prune(
    MODEL,
    params,
    tokens(4),
    criterion=getattr(prunejax, criterion)(),
    allocation=prunejax.uniform(),
    sparsity=how.sparsity,
    structure=how.structure,
    where=how.where,
  )
  narrow, size = width.cut(got.params, got.masks, SIZE, how)
  assert size.n_inner == 80 and not hasattr(size, 'intermediate_per_layer')
  gpt2_hf.save(tmp_path / 'model', narrow, size)
  loaded, again = gpt2_hf.load(tmp_path / 'model')
  ids = tokens(2)
  apply = lambda size, params: gpt2.Gpt2(size).apply({'params': params}, ids, ids, ids >= 0)['lm']
  # A neuron without weights still gives gelu(bias); the biases here are 0, and gelu(0) is 0.
  np.testing.assert_allclose(apply(again, loaded), apply(SIZE, got.params), rtol=1e-4, atol=1e-5)
  kernel = traverse_util.flatten_dict(got.masks, sep='/')['encoder/layer_0/ffn/output/kernel']
  assert kernel.any(1).sum() == 80 and kernel.all(1).sum() == 80


def test_wrong_sizes_are_refused():
  with pytest.raises(ValueError, match='ffn_width: neurons=128; the model has 128'):
    width.ffn_width(SIZE, 128)
  with pytest.raises(ValueError, match='has no num_key_value_heads'):
    width.kv_groups(SIZE, 1)
  with pytest.raises(ValueError, match='3 blocks cannot be dropped of 3'):
    depth.by_angle(MODEL, model_and_params()[1], tokens(1), 3)
