"""What a run computes, from its recipe: inputs, compiled functions, first state."""

import functools
import hashlib
import json
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import prunejax
from prunejax.models.hf import convert, folder, stored, stored_masks
from prunejax.pruning import paths, placement
from prunejax.pruning.paths import named_leaves, with_leaves
from prunejax.train import (
  criterion_arguments,
  distillation,
  evaluate,
  families,
  inputs,
  layers,
  memory_maps,
  objectives,
  optimizer,
  sharding,
)
from prunejax.train.recipe import DTYPES, Recipe
from prunejax.train.step import VIEWS, make_train_step

# A checkpoint with as many zeros among the weights that a group prunes is a pruned one; a dense one
# may have a few, such as the row of a token that does not occur.
PRUNED_SHARE = 0.01


class Compiled(NamedTuple):
  """What the runs of a command have compiled, so that nothing is compiled twice.

  Attributes:
    models: {sizes, heads and the like: `Model`}.
    programs: {`program_key`: `Program`}.
    engines: {program key, mesh and the like: the step that the train loop calls}.
  """

  models: dict
  programs: dict
  engines: dict

  @classmethod
  def empty(cls) -> 'Compiled':
    """Returns one in which nothing is compiled yet."""
    return cls({}, {}, {})

  def make_room(self) -> None:
    """Forgets all programs if the process can hold few more; see memory_maps.py.

    A program that is needed again is compiled again. Those of a run that goes on stay with it.
    """
    if memory_maps.crowded():
      for programs in self:
        programs.clear()
      jax.clear_caches()


class Model(NamedTuple):
  """A Flax module and the functions of it that do not depend on the optimizer."""

  module: Any
  draw: Callable  # rng -> parameters
  loss: Callable  # (params, batch, rng) -> (loss, metrics)
  measure: Callable  # (params, batch) -> sums or predictions, see objectives.py
  residuals: Callable  # (params, batch) -> outputs, see gauss_newton.py


class Program(NamedTuple):
  """The compiled functions of a run; runs with one `program_key` share them."""

  model: Any
  draw: Callable  # rng -> parameters
  step: Callable  # (state, batch) -> (state, metrics)
  measure: Callable  # (params, batch) -> sums or predictions, see objectives.py
  gradient: Callable  # (params, batch, rng) -> gradient of the loss
  view: Callable  # (params, masks) -> what the model sees
  observe: Callable  # (seen, batch, rng) -> extra arguments of `tx.update`
  plans: dict  # {what names a group and its start: `pruning.who_pays.Plan`}, see forecast.py


def read_inputs(
  recipe: Recipe, part: tuple[int, int] = (0, 1), encoded: inputs.Encoded | None = None
) -> tuple[inputs.Source, inputs.Data]:
  """Reads the size, vocabulary and data of a run.

  Args:
    recipe: a `recipe.Recipe`.
    part: (index, count), this process's part of a training batch (`sharding.part_of_batch`).
    encoded: an `inputs.Encoded` that several runs of a process share. None to encode anew.

  Raises:
    ValueError, FileNotFoundError: wrong input; the message names the key or file.
  """
  encoded = inputs.Encoded.empty() if encoded is None else encoded
  c = recipe.data
  root, cache = c.root or None, c.cache or None
  source = inputs.source(
    recipe.init,
    recipe.model._asdict(),
    c.vocab,
    c.vocab_size,
    c.corpus,
    root,
    cache,
    kind=recipe.model.kind,
    encoding=c.encoding,
  )
  family = families.of_size(source.size)
  rate, attention_rate = recipe.model.dropout, recipe.model.attention_dropout
  source = source._replace(size=families.with_dropout(source.size, rate, attention_rate))
  source = source._replace(pruned=_pruned_already(recipe, source))
  longest = family.longest(source.size)
  if longest is not None and c.seq_len > longest:
    raise ValueError(f'data.seq_len={c.seq_len}: the model has {longest} positions')
  shared = dict(root=root, cache=cache, seed=recipe.seed, encoded=encoded)
  shared |= dict(batch_size=recipe.batch_size, eval_size=recipe.eval.batch_size)
  families.heads(family, c.task)  # refuses a task for which the family has no head
  if c.task:
    data = inputs.finetuning_data(
      source.tokenizer,
      c.task,
      seq_len=c.seq_len,
      examples=c.examples,
      part=part,
      buckets=c.buckets,
      **shared,
    )
  else:
    how = dict(eval_batches=recipe.eval.batches, part=part, how=family.examples)
    how |= dict(encoding=c.encoding)
    data = inputs.pretraining_data(source.tokenizer, c.corpus, family.recipe(c), **how, **shared)
  return source, distillation.with_soft_targets(recipe, source, data, encoded.teachers)


