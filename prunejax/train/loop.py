"""One run, from a config to a folder: inputs, program, state, loop, scores, model. Killed at any point, it goes on."""

import json
import time

import jax

import prunejax
from prunejax import files
from prunejax.pruning import placement
from prunejax.pruning.who_pays import format_report, to_dict
from prunejax.train import (
  checkpoint,
  configs,
  console,
  distributed,
  evaluate,
  families,
  finite,
  inputs,
  metrics_log,
  optimizer,
  preemption,
  sharding,
  specs,
  workdir,
)
from prunejax.train.program import (
  DTYPES,
  abstract_state,
  build,
  check_step,
  initial_state,
  pretrained,
  program_key,
  read_inputs,
)
from prunejax.train.step import VIEWS

__all__ = [
  'abstract_state',
  'build',
  'check',
  'initial_state',
  'pretrained',
  'program_key',
  'read_inputs',
  'train',
]
LEAST = {
  'seed': 0,
  'batch_size': 1,
  'data.examples': 0,
  'data.max_predictions': 1,
  'eval.every': 0,
  'eval.batches': 1,
  'eval.batch_size': 1,
  'checkpoint.every': 0,
  'checkpoint.keep': 1,
  'log.every': 0,
  'population.members': 0,
  'population.memory': 0.0,
  'mesh.model': 1,
  'data.vocab_size': 1,
  **{f'model.{key}': 1 for key in families.SIZE_KEYS},
}


def train(config, folder, *, title='', say=console.say):
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
  say = say if distributed.first() else console.silent
  tx = optimizer.make(config)
  check(config)
  folder = workdir.owned(folder, configs.identity(config))
  if (done := workdir.result(folder)) is not None:
    return done
  # Whatever can be refused is refused here: nothing is compiled yet, and nothing written.
  mesh = sharding.make_mesh(config.mesh.data, config.mesh.model)
  sharding.check_batch(mesh, config.batch_size)
  source, data = read_inputs(config, sharding.part_of_batch(mesh))
  program = build(config, source, data, tx)
  abstract = abstract_state(config, program, tx)
  check_step(config, program, abstract, data.train(0))
  shardings = sharding.shard(abstract, mesh, tuple(config.mesh.rules))
  program = program._replace(step=sharding.steady(program.step, shardings))
  loaded = pretrained(config, source, program, abstract['params'])
  if distributed.first():
    workdir.claim(folder, configs.identity(config))
  distributed.together('claimed')
  with workdir.held(folder, distributed.first()):
    state, manager = None, None
    if config.checkpoint.every or files.exists(folder / 'checkpoints'):
      manager = checkpoint.manager(folder / 'checkpoints', config.checkpoint.keep)
      state, damaged = checkpoint.restore(manager, abstract, shardings)
      for step, why in damaged:
        say(f'{title}  checkpoint {step} cannot be read ({why}); using the one before')
    if state is not None:
      say(f'{title}  goes on at step {int(state["step"])} of {config.steps}')
    else:
      state = sharding.place(initial_state(config, program, tx, loaded), shardings)
      if config.log.who_pays:
        who_pays(
          config, program, state['params'], sharding.put_batch(data.train(0), mesh), folder, say
        )

    start, board, home = (
      int(state['step']),
      config.log.tensorboard,
      folder if distributed.first() else None,
    )
    writer = metrics_log.Log(home, title, config.steps, start=start, tensorboard=board, say=say)
    try:
      with preemption.notice() as told:
        state = _loop(
          config, state, data, program, mesh, writer, manager, folder / 'checkpoints', told
        )
      seconds = lambda: time.perf_counter() - began
      place = lambda batch: sharding.put_whole(batch, mesh)
      return finish(config, state, data, program, source, folder, writer, seconds, place)
    finally:
      writer.close()
      if manager:
        manager.wait_until_finished()
        manager.close()


def finish(
  config, state, data, program, source, folder, writer, seconds, place=lambda batch: batch
):
  """Scores a trained state, writes its model and its result.json, and returns the result.

  seconds: () -> its cost. place: lays a batch out as the program takes it.
  """
  metrics = scores(state, data, program, place)
  masks = prunejax.get_masks(state['opt_state'], state['params'])
  writer.write(config.steps, 'eval', metrics)
  params = jax.tree.map(placement.on_host, program.view(state['params'], masks))
  if config.keep_model and distributed.first():
    files.deliver(
      folder / 'model', lambda out: families.save(out, params, source.size, source.tokenizer)
    )
  if config.keep_latent:
    latent = jax.tree.map(placement.on_host, state['params'])  # every process has a part of it
    if distributed.first():
      files.deliver(
        folder / 'latent', lambda out: families.save(out, latent, source.size, source.tokenizer)
      )
  result = {
    'metrics': metrics,
    'sparsity': prunejax.masks.sparsity(params, optimizer.where(config))['total'],
    'mask_hash': prunejax.mask_hash(masks),
    'bytes': sum(leaf.nbytes for leaf in jax.tree.leaves(params)),
    'steps': config.steps,
    'seconds': round(seconds(), 2),
  }
  if distributed.first():
    workdir.finish(folder, result)
  distributed.together('finished')
  return result


