"""What a grid will take, before any of it runs: cells, steps, parameters, memory, FLOPs."""

import jax
import jax.numpy as jnp

from prunejax import files
from prunejax.models.hf import convert
from prunejax.train import families, inputs, objectives, unpacked
from prunejax.train.recipe import DTYPES, Recipe

GIB = 2**30


def table(cells: list[tuple[dict, Recipe]], title: str) -> str:
  """Returns a text table with one line for each stage, arm and task, and the sums.

  Args:
    cells: pairs (labels, recipe).
    title: the first line.
  """
  groups = {}
  for labels, recipe in cells:
    group = labels['stage'], labels.get('arm', ''), labels.get('task', '')
    groups.setdefault(group, []).append(recipe)
  head = f'{"stage":<10}{"arm":<10}{"task":<18}{"cells":>6}{"steps":>12}'
  head += f'{"parameters":>14}{"memory GiB":>12}{"FLOPs":>11}'
  lines, total, shapes = [title, head], [0, 0, 0.0], {}
  for (stage, arm, task), recipes in groups.items():
    parts = [estimate(recipe, shapes) for recipe in recipes]
    steps, flops = sum(recipe.steps for recipe in recipes), sum(p['flops'] for p in parts)
    most = max(parts, key=lambda p: p['bytes'])
    lines.append(
      f'{stage:<10}{arm:<10}{task:<18}{len(recipes):>6}{steps:>12,}{most["parameters"]:>14,}'
      f'{most["bytes"] / GIB:>12.2f}{flops:>11.2e}'
    )
    total = [total[0] + len(recipes), total[1] + steps, total[2] + flops]
  lines.append(f'{"all":<38}{total[0]:>6}{total[1]:>12,}{"":>14}{"":>12}{total[2]:>11.2e}')
  lines.append(
    'memory, estimated: weights, gradient, two moments, masks, activations of one micro-batch'
  )
  return '\n'.join(lines)


def estimate(recipe: Recipe, known: dict | None = None) -> dict:
  """Returns {'parameters', 'bytes', 'flops'} of one run, from shapes alone.

  Args:
    recipe: of the run.
    known: {model: shapes of its parameters} of other runs, which grows; a grid has few models.
  """
  size = size_of(recipe)
  kind = families.of_size(size)
  known = {} if known is None else known
  model = size.to_json_string(use_diff=False), families.heads(kind, recipe.data.task)
  if model not in known:
    known[model] = _shapes(*model)
  shapes = known[model]
  parameters = sum(leaf.size for leaf in jax.tree.leaves(shapes))
  predictions = 0 if recipe.data.task else kind.predictions(recipe.data)
  width = jnp.dtype(DTYPES[recipe.model.dtype]).itemsize
  rows, length = recipe.batch_size // recipe.accumulate, recipe.data.seq_len
  # A layer keeps about 12 arrays as wide as hidden_size, 2 as wide as its feed-forward block, and
  # two score matrices for each head.
  kept = (
    length * (12 * size.hidden_size + 2 * kind.width(size))
    + 2 * size.num_attention_heads * length**2
  )
  activations = rows * (
    size.num_hidden_layers * kept * width + 2 * predictions * size.vocab_size * 4
  )
  flops = objectives.flops(size, shapes, length, predictions) * recipe.batch_size * recipe.steps
  return {'parameters': parameters, 'bytes': parameters * 17 + activations, 'flops': float(flops)}


def _shapes(size, heads):
  """The shapes of a model's parameters. size: JSON of a size."""
  model = families.make(size, heads)
  blank = jax.ShapeDtypeStruct((1, 8), jnp.int32)
  return jax.eval_shape(
    lambda k, x: model.init(k, x, x, x == 0)['params'], jax.random.key(0), blank
  )


def size_of(recipe: Recipe):
  """Returns the size of a run's model.

  A folder of `init` that does not exist (yet) counts as the packaged model if the config has its
  recipe, else as what `model` says: BERT-Base, or a GPT-2 with the vocabulary that its first run
  will train.

  Args:
    recipe: of the run.
  """
  kind = families.FAMILIES[recipe.model.kind]
  if recipe.init == 'nano':
    folder = inputs.NANO
  elif kind is families.FAMILIES['bert'] and recipe.init.startswith('cell:'):
    small = recipe.model.initializer == 'fan_in'  # the packaged recipe; cells inherit it
    folder = inputs.NANO if small else None
  else:
    folder = (
      files.path(recipe.init) if recipe.init and not recipe.init.startswith('cell:') else None
    )
  if folder is not None and files.is_file(folder):
    folder = unpacked.folder(folder)
  if folder is not None and files.exists(folder / 'config.json'):
    folder = files.local(folder)
    return families.in_folder(folder).files.read_size(folder)
  trains_vocabulary = kind is not families.FAMILIES['bert'] and (
    not recipe.init or recipe.init.startswith('cell:')
  )
  return families.fresh_size(
    kind,
    recipe.model._asdict(),
    recipe.data.vocab_size if trains_vocabulary else convert.size_class(kind.config)().vocab_size,
  )
