"""Soft targets: what a teacher says to each training batch, as arrays of the batch (Hinton, Vinyals & Dean 2015).

The teacher's weights are in no state and in no compiled step: they are not trained, not saved with a checkpoint, and
one copy serves all members of a population. A batch is a pure function of its step, and so is what the teacher says to
it, without dropout; a resumed run sees the very same targets.
"""

import functools
import json

import jax
import numpy as np

from prunejax.train import families, inputs

PREFIX = 'teacher_'  # of the arrays of a batch


def with_soft_targets(recipe, source, data):
  """`data` whose training batches also hold 'teacher_<head>', float32 logits [b, ...] of the teacher's heads.

  The same data without a teacher. Raises ValueError, before anything is compiled, for a teacher with another
  vocabulary, other heads, another number of classes, or too few positions.
  """
  c = recipe.distill
  if not c.teacher:
    return data
  if data.task and not data.task.classes:
    raise ValueError(
      f'distill.teacher={c.teacher!r}: {recipe.data.task} is a regression and has no classes to soften'
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
  if recipe.data.seq_len > size.max_position_embeddings:
    fail(
      f'has {size.max_position_embeddings} positions, fewer than data.seq_len={recipe.data.seq_len}'
    )
  heads = families.heads(kind, data.task)
  outputs = len(data.task.classes) if data.task else 1
  size = families.with_dropout(families.read_only(kind, size), 0.0)
  try:
    params, _ = kind.files.load(folder, heads=heads)
  except ValueError as error:
    fail(f'has no heads {", ".join(heads)}: {str(error).splitlines()[0]}')
  if data.task and params['classifier']['kernel'].shape[-1] != outputs:
    fail(
      f'tells {params["classifier"]["kernel"].shape[-1]} classes, {recipe.data.task} has {outputs}'
    )
  say = _said(json.dumps(size.to_dict(), sort_keys=True, default=str), heads, outputs)
  params = jax.tree.map(jax.numpy.asarray, params)

  def train(step):
    batch = data.train(step)
    return {**batch, **{PREFIX + head: np.asarray(x) for head, x in say(params, batch).items()}}

  return data._replace(train=train)


def folder_of(teacher):
  """The folder of config.distill.teacher. Raises ValueError when it is none."""
  try:
    return inputs.folder_of(teacher)
  except FileNotFoundError as error:
    raise FileNotFoundError(str(error).replace('init=', 'distill.teacher=')) from None


@functools.lru_cache(maxsize=8)
def _said(size, heads, outputs):
  """(params, batch) -> {head: logits}, compiled once a size."""
  model = families.make(size, heads, outputs)

  def said(params, batch):
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

  return jax.jit(said)


def _fail(teacher, what):
  raise ValueError(f'distill.teacher={teacher!r} {what}')
