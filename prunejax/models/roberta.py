"""RoBERTa (Liu et al. 2019, arXiv:1907.11692) in Flax Linen, from the layers of models/bert.py.

Three things differ from BERT: positions count from `pad_token_id` + 1 and padding has one of its
own, there is no pooler and no next-sentence head, and a task reads the first token through a dense
layer that stays with the classifier.

  embeddings/{word,position,segment}/embedding   embeddings/norm/{scale,bias}
  encoder/layer_3/...                            as in models/bert.py
  mlm/{transform/{kernel,bias},norm,bias}
  classifier/{transform/{kernel,bias},kernel,bias}
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from prunejax.models import bert

# As in Gordon et al. 2020, without a pooler. The dense layer of a task belongs to its classifier.
PRUNABLE = (
  r'embeddings/word/embedding'
  r'|encoder/layer_\d+/(attention/(query|key|value|output)|ffn/(intermediate|output))/kernel'
)
HEADS = ('mlm', 'classifier')


def check(size: Any, heads: tuple[str, ...] = (), *, length: int = 1) -> None:
  """Checks what `Roberta` would otherwise compute wrongly without an error.

  Args:
    size: a `transformers.RobertaConfig`.
    heads: names of heads.
    length: tokens of an example.

  Raises:
    ValueError: as `bert.check` does; a padding id that leaves no position.
  """
  bert.check(size)
  unknown = [head for head in heads if head not in HEADS]
  if unknown:
    raise ValueError(f'heads={heads!r}: unknown {unknown}, expected any of {list(HEADS)}')
  pad = size.pad_token_id
  if type(pad) is not int or not 0 <= pad < size.vocab_size:
    raise ValueError(f'pad_token_id={pad!r}: expected the id of a piece')
  if length > longest(size):
    raise ValueError(
      f'a sequence of {length} tokens is longer than the {longest(size)} that'
      f' max_position_embeddings={size.max_position_embeddings} leaves'
    )


def longest(size: Any) -> int:
  """Returns the most tokens of an example: the first positions belong to padding.

  Args:
    size: a `transformers.RobertaConfig`.
  """
  return size.max_position_embeddings - size.pad_token_id - 1


class Embeddings(nn.Module):
  """As `bert.Embeddings`, with the positions of RoBERTa."""

  size: Any
  dtype: Any
  word_init: Any
  position_init: Any

  @nn.compact
  def __call__(self, input_ids, segment_ids, valid, deterministic):
    size = self.size
    table = lambda rows, draw, name: nn.Embed(
      rows, size.hidden_size, dtype=self.dtype, embedding_init=draw, name=name
    )
    word = table(size.vocab_size, self.word_init, 'word')
    position = table(size.max_position_embeddings, self.position_init, 'position')
    segment = table(size.type_vocab_size, self.word_init, 'segment')
    place = jnp.cumsum(valid, axis=1) * valid + size.pad_token_id
    x = word(input_ids) + position(place) + segment(segment_ids)
    x = nn.LayerNorm(size.layer_norm_eps, dtype=self.dtype, name='norm')(x)
    return nn.Dropout(size.hidden_dropout_prob)(x, deterministic=deterministic), word.attend


class Classifier(nn.Module):
  """A dense layer with tanh, and the outputs of a task. x: [batch, hidden]."""

  size: Any
  dtype: Any
  kernel_init: Any
  outputs: int

  @nn.compact
  def __call__(self, x, deterministic):
    size = self.size
    rate = size.classifier_dropout
    drop = nn.Dropout(size.hidden_dropout_prob if rate is None else rate)
    dense = nn.Dense(
      size.hidden_size, dtype=self.dtype, kernel_init=self.kernel_init, name='transform'
    )
    x = nn.tanh(dense(drop(x, deterministic=deterministic)))
    x = drop(x, deterministic=deterministic)
    kernel = self.param('kernel', self.kernel_init, (size.hidden_size, self.outputs))
    bias = self.param('bias', nn.initializers.zeros, (self.outputs,))
    return x @ kernel.astype(self.dtype) + bias.astype(self.dtype)


class Roberta(nn.Module):
  """RoBERTa with some of its heads. Its attributes and its call are those of `bert.Bert`.

  Segments are those of the table, which has one row in published models: give 0 everywhere.
  """

  size: Any
  heads: tuple[str, ...] = ('mlm',)
  num_outputs: int = 2
  dtype: Any = jnp.float32
  initializer: str = 'normal'
  scan_layers: bool = False
  remat: str = 'none'
  attention: str = 'einsum'

  @nn.compact
  def __call__(self, input_ids, segment_ids, valid, positions=None, *, deterministic=True):
    """Runs the encoder and every head; see `bert.Bert`.

    Returns:
      dict with 'sequence' [batch, length, hidden] in the compute dtype, and logits of each head in
      float32: 'mlm' [batch, predictions, vocabulary], 'classifier' [batch, num_outputs].

    Raises:
      ValueError: a size, heads or a length that do not fit, see `check`.
    """
    size = self.size
    check(size, self.heads, length=input_ids.shape[1])
    kernel_init, *inits = bert.initializers(self.initializer, size)
    embeddings = Embeddings(size, self.dtype, *inits, name='embeddings')
    x, attend = embeddings(input_ids, segment_ids, valid, deterministic)
    how = (self.attention, self.scan_layers, self.remat)
    encoder = bert.Encoder(size, self.dtype, kernel_init, *how, name='encoder')
    x = encoder(x, valid, deterministic)
    out = {'sequence': x}
    if 'mlm' in self.heads:
      hidden = x if positions is None else jnp.take_along_axis(x, positions[..., None], axis=1)
      mlm = bert.MlmHead(size, self.dtype, kernel_init, 'gelu', name='mlm')  # in any config
      out['mlm'] = mlm(hidden, attend).astype(jnp.float32)
    if 'classifier' in self.heads:
      head = Classifier(size, self.dtype, kernel_init, self.num_outputs, name='classifier')
      out['classifier'] = head(x[:, 0], deterministic).astype(jnp.float32)
    return out
