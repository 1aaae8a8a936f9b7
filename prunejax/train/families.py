"""Model families, one row each: encoders, decoders, and XLNet, which is between them."""

import copy
import inspect
import json
import pathlib
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp

from prunejax.data import (
  bpe,
  encoder_bpe,
  masked_lm,
  permutation_lm,
  pretraining,
  tasks,
  tokenizer_file,
  unigram,
  wordpiece,
)
from prunejax.data import causal_lm as causal
from prunejax.models import bert, gguf_file, gpt2, llama, modernbert, opt, roberta, xlnet
from prunejax.models.hf import bert as bert_hf
from prunejax.models.hf import convert
from prunejax.models.hf import folder as hf_directory
from prunejax.models.hf import gpt2 as gpt2_hf
from prunejax.models.hf import llama as llama_hf
from prunejax.models.hf import modernbert as modernbert_hf
from prunejax.models.hf import opt as opt_hf
from prunejax.models.hf import roberta as roberta_hf
from prunejax.models.hf import xlnet as xlnet_hf
from prunejax.train import objectives
from prunejax.train.model_sizes import SIZE_KEYS


class Family(NamedTuple):
  """One model family.

  Attributes:
    module: makes the Flax module from (size, heads, outputs, dtype, initializer).
    files: the module that reads and writes its Hugging Face folder: `load`, `save`, `read_size`.
    config: the name of the class of transformers that holds its size.
    names: {key of the group `model` of a config: field of that class}.
    fields: the fields of that class that the model reads.
    dropout: the fields that `model.dropout` sets.
    heads: the heads of pre-training.
    objective: makes the objective of pre-training, see objectives.py.
    examples: the module that makes examples: `Recipe`, `stream`, `batch`.
    recipe: (group `data` of a recipe) -> Recipe of that module.
    predictions: (group `data` of a recipe) -> tokens to predict of an example.
    words: the module of its vocabularies.
    padding: rows that the word table may have beyond the vocabulary.
    spelled: tokenizer -> arguments of `files.save` that describe the vocabulary.
    width: size -> width between the two maps of a feed-forward block.
    widths: size -> [(heads, width of a head, inner neurons)] of each layer.
    activation: the field of the activation.
    longest: size -> the most tokens of an example; None for any.
    fresh: fields of a fresh model that a config does not set.
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
  padding: int
  spelled: Any
  width: Any
  widths: Any
  activation: str
  longest: Any = lambda size: size.max_position_embeddings
  fresh: dict = {}


_IDS = ('bos_token_id', 'eos_token_id', 'pad_token_id')  # carried from a folder to the next
_OPT_SIZE = (
  'hidden_size',
  'num_hidden_layers',
  'num_attention_heads',
  'ffn_dim',
  'max_position_embeddings',
)
_OPT_DROPOUT = ('dropout', 'attention_dropout')
_GPT2_SIZE = ('n_embd', 'n_layer', 'n_head', 'n_inner', 'n_positions')
_BERT_DROPOUT = ('hidden_dropout_prob', 'attention_probs_dropout_prob')
_GPT2_DROPOUT = ('resid_pdrop', 'embd_pdrop', 'attn_pdrop')
_XLNET_SIZE = ('d_model', 'n_layer', 'n_head', 'd_inner')  # XLNet has no table of positions
_MODERN_DROPOUT = ('attention_dropout', 'embedding_dropout', 'mlp_dropout', 'classifier_dropout')
# Ids of a vocabulary of `encoder_bpe.train`.
_MODERN_IDS = dict(zip(('bos', 'pad', 'eos', 'cls', 'sep'), (0, 1, 2, 0, 2), strict=True))

FAMILIES = {
  'bert': Family(
    bert.Bert,
    bert_hf,
    bert_hf.SIZE,
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
    padding=127,
    spelled=lambda tokenizer: {
      'vocab': wordpiece.pieces(tokenizer),
      **wordpiece.settings(tokenizer),
    },
    width=lambda size: size.intermediate_size,
    widths=bert.widths,
    activation='hidden_act',
  ),
  'gpt2': Family(
    gpt2.Gpt2,
    gpt2_hf,
    gpt2_hf.SIZE,
    names=dict(zip(SIZE_KEYS, _GPT2_SIZE, strict=True)),
    fields=(
      'vocab_size',
      *_GPT2_SIZE,
      'activation_function',
      'layer_norm_epsilon',
      'initializer_range',
      *_GPT2_DROPOUT,
      *bert.OWN,
    ),
    dropout=_GPT2_DROPOUT,
    heads=('lm',),
    objective=objectives.causal,
    examples=causal,
    recipe=lambda data: causal.Recipe(data.seq_len),
    predictions=lambda data: data.seq_len,
    words=bpe,
    padding=127,
    spelled=lambda tokenizer: {
      'vocab': bpe.parts(tokenizer),
      'added': bpe.added(tokenizer),
    },
    width=gpt2.inner_width,
    widths=gpt2.widths,
    activation='activation_function',
  ),
  'roberta': Family(
    roberta.Roberta,
    roberta_hf,
    roberta_hf.LAYOUT.config,
    names=dict(zip(SIZE_KEYS, SIZE_KEYS, strict=True)),
    fields=(
      'vocab_size',
      *SIZE_KEYS,
      'type_vocab_size',
      'hidden_act',
      'layer_norm_eps',
      'initializer_range',
      'classifier_dropout',
      'pad_token_id',
      *_BERT_DROPOUT,
    ),
    dropout=_BERT_DROPOUT,
    heads=('mlm',),
    objective=objectives.masked,
    examples=masked_lm,
    recipe=lambda data: masked_lm.Recipe(data.seq_len, data.predict, data.max_predictions),
    predictions=lambda data: data.max_predictions,
    words=encoder_bpe,
    padding=127,
    spelled=lambda tokenizer: {'vocab': tokenizer},
    width=lambda size: size.intermediate_size,
    widths=bert.widths,
    activation='hidden_act',
    longest=roberta.longest,
    fresh={'type_vocab_size': 1, 'layer_norm_eps': 1e-5},
  ),
  'modernbert': Family(
    modernbert.ModernBert,
    modernbert_hf,
    modernbert_hf.LAYOUT.config,
    names=dict(zip(SIZE_KEYS, SIZE_KEYS, strict=True)),
    fields=(
      'vocab_size',
      *SIZE_KEYS,
      'hidden_activation',
      'initializer_range',
      'initializer_cutoff_factor',
      'norm_eps',
      'norm_bias',
      'attention_bias',
      'mlp_bias',
      'decoder_bias',
      'layer_types',
      'rope_parameters',
      'local_attention',
      'classifier_pooling',
      'classifier_bias',
      'classifier_activation',
      *(f'{name}_token_id' for name in _MODERN_IDS),
      *_MODERN_DROPOUT,
    ),
    dropout=_MODERN_DROPOUT,
    heads=('mlm',),
    objective=objectives.masked,
    examples=masked_lm,
    recipe=lambda data: masked_lm.Recipe(data.seq_len, data.predict, data.max_predictions),
    predictions=lambda data: data.max_predictions,
    words=encoder_bpe,
    padding=127,
    spelled=lambda tokenizer: {'vocab': tokenizer},
    width=lambda size: size.intermediate_size,
    widths=modernbert.widths,
    activation='hidden_activation',
    fresh={f'{name}_token_id': i for name, i in _MODERN_IDS.items()},
  ),
  'xlnet': Family(
    xlnet.Xlnet,
    xlnet_hf,
    xlnet_hf.LAYOUT.config,
    names=dict(zip(SIZE_KEYS, _XLNET_SIZE, strict=False)),
    fields=(
      'vocab_size',
      *_XLNET_SIZE,
      'ff_activation',
      'layer_norm_eps',
      'initializer_range',
      'clamp_len',
      'mem_len',
      'reuse_len',
      'dropout',
      'summary_last_dropout',
    ),
    dropout=('dropout', 'summary_last_dropout'),
    heads=('lm',),
    objective=objectives.permutation,
    examples=permutation_lm,
    recipe=lambda data: permutation_lm.Recipe(
      data.seq_len, data.max_predictions, memory=data.memory, matched=data.pairs == 'matched'
    ),
    predictions=lambda data: data.max_predictions,
    words=unigram,
    padding=127,
    spelled=lambda tokenizer: {'vocab': tokenizer},
    width=lambda size: size.d_inner,
    widths=xlnet.widths,
    activation='ff_activation',
    longest=lambda size: None,
  ),
}


def _decoder(module, files, config, size_fields, more, dropout, width, widths, activation):
  """The row of a decoder whose tokenizer is any BPE tokenizer.json."""
  return Family(
    module,
    files,
    config,
    names=dict(zip(SIZE_KEYS, size_fields, strict=True)),
    fields=(
      'vocab_size',
      *size_fields,
      *more,
      *dropout,
      activation,
      'tie_word_embeddings',
      *_IDS,
      *bert.OWN,
    ),
    dropout=dropout,
    heads=('lm',),
    objective=objectives.causal,
    examples=causal,
    recipe=lambda data: causal.Recipe(data.seq_len),
    predictions=lambda data: data.seq_len,
    words=tokenizer_file,
    padding=tokenizer_file.PADDING,
    spelled=lambda tokenizer: {'tokenizer': tokenizer},
    width=width,
    widths=widths,
    activation=activation,
  )


# What the module reads beside the sizes; a class of transformers has some of these fields.
_LLAMA_FIELDS = (
  'num_key_value_heads',
  'head_dim',
  'rms_norm_eps',
  'initializer_range',
  'rope_parameters',
  'attention_bias',
  'mlp_bias',
  'use_sliding_window',
  'sliding_window',
  'max_window_layers',
  'layer_types',
)
for _kind, _config in llama_hf.CONFIGS.items():
  FAMILIES[_kind] = _decoder(
    llama.Llama,
    llama_hf,
    _config,
    SIZE_KEYS,
    _LLAMA_FIELDS,
    ('attention_dropout',),
    lambda size: size.intermediate_size,
    llama.widths,
    'hidden_act',
  )
FAMILIES['opt'] = _decoder(
  opt.Opt,
  opt_hf,
  opt_hf.SIZE,
  _OPT_SIZE,
  ('word_embed_proj_dim', 'do_layer_norm_before', 'enable_bias', 'init_std'),
  _OPT_DROPOUT,
  lambda size: size.ffn_dim,
  opt.widths,
  'activation_function',
)


def group(size) -> int:
  """Returns the number of heads that share a key and a value; 1 where each has its own."""
  return llama.group_size(size) if size.model_type in llama.MODEL_TYPES else 1


def named(name: str, where) -> Family:
  """Returns the family of a name.

  Args:
    name: a model_type of transformers.
    where: the file that the name comes from.

  Raises:
    ValueError: there is no such family.
  """
  if name not in FAMILIES:
    raise ValueError(f'{where} is of model_type {name!r}: expected one of {", ".join(FAMILIES)}')
  return FAMILIES[name]


def in_folder(folder) -> Family:
  """Returns the family of a Hugging Face folder or a GGUF file.

  A folder without a model_type is BERT's.
  """
  if gguf_file.is_gguf(folder):
    return of_size(gguf_file.read(folder).size)
  path = pathlib.Path(folder) / 'config.json'
  return named(hf_directory.read_config(folder).get('model_type', 'bert'), path)


def of_size(size) -> Family:
  """Returns the family of a size, a config of transformers."""
  return FAMILIES[size.model_type]


def size_of(fields: dict):
  """Returns a size from a dict of its fields, with 'model_type' among them."""
  make = convert.size_class(FAMILIES[fields['model_type']].config)
  return make(**{k: v for k, v in fields.items() if k != 'model_type'})


def parsed(text: str):
  """Returns a size from its JSON."""
  return size_of(json.loads(text))


def fresh_size(family: Family, sizes: dict, vocab_size: int):
  """Returns the size of a fresh model.

  Args:
    family: its family.
    sizes: {key of SIZE_KEYS: number}, as the group `model` of a config has.
    vocab_size: pieces of its vocabulary.

  Raises:
    ValueError: transformers does not accept the sizes.
  """
  fields = {field: sizes[key] for key, field in family.names.items()}
  if family.words is tokenizer_file:
    fields |= _fresh(family.config, sizes)
  try:
    return convert.size_class(family.config)(vocab_size=vocab_size, **family.fresh, **fields)
  except Exception as error:  # its validators raise exceptions of their own, without a common base
    why = ' '.join(str(error).split())[:300]
    raise ValueError(f'model: {family.config} does not accept {fields}: {why}') from error


def _fresh(config, sizes):
  """Fields of a fresh decoder whose defaults of transformers are those of one published model."""
  fields = dict.fromkeys(_IDS)  # those of a vocabulary that is not the one it was trained with
  if config != opt_hf.SIZE:
    heads = sizes['num_attention_heads']
    fields |= {
      'num_key_value_heads': sizes.get('num_key_value_heads') or heads,
      'head_dim': sizes['hidden_size'] // heads,
      'tie_word_embeddings': True,
    }
  return fields


def with_dropout(size, rate: float, attention: float = -1.0):
  """Returns a copy of a size with another dropout rate.

  Args:
    size: a config of transformers.
    rate: of all dropout.
    attention: of attention weights; -1 for `rate`.
  """
  size = copy.deepcopy(size)
  for field in of_size(size).dropout:
    is_attention = field.startswith('att')
    setattr(size, field, attention if is_attention and attention != -1 else rate)
  return size


def read_only(family: Family, size):
  """Returns a size with only the fields that the model reads, so that equal sizes compare equal."""
  fields = {field: getattr(size, field) for field in family.fields if hasattr(size, field)}
  return size_of({**fields, 'model_type': size.model_type})


def heads(family: Family, task) -> tuple[str, ...]:
  """Returns the heads of a run.

  Args:
    family: of its model.
    task: a `tasks.Task` or the name of one; empty for pre-training.

  Raises:
    ValueError: a task of spans, for which the family has no head.
  """
  if not task:
    return family.heads
  task = tasks.get(task) if isinstance(task, str) else task
  if not task.spans:
    return ('classifier',)
  if ('spans',) not in family.files.ARCHITECTURES:
    able = [name for name, row in FAMILIES.items() if ('spans',) in row.files.ARCHITECTURES]
    raise ValueError(
      f'data.task={task.name!r}: the model has no span head, unlike one of {", ".join(able)}'
    )
  return ('spans',)


def sizes(size) -> dict:
  """Returns {key of the group `model` of a config: value} of a size, and its 'vocab_size'."""
  family = of_size(size)
  values = {key: getattr(size, field) for key, field in family.names.items()}
  values['intermediate_size'] = family.width(size)  # None in a GPT-2 whose width is the usual one
  return {'kind': size.model_type, **values, 'vocab_size': size.vocab_size}


def fingerprint(size, tokenizer) -> str:
  """Returns 16 hex digits that change with a vocabulary; '' where there is none."""
  return of_size(size).words.fingerprint(tokenizer) if tokenizer else ''


def load(family: Family, folder, *, parts: bool, **how: Any) -> tuple[dict, Any]:
  """Reads a Hugging Face folder: `files.load` of its family, whose other arguments it takes.

  Args:
    family: the family.
    folder: the folder.
    parts: leave the weights in their files; families that cannot do so are read whole.
    **how: other arguments of `files.load`.
  """
  able = parts and 'parts' in inspect.signature(family.files.load).parameters
  return family.files.load(folder, **how, **({'parts': True} if able else {}))


def save(folder, params: dict, size, tokenizer, dtype: str = 'float32', **how: Any) -> int:
  """Writes a Hugging Face folder of a model and its vocabulary; `tokenizer` None for none.

  Other arguments, such as `most` and `carried`, are those of `files.save`.

  Returns:
    The number of weights that are not 0 and are 0 as `dtype`.
  """
  vocabulary = {} if tokenizer is None else of_size(size).spelled(tokenizer)
  return of_size(size).files.save(folder, params, size, dtype=dtype, **vocabulary, **how)


def texts(params: dict, size, tokenizer) -> dict[str, str]:
  """Returns the texts of the folder that `save` writes: {file name: text}."""
  vocabulary = {} if tokenizer is None else of_size(size).spelled(tokenizer)
  return of_size(size).files.parts(params, size, **vocabulary)[0]


def with_classes(size, classes: Sequence[str] | None):
  """Returns a copy of a size that names the classes of a task; None for a regression."""
  size = copy.deepcopy(size)
  if classes is not None:
    size.id2label = dict(enumerate(classes))
    size.label2id = {name: i for i, name in enumerate(classes)}
  return size


def in_order(classifier: dict, size, classes: Sequence[str] | None) -> dict | str:
  """Returns a stored classifier with its outputs in the order of the classes of a task.

  Names that only count, LABEL_0, LABEL_1, ..., are taken to be in this order. Upper and lower case,
  and spaces, '-' and '_', are the same in a name.

  Args:
    classifier: {'kernel': [in, out], 'bias': [out]}, some families have no bias.
    size: the config of transformers beside it.
    classes: names of the classes of the task; None for a regression.

  Returns:
    The classifier, or in words why it is not one of this task.
  """
  kind = getattr(size, 'problem_type', None)
  outputs, wanted = classifier['kernel'].shape[-1], 1 if classes is None else len(classes)
  if kind not in (None, 'regression' if classes is None else 'single_label_classification'):
    return f'its problem_type is {kind!r}'
  if outputs != wanted:
    return f'it has {outputs} outputs, the task {wanted}'
  names = [str(size.id2label.get(i, f'LABEL_{i}')) for i in range(outputs)]
  plain = lambda name: re.sub(r'[\s_-]+', '_', name.strip().lower())
  stored = [plain(name) for name in names]
  if classes is None or stored == [f'label_{i}' for i in range(outputs)]:
    return classifier
  if sorted(stored) != sorted(map(plain, classes)):
    return f'its classes are {", ".join(names[:8])}, those of the task {", ".join(classes[:8])}'
  order = [stored.index(plain(name)) for name in classes]
  outputs = ('kernel', 'bias')  # a classifier may have a layer before them
  return {name: leaf[..., order] if name in outputs else leaf for name, leaf in classifier.items()}


def make(
  size: str, heads, outputs: int = 2, dtype=jnp.float32, initializer: str = 'normal', **how: Any
):
  """Makes the Flax module of a size.

  Args:
    size: a size as JSON.
    heads: names of heads.
    outputs: numbers that the head of a task puts out.
    dtype: of the computation.
    initializer: 'normal' or 'fan_in'.
    **how: other attributes of the module, such as scan_layers. A family need not have one that
      keeps its default.

  Raises:
    ValueError: the family has no such attribute.
  """
  size = parsed(size)
  module = of_size(size).module
  for name, value in list(how.items()):
    if name not in module.__dataclass_fields__:
      if value != bert.Bert.__dataclass_fields__[name].default:
        able = [kind for kind, f in FAMILIES.items() if name in f.module.__dataclass_fields__]
        raise ValueError(
          f'model.{name}={value!r}: {size.model_type} has no such choice; {", ".join(able)} have'
        )
      del how[name]
  return module(size, heads, outputs, dtype, initializer, **how)