def _pruned_already(recipe, source) -> dict:
  """{group: share of zeros} of the pruning groups that start from a pruned checkpoint."""
  groups = [group for group in recipe.prune if group.schedule().final]
  if source.folder is None or not recipe.pretrained or not groups:
    return {}
  leaves = paths.named_leaves(families.of_size(source.size).files.load(source.folder, heads=())[0])
  shares = {}
  for group in groups:
    chosen = [leaf for name, leaf in leaves.items() if paths.matches(group.where)(name, leaf)]
    zeros = sum(leaf.size - np.count_nonzero(leaf) for leaf in chosen)
    shares[group.name] = float(zeros / max(sum(leaf.size for leaf in chosen), 1))
  return {name: share for name, share in shares.items() if share >= PRUNED_SHARE}


def _program_start(recipe, source) -> dict:
  """The groups whose program depends on a pruned start, for `program_key`."""
  pruned = source.pruned if source else ()
  names = [
    group.name
    for group in recipe.prune
    if group.name in pruned and not optimizer.keeps_program(recipe, group)
  ]
  return {'pruned': names} if names else {}


def program_key(recipe: Recipe, source: inputs.Source | None = None) -> str:
  """Returns a hash that is equal for two runs exactly when one compiled program serves both.

  It leaves out every number that is data.

  Args:
    recipe: a `recipe.Recipe`.
    source: its `inputs.Source`. Without it the hash does not cover the size of the model.
  """
  plain = {
    'batch': [recipe.batch_size, recipe.accumulate, recipe.data.seq_len],
    'outputs': _outputs(recipe.task),
    'predictions': None if recipe.data.task else recipe.data.max_predictions,
    **({'memory': recipe.data.memory} if recipe.data.memory else {}),
    'model': recipe.model,
    'view': recipe.view,
    'mesh': recipe.mesh,
    'optimizer': _compiled_optimizer(recipe.optimizer),
    'prune': [_compiled_group(group) for group in recipe.prune],
    'where': [recipe.where, recipe.hold_zeros],
    'penalty': recipe.penalty and [recipe.penalty.name, recipe.penalty.fixed, recipe.penalty.where],
    'low_rank': recipe.low_rank
    and [
      recipe.low_rank.schedule.name,
      optimizer.split(recipe.low_rank.schedule)[1],
      _call(recipe.low_rank.when),
      recipe.low_rank.where,
      *([recipe.low_rank.layout] if recipe.low_rank.layout else []),
    ],
    'distill': _soft(recipe),
    'size': source and source.size.to_dict(),
    **_program_start(recipe, source),
  }
  return hashlib.sha256(json.dumps(plain, sort_keys=True, default=str).encode()).hexdigest()


def _compiled_optimizer(c):
  plain = c._asdict()
  # The learning rate, the steps and how they are divided into rounds are data.
  for name in ('learning_rate', 'rounds', 'horizon'):
    del plain[name]
  return {**plain, 'rewind': _call(c.rewind)}


def _compiled_group(group):
  seedless = {k: v for k, v in group.criterion.arguments.items() if k != 'seed'}
  return {
    'name': group.name,
    'where': group.where,
    'criterion': [group.criterion.name, seedless],
    'schedule': [group.schedule.name, optimizer.split(group.schedule)[1]],
    'others': [_call(spec) for spec in (group.when, group.allocation, group.structure)],
    'zero_pruned': group.zero_pruned,
    **({'layout': group.layout} if group.layout else {}),
  }


def _call(spec):
  return spec and [spec.name, spec.arguments]


def _soft(recipe):
  """(temperature, weight) of a run with a teacher, else ()."""
  c = recipe.distill
  return (c.temperature, c.weight) if c.teacher else ()


def _outputs(task):
  """(numbers the head puts out, whether the task is a regression); None for pre-training."""
  if task and task.spans:
    return 2, False
  return task and (len(task.classes) if task.classes else 1, not task.classes)


