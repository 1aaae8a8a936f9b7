"""Prune SmolLM2-135M without training, then fine-tune it: what does a task still find?

The question of Gordon, Duh & Andrews 2020, asked of a decoder. A model is pruned by SparseGPT and
fine-tuned twice: with its zeros *held* by the stored masks, and with its zeros *free* to be trained
again. The free model has the capacity of the dense one and lacks only what pruning deleted.
"""

from configs import llama
from experiments.oneshot2023 import smollm2
from prunejax import files
from prunejax.data import content, text_files
from prunejax.oneshot import command
from prunejax.train import inputs, loop, recipe

ARMS = ('dense', 'held', 'free')
CRITERION = 'sparsegpt()'
BUCKETS = (16, 32, 48, 64)  # lengths that texts are padded to
TASKS = {'glue/sst2': 'accuracy', 'glue/mrpc': 'accuracy'}  # {task: its score}


def measure(settings: dict, root: str, folder, say) -> dict:
  """Prune, once for both arms, and fine-tune.

  Args:
    settings: of a cell of `study.plan`.
    root: of the data.
    folder: the work directory; a command that was killed goes on there.
    say: prints a line.

  Returns:
    'score' of the held-out examples, 'train_loss' and 'dev_loss' in nats, 'got', the sparsity of
    the pruned kernels after fine-tuning, and 'seconds'.

  Raises:
    FloatingPointError: a score, a weight or a loss is not finite.
  """
  init = settings['model']
  if settings['sparsity']:
    init = str(_pruned(settings, root, folder, say))
  run = recipe.resolve(config_of(settings, root, init))
  home = files.path(folder) / 'runs' / content.of(settings)
  result = loop.train(run, home, title=settings['arm'], say=say)
  metrics = result['metrics']
  return {
    'score': metrics[TASKS[settings['task']]],
    'train_loss': metrics['train_loss'],
    'dev_loss': metrics['dev_loss'],
    'got': result['sparsity'],
    'seconds': result['seconds'],
  }


def config_of(settings: dict, root: str, init: str):
  """Make the config of a fine-tuning run.

  Args:
    settings: of a cell.
    root: of the data.
    init: the model to start from.
  """
  config = llama.get_config('finetune')
  config.update(
    init=init,
    seed=settings['seed'],
    steps=settings['steps'],
    batch_size=settings['batch'],
    hold_zeros=settings['arm'] == 'held',
    keep_model=False,
  )
  config.data.update(
    root=root, task=settings['task'], examples=settings['labels'], seq_len=64, buckets=BUCKETS
  )
  config.optimizer.learning_rate = settings['rate']
  config.log.update(every=21, tensorboard=False, who_pays=False)
  config.checkpoint.every = max(settings['steps'] // 2, 1)
  return config


def _pruned(settings, root, folder, say):
  """The folder of the pruned model, made by the first cell that needs it."""
  names = ('model', 'sparsity', 'seed', 'segments', 'length')
  out = files.path(folder) / 'pruned' / content.of({name: settings[name] for name in names})
  if not files.exists(out):
    files.mkdir(out.parent)
    command.prune(
      settings['model'],
      str(out),
      criterion=CRITERION,
      sparsity=settings['sparsity'],
      calibration=str(files.path(root) / smollm2.TEXT),
      segments=settings['segments'],
      length=settings['length'],
      seed=settings['seed'],
      say=say,
    )
  return out


def reads(root: str, pydoc: str = '') -> dict[str, str]:
  """Digests of the tasks and of the text of the calibrations.

  Args:
    root: of the data.
    pydoc: unused.
  """
  del pydoc
  found = {smollm2.TEXT: content.of(text_files.fingerprint(files.path(root) / smollm2.TEXT))}
  for task in TASKS:
    config = llama.get_config('finetune')
    config.data.update(root=root, task=task)
    found[task] = inputs.text_of(recipe.data_of(config.data))
  return found
