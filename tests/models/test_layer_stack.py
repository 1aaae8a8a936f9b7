"""Layers unrolled, scanned and rematerialised compute the same, dropout included."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import transformers

from prunejax.models import bert, gpt2, layer_stack, llama, opt

BERT = transformers.BertConfig(
  vocab_size=50,
  hidden_size=16,
  num_hidden_layers=3,
  num_attention_heads=2,
  intermediate_size=32,
  max_position_embeddings=16,
)
GPT2 = transformers.GPT2Config(
  vocab_size=50, n_embd=16, n_layer=3, n_head=2, n_positions=16, bos_token_id=0, eos_token_id=0
)
LLAMA = transformers.LlamaConfig(
  vocab_size=50,
  hidden_size=16,
  num_hidden_layers=3,
  num_attention_heads=4,
  num_key_value_heads=2,
  intermediate_size=24,
  max_position_embeddings=16,
  attention_dropout=0.1,
)
OPT = transformers.OPTConfig(
  vocab_size=50,
  hidden_size=16,
  num_hidden_layers=3,
  num_attention_heads=2,
  ffn_dim=24,
  word_embed_proj_dim=16,
  max_position_embeddings=16,
  attention_dropout=0.1,
)
MODELS = {
  'bert': (bert.Bert, BERT, 'mlm'),
  'gpt2': (gpt2.Gpt2, GPT2, 'lm'),
  'llama': (llama.Llama, LLAMA, 'lm'),
  'opt': (opt.Opt, OPT, 'lm'),
}
IDS = np.random.default_rng(0).integers(0, 50, (4, 8))
VALID = np.arange(8)[None] < np.array([8, 5, 7, 1])[:, None]


@functools.cache
def drawn(name):
  module, size, head = MODELS[name]
  return module(size, (head,)).init(jax.random.key(0), IDS, IDS * 0, VALID)['params']


@functools.cache
def loss_and_gradient(name, scan_layers, remat):
  """Of parameters unrolled, with dropout."""
  module, size, head = MODELS[name]
  model = module(size, (head,), scan_layers=scan_layers, remat=remat)

  def loss(params):
    params = layer_stack.stack(params) if scan_layers else params
    keys = {'dropout': jax.random.key(7)}
    out = model.apply({'params': params}, IDS, IDS * 0, VALID, deterministic=False, rngs=keys)
    return jnp.mean(out[head] ** 2)

  return jax.jit(jax.value_and_grad(loss))(drawn(name))


# Every model scanned, and the first one in every way; the others are slow.
WAYS = [
  pytest.param(
    name,
    scan_layers,
    remat,
    marks=()
    if name == next(iter(MODELS)) or (scan_layers and remat == 'none')
    else pytest.mark.slow,
  )
  for name in MODELS
  for scan_layers in (False, True)
  for remat in layer_stack.REMAT
]


@pytest.mark.parametrize('name, scan_layers, remat', WAYS)
def test_all_ways_to_run_the_layers_have_one_loss_and_one_gradient(name, scan_layers, remat):
  loss, gradient = loss_and_gradient(name, False, 'none')
  same_loss, same_gradient = loss_and_gradient(name, scan_layers, remat)
  assert same_loss == pytest.approx(float(loss), rel=1e-6)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-8), gradient, same_gradient
  )


@pytest.mark.parametrize('name', MODELS)
def test_stack_and_unstack_are_inverse_and_fit_the_module(name):
  module, size, head = MODELS[name]
  params = drawn(name)
  stacked = layer_stack.stack(params)
  init = functools.partial(module(size, (head,), scan_layers=True).init, jax.random.key(0))
  own = jax.eval_shape(init, IDS, IDS * 0, VALID)['params']
  assert jax.tree.map(jnp.shape, stacked) == jax.tree.map(jnp.shape, own)
  kernel = params['encoder']['layer_2']['ffn']['output']['kernel']
  assert np.array_equal(stacked['encoder']['layers']['ffn']['output']['kernel'][2], kernel)
  back = layer_stack.unstack(stacked)
  assert jax.tree.structure(back) == jax.tree.structure(params)
  assert all(jax.tree.leaves(jax.tree.map(np.array_equal, back, params)))
  shapes = jax.eval_shape(lambda: stacked)
  assert jax.tree.map(jnp.shape, layer_stack.unstack(shapes)) == jax.tree.map(jnp.shape, params)


def test_layers_of_a_shrunk_model_are_not_stacked():
  size = transformers.BertConfig(**{**BERT.to_dict(), 'intermediate_per_layer': [32, 8, 32]})
  model = bert.Bert(size, ('mlm',), scan_layers=True)
  with pytest.raises(ValueError, match='scan_layers=True: layer 1 has other shapes than layer 0'):
    jax.eval_shape(model.init, jax.random.key(0), IDS, IDS * 0, VALID)
  params = jax.eval_shape(bert.Bert(size, ()).init, jax.random.key(0), IDS, IDS * 0, VALID)
  with pytest.raises(ValueError, match='layer 1 has other shapes'):
    layer_stack.stack(params['params'])
  with pytest.raises(ValueError, match='expected layer_0, layer_1'):
    layer_stack.stack({'layer_0': {'a': 1.0}, 'layer_2': {'a': 1.0}})
