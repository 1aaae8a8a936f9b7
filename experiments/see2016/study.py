"""Reproduce Compression of Neural Machine Translation Models via Pruning.

See, Luong & Manning 2016: an LSTM translation model a seed, pruned by three schemes.

  python -m prunejax reproduce see2016 --preset=quick [--config.data.root=FOLDER]

FOLDER holds `multi30k/`; without it the task is a made-up language, `cipher`.
"""

from typing import NamedTuple

from experiments.see2016 import claims, report, training
from experiments.translation import corpus, task
from prunejax.sweep import study


class Preset(NamedTuple):
  """One size of the study.

  Attributes:
    cost: what the preset takes, in words.
    seeds: one dense model each.
    base: changes of `BASE`, the dense model's settings.
    shots: sparsities of one-shot pruning, under every scheme.
    alone: sparsities at which one class alone is pruned.
    classes: names from `training.CLASSES` that are pruned alone.
    again: (scheme, sparsity) of the models that are retrained.
    scratch: sparsities of the sparse networks that are trained from new weights, and from the
      weights that the dense model started from (tickets).
    steps, rate: steps and peak learning rate of retraining.
    halvings: of the rate, in the arm that retrains at half of the rate of training; 0 for no such
      arm.
  """

  cost: str
  seeds: tuple = (0, 1, 2)
  base: dict = {}  # noqa: RUF012 (never written to)
  shots: tuple = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
  alone: tuple = (0.9,)
  classes: tuple = tuple(training.CLASSES)
  again: tuple = (('class-blind', 0.8),)
  scratch: tuple = (0.8,)
  steps: int = 300
  rate: float = 1e-3
  halvings: int = 0


# Settings of the dense model and its data. train, test: pairs, 0 for all. together: steps a call.
# reach: every parameter is drawn from U(-reach, reach).
BASE = {
  'words': 2000,
  'hidden': 128,
  'layers': 1,
  'dropout': 0.2,
  'bounds': [[16, 18]],
  'train': 0,
  'test': 0,
  'batch': 64,
  'together': 8,
  'steps': 3000,
  'rate': 3e-3,
  'warmup': 80,
  'reach': 0.1,
}
TINY = {
  'words': 200,
  'hidden': 16,
  'bounds': [[24, 28]],
  'train': 300,
  'test': 20,
  'batch': 8,
  'together': 2,
  'steps': 4,
  'warmup': 2,
}
PRESETS = {
  'smoke': Preset('seconds', seeds=(0,), base=TINY, shots=(0.5,), classes=(), steps=2),
  'quick': Preset('three seeds; some twenty minutes a seed on a CPU core that does other work too'),
  'long': Preset(
    'three seeds; only the claims about retraining, with five times the retraining; some twenty '
    'minutes a seed',
    steps=1500,
    shots=(0.8,),
    classes=(),
  ),
  'halved': Preset(
    'three seeds of a smaller model; only retraining at several rates; some five minutes of a '
    'CPU core',
    base={'words': 1000, 'hidden': 64, 'bounds': [[18, 20]], 'steps': 480, 'warmup': 40}
    | {'rate': 1e-2},
    shots=(0.8,),
    classes=(),
    scratch=(),
    steps=160,
    rate=3e-3,
    halvings=4,
  ),
  'halved-smoke': Preset(
    'seconds',
    seeds=(0,),
    base=TINY,
    shots=(0.8,),
    classes=(),
    scratch=(),
    steps=4,
    halvings=2,
  ),
}


def plan(preset: Preset, root: str, pydoc: str = 'installed') -> list[study.Cell]:
  """List the cells of each seed: dense, one shot, one class alone, retrained.

  Networks that are trained from scratch, and tickets, take longest and come last.

  Args:
    preset: a value of `PRESETS`.
    root: folder that holds `multi30k/`, or '' for the made-up language.
    pydoc: which text the made-up language is drawn from, 'installed' or 'packaged'.

  Raises:
    ValueError, FileNotFoundError: for missing or damaged data.
  """
  shared = {**BASE, **preset.base, **task.drawn_from(root, pydoc)}
  task.load_for(shared, root)  # Fails on bad data before anything is trained.
  cells, late = [], []
  for seed in preset.seeds:
    base = {**shared, 'data': 'multi30k en-de' if root else 'cipher', 'seed': seed}

    def add(method, scheme, sparsity, base=base, into=cells, **more):
      variant = {'method': method, 'scheme': scheme, 'sparsity': sparsity}
      into.append(
        study.Cell(
          {'data': base['data'], **variant, 'seed': base['seed']}, {'base': base, **variant, **more}
        )
      )

    retraining = {'steps': preset.steps, 'rate': preset.rate}
    add('dense', '', 0.0)
    for sparsity in preset.shots:
      for scheme in training.SCHEMES:
        add('one shot', scheme, sparsity)
    for name in preset.classes:
      for sparsity in preset.alone:
        add('class alone', name, sparsity)
    add('retrained', '', 0.0, **retraining)
    for scheme, sparsity in preset.again:
      add('retrained', scheme, sparsity, **retraining)
      if preset.halvings:
        # The paper starts at half of the first rate and halves it every so many epochs.
        halve = preset.steps // preset.halvings
        halved = {'steps': preset.steps, 'rate': base['rate'] / 2, 'halve': halve}
        add('halved', scheme, sparsity, **halved)
        add('full rate', scheme, sparsity, steps=preset.steps, rate=base['rate'])
    for sparsity in preset.scratch:
      add('from scratch', 'class-blind', sparsity, into=late, **retraining)
      add('ticket', 'class-blind', sparsity, into=late, **retraining)
  return cells + late


STUDY = study.Study(
  name='see2016',
  title='Pruning an LSTM translation model: three schemes',
  source='See, Luong & Manning 2016',
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
