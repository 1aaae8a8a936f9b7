"""Reproduce SPDF: sparse pre-training, dense fine-tuning.

Small decoders are pre-trained from nothing under fixed random masks and fine-tuned dense, with the
zeros free to learn, or sparse.

  python -m prunejax reproduce spdf2023 --preset=quick --config.data.root=FOLDER

FOLDER holds `books/`, the text of fine-tuning; without it the tasks of the embedded corpus are
fine-tuned.
"""

from typing import NamedTuple

from configs import gpt2
from experiments.spdf2023 import claims, report
from prunejax.models.gpt2 import PRUNABLE
from prunejax.sweep import grid, study
from prunejax.train import configs

# As in the paper, the matrices of the layers are sparse, and the embeddings are dense.
KERNELS = PRUNABLE.partition('|')[2]


class Preset(NamedTuple):
  """One size of the study.

  Attributes:
    cost: what the preset takes, in words.
    seeds: one pre-trained model of every sparsity each.
    sparsities: of pre-training; 0 is dense.
    steps: of pre-training.
    tuned: steps of fine-tuning.
    text: the corpus of fine-tuning in a folder of `data.root`, and the share of it that is read.
    tasks: labelled tasks of the embedded corpus, without `data.root`.
    batch: sequences in a step.
    rate, tuning_rate: peak learning rates.
    width: of the model.
    held_out: batches of 128 held-out sequences.
  """

  cost: str
  seeds: tuple = (0, 1, 2)
  sparsities: tuple = (0.0, 0.5, 0.75)
  steps: int = 250
  tuned: int = 60
  text: str = 'books@0.05'
  tasks: tuple = ('pydoc/library',)
  batch: int = 16
  rate: float = 2e-3
  tuning_rate: float = 1e-3
  width: int = 128
  held_out: int = 4


PRESETS = {
  'smoke': Preset(
    'half a minute',
    seeds=(0,),
    sparsities=(0.0, 0.75),
    steps=6,
    tuned=3,
    batch=4,
    width=16,
    held_out=1,
  ),
  'quick': Preset('some five minutes of a CPU core'),
  'medium': Preset('some fifteen minutes of a CPU core', steps=2000, tuned=300),
  'long': Preset(
    'some three hours of a CPU core; not run here', seeds=(0, 1, 2, 3, 4), steps=6000, tuned=1500
  ),
}


def plan(preset: Preset, overrides: dict) -> list[grid.Cell]:
  """List the cells, a parent before its children.

  Args:
    preset: a value of `PRESETS`.
    overrides: {dotted key: value} for every run; `data.root` says that there is a folder of text.

  Raises:
    ValueError: for an unknown key.
  """
  cells = []
  text = {'data.corpus': preset.text}
  tunings = (
    {preset.text.partition('@')[0]: text}
    if overrides.get('data.root')
    else {task: {'data.task': task, 'data.examples': 4000} for task in preset.tasks}
  )

  def add(stage, arm, sparsity, task, seed, changes, parent=None):
    labels = {'stage': stage, 'task': task, 'arm': arm, 'sparsity': sparsity, 'seed': seed}
    config = configs.override(configs.override(_config(preset), overrides), changes)
    cells.append(grid.Cell(labels, config, parent))
    return grid.key(cells[-1])

  for seed in preset.seeds:
    parents = {}
    for sparsity in preset.sparsities:
      masked = {
        'prune.weights.criterion': f'random({seed})',
        'prune.weights.schedule': f'constant({sparsity})',
        'prune.weights.when': 'every(1, until=0)',
        'prune.weights.where': KERNELS,
      }
      changes = {'seed': seed, 'steps': preset.steps, **masked}
      parents[sparsity] = add(
        'pretrain', 'sparse' if sparsity else 'dense', sparsity, '', seed, changes
      )
    for task, where in tunings.items():
      tuned = {
        **where,
        'seed': seed,
        'steps': preset.tuned,
        'optimizer.learning_rate': preset.tuning_rate,
        'keep_model': False,
      }
      for sparsity, parent in parents.items():
        child = {**tuned, 'init': f'cell:{parent}'}
        add('finetune', 'dense', sparsity, task, seed, child, parent)
        if sparsity:
          held = {**child, 'hold_zeros': True}
          add('finetune', 'sparse', sparsity, task, seed, held, parent)
      # The vocabulary and the size of the dense model, and new weights.
      fresh = {**tuned, 'init': f'cell:{parents[preset.sparsities[0]]}', 'pretrained': False}
      add('finetune', 'fresh', 0.0, task, seed, fresh, parents[preset.sparsities[0]])
  return cells


def _config(preset):
  config = gpt2.get_config('nano')
  config.model.update(hidden_size=preset.width, intermediate_size=4 * preset.width)
  config.optimizer.learning_rate = preset.rate
  config.batch_size = preset.batch
  config.eval.update(every=0, batches=preset.held_out)
  config.checkpoint.every = 0
  config.log.update(every=50, tensorboard=False, who_pays=False)
  return config


STUDY = study.Study(
  name='spdf2023',
  title='Sparse pre-training, dense fine-tuning',
  source='SPDF, Thangarasa et al. 2023, arXiv 2303.10464',
  presets=PRESETS,
  plan=plan,
  measure=None,
  claims=claims.claims,
  tables=report.tables,
  figures=report.figures,
  captions=report.CAPTIONS,
)
reproduce, write_report, redraw, compare = study.verbs(STUDY)
