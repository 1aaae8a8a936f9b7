"""Families of arms beside the paper's four: controls, switches, epochs, and shares of the corpus.

Each family adds cells to a `cells.Cells`, at `preset.extra_sparsities` and with `preset.rate`.
"""

import functools
import math

from experiments.gordon2020 import presets
from experiments.gordon2020.cells import HELD, QUIET, changed, drawn, gradual
from prunejax.data import corpus as corpora

LAYERS = r'encoder/layer_\d+/(attention/(query|key|value|output)|ffn/(intermediate|output))/kernel'
LATENT = {'prune.weights.zero_pruned': False, 'view': 'apply'}
LIBRARY = {'prune.weights.allocation': 'histogram(bins=256, decay=0.9)'}


def switches_of(p):
  """{name: overrides of a pruned pre-training run}: what the authors' code did otherwise."""
  frozen = {'prune.weights.when': f'every(10, until={p.ramp})'}
  return {
    'histogram': LIBRARY,  # the first library's cut-off, 256 bins and a moving average
    'latent': LATENT,  # weights under a forward mask, which may come back
    # As Zhu & Gupta wrote: masks stand still once the target is reached.
    'latent-frozen': LATENT | frozen,
    'library': LATENT | LIBRARY,  # both, as in the older copies of the library
    'frozen': frozen,
    # 5,000 of 95,000 steps in the authors' code.
    'sawtooth': {'optimizer.sawtooth': max(round(p.pretrain.steps / 19), 1)},
    'no-pooler': {'prune.weights.where': f'embeddings/word/embedding|{LAYERS}'},
    'no-embeddings': {'prune.weights.where': f'{LAYERS}|pooler/kernel'},
  }


def switches(cells, seed, dense):
  """Adds the arms 'switch:NAME': the pruned arm, pre-trained in another way, fine-tuned alike."""
  del dense
  p = cells.preset
  for name, changes in switches_of(p).items():
    for s in p.extra_sparsities:
      latent = {'keep_latent': True} if name == 'latent' else {}
      model = cells.pretrain(
        f'switch:{name}', s, seed, **{**gradual(p, s), **QUIET, **changes, **latent}
      )
      for task in p.tasks:
        cells.tune(f'switch:{name}', s, seed, task, p.rate, model, **HELD)


def controls(cells, seed, dense):
  """Adds the controls of the authors' code.

  'permuted': the dense model under a mask with as many weights in each matrix, in random places.
  'unmasked': the model of 'switch:latent', fine-tuned dense without its mask, from the weights
  under it; the harm that is left is not the loss of information. 'switch:burned-in': the pruned arm
  from a model that was trained longer first.
  """
  p = cells.preset
  steps = p.burn_in or max(round(p.pretrain.steps / 9.5), 1)
  start = cells.pretrain('burned in', 0.0, seed, steps=steps)
  for s in p.extra_sparsities:
    recipe = {**gradual(p, s), **QUIET}
    latent = cells.pretrain('switch:latent', s, seed, **recipe, **LATENT, keep_latent=True)
    longer = cells.pretrain('switch:burned-in', s, seed, start, **recipe)
    for task in p.tasks:
      tune = functools.partial(_tune, cells, s, seed, task)
      tune('permuted', dense, **drawn(s, seed))
      tune('unmasked', f'{latent}/latent', presets.multiple(p.deleted, s))
      tune('switch:burned-in', longer, **HELD)


def epochs(cells, seed, dense):
  """Adds 'epochs', dense fine-tuning for n epochs, and 'after epochs', then pruned (Figure 3b)."""
  p = cells.preset
  for task in p.tasks:
    _, _, few = task.partition('@')
    size = int(few or 0) or p.tune.data.examples or p.examples.get(task, 0)
    if not size:
      raise ValueError(
        f'--arms=epochs: the number of examples of {task!r} is unknown; write {task}@NUMBER'
      )
    steps = math.ceil(size / p.tune.batch_size)
    shared = {'prune.weights.schedule': f'one_shot({p.epochs_sparsity})'}
    for n in (0, *p.epochs):
      tuned = dense
      if n:
        longer = {
          'steps': max(round(n * steps * p.scale), 1),
          'keep_model': True,
          'labels': {'epochs': n},
        }
        tuned = cells.tune('epochs', 0.0, seed, task, p.rate, dense, **longer)
      how = {'labels': {'epochs': n}, **shared}
      cells.tune(
        'after epochs',
        p.epochs_sparsity,
        seed,
        task,
        p.rate,
        tuned,
        presets.multiple(p.after, p.epochs_sparsity),
        **how,
      )


def corpus(cells, seed):
  """Adds 'corpus:SHARE': a model born of a share of the corpus, pruned or not, then fine-tuned."""
  p = cells.preset
  for share in p.shares:
    text = '+'.join(_part(source, share) for source in corpora.sources(p.pretrain.data.corpus))
    arm, recipe = f'corpus:{share:g}', {'data.corpus': text, **QUIET}
    config = changed(p.pretrain, seed=seed, pretrained=False, steps=p.born, **recipe)
    config.optimizer.learning_rate = p.born_rate
    rate = config.optimizer.learning_rate
    born = cells.add(
      config, stage='born', arm=arm, sparsity=0.0, task='', seed=seed, learning_rate=rate
    )
    for s in (0.0, *p.extra_sparsities):
      model = cells.pretrain(arm, s, seed, born, **{**gradual(p, s), **recipe})
      for task in p.tasks:
        cells.tune(arm, s, seed, task, p.rate, model, **(HELD if s else {}))


def _tune(cells, s, seed, task, arm, *rest, **recipe):
  return cells.tune(arm, s, seed, task, cells.preset.rate, *rest, **recipe)


def _part(source, share):
  times = f'*{source.repeat}' if source.repeat > 1 else ''
  return f'{source.name}@{share * source.share:g}{times}'
