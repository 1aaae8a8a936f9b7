"""Soft targets: the logits of a teacher as arrays of each training batch (Hinton et al. 2015).

The teacher's weights are in no state and in no compiled step. They are neither trained nor saved
with a checkpoint, and one copy serves all members of a population. A batch is a pure function of
its step, and the teacher runs without dropout. So a resumed run sees the same targets.
"""

import json

import jax
import numpy as np

from prunejax.models.hf import folder as hf_folder
from prunejax.train import families, inputs
from prunejax.train.recipe import Recipe

PREFIX = 'teacher_'  # of the arrays of a batch


def with_soft_targets(
  recipe: Recipe, source: inputs.Source, data: inputs.Data, teachers: dict
) -> inputs.Data:
  """Adds 'teacher_<head>', float32 logits [b, ...], to training batches if there is a teacher.

  Args:
    recipe: a `recipe.Recipe`.
    source: its source.
    data: its data, returned as it is if there is no teacher.
    teachers: of an `inputs.Encoded`, to take the compiled teacher from, or to add it to.

  Raises:
    ValueError: the teacher has another vocabulary, other heads, another number of classes, or too
      few positions. Nothing is compiled yet.
  """
  c = recipe.distill
  if not c.teacher:
    return data
  if data.task and data.task.spans:
    raise ValueError(
      f'distill.teacher={c.teacher!r}: {recipe.data.task} asks for spans, which have no classes to'
      ' soften'
    )
  if data.task and not data.task.classes:
    raise ValueError(
      f'distill.teacher={c.teacher!r}: {recipe.data.task} is a regression and has no classes to'
      ' soften'
    )
  folder = folder_of(c.teacher)
  kind = families.of_size(source.size)
  fail = lambda what: _fail(c.teacher, what)
  if families.in_folder(folder) is not kind:
    fail(f'is of another kind than the model, {source.size.model_type!r}')
  size = kind.files.read_size(folder)
  if kind.words.load(folder).get_vocab() != source.tokenizer.get_vocab():
    fail(
      f'has another vocabulary ({size.vocab_size} pieces) than the model ({source.size.vocab_size})'
    )
  if not data.task and size.vocab_size != source.size.vocab_size:
    fail(f'has {size.vocab_size} rows of word embeddings, the model {source.size.vocab_size}')
  longest = kind.longest(size)
  if longest is not None and recipe.data.seq_len > longest:
    fail(f'has {longest} positions, fewer than data.seq_len={recipe.data.seq_len}')
  heads = families.heads(kind, data.task)
  outputs = len(data.task.classes) if data.task else 1
  size = families.with_dropout(families.read_only(kind, size), 0.0)
  hf_folder.check(folder)
  try:
    params, stored = kind.files.load(folder, heads=heads)
  except ValueError as error:
    fail(f'has no heads {", ".join(heads)}: {str(error).splitlines()[0]}')
  if data.task:
    params['classifier'] = families.in_order(params['classifier'], stored, data.task.classes)
    if isinstance(params['classifier'], str):
      fail(f'does not tell the classes of {recipe.data.task}: {params["classifier"]}')
  key = json.dumps(size.to_dict(), sort_keys=True, default=str), heads, outputs
  if key not in teachers:
    teachers[key] = _logits(*key)
  logits = teachers[key]
  params = jax.tree.map(jax.numpy.asarray, params)

  def train(step):
    batch = data.train(step)
    soft = {PREFIX + head: np.asarray(x) for head, x in logits(params, batch).items()}
    return {**batch, **soft}

  return data._replace(train=train)


def folder_of(teacher: str):
  """Returns the folder of `distill.teacher`.

  Raises:
    FileNotFoundError: there is no such folder.
  """
  try:
    return inputs.folder_of(teacher)
  except FileNotFoundError as error:
    raise FileNotFoundError(str(error).replace('init=', 'distill.teacher=')) from None


def _logits(size, heads, outputs):
  """(params, batch) -> {head: logits}, jitted."""
  model = families.make(size, heads, outputs)

  def logits(params, batch):
    places = (batch['positions'],) if 'mlm' in heads else ()
    out = model.apply(
      {'params': params},
      batch['input_ids'],
      batch['segment_ids'],
      batch['valid'],
      *places,
      deterministic=True,
    )
    return {head: out[head].astype(jax.numpy.float32) for head in heads}

  return jax.jit(logits)


def _fail(teacher, what):
  raise ValueError(f'distill.teacher={teacher!r} {what}')
