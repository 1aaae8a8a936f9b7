"""One run, from a config to a folder: inputs, program, state, loop, scores, model. Killed at any point, it goes on."""

import functools
import hashlib
import json
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import prunejax
from prunejax.data import tasks
from prunejax.models import bert, bert_hf, hf_directory
from prunejax.pruning import report
from prunejax.train import (
  checkpoint,
  configs,
  evaluate,
  inputs,
  log,
  objectives,
  optimizer,
  preemption,
  sharding,
  specs,
  workdir,
)
from prunejax.train.step import VIEWS, make_train_step

DTYPES = {'float32': jnp.float32, 'bfloat16': jnp.bfloat16}
SIZE_KEYS = ('hidden_size', 'num_hidden_layers', 'num_attention_heads', 'intermediate_size', 'max_position_embeddings')
LEAST = {
  'seed': 0, 'batch_size': 1, 'data.examples': 0, 'data.max_predictions': 1, 'eval.every': 0, 'eval.batches': 1,
  'eval.batch_size': 1, 'checkpoint.every': 0, 'checkpoint.keep': 1, 'log.every': 0,
}


class Program(NamedTuple):
  """What is compiled. Runs that differ in numbers only (see `program_key`) share one."""

  model: Any
  draw: Any
  step: Any
  measure: Any
  gradient: Any
  view: Any


_PROGRAMS = {}


def train(config, folder, *, title='', say=log.say):
  """Trains one run and returns its result.

  Args:
    config: a ConfigDict with the keys of configs/base.py.
    folder: the work directory; one that holds another config is refused.
    title: starts each console line.
    say: prints a line.

  Returns:
    dict with 'metrics' (held-out scores), 'sparsity' (of the leaves the config names), 'mask_hash', 'bytes' (of the
    dense parameters), 'seconds', 'steps'. The same is in `folder`/result.json, the final weights in `folder`/model.

  Raises:
    ValueError, FileNotFoundError: one line naming the key or file. FloatingPointError: a loss that is not finite.
    preemption.Preempted: SIGTERM came, and the step it came in is saved (also when `checkpoint.every` is 0).
  """
  began = time.perf_counter()
  tx = optimizer.make(config)
  _check(config)
  folder = workdir.owned(folder, config.to_dict())
  if (done := workdir.result(folder)) is not None:
    return done
  # Whatever can be refused is refused here: nothing is compiled yet, and nothing written.
  source, data = read_inputs(config)
  mesh = sharding.make_mesh(config.mesh.data, config.mesh.model)
  sharding.check_batch(mesh, config.batch_size)
  program = build(config, source, data, tx)
  abstract = abstract_state(config, program, tx)
  shardings = sharding.shard(abstract, mesh, tuple(config.mesh.rules))
  loaded = pretrained(config, source, program, abstract['params'])
  workdir.claim(folder, config.to_dict())

  state, manager = None, None
  if config.checkpoint.every or (folder / 'checkpoints').exists():
    manager = checkpoint.manager(folder / 'checkpoints', config.checkpoint.keep)
    state, damaged = checkpoint.restore(manager, abstract, shardings)
    for step, why in damaged:
      say(f'{title}  checkpoint {step} cannot be read ({why}); using the one before')
  if state is not None:
    say(f'{title}  goes on at step {int(state["step"])} of {config.steps}')
  else:
    state = jax.device_put(initial_state(config, program, tx, loaded), shardings)
    if config.log.who_pays:
      _who_pays(config, program, state['params'], data.train(0), folder, say)

  writer = log.Log(
    folder, title, config.steps, start=int(state['step']), tensorboard=config.log.tensorboard, say=say
  )
  try:
    with preemption.notice() as told:
      state = _loop(config, state, data, program, mesh, writer, manager, folder / 'checkpoints', told)
    metrics = _scores(config, state, data, program)
    masks = prunejax.get_masks(state['opt_state'], state['params'])
    writer.write(config.steps, 'eval', metrics)
  finally:
    writer.close()
    if manager:
      manager.wait_until_finished()
      manager.close()
  params = jax.device_get(program.view(state['params'], masks))
  if config.keep_model:
    bert_hf.save(folder / 'model', params, source.size, vocab=inputs.wordpiece.pieces(source.tokenizer))
  return workdir.finish(folder, {
    'metrics': metrics,
    'sparsity': prunejax.masks.sparsity(params, optimizer.where(config))['total'],
    'mask_hash': prunejax.mask_hash(masks),
    'bytes': sum(leaf.nbytes for leaf in jax.tree.leaves(params)),
    'steps': config.steps,
    'seconds': round(time.perf_counter() - began, 2),
  })


