"""A decoder in three functions: embed, block and head. Whoever goes block by block needs no more.

One block at a time is compiled once and used for all blocks of equal kind, and only one block's
intermediate values are held.

  parts = of(size)
  hidden = parts.embed(params, tokens)
  for i, block in enumerate(parts.blocks):
    hidden = block(parts.take(params, i), hidden)
  logits = parts.head(params, hidden)
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from prunejax.models import gpt2, llama, opt

FAMILIES = ('gpt2', *llama.MODEL_TYPES, 'opt')


class Parts(NamedTuple):
  """The parts of a parts. All tokens are taken to be valid. Nothing is compiled yet.

  Attributes:
    embed: (params, tokens int [batch, length]) -> hidden [batch, length, width].
    blocks: for each layer, (its params, hidden) -> hidden. Layers that differ in nothing but their
      params have one and the same function, so `jax.jit` compiles it once.
    head: (params, hidden) -> logits float32 [batch, length, vocabulary].
    paths: for each layer, the path of its params, such as 'encoder/layer_0'.
    take: (params, i) -> the params of layer i, a dict.
    put: (params, i, its params) -> params; what was given does not change.
    outer: params -> what `embed` and `head` read of them.
  """

  embed: Callable[[Any, jax.Array], jax.Array]
  blocks: tuple[Callable[[Any, jax.Array], jax.Array], ...]
  head: Callable[[Any, jax.Array], jax.Array]
  paths: tuple[str, ...]
  take: Callable[[Any, int], Any]
  put: Callable[[Any, int, Any], Any]
  outer: Callable[[Any], Any]


def of(size: Any, dtype: Any = jnp.float32) -> Parts:
  """Returns the parts of a model.

  Args:
    size: a config of transformers: of GPT-2, Llama, Mistral, Qwen2, Qwen3 or OPT.
    dtype: of the computation.

  Raises:
    ValueError: a model of another kind, or a size that its module refuses.
  """
  kind = size.model_type
  if kind not in FAMILIES:
    raise ValueError(f'a model of model_type {kind!r}: expected one of {", ".join(FAMILIES)}')
  parts = {'gpt2': _gpt2, 'opt': _opt}.get(kind, _llama)
  return parts(size, dtype)


def take(params: Mapping, i: int) -> Any:
  """Returns the params of layer i."""
  return params['encoder'][f'layer_{i}']


def put(params: Mapping, i: int, layer: Any) -> dict:
  """Returns params whose layer i is another one."""
  return {**params, 'encoder': {**params['encoder'], f'layer_{i}': layer}}


def outer(params: Mapping) -> dict:
  """Returns the params without those of the layers."""
  return {name: leaf for name, leaf in params.items() if name != 'encoder'}


def _apply(module, params, *args):
  return module.apply({'params': params}, *args)


def _parts(embed, kinds, block, head):
  """A decoder whose layer i is of the kind `kinds[i]`; `block(kind)` makes its function."""
  paths = tuple(f'encoder/layer_{i}' for i in range(len(kinds)))
  made = {kind: block(kind) for kind in dict.fromkeys(kinds)}
  return Parts(embed, tuple(made[kind] for kind in kinds), head, paths, take, put, outer)


def _attend(params, hidden, dtype):
  """Logits of a head that is tied to the word table."""
  table = params['embeddings']['word']['embedding'].astype(dtype)
  return jnp.dot(hidden, table.T).astype(jnp.float32)


def _gpt2(size, dtype):
  gpt2.check(size)
  parts = (size, dtype, gpt2.initializers('normal', size))
  norm = gpt2.nn.LayerNorm(size.layer_norm_epsilon, dtype=dtype)

  def embed(params, tokens):
    return _apply(gpt2.Embeddings(*parts), params['embeddings'], tokens, True)[0]

  def block(widths):
    return lambda layer, hidden: _apply(
      gpt2.Layer(*parts, widths), layer, hidden, jnp.ones(hidden.shape[:2], bool), True
    )

  def head(params, hidden):
    return _attend(params, _apply(norm, params['norm'], hidden), dtype)

  return _parts(embed, gpt2.widths(size), block, head)


def _llama(size, dtype):
  llama.check(size)
  parts = (size, dtype, llama.initializers('normal', size))
  norm = llama.RMSNorm(size.rms_norm_eps, dtype)
  kinds = list(zip(llama.widths(size), llama.switches(size).windows, strict=True))

  def embed(params, tokens):
    return jnp.take(params['embeddings']['word']['embedding'], tokens, axis=0).astype(dtype)

  def block(kind):
    module = llama.Layer(*parts, *kind)
    return lambda layer, hidden: _apply(module, layer, hidden, None)

  def head(params, hidden):
    hidden = _apply(norm, params['norm'], hidden)
    if size.tie_word_embeddings:
      return _attend(params, hidden, dtype)
    return jnp.dot(hidden, params['lm']['kernel'].astype(dtype)).astype(jnp.float32)

  return _parts(embed, kinds, block, head)


def _opt(size, dtype):
  opt.check(size)
  parts = (size, dtype, opt.initializers('normal', size))
  norm = opt.nn.LayerNorm(opt.EPSILON, dtype=dtype)

  def embed(params, tokens):
    return _apply(opt.Embeddings(*parts), params['embeddings'], tokens)[0]

  def block(widths):
    return lambda layer, hidden: _apply(opt.Layer(*parts, widths), layer, hidden, None)

  def head(params, hidden):
    if size.do_layer_norm_before:
      hidden = _apply(norm, params['norm'], hidden)
    if 'project' in params:
      hidden = jnp.dot(hidden, params['project']['kernel'].astype(dtype))
    return _attend(params, hidden, dtype)

  return _parts(embed, opt.widths(size), block, head)
