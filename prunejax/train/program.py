"""What a run computes, from its config: inputs, compiled functions, first state. Nothing is trained here."""

import functools
import hashlib
import json
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from prunejax.data import tasks
from prunejax.models.hf import convert as hf_model
from prunejax.models.hf import folder as hf_directory
from prunejax.train import distillation, families, inputs, objectives, observe, optimizer, rivals
from prunejax.train.step import VIEWS, make_train_step

DTYPES = {'float32': jnp.float32, 'bfloat16': jnp.bfloat16}


class Program(NamedTuple):
  """What is compiled. Runs that differ in numbers only (see `program_key`) share one."""

  model: Any
  draw: Any
  step: Any
  measure: Any
  gradient: Any
  view: Any
  observe: Any = None


_PROGRAMS = {}


def read_inputs(config, part=(0, 1)):
  """(Source, Data) of a config. Raises before anything is compiled or written.

  part: (index, count) of what this process computes of a training batch (`sharding.part_of_batch`).
  """
  c = config.data
  root, cache = c.root or None, c.cache or None
  source = inputs.source(
    config.init,
    config.model,
    c.vocab,
    c.vocab_size,
    c.corpus,
    root,
    cache,
    kind=families.name_of(config),
  )
  kind = families.of_size(source.size)
  for field in kind.dropout:
    setattr(source.size, field, config.model.dropout)
  if c.seq_len > source.size.max_position_embeddings:
    raise ValueError(
      f'data.seq_len={c.seq_len}: the model has {source.size.max_position_embeddings} positions'
    )
  shared = dict(root=root, cache=cache, seed=config.seed)
  shared |= dict(batch_size=config.batch_size, eval_size=config.eval.batch_size)
  distillation.check(config)
  if c.task:
    data = inputs.finetuning_data(
      source.tokenizer, c.task, seq_len=c.seq_len, examples=c.examples, part=part, **shared
    )
  else:
    how = dict(eval_batches=config.eval.batches, part=part, how=kind.examples)
    data = inputs.pretraining_data(source.tokenizer, c.corpus, kind.recipe(c), **how, **shared)
  return source, distillation.with_soft_targets(config, source, data)


def program_key(config, source=None):
  """Equal for two runs exactly when one compiled program serves both: every number that is data is left out.

  Without `source` it says so for two models of one size.
  """
  plain = config.to_dict()
  numbers = ('seed', 'steps', 'init', 'pretrained', 'keep_model', 'keep_latent')
  for key in (*numbers, 'checkpoint', 'log', 'eval', 'population'):
    plain.pop(key, None)  # the config of a work directory has no 'population'
  plain['optimizer'].pop('learning_rate')
  plain['data'] = {'seq_len': config.data.seq_len, 'outputs': _outputs(config.data.task)}
  plain['data'] |= {} if config.data.task else {'max_predictions': config.data.max_predictions}
  plain['where'] = optimizer.where(config)
  plain['prune'] = {
    n: optimizer.compiled_part(g, f'prune.{n}') for n, g in optimizer.groups(config).items()
  }
  for group in ('prox', 'low_rank', 'distill'):
    plain.pop(group)
  plain |= rivals.compiled_part(config) | ({'distill': _soft(config)} if _soft(config) else {})
  size = source and source.size.to_dict()
  return hashlib.sha256(json.dumps([plain, size], sort_keys=True, default=str).encode()).hexdigest()


def _soft(config):
  """(temperature, weight) of a run with a teacher, else (). The teacher itself is in the batches."""
  return (config.distill.temperature, config.distill.weight) if config.distill.teacher else ()


def _outputs(name):
  """(numbers the head puts out, whether the task is a regression); None when `name` names no task."""
  task = tasks.get(name) if name else None
  return task and (len(task.classes) if task.classes else 1, not task.classes)