def build(
  recipe: Recipe,
  source: inputs.Source,
  data: inputs.Data,
  tx: optax.GradientTransformation,
  compiled: Compiled | None = None,
) -> Program:
  """Makes the functions of a run, jitted.

  Args:
    recipe: a `recipe.Recipe`.
    source: of `read_inputs`.
    data: of `read_inputs`.
    tx: what `optimizer.make` returned.
    compiled: a `Compiled` to take the program from, or to add it to. None: a program of its own.
  """
  compiled = Compiled.empty() if compiled is None else compiled
  key = program_key(recipe, source)
  if key not in compiled.programs:
    compiled.make_room()
    model = _model(recipe, source, data, compiled.models)
    view = VIEWS[recipe.view]
    residuals = None if _soft(recipe) else model.residuals
    observed = criterion_arguments.make(model.module, model.loss, residuals)
    step = make_train_step(model.loss, tx, view, recipe.accumulate, observed)
    gradient = jax.grad(lambda params, batch, rng: model.loss(params, batch, rng)[0])
    compiled.programs[key] = Program(
      model.module,
      model.draw,
      jax.jit(step, donate_argnums=0),
      model.measure,
      jax.jit(gradient),
      view,
      observed,
      {},
    )
  return compiled.programs[key]


def _model(recipe, source, data, models) -> Model:
  """The model of a run, taken from `models` or added to it; it does not depend on the optimizer."""
  heads = families.heads(families.of_size(source.size), data.task)
  outputs, regression = _outputs(recipe.task) or (1, False)
  size = json.dumps(source.size.to_dict(), sort_keys=True, default=str)
  dtype, initializer, soft = recipe.model.dtype, recipe.model.initializer, _soft(recipe)
  how = {name: getattr(recipe.model, name) for name in ('attention', 'remat', 'scan_layers')}
  key = (size, heads, outputs, regression, dtype, initializer, soft, *how.values())
  if key not in models:
    make = functools.partial(families.make, size, heads, outputs, DTYPES[dtype], initializer)
    module, unrolled = make(**how), make()
    distilled = {'soft': objectives.distillation(*soft)} if soft else {}
    if heads == ('classifier',):
      loss, measure, residuals = objectives.finetuning(module, regression, **distilled)
    elif heads == ('spans',):
      loss, measure, residuals = objectives.spans(module, **distilled)
    else:
      loss, measure, residuals = families.of_size(module.size).objective(module, **distilled)
    if heads in (('classifier',), ('spans',)):
      measure = evaluate.in_parts(measure)
    loss, measure, residuals = map(_on_auto_axes, (loss, measure, residuals))
    # Drawn unrolled, so that a seed gives the same weights to both.
    draw = jax.jit(lambda rng: layers.stacked(recipe.model, _drawn(unrolled, rng)))
    models[key] = Model(module, draw, loss, jax.jit(measure), residuals)
  return models[key]


def _on_auto_axes(fn):
  """A function of trees of arrays whose layouts the compiler chooses, on any kind of mesh."""

  @functools.wraps(fn)
  def call(*args, **how):
    return placement.on_auto_axes(functools.partial(fn, **how), *args)

  return fn and call


def abstract_state(recipe: Recipe, program: Program, tx: optax.GradientTransformation) -> dict:
  """Returns the shapes of a state.

  Raises:
    ValueError: a pruning group, or a rule of the mesh, does not fit the leaves.
  """
  rng = jax.random.key(recipe.seed)
  params = jax.eval_shape(program.draw, rng)
  sharding.check_leaves(recipe.mesh.rules, params)
  return jax.eval_shape(lambda p: _state(p, tx, rng), params)


def check_step(recipe: Recipe, program: Program, abstract: dict, batch: dict):
  """Traces a step if a criterion needs more of a batch than its gradient.

  Raises:
    ValueError: a criterion cannot score its leaves.
  """
  if any(group.criterion().needs - {'grad'} for group in recipe.prune):
    jax.eval_shape(program.step, abstract, batch)


def pretrained(
  recipe: Recipe,
  source: inputs.Source,
  program: Program,
  shapes: dict,
  say: Callable[[str], None] = lambda line: None,
  parts: bool = False,
) -> dict | None:
  """Reads the weights in the folder of `init`, if there is one.

  The classifier of a fine-tuned model is read too if it has the classes of the task, in whatever
  order. A pooler, or a head of pre-training, that the folder lacks is left out, to be drawn anew.

  Args:
    recipe: a `recipe.Recipe`.
    source: its source.
    program: its program.
    shapes: the shapes of its parameters.
    say: prints a line that names what is drawn anew and would have been expected in the folder.
    parts: leave the weights in their files, for `initial_state` to read its part of them.

  Raises:
    ValueError: the weights are another model's.
  """
  if source.folder is None or not recipe.pretrained:
    return None
  classes = folder.read_config(source.folder).get('architectures') or ()
  tuned = any(str(name).endswith('ForSequenceClassification') for name in classes)
  heads = tuple(h for h in program.model.heads if h != 'classifier' or tuned)
  optional = ('pooler', *(head for head in heads if head != 'classifier'))
  family = families.of_size(source.size)
  loaded, size = families.load(family, source.folder, parts=parts, heads=heads, optional=optional)
  if 'classifier' in loaded:
    classifier = jax.tree.map(stored.whole, loaded.pop('classifier'))
    fitting = families.in_order(classifier, size, recipe.task.classes)
    if isinstance(fitting, dict):
      loaded['classifier'] = fitting
    else:
      say(f'init={recipe.init!r}: its classifier is replaced by a new one: {fitting}')
  _, stayed = convert.transfer(loaded, layers.unstacked(recipe.model, shapes))
  # A classifier is new to a task, and the summary of an XLNet is a part of it.
  absent = sorted({path.split('/')[0] for path in stayed} - {'classifier', 'summary'})
  if absent:
    say(f'init={recipe.init!r} has no {", ".join(absent)}: drawn with seed={recipe.seed}')
  return loaded


