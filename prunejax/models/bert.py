"""BERT (Devlin et al. 2019) in Flax Linen. Every prunable kernel is a 2-D leaf `[in, out]`.

Parameters are a plain dict whose paths read like the model:

  embeddings/{word,position,segment}/embedding   embeddings/norm/{scale,bias}
  encoder/layer_3/attention/{query,key,value,output}/{kernel,bias}   .../attention/norm
  encoder/layer_3/ffn/{intermediate,output}/{kernel,bias}            .../ffn/norm
  pooler/{kernel,bias}
  mlm/{transform/{kernel,bias},norm,bias}   nsp/{kernel,bias}   classifier/{kernel,bias}
  spans/{kernel,bias} (without a pooler)

Layers are separate leaves, unless the model scans over its layers, see layer_stack.py. In a shrunk
model each layer has its own number of heads and inner neurons, see `widths`.
"""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from prunejax.models import layer_stack
from prunejax.models.attention import attend

# Gordon et al. 2020: six matrices of each layer, the word embeddings (which are also the softmax of
# the MLM head) and the pooler.
PRUNABLE = (
  r'embeddings/word/embedding'
  r'|encoder/layer_\d+/(attention/(query|key|value|output)|ffn/(intermediate|output))/kernel'
  r'|pooler/kernel'
)
HEADS = ('mlm', 'nsp', 'classifier', 'spans')
DROPOUTS = {'attention': {'Dropout_0': {}, 'Dropout_1': {}}, 'ffn': {'Dropout_0': {}}}  # of a layer
OWN = ('heads_per_layer', 'intermediate_per_layer')  # config fields of prunejax alone, see `widths`
ACTIVATIONS = {
  'gelu': lambda x: nn.gelu(x, approximate=False),
  'gelu_new': lambda x: nn.gelu(x, approximate=True),
  'relu': nn.relu,
}
# Other spellings of these functions in transformers.
SPELLINGS = {
  'gelu_python': 'gelu',
  'gelu_pytorch_tanh': 'gelu_new',
  'gelu_python_tanh': 'gelu_new',
  'gelu_fast': 'gelu_new',
  'gelu_accurate': 'gelu_new',
}


def activation(name: str) -> str:
  """Returns the key of `ACTIVATIONS` that computes an activation of transformers.

  Raises:
    ValueError: there is none.
  """
  known = SPELLINGS.get(name, name) if isinstance(name, str) else None
  if known not in ACTIVATIONS:
    raise ValueError(f'{name!r}: expected one of {sorted({*ACTIVATIONS, *SPELLINGS})}')
  return known


