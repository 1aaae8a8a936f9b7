"""Reproduce Zhu & Gupta 2017 on translation: a large pruned model against a small dense one.

*To prune, or not to prune*, section on Google's neural machine translation, with LSTMs.

  python -m prunejax reproduce zhu2017nmt --preset=quick [--config.data.root=FOLDER]

FOLDER holds `multi30k/`; without it the task is a made-up language, `cipher`.
"""

from typing import NamedTuple

from experiments.translation import corpus, task
from experiments.zhu2017nmt import claims, report, training
from prunejax.sweep import study


class Preset(NamedTuple):
  """One size of the study.

  Attributes:
    cost: what the preset takes, in words.
    seeds: one model of every arm each.
    sizes: {name: hidden units}.
    arms: (size, sparsity, allocation) of the models that are trained; see `training.ALLOCATIONS`.
    steps: of training.
    begin, end: first and last step of the cubic ramp.
    interval: steps between mask updates.
    base: changes of `BASE`, settings that every cell has.
  """

  cost: str
  seeds: tuple = (0, 1, 2)
  sizes: dict = {'small': 32, 'large': 64}  # noqa: RUF012 (never written to)
  arms: tuple = (
    ('small', 0.0, ''),
    ('large', 0.0, ''),
    ('large', 0.8, 'layer'),
    ('large', 0.9, 'layer'),
    ('large', 0.9, 'global'),
  )
  steps: int = 400
  begin: int = 80
  end: int = 280
  interval: int = 10
  base: dict = {}  # noqa: RUF012 (never written to)


# Settings of the models and their data; see `see2016.study.BASE`.
BASE = {
  'words': 1000,
  'layers': 1,
  'dropout': 0.1,
  'bounds': [[18, 20]],
  'train': 0,
  'test': 0,
  'batch': 64,
  'together': 8,
  'rate': 1e-2,
  'warmup': 40,
}
TINY = {'words': 200, 'bounds': [[24, 28]], 'train': 300, 'test': 20, 'batch': 8, 'together': 2}
PRESETS = {
  'smoke': Preset(
    'half a minute',
    seeds=(0,),
    sizes={'small': 8, 'large': 16},
    arms=(('small', 0.0, ''), ('large', 0.9, 'layer'), ('large', 0.9, 'global')),
    steps=8,
    begin=2,
    end=6,
    interval=2,
    base=TINY,
  ),
  'quick': Preset('some five minutes of a CPU core'),
  'medium': Preset(
    'some fifteen minutes of a CPU core',
    sizes={'small': 64, 'large': 128},
    steps=1500,
    begin=300,
    end=1100,
    base={'words': 2000, 'dropout': 0.2, 'rate': 3e-3, 'warmup': 80},
  ),
  'long': Preset(
    'some three hours of a CPU core; not run here',
    seeds=(0, 1, 2, 3, 4),
    sizes={'small': 128, 'large': 256},
    steps=3000,
    begin=600,
    end=2200,
    interval=20,
    base={'words': 2000, 'dropout': 0.2, 'rate': 3e-3, 'warmup': 80},
  ),
}


def plan(preset: Preset, root: str, pydoc: str = 'installed') -> list[study.Cell]:
  """List one cell for each seed and arm.

  Args:
    preset: a value of `PRESETS`.
    root: folder that holds `multi30k/`, or '' for the made-up language.
    pydoc: which text the made-up language is drawn from, 'installed' or 'packaged'.

  Raises:
    ValueError, FileNotFoundError: for missing or damaged data.
  """
  shared = {**BASE, **preset.base, **task.drawn_from(root, pydoc)}
  task.load_for(shared, root)  # Fails on bad data before anything is trained.
  shared |= {k: getattr(preset, k) for k in ('steps', 'begin', 'end', 'interval')}
  name, cells = 'multi30k en-de' if root else corpus.CIPHER, []
  for seed in preset.seeds:
    for size, sparsity, allocation in preset.arms:
      variant = {'sparsity': sparsity, 'allocation': allocation, 'seed': seed}
      labels = {'data': name, 'size': size, **variant}
      cells.append(
        study.Cell(labels, {**shared, 'data': name, 'hidden': preset.sizes[size], **variant})
      )
  return cells


STUDY = study.Study(
  name='zhu2017nmt',
  title='To prune, or not to prune: translation',
  source='Zhu & Gupta 2017, arXiv:1710.01878',
  presets=PRESETS,
  plan=plan,
  measure=training.measure,
  reads=corpus.reads,
  embedded=True,
  claims=claims.claims,
  tables=report.tables,
  figures=report.figures,
  captions=report.CAPTIONS,
)
reproduce, write_report, redraw, compare = study.verbs(STUDY)