def read_inputs(config):
  """(Source, Data) of a config. Raises before anything is compiled or written."""
  c = config.data
  root, cache = c.root or None, c.cache or None
  size = {k: config.model[k] for k in SIZE_KEYS}
  source = inputs.source(config.init, size, c.vocab, c.vocab_size, c.corpus, root, cache)
  source.size.hidden_dropout_prob = source.size.attention_probs_dropout_prob = config.model.dropout
  if c.seq_len > source.size.max_position_embeddings:
    raise ValueError(f'data.seq_len={c.seq_len}: the model has {source.size.max_position_embeddings} positions')
  process = (jax.process_index(), jax.process_count())
  shared = dict(root=root, cache=cache, seed=config.seed)
  shared |= dict(batch_size=config.batch_size, eval_size=config.eval.batch_size)
  if c.task:
    return source, inputs.finetuning_data(
      source.tokenizer, c.task, seq_len=c.seq_len, examples=c.examples, process=process, **shared
    )
  recipe = inputs.pretraining.Recipe(c.seq_len, c.predict, c.max_predictions)
  return source, inputs.pretraining_data(
    source.tokenizer, c.corpus, recipe, eval_batches=config.eval.batches, process=process, **shared
  )


def program_key(config, source):
  """Equal for two runs exactly when one compiled program serves both: every number that is data is left out."""
  plain = config.to_dict()
  for key in ('seed', 'steps', 'init', 'pretrained', 'keep_model', 'checkpoint', 'log', 'eval'):
    plain.pop(key)
  plain['optimizer'].pop('learning_rate')
  plain['data'] = {'seq_len': config.data.seq_len, 'outputs': _outputs(config.data.task)}
  plain['data'] |= {} if config.data.task else {'max_predictions': config.data.max_predictions}
  plain['where'] = optimizer.where(config)
  plain['prune'] = {n: optimizer.compiled_part(g, f'prune.{n}') for n, g in optimizer.groups(config).items()}
  return hashlib.sha256(json.dumps([plain, source.size.to_dict()], sort_keys=True, default=str).encode()).hexdigest()


def _outputs(name):
  """(numbers the head puts out, whether the task is a regression); None when `name` names no task."""
  task = tasks.get(name) if name else None
  return task and (len(task.classes) if task.classes else 1, not task.classes)


def build(config, source, data, tx) -> Program:
  """The compiled functions of a run, made once for each `program_key`."""
  key = program_key(config, source)
  if key not in _PROGRAMS:
    heads = ('classifier',) if data.task else ('mlm', 'nsp')
    outputs, regression = _outputs(config.data.task) or (1, False)
    sized = json.dumps(source.size.to_dict(), sort_keys=True, default=str)
    model, draw, loss_fn, measure = _model(
      sized, heads, outputs, regression, config.model.dtype, config.model.initializer
    )
    view = VIEWS[config.view]
    step = jax.jit(make_train_step(loss_fn, tx, view, config.accumulate), donate_argnums=0)
    gradient = jax.jit(lambda params, batch, rng: jax.grad(lambda p: loss_fn(p, batch, rng)[0])(params))
    _PROGRAMS[key] = Program(model, draw, step, measure, gradient, view)
  return _PROGRAMS[key]


@functools.lru_cache(maxsize=16)
def _model(size, heads, outputs, regression, dtype, initializer):
  """(model, draw, loss_fn, measure): what programs that differ in their optimizer share. size: JSON of a BertConfig."""
  model = bert.Bert(inputs.size_of(json.loads(size)), heads, outputs, DTYPES[dtype], initializer)
  objective = objectives.pretraining(model) if 'mlm' in heads else objectives.finetuning(model, regression)
  return model, jax.jit(lambda rng: _drawn(model, rng)), objective[0], jax.jit(objective[1])


def abstract_state(config, program, tx):
  """The shapes of a state. Raises ValueError for a pruning group that does not fit the leaves."""
  rng = jax.random.key(config.seed)
  params = jax.eval_shape(program.draw, rng)
  return jax.eval_shape(lambda p: _state(p, tx, rng), params)


def pretrained(config, source, program, shapes):
  """The weights in the folder of `init`, or None. Raises ValueError when they are another model's.

  A fine-tuned model brings its classifier along, unless the task has another number of classes.
  """
  if source.folder is None or not config.pretrained:
    return None
  tuned = 'BertForSequenceClassification' in (hf_directory.read_config(source.folder).get('architectures') or ())
  heads = tuple(h for h in program.model.heads if h != 'classifier' or tuned)
  loaded, _ = bert_hf.load(source.folder, heads=heads)
  if 'classifier' in loaded and loaded['classifier']['bias'].shape != shapes['classifier']['bias'].shape:
    del loaded['classifier']
  bert_hf.transfer(loaded, shapes)
  return loaded