def initial_state(
  recipe: Recipe,
  program: Program,
  tx: optax.GradientTransformation,
  loaded: dict | None = None,
  lies: Any = None,
) -> dict:
  """Returns the state of step 0: the weights `loaded`, and what they lack drawn by `seed`.

  Under `hold_zeros` the masks that the folder of `init` stores are held, where it stores some; the
  zeros of other folders are.

  Args:
    recipe: a `recipe.Recipe`.
    program: its program.
    tx: its chain.
    loaded: of `pretrained`.
    lies: shardings of the parameters, by which each process reads its part of what is stored;
      None: whole, on one device.
  """
  rng = jax.random.key(recipe.seed)
  params = program.draw(rng)
  if loaded is not None:
    params, _ = convert.transfer(loaded, layers.unstacked(recipe.model, params))
    params = layers.stacked(recipe.model, params)
  if lies is not None:
    params = jax.tree.map(_part_of, params, lies)
  state = _state(jax.tree.map(jnp.asarray, params), tx, rng)
  if recipe.hold_zeros and loaded is not None:
    masks = stored_masks.read(inputs.folder_of(recipe.init))
    if masks is not None:
      state['opt_state'] = held(state['opt_state'], masks)
  return state


def held(opt_state: Any, masks: dict[str, np.ndarray]) -> Any:
  """Returns an optimizer state whose pruning links start from stored masks.

  Args:
    opt_state: of a chain.
    masks: {path in the unrolled model: bool array, True = kept}, of all leaves that are pruned: one
      without a mask is held nowhere.

  Raises:
    ValueError: a mask of another shape than its leaf.
  """

  def mask_of(name, leaf):
    stack = re.fullmatch(r'(.*)/layers/(.*)', name)
    parts = [f'{stack[1]}/layer_{i}/{stack[2]}' for i in range(len(leaf))] if stack else [name]
    whole = np.ones(leaf.shape[1:] if stack else leaf.shape, bool)
    found = [masks.get(part, whole) for part in parts]
    if wrong := [
      part for part, mask in zip(parts, found, strict=True) if mask.shape != whole.shape
    ]:
      shape = masks[wrong[0]].shape
      raise ValueError(f'the stored mask of {wrong[0]!r} has shape {shape}, the leaf {whole.shape}')
    mask = np.stack(found) if stack else found[0]
    return jax.make_array_from_callback(leaf.shape, leaf.sharding, lambda at: mask[at])

  def started(node):
    if not isinstance(node, prunejax.PruneState):
      return node
    chosen = {name: mask_of(name, leaf) for name, leaf in named_leaves(node.prune_mask).items()}
    new = node._replace(prune_mask=with_leaves(node.prune_mask, chosen))
    if jax.tree.leaves(node.prune_before):
      new = new._replace(prune_before=jax.tree.map(jnp.logical_not, new.prune_mask))
    return new

  is_state = lambda node: isinstance(node, prunejax.PruneState)
  return jax.tree.map(started, opt_state, is_leaf=is_state)


def _part_of(leaf, lies):
  """A leaf on the devices; of a stored one each process reads its part."""
  if stored.is_stored(leaf):
    return jax.make_array_from_callback(leaf.shape, lies, leaf.read)
  return sharding.place(leaf, lies)


def _drawn(model, rng):
  blank = jnp.zeros((1, 8), jnp.int32)
  return model.init(jax.random.fold_in(rng, 1), blank, blank, blank == 0)['params']


def _state(params, tx, rng):
  key = jax.random.key_data(jax.random.fold_in(rng, 2))
  step = jnp.zeros((), jnp.int32)
  return {'params': params, 'opt_state': tx.init(params), 'step': step, 'rng': key}
