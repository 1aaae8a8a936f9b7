"""What belongs to each kind of model: an encoder, 'bert', and a decoder, 'gpt2'. One row each."""

import copy
import json
import pathlib
from typing import Any, NamedTuple

import jax.numpy as jnp
import transformers

from prunejax.data import bpe, pretraining, wordpiece
from prunejax.data import causal_lm as causal
from prunejax.models import bert, gpt2
from prunejax.models.hf import bert as bert_hf
from prunejax.models.hf import folder as hf_directory
from prunejax.models.hf import gpt2 as gpt2_hf
from prunejax.train import objectives


class Kind(NamedTuple):
  """One kind of model.

  module: the Flax module, made of (size, heads, outputs, dtype, initializer).
  files: `load`, `save` and `read_size` of its Hugging Face folder.
  config: the class of transformers that says its size.
  names: {key of config.model: field of that class}.
  fields: of that class, what the model reads.
  dropout: those that model.dropout sets.
  heads: of pre-training; its objective, and how its examples are made: a module with `Recipe`, `stream`, `batch`.
  recipe: (the group `data` of a config) -> Recipe.
  predictions: (the same) -> tokens predicted of an example.
  words: module of its vocabularies. spelled: tokenizer -> arguments of `files.save` that tell it.
  width: size -> between the two maps of a feed-forward block.
  """

  module: Any
  files: Any
  config: Any
  names: dict
  fields: tuple
  dropout: tuple
  heads: tuple
  objective: Any
  examples: Any
  recipe: Any
  predictions: Any
  words: Any
  spelled: Any
  width: Any


SIZE_KEYS = (
  'hidden_size',
  'num_hidden_layers',
  'num_attention_heads',
  'intermediate_size',
  'max_position_embeddings',
)
_GPT2_SIZE = ('n_embd', 'n_layer', 'n_head', 'n_inner', 'n_positions')
_BERT_DROPOUT = ('hidden_dropout_prob', 'attention_probs_dropout_prob')
_GPT2_DROPOUT = ('resid_pdrop', 'embd_pdrop', 'attn_pdrop')

KINDS = {
  'bert': Kind(
    bert.Bert,
    bert_hf,
    transformers.BertConfig,
    names=dict(zip(SIZE_KEYS, SIZE_KEYS, strict=True)),
    fields=(
      'vocab_size',
      *SIZE_KEYS,
      'type_vocab_size',
      'hidden_act',
      'layer_norm_eps',
      'initializer_range',
      'classifier_dropout',
      *_BERT_DROPOUT,
      *bert.OWN,
    ),
    dropout=_BERT_DROPOUT,
    heads=('mlm', 'nsp'),
    objective=objectives.pretraining,
    examples=pretraining,
    recipe=lambda data: pretraining.Recipe(
      data.seq_len, data.predict, data.max_predictions, matched=data.pairs == 'matched'
    ),
    predictions=lambda data: data.max_predictions,
    words=wordpiece,
    spelled=lambda tokenizer: {
      'vocab': wordpiece.pieces(tokenizer),
      'lowercase': wordpiece.lowered(tokenizer),
    },
    width=lambda size: size.intermediate_size,
  ),
  'gpt2': Kind(
    gpt2.Gpt2,
    gpt2_hf,
    transformers.GPT2Config,
    names=dict(zip(SIZE_KEYS, _GPT2_SIZE, strict=True)),
    fields=(
      'vocab_size',
      *_GPT2_SIZE,
      'activation_function',
      'layer_norm_epsilon',
      'initializer_range',
      *_GPT2_DROPOUT,
    ),
    dropout=_GPT2_DROPOUT,
    heads=('lm',),
    objective=objectives.causal,
    examples=causal,
    recipe=lambda data: causal.Recipe(data.seq_len),
    predictions=lambda data: data.seq_len,
    words=bpe,
    spelled=lambda tokenizer: {'vocab': bpe.parts(tokenizer)},
    width=gpt2.inner_width,
  ),
}


def named(name, where):
  """The Kind called `name`. Raises ValueError naming `where` it came from."""
  if name not in KINDS:
    raise ValueError(f'{where} is of model_type {name!r}: expected one of {", ".join(KINDS)}')
  return KINDS[name]


def in_folder(folder):
  """The Kind that a Hugging Face folder holds; without a model_type it is taken for a BERT."""
  path = pathlib.Path(folder) / 'config.json'
  return named(hf_directory.read_config(folder).get('model_type', 'bert'), path)


def of_size(size):
  """The Kind whose size a config of transformers is."""
  return KINDS[size.model_type]


def size_of(fields):
  """A size from a dict of its fields, 'model_type' among them."""
  return KINDS[fields['model_type']].config(
    **{k: v for k, v in fields.items() if k != 'model_type'}
  )


def parsed(text):
  """A size from its JSON."""
  return size_of(json.loads(text))


def fresh_size(kind, sizes, vocab_size):
  """A size of the family. sizes: {key of SIZE_KEYS: number}, as the group `model` of a config has."""
  fields = {field: sizes[key] for key, field in kind.names.items()}
  return kind.config(vocab_size=vocab_size, **fields)


def with_dropout(size, rate):
  """A copy of `size` whose model drops the share `rate`."""
  size = copy.deepcopy(size)
  for field in of_size(size).dropout:
    setattr(size, field, rate)
  return size


def read_only(kind, size):
  """`size` with what the model reads alone: two folders of one size are one program."""
  fields = {field: getattr(size, field) for field in kind.fields if hasattr(size, field)}
  return size_of({**fields, 'model_type': size.model_type})


def heads(kind, task):
  """The heads of a run on a task, or, where `task` is empty, of pre-training."""
  return ('classifier',) if task else kind.heads


def save(folder, params, size, tokenizer, dtype='float32'):
  """Writes a model and its vocabulary, where there is one, as a Hugging Face folder."""
  kind = of_size(size)
  told = {} if tokenizer is None else kind.spelled(tokenizer)
  kind.files.save(folder, params, size, dtype=dtype, **told)


def make(size, heads, outputs=2, dtype=jnp.float32, initializer='normal'):
  """The Flax module. size: JSON of a size."""
  size = parsed(size)
  return of_size(size).module(size, heads, outputs, dtype, initializer)
