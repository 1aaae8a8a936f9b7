"""Reproduce transformers.zip: Compressing Transformers with Pruning and Quantization.

Cheong & Daniel 2019: a translation Transformer is pruned step by step, or its weights are shared.

  python -m prunejax reproduce cheong2019 --preset=quick [--config.data.root=FOLDER]

FOLDER holds `multi30k/`; without it the task is a made-up language, `cipher`.
"""

from typing import NamedTuple

from experiments.cheong2019 import claims, report, training
from experiments.translation import corpus, task
from prunejax.sweep import study


class Preset(NamedTuple):
  """One size of the study.

  Attributes:
    cost: what the preset takes, in words.
    seeds: one dense model each.
    base: changes of `BASE`, the dense model's settings.
    sparsities: final sparsities of the pruned models.
    bits: widths of a shared weight's code under k-means.
    both: sparsity of the model that is pruned and binarised.
    steps, rate: steps and peak learning rate of training after the dense model's.
  """

  cost: str
  seeds: tuple = (0, 1, 2)
  base: dict = {}  # noqa: RUF012 (never written to)
  sparsities: tuple = (0.5, 0.7, 0.86)
  bits: tuple = (8, 4)
  both: float = 0.5
  steps: int = 100
  rate: float = 5e-4


# Settings of the dense model and its data. train, test: pairs, 0 for all. together: steps a call.
BASE = {
  'words': 2000,
  'hidden': 128,
  'layers': 2,
  'heads': 4,
  'inner': 256,
  'dropout': 0.1,
  'bounds': [[16, 18]],
  'train': 0,
  'test': 0,
  'batch': 64,
  'together': 10,
  'steps': 700,
  'rate': 2e-3,
  'warmup': 100,
}
TINY = {
  'words': 200,
  'hidden': 16,
  'layers': 1,
  'heads': 2,
  'inner': 32,
  'bounds': [[24, 28]],
  'train': 300,
  'test': 20,
  'batch': 8,
  'together': 2,
  'steps': 4,
  'warmup': 2,
}
PRESETS = {
  'smoke': Preset('seconds', seeds=(0,), base=TINY, sparsities=(0.5,), bits=(4,), steps=4),
  'quick': Preset('three seeds; six to ten minutes a seed on a CPU core that does other work too'),
}


def plan(preset: Preset, root: str, pydoc: str = 'installed') -> list[study.Cell]:
  """List the cells of each seed: dense, pruned, shared, and pruned and binarised.

  Args:
    preset: a value of `PRESETS`.
    root: folder that holds `multi30k/`, or '' for the made-up language.
    pydoc: which text the made-up language is drawn from, 'installed' or 'packaged'.

  Raises:
    ValueError, FileNotFoundError: for missing or damaged data.
  """
  shared = {**BASE, **preset.base, **task.drawn_from(root, pydoc)}
  task.load_for(shared, root)  # Fails on bad data before anything is trained.
  cells = []
  for seed in preset.seeds:
    base = {**shared, 'data': 'multi30k en-de' if root else 'cipher', 'seed': seed}

    def add(method, sparsity=0.0, bits=32, steps=0, base=base):
      variant = {'method': method, 'sparsity': sparsity, 'bits': bits}
      cells.append(
        study.Cell(
          {'data': base['data'], **variant, 'trained': bool(steps), 'seed': base['seed']},
          {'base': base, **variant, 'steps': steps, 'rate': preset.rate},
        )
      )

    add('dense')
    for sparsity in preset.sparsities:
      add('pruned', sparsity, steps=preset.steps)
    for bits in preset.bits:
      add('k-means', bits=bits)
    add('binarised', bits=1)
    for bits in preset.bits[-1:] + preset.bits[:-1]:
      add('k-means', bits=bits, steps=preset.steps)
    add('binarised', bits=1, steps=preset.steps)
    add('dense', steps=preset.steps)
    add('pruned + binarised', preset.both, bits=1, steps=preset.steps)
  return cells


STUDY = study.Study(
  name='cheong2019',
  title='A translation Transformer pruned, or its weights shared',
  source='Cheong & Daniel 2019',
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