def initial_state(config, program, tx, loaded=None):
  """The state of step 0: the weights `loaded`, whatever they lack drawn by `seed`."""
  rng = jax.random.key(config.seed)
  params = program.draw(rng)
  if loaded is not None:
    params, _ = bert_hf.transfer(loaded, params)
  return _state(jax.tree.map(jnp.asarray, params), tx, rng)


def _drawn(model, rng):
  blank = jnp.zeros((1, 8), jnp.int32)
  return model.init(jax.random.fold_in(rng, 1), blank, blank, blank == 0)['params']


def _state(params, tx, rng):
  key = jax.random.key_data(jax.random.fold_in(rng, 2))
  step = jnp.zeros((), jnp.int32)
  return {'params': params, 'opt_state': tx.init(params), 'step': step, 'rng': key}


def _loop(config, state, data, program, mesh, writer, manager, folder, told):
  """Steps from where the state is to the end. Told to stop, it saves the step it is at and raises Preempted."""
  pending, start = [], int(state['step'])
  for step, batch in zip(range(start, config.steps), inputs.prefetch(data.train, start, config.steps), strict=True):
    state, metrics = program.step(state, sharding.put_batch(batch, mesh))
    pending.append(metrics)
    at = step + 1
    due = lambda every: bool(every) and (at % every == 0 or at == config.steps)  # noqa: B023
    if step == start:
      jax.block_until_ready(metrics)
      writer.start(at)
    if due(config.log.every) or due(config.checkpoint.every):
      means = log.finite_means(pending, at)
      pending = []
      if due(config.log.every):
        shown = {'loss': means['loss'], 'lr': optimizer.learning_rate(config, step)}
        if optimizer.groups(config) or config.hold_zeros:
          masks = prunejax.get_masks(state['opt_state'], state['params'])
          shown['sparsity'] = prunejax.masks.sparsity(masks, optimizer.where(config))['total']
        writer.write(at, 'train', shown | {k: v for k, v in means.items() if k not in shown})
    if manager and due(config.checkpoint.every):
      checkpoint.save(manager, state, config.to_json_best_effort())
    if told():
      log.finite_means(pending, at)
      checkpoint.save_now(manager, folder, state, config.to_json_best_effort())
      raise preemption.Preempted(f'told to stop by SIGTERM: step {at} of {config.steps} is saved in {str(folder)!r}')
    if due(config.eval.every) and at < config.steps:
      writer.write(at, 'eval', _scores(config, state, data, program))
  log.finite_means(pending, config.steps)
  return state


def _scores(config, state, data, program):
  params = program.view(state['params'], prunejax.get_masks(state['opt_state'], state['params']))
  if not data.task:
    return evaluate.pretraining(program.measure, params, data.held_out())
  regression = not data.task.classes
  dev = evaluate.finetuning(program.measure, params, data.held_out(), data.task.metrics, regression)
  fit = evaluate.finetuning(program.measure, params, data.train_set(), (), regression)
  floor = {} if regression else {'majority': data.majority}
  return {'dev_loss': dev.pop('loss'), **dev, 'train_loss': fit['loss'], **floor}


def _check(config):
  for key, value, known in (
    ('view', config.view, list(VIEWS)),
    ('model.dtype', config.model.dtype, list(DTYPES)),
    ('model.initializer', config.model.initializer, ['normal', 'fan_in']),
  ):
    if value not in known:
      raise ValueError(f'{key}={value!r}{specs.suggest(value, known)}: expected one of {", ".join(known)}')
  values = configs.flat(config)
  for key, least in LEAST.items():
    if values[key] < least:
      raise ValueError(f'{key}={values[key]!r}: expected at least {least}')
  if not 0 <= config.model.dropout < 1:
    raise ValueError(f'model.dropout={config.model.dropout!r}: expected a share in [0, 1)')
  latent = [name for name, group in optimizer.groups(config).items() if not group.zero_pruned]
  if latent and config.view == 'plain':
    raise ValueError(
      f'prune.{latent[0]}.zero_pruned=False needs view=apply or view=straight_through, else nothing is pruned'
    )


def _who_pays(config, program, params, batch, folder, say):
  """Prints and saves, before training, what the schedule's end will take from each leaf."""
  for name, group in optimizer.groups(config).items():
    gradient = lambda: program.gradient(params, batch, jax.random.key(config.seed))
    rows = optimizer.who_pays(group, f'prune.{name}', params, config.steps, gradient)
    say(report.format_report(rows))
    workdir.write(folder / f'who_pays_{name}.json', json.dumps(report.to_dict(rows), indent=1))