def sinusoids(key: Any, shape: tuple[int, int], dtype: Any = jnp.float32) -> jax.Array:
  """Makes the sinusoids of Vaswani et al. 2017, section 3.5, scaled to deviation 1/sqrt(hidden).

  Args:
    key: unused; it makes this a Flax initializer.
    shape: (positions, hidden).
    dtype: of the result.

  Returns:
    An array [positions, hidden].
  """
  del key
  length, width = shape
  angle = np.arange(length)[:, None] / 10000 ** (2 * (np.arange(width)[None] // 2) / width)
  waves = np.where(np.arange(width)[None] % 2 == 0, np.sin(angle), np.cos(angle))
  return jnp.asarray(waves * math.sqrt(2 / width), dtype)


def initializers(kind: str, size: Any) -> tuple[Any, Any, Any]:
  """Returns the initializers of kernels, of word and segment embeddings, and of positions.

  Args:
    kind: 'normal' is BERT's own: deviation `size.initializer_range`, truncated at two deviations.
      'fan_in' has deviation 1/sqrt(fan-in) and sinusoids for positions; with it a model a few
      hundred units wide learns more than word frequencies.
    size: a `transformers.BertConfig`.

  Raises:
    ValueError: another kind.
  """
  if kind == 'normal':
    return (nn.initializers.truncated_normal(size.initializer_range),) * 3
  if kind == 'fan_in':
    kernel = nn.initializers.variance_scaling(1.0, 'fan_in', 'truncated_normal')
    return kernel, nn.initializers.normal(size.hidden_size**-0.5), sinusoids
  raise ValueError(f'model.initializer={kind!r}: expected "normal" or "fan_in"')


def widths(size: Any) -> list[tuple[int, int, int]]:
  """Returns (number of heads, width of a head, number of inner neurons) of each layer.

  A shrunk model has two more fields in its config.json, `heads_per_layer` and
  `intermediate_per_layer`: lists with one number a layer, which may be 0. Only prunejax reads them.
  The width of a head stays `hidden_size / num_attention_heads`.

  Args:
    size: a `transformers.BertConfig`.
  """
  return widths_of(size, size.intermediate_size)


def widths_of(size: Any, intermediate_size: int) -> list[tuple[int, int, int]]:
  """Returns `widths` of a size that names its number of inner neurons otherwise."""
  depth, width = size.num_hidden_layers, size.hidden_size // size.num_attention_heads
  heads = getattr(size, 'heads_per_layer', None) or [size.num_attention_heads] * depth
  inner = getattr(size, 'intermediate_per_layer', None) or [intermediate_size] * depth
  return [(h, width, i) for h, i in zip(heads, inner, strict=True)]


def check(size: Any, heads: tuple[str, ...] = (), *, length: int = 1) -> None:
  """Checks what `Bert` would otherwise compute wrongly without an error.

  Args:
    size: a `transformers.BertConfig`.
    heads: names of heads.
    length: tokens of an example.

  Raises:
    ValueError: an unknown activation or head; a hidden size that does not divide among the heads;
      lists of `widths` that do not fit; more tokens than positions.
  """
  try:
    activation(size.hidden_act)
  except ValueError as error:
    raise ValueError(f'hidden_act={error}') from None
  if size.hidden_size % size.num_attention_heads:
    raise ValueError(
      f'hidden_size={size.hidden_size} does not divide into '
      f'num_attention_heads={size.num_attention_heads} equal heads'
    )
  check_widths(size)
  unknown = [head for head in heads if head not in HEADS]
  if unknown:
    raise ValueError(f'heads={heads!r}: unknown {unknown}, expected any of {list(HEADS)}')
  if length > size.max_position_embeddings:
    # A lookup past the end of the table would give NaN instead of an error.
    raise ValueError(
      f'a sequence of {length} tokens is longer than '
      f'max_position_embeddings={size.max_position_embeddings}'
    )


def check_widths(size: Any) -> None:
  """Raises ValueError for lists of a shrunk model, see `widths`, that do not fit its layers."""
  for field, most in (
    ('heads_per_layer', size.num_attention_heads),
    ('intermediate_per_layer', 2**31),
  ):
    numbers, depth = getattr(size, field, None), size.num_hidden_layers
    if numbers is None:
      continue
    valid = isinstance(numbers, list | tuple) and all(
      type(n) is int and 0 <= n <= most for n in numbers
    )
    if not valid or len(numbers) != depth:
      raise ValueError(
        f'{field}={numbers!r}: expected {depth} integers, one a layer, from 0 to {most}'
      )


class Attention(nn.Module):
  """Self-attention with BERT's residual and post-LayerNorm. x: [batch, length, hidden]."""

  size: Any
  dtype: Any
  kernel_init: Any
  attention: str
  heads: int
  width: int

  @nn.compact
  def __call__(self, x, valid, deterministic, keys):
    size, (batch, length, hidden), inner = self.size, x.shape, self.heads * self.width
    drop = lambda rate, name: (
      lambda y: nn.Dropout(rate, name=name)(y, deterministic=deterministic, rng=keys.get(name))
    )
    # An empty kernel, of a layer without heads, cannot be drawn.
    init = self.kernel_init if inner else nn.initializers.zeros
    dense = lambda name, width=inner: nn.Dense(width, dtype=self.dtype, kernel_init=init, name=name)
    split = lambda y: y.reshape(batch, length, self.heads, self.width)
    query, key, value = (split(dense(name)(x)) for name in ('query', 'key', 'value'))
    rate, visible = size.attention_probs_dropout_prob, valid[:, None, None, :]
    dropped = drop(rate, 'Dropout_0') if rate and not deterministic else None
    how = dict(kind=self.attention, dtype=self.dtype, drop=dropped)
    mixed = attend(query, key, value, visible, **how).reshape(batch, length, inner)
    out = drop(size.hidden_dropout_prob, 'Dropout_1')(dense('output', hidden)(mixed))
    return nn.LayerNorm(size.layer_norm_eps, dtype=self.dtype, name='norm')(x + out)


class FeedForward(nn.Module):
  """Two dense layers with BERT's residual and post-LayerNorm. x: [batch, length, hidden]."""

  size: Any
  dtype: Any
  kernel_init: Any
  inner: int

  @nn.compact
  def __call__(self, x, deterministic, keys):
    size = self.size
    init = self.kernel_init if self.inner else nn.initializers.zeros
    dense = lambda width, name: nn.Dense(width, dtype=self.dtype, kernel_init=init, name=name)
    inner = ACTIVATIONS[activation(size.hidden_act)](dense(self.inner, 'intermediate')(x))
    out = dense(size.hidden_size, 'output')(inner)
    drop = nn.Dropout(size.hidden_dropout_prob, name='Dropout_0')
    out = drop(out, deterministic=deterministic, rng=keys.get('Dropout_0'))
    return nn.LayerNorm(size.layer_norm_eps, dtype=self.dtype, name='norm')(x + out)


class Layer(nn.Module):
  """Attention and feed-forward block. widths: one entry of `widths`."""

  size: Any
  dtype: Any
  kernel_init: Any
  widths: tuple
  attention: str = 'einsum'

  @nn.compact
  def __call__(self, x, valid, deterministic, keys=None):
    keys = keys or {}
    parts, (heads, width, inner) = (self.size, self.dtype, self.kernel_init), self.widths
    attention = Attention(*parts, self.attention, heads, width, name='attention')
    x = attention(x, valid, deterministic, keys.get('attention', {}))
    return FeedForward(*parts, inner, name='ffn')(x, deterministic, keys.get('ffn', {}))


class Encoder(nn.Module):
  """The stack of layers."""

  size: Any
  dtype: Any
  kernel_init: Any
  attention: str
  scan_layers: bool
  remat: str

  @nn.compact
  def __call__(self, x, valid, deterministic):
    parts = (self.size, self.dtype, self.kernel_init)
    return layer_stack.run(
      self,
      lambda layer, x, keys: layer(x, valid, deterministic, keys),
      lambda layer, name: Layer(*parts, layer, self.attention, name=name),
      widths(self.size),
      x,
      scan=self.scan_layers,
      remat=self.remat,
      dropouts={} if deterministic else DROPOUTS,
    )


class Embeddings(nn.Module):
  """Sum of word, position and segment embeddings, normalized.

  Returns (x [batch, length, hidden], attend); `attend` multiplies hidden states by the word table.
  """

  size: Any
  dtype: Any
  word_init: Any
  position_init: Any

  @nn.compact
  def __call__(self, input_ids, segment_ids, deterministic):
    size = self.size
    table = lambda rows, draw, name: nn.Embed(
      rows, size.hidden_size, dtype=self.dtype, embedding_init=draw, name=name
    )
    word = table(size.vocab_size, self.word_init, 'word')
    position = table(size.max_position_embeddings, self.position_init, 'position')
    segment = table(size.type_vocab_size, self.word_init, 'segment')
    x = word(input_ids) + position(jnp.arange(input_ids.shape[1])[None]) + segment(segment_ids)
    x = nn.LayerNorm(size.layer_norm_eps, dtype=self.dtype, name='norm')(x)
    return nn.Dropout(size.hidden_dropout_prob)(x, deterministic=deterministic), word.attend


class MlmHead(nn.Module):
  """Dense layer, norm, the tied word table and a bias. x: [batch, predictions, hidden].

  Attributes:
    size: the config.
    dtype: compute dtype.
    kernel_init: of the dense layer.
    act: its activation; '' for that of the config.
  """

  size: Any
  dtype: Any
  kernel_init: Any
  act: str = ''

  @nn.compact
  def __call__(self, x, attend):
    size = self.size
    dense = nn.Dense(
      size.hidden_size, dtype=self.dtype, kernel_init=self.kernel_init, name='transform'
    )
    x = ACTIVATIONS[activation(self.act or size.hidden_act)](dense(x))
    x = nn.LayerNorm(size.layer_norm_eps, dtype=self.dtype, name='norm')(x)
    return attend(x) + self.param('bias', nn.initializers.zeros, (size.vocab_size,))


class Bert(nn.Module):
  """The encoder with some of its heads.

  Attributes:
    size: a `transformers.BertConfig`, or an object with its fields.
    heads: any of 'mlm', 'nsp', 'classifier', 'spans'. With 'spans' alone there is no pooler.
    num_outputs: outputs of the classifier; 1 for regression.
    dtype: compute dtype; parameters stay float32.
    initializer: 'normal' or 'fan_in', see `initializers`.
    scan_layers: weights of the layers are stacked, see layer_stack.py. `init` then draws others
      than the unrolled model's, which `layer_stack.stack` gives.
    remat: what the backward pass computes again, a key of `layer_stack.REMAT`.
    attention: how attention is computed, one of `attention.KINDS`.
  """

  size: Any
  heads: tuple[str, ...] = ('mlm', 'nsp')
  num_outputs: int = 2
  dtype: Any = jnp.float32
  initializer: str = 'normal'
  scan_layers: bool = False
  remat: str = 'none'
  attention: str = 'einsum'

  @nn.compact
  def __call__(self, input_ids, segment_ids, valid, positions=None, *, deterministic=True):
    """Runs the encoder and every head.

    Args:
      input_ids: int [batch, length].
      segment_ids: int [batch, length], 0 or 1.
      valid: bool [batch, length], False at padding.
      positions: int [batch, predictions], where the MLM head predicts; None for all positions.
      deterministic: if False, dropout is drawn from the rng named 'dropout'.

    Returns:
      dict with 'sequence' [batch, length, hidden] and 'pooled' [batch, hidden] in the compute
      dtype, and logits of each head in float32: 'mlm' [batch, predictions, vocabulary], 'nsp'
      [batch, 2] (class 0: B follows A), 'classifier' [batch, num_outputs], 'spans'
      [batch, length, 2] of the first and of the last token of an answer.

    Raises:
      ValueError: a size, heads or a length that do not fit, see `check`.
    """
    size = self.size
    check(size, self.heads, length=input_ids.shape[1])
    kernel_init, embed_init, position_init = initializers(self.initializer, size)
    embeddings = Embeddings(size, self.dtype, embed_init, position_init, name='embeddings')
    x, attend = embeddings(input_ids, segment_ids, deterministic)
    how = (self.attention, self.scan_layers, self.remat)
    x = Encoder(size, self.dtype, kernel_init, *how, name='encoder')(x, valid, deterministic)
    dense = lambda width, name: nn.Dense(
      width, dtype=self.dtype, kernel_init=kernel_init, name=name
    )
    out = {'sequence': x}
    if self.heads != ('spans',):
      pooled = out['pooled'] = nn.tanh(dense(size.hidden_size, 'pooler')(x[:, 0]))
    if 'spans' in self.heads:
      out['spans'] = dense(2, 'spans')(x).astype(jnp.float32)
    if 'mlm' in self.heads:
      # Logits of the predicted positions alone cost 15 % of those of all positions.
      hidden = x if positions is None else jnp.take_along_axis(x, positions[..., None], axis=1)
      mlm = MlmHead(size, self.dtype, kernel_init, name='mlm')
      out['mlm'] = mlm(hidden, attend).astype(jnp.float32)
    if 'nsp' in self.heads:
      out['nsp'] = dense(2, 'nsp')(pooled).astype(jnp.float32)
    if 'classifier' in self.heads:
      rate = size.classifier_dropout
      rate = size.hidden_dropout_prob if rate is None else rate
      pooled = nn.Dropout(rate)(pooled, deterministic=deterministic)
      out['classifier'] = dense(self.num_outputs, 'classifier')(pooled).astype(jnp.float32)
    return out
