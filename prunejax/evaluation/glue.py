"""Scores a fine-tuned model on the dev set of a labelled task."""

from typing import Any

import jax
import jax.numpy as jnp

from prunejax.data import finetuning, tasks
from prunejax.train import console, families, objectives, saved_model
from prunejax.train import evaluate as scores

BATCH, LENGTH = 64, 128


def evaluate(
  where: str, name: str, root: str, length: int | None, dtype: Any, say=console.say
) -> dict[str, float]:
  """Scores a model that has a classifier.

  Args:
    where: see `run.evaluate`.
    name: of the task, see `tasks.get`.
    root: the folder that holds glue/; '' for a task that needs none.
    length: tokens of an example; a longer one is cut. None for those of the run, or else for 128,
      or the positions of the model if it has fewer.
    dtype: of the computation.
    say: prints a line.

  Returns:
    {'loss', and each metric of the task; for MNLI 'mismatched_...' too}.

  Raises:
    ValueError, FileNotFoundError: an unknown task; a model without a classifier for it; files that
      are missing.
  """
  task = tasks.get(name)
  splits = {'': 'validation', **tasks.other_splits(name, root or None)}
  examples = {
    prefix: tasks.load(name, split, root=root or None) for prefix, split in splits.items()
  }
  model = saved_model.load(where)
  if model.tokenizer is None or 'classifier' not in model.params:
    lacks = 'vocabulary' if model.tokenizer is None else 'classifier'
    raise ValueError(
      f'{str(where)!r} has no {lacks}: expected a model that was fine-tuned on {name}'
    )
  positions = families.of_size(model.size).longest(model.size)
  if length is None:
    length = model.recipe.data.seq_len if model.recipe else min(LENGTH, positions or LENGTH)
  if positions is not None and length > positions:
    raise ValueError(f'--window={length}: the model has {positions} positions')
  classifier = families.in_order(model.params['classifier'], model.size, task.classes)
  if isinstance(classifier, str):
    raise ValueError(f'{str(where)!r} has no classifier for {name}: {classifier}')
  params = jax.tree.map(jnp.asarray, {**model.params, 'classifier': classifier})
  outputs = len(task.classes) if task.classes else 1
  size = model.size.to_json_string(use_diff=False)
  module = families.make(size, ('classifier',), outputs, dtype)
  _, predict, _ = objectives.finetuning(module, regression=not task.classes)
  predict, result = jax.jit(predict), {}
  for prefix, some in examples.items():
    batches = finetuning.eval_batches(finetuning.encode(some, model.tokenizer, length), BATCH)
    found = scores.finetuning(predict, params, batches, task.metrics, not task.classes)
    result |= {f'{prefix}_{metric}' if prefix else metric: x for metric, x in found.items()}
    say(
      f'{name}{" " + prefix if prefix else ""}, {len(some.a):,} examples: '
      + ', '.join(f'{metric} {value:.4f}' for metric, value in found.items())
    )
  return result