def _loop(config, state, data, program, mesh, writer, manager, folder, told):
  """Steps from where the state is to the end. Told to stop, it saves the step it is at and raises Preempted."""
  pending, start = [], int(state['step'])
  for step, batch in zip(
    range(start, config.steps), inputs.prefetch(data.train, start, config.steps), strict=True
  ):
    state, metrics = program.step(state, sharding.put_batch(batch, mesh))
    pending.append(metrics)
    at = step + 1
    due = lambda every: bool(every) and (at % every == 0 or at == config.steps)  # noqa: B023
    if step == start:
      jax.block_until_ready(metrics)
      writer.start(at)
    if due(config.log.every) or due(config.checkpoint.every):
      means = finite.finite_means(pending, at, prunejax.nan_scores(state['opt_state']))
      if due(config.log.every):
        pending = []
        shown = {'loss': means['loss'], 'lr': optimizer.learning_rate(config, step)}
        if optimizer.groups(config) or config.hold_zeros:
          masks = prunejax.get_masks(state['opt_state'], state['params'])
          shown['sparsity'] = prunejax.masks.sparsity(masks, optimizer.where(config))['total']
        writer.write(at, 'train', shown | {k: v for k, v in means.items() if k not in shown})
    writer.alive(at, metrics['loss'])
    if manager and due(config.checkpoint.every):
      checkpoint.save(manager, state, config.to_json_best_effort())
    if told():
      finite.finite_means(pending, at, prunejax.nan_scores(state['opt_state']))
      checkpoint.save_now(manager, folder, state, config.to_json_best_effort())
      raise preemption.Preempted(
        f'told to stop by SIGTERM: step {at} of {config.steps} is saved in {str(folder)!r}'
      )
    if due(config.eval.every) and at < config.steps:
      writer.write(
        at, 'eval', scores(state, data, program, lambda batch: sharding.put_whole(batch, mesh))
      )
  finite.finite_means(pending, config.steps, prunejax.nan_scores(state['opt_state']))
  return state


def scores(state, data, program, place=lambda batch: batch):
  """Held-out scores of a state; of a task also the loss on what it was trained on."""
  measure = lambda params, batch: jax.tree.map(
    placement.on_host, program.measure(params, place(batch))
  )
  params = program.view(state['params'], prunejax.get_masks(state['opt_state'], state['params']))
  if not data.task:
    return evaluate.pretraining(measure, params, data.held_out())
  regression = not data.task.classes
  dev = evaluate.finetuning(measure, params, data.held_out(), data.task.metrics, regression)
  fit = evaluate.finetuning(measure, params, data.train_set(), (), regression)
  floor = {} if regression else {'majority': data.majority}
  return {'dev_loss': dev.pop('loss'), **dev, 'train_loss': fit['loss'], **floor}


def check(config):
  """Refuses what could only fail later. Raises ValueError naming the key."""
  for key, value, known in (
    ('view', config.view, list(VIEWS)),
    ('model.dtype', config.model.dtype, list(DTYPES)),
    ('model.kind', families.name_of(config), list(families.KINDS)),
    ('model.initializer', config.model.initializer, ['normal', 'fan_in']),
    ('data.pairs', config.data.pairs, ['matched', 'first']),
    ('population.batching', config.population.batching, ['auto', 'map', 'vmap']),
  ):
    if value not in known:
      raise ValueError(
        f'{key}={value!r}{specs.suggest(value, known)}: expected one of {", ".join(known)}'
      )
  values = configs.flat(config)
  for key, least in LEAST.items():
    if values[key] < least:
      raise ValueError(f'{key}={values[key]!r}: expected at least {least}')
  if config.seed >= 2**63:
    raise ValueError(f'seed={config.seed}: expected less than 2**63')
  sharding.check_rules(config.mesh.rules)
  if not 0 <= config.model.dropout < 1:
    raise ValueError(f'model.dropout={config.model.dropout!r}: expected a share in [0, 1)')
  latent = [name for name, group in optimizer.groups(config).items() if not group.zero_pruned]
  if latent and config.view == 'plain':
    raise ValueError(
      f'prune.{latent[0]}.zero_pruned=False needs view=apply or view=straight_through, else nothing is pruned'
    )
  if config.keep_latent and not latent:
    raise ValueError(
      'keep_latent=True: no pruning group has zero_pruned=False, so nothing lives on under a mask'
    )


def who_pays(config, program, params, batch, folder, say):
  """Prints and saves, before training, what the schedule's end will take from each leaf."""
  rng = jax.random.key(config.seed)
  gradient = lambda: program.gradient(params, batch, rng)
  observed = lambda: program.observe(lambda p: p, batch, rng)
  for name, group in optimizer.groups(config).items():
    key = f'prune.{name}'
    needs = sorted(optimizer.pieces(group, key)[0].needs - {'grad'})
    if needs and jax.process_count() > 1:
      # Each process holds a part of the batch, which would have to be compiled into the program.
      say(f'{key}: who pays is not known before masks first move: it needs {", ".join(needs)}')
      continue
    rows = optimizer.who_pays(group, key, params, config.steps, gradient, observed)
    say(format_report(rows))
    if distributed.first():
      files.write(folder / f'who_pays_{name}.json', json.dumps(to_dict(rows), indent=1))
