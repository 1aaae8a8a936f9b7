"""The weights of a run as a Hugging Face folder: the final ones, or those of the newest checkpoint."""

import prunejax
from prunejax import files
from prunejax.train import checkpoint, configs, kinds, log, loop, optimizer, sharding


def export(folder, out, dtype='float32', say=log.say):
  """Copies the model of the work directory `folder` to `out`, cast to `dtype`; pruned weights are written as zeros.

  Raises FileNotFoundError when the folder holds neither a model nor a checkpoint, ValueError for a wrong dtype.
  """
  folder, out = files.path(folder), files.path(out)
  if not files.exists(folder / 'config.json'):
    raise FileNotFoundError(f'{str(folder)!r} holds no run: expected the --workdir of a train command')
  if files.names(out):
    raise FileExistsError(f'--out={str(out)!r} is not empty: nothing was written')
  config = configs.stored(files.read_json(folder / 'config.json'))
  if files.exists(folder / 'model' / 'config.json'):
    model = files.local(folder / 'model')
    kind = kinds.in_folder(model)
    params, size = kind.files.load(model, heads=kinds.heads(kind, config.data.task))
    tokenizer, what = kind.words.load(model), 'the finished model'
  else:
    params, size, tokenizer, step = _from_checkpoint(config, folder)
    what = f'the checkpoint of step {step} of {config.steps}'
  files.deliver(out, lambda here: kinds.save(here, params, size, tokenizer, dtype))
  say(f'{what} of {folder} is in {out} as {dtype}')


def _from_checkpoint(config, folder):
  """(params, size, tokenizer, step) of the newest checkpoint that can be read."""
  if not files.exists(folder / 'checkpoints'):
    raise FileNotFoundError(f'{str(folder)!r} holds no finished model and no checkpoint')
  tx = optimizer.make(config)
  source, data = loop.read_inputs(config)
  program = loop.build(config, source, data, tx)
  abstract = loop.abstract_state(config, program, tx)
  shardings = sharding.shard(abstract, sharding.make_mesh(), ())
  manager = checkpoint.manager(folder / 'checkpoints', config.checkpoint.keep)
  state, damaged = checkpoint.restore(manager, abstract, shardings)
  manager.close()
  if state is None:
    raise FileNotFoundError(f'no checkpoint of {str(folder)!r} can be read {damaged or ""}')
  masks = prunejax.get_masks(state['opt_state'], state['params'])
  return program.view(state['params'], masks), source.size, source.tokenizer, int(state['step'])