def build(config, source, data, tx) -> Program:
  """The compiled functions of a run, made once for each `program_key`."""
  key = program_key(config, source)
  if key not in _PROGRAMS:
    heads = families.heads(families.of_size(source.size), data.task)
    outputs, regression = _outputs(config.data.task) or (1, False)
    sized = json.dumps(source.size.to_dict(), sort_keys=True, default=str)
    model, draw, loss_fn, measure, curved = _model(
      sized, heads, outputs, regression, config.model.dtype, config.model.initializer, _soft(config)
    )
    view = VIEWS[config.view]
    told = observe.of(model, loss_fn, None if _soft(config) else curved)
    step = jax.jit(make_train_step(loss_fn, tx, view, config.accumulate, told), donate_argnums=0)
    gradient = jax.jit(
      lambda params, batch, rng: jax.grad(lambda p: loss_fn(p, batch, rng)[0])(params)
    )
    _PROGRAMS[key] = Program(model, draw, step, measure, gradient, view, told)
  return _PROGRAMS[key]


@functools.lru_cache(maxsize=16)
def _model(size, heads, outputs, regression, dtype, initializer, soft=()):
  """(model, draw, loss_fn, measure, residuals), shared by programs that differ in their optimizer. size: its JSON."""
  model = families.make(size, heads, outputs, DTYPES[dtype], initializer)
  tuned = heads == ('classifier',)
  taught = {'soft': objectives.distillation(*soft)} if soft else {}
  made = objectives.finetuning if tuned else families.of_size(model.size).objective
  objective = made(model, regression, **taught) if tuned else made(model, **taught)
  return (
    model,
    jax.jit(lambda rng: _drawn(model, rng)),
    objective[0],
    jax.jit(objective[1]),
    objective[2],
  )


def abstract_state(config, program, tx):
  """The shapes of a state. Raises ValueError for a pruning group that does not fit the leaves."""
  rng = jax.random.key(config.seed)
  params = jax.eval_shape(program.draw, rng)
  try:
    return jax.eval_shape(lambda p: _state(p, tx, rng), params)
  except ValueError as error:
    raise optimizer.told(config, error) from error


def check_step(config, program, abstract, batch):
  """Traces a step whose criteria look at the batch. Raises ValueError for leaves that they cannot score."""
  if optimizer.looks_further(config):
    try:
      jax.eval_shape(program.step, abstract, batch)
    except ValueError as error:
      raise optimizer.told(config, error) from error


def pretrained(config, source, program, shapes):
  """The weights in the folder of `init`, or None. Raises ValueError when they are another model's.

  A fine-tuned model brings its classifier along, unless the task has another number of classes.
  """
  if source.folder is None or not config.pretrained:
    return None
  classes = hf_directory.read_config(source.folder).get('architectures') or ()
  tuned = any(str(name).endswith('ForSequenceClassification') for name in classes)
  heads = tuple(h for h in program.model.heads if h != 'classifier' or tuned)
  loaded, _ = families.of_size(source.size).files.load(source.folder, heads=heads)
  if (
    'classifier' in loaded
    and loaded['classifier']['kernel'].shape != shapes['classifier']['kernel'].shape
  ):
    del loaded['classifier']
  hf_model.transfer(loaded, shapes)
  return loaded


def initial_state(config, program, tx, loaded=None):
  """The state of step 0: the weights `loaded`, whatever they lack drawn by `seed`."""
  rng = jax.random.key(config.seed)
  params = program.draw(rng)
  if loaded is not None:
    params, _ = hf_model.transfer(loaded, params)
  return _state(jax.tree.map(jnp.asarray, params), tx, rng)


def _drawn(model, rng):
  blank = jnp.zeros((1, 8), jnp.int32)
  return model.init(jax.random.fold_in(rng, 1), blank, blank, blank == 0)['params']


def _state(params, tx, rng):
  key = jax.random.key_data(jax.random.fold_in(rng, 2))
  step = jnp.zeros((), jnp.int32)
  return {'params': params, 'opt_state': tx.init(params), 'step': step, 'rng': key}
