"""What a grid will take, before any of it runs: cells, steps, parameters, memory, FLOPs."""

import jax
import jax.numpy as jnp

from prunejax.models.hf import convert
from prunejax.train import families, inputs, objectives
from prunejax.train.recipe import DTYPES, Recipe

GIB = 2**30


def table(cells: list[tuple[dict, Recipe]], title: str) -> str:
  """Returns a text table with one line for each stage, arm and task, and the sums.

  Args:
    cells: pairs (labels, recipe).
    title: the first line.

  Returns:
    The table, or a line that says so where there are no cells.
  """
  groups = {}
  for labels, recipe in cells:
    group = labels['stage'], labels.get('arm', ''), labels.get('task', '')
    groups.setdefault(group, []).append(recipe)
  if not groups:
    return f'{title}\nno cells: there is nothing to run'
  head = ('stage', 'arm', 'task', 'cells', 'steps', 'parameters', 'memory GiB', 'FLOPs')
  lines, total, shapes = [head], [0, 0, 0.0], {}
  for group, recipes in groups.items():
    parts = [estimate(recipe, shapes) for recipe in recipes]
    steps, flops = sum(recipe.steps for recipe in recipes), sum(p['flops'] for p in parts)
    most = max(parts, key=lambda p: p['bytes'])
    numbers = f'{most["parameters"]:,}', f'{most["bytes"] / GIB:.2f}', f'{flops:.2e}'
    lines.append((*group, f'{len(recipes)}', f'{steps:,}', *numbers))
    total = [total[0] + len(recipes), total[1] + steps, total[2] + flops]
  lines.append(('all', '', '', f'{total[0]}', f'{total[1]:,}', '', '', f'{total[2]:.2e}'))
  widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
  return '\n'.join(
    [
      title,
      *(_line(line, widths) for line in lines),
      'memory, estimated: weights, gradient, two moments, masks, activations of one micro-batch',
    ]
  )


def _line(cells, widths):
  """One line of the table: three columns of names from the left, numbers from the right."""
  placed = [
    f'{cell:<{width}}' if i < 3 else f'{cell:>{width}}'
    for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
  ]
  return '  '.join(placed).rstrip()


def estimate(recipe: Recipe, known: dict | None = None) -> dict:
  """Returns {'parameters', 'bytes', 'flops'} of one run, from shapes alone.

  Args:
    recipe: of the run.
    known: the sizes of other runs and the shapes of their parameters, which grows; a grid has few
      models.
  """
  known = {} if known is None else known
  size = size_of(recipe, known)
  kind = families.of_size(size)
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


def size_of(recipe: Recipe, known: dict | None = None):
  """Returns the size of a run's model.

  `init` is found as a run finds it. What does not exist (yet) counts as the packaged model if the
  config has its recipe, else as what `model` says: BERT-Base, or a GPT-2 with the vocabulary that
  its first run will train.

  Args:
    recipe: of the run.
    known: sizes of other runs, which grows; a model in a file is unpacked to be read.

  Raises:
    ValueError: `init` is there and holds no model, or several.
  """
  known = {} if known is None else known
  read = 'size', recipe.init, repr(recipe.model), recipe.data.vocab_size
  if read not in known:
    known[read] = _size(recipe)
  return known[read]


def _size(recipe):
  kind = families.FAMILIES[recipe.model.kind]
  if (folder := _folder(recipe, kind)) is not None:
    return families.in_folder(folder).files.read_size(folder)
  trains_vocabulary = kind is not families.FAMILIES['bert'] and (
    not recipe.init or recipe.init.startswith('cell:')
  )
  return families.fresh_size(
    kind,
    recipe.model._asdict(),
    recipe.data.vocab_size if trains_vocabulary else convert.size_class(kind.config)().vocab_size,
  )


def _folder(recipe, kind):
  """The folder of the model that a run starts from, or of one of its size; None without one."""
  init = recipe.init
  if init == 'nano':
    return inputs.NANO  # its size is known where its weights are not
  if init.startswith('cell:'):
    small = recipe.model.initializer == 'fan_in'  # the packaged recipe; cells inherit it
    return inputs.NANO if kind is families.FAMILIES['bert'] and small else None
  if not init:
    return None
  try:
    folder = inputs.folder_of(init)
  except FileNotFoundError:
    return None
  return folder if (folder / 'config.json').is_file() else None
