"""Compare families of compression at equal bytes of written files.

Pruning, shared values, low rank, compact convolutional filters, and a smaller student, on LeNet-5
and a VGG-like network (digits) and on the packaged BERT (a task of the packaged text).

  python -m prunejax reproduce families --preset=quick [--config.data.root=FOLDER]

FOLDER holds `mnist/`; without it the images are scikit-learn's digits.
"""

from typing import NamedTuple

from experiments.families import claims, report, subjects, training
from prunejax.data import handwritten_digits as digits
from prunejax.data import tasks
from prunejax.sweep import study
from prunejax.train import inputs

FAMILIES = ('pruned', 'shared', 'low rank', 'small', 'distilled', 'separable', 'squeezed')


class Run(NamedTuple):
  """How one network is trained.

  Attributes:
    steps: of each of the two halves.
    batch: examples of a batch.
    rate: first learning rate of each half.
    decay: weight decay, multiplied by the rate.
    shares: bytes of a file, as shares of the dense file's.
    train, test: most examples of each set.
  """

  steps: int
  batch: int
  rate: float
  decay: float
  shares: tuple
  train: int
  test: int


class Preset(NamedTuple):
  """One size of the study.

  Attributes:
    cost: what the preset takes, in words.
    runs: {network of `subjects.NAMES`: `Run`}.
    seeds: one set of networks each.
  """

  cost: str
  runs: dict
  seeds: tuple = (0, 1, 2)


PRESETS = {
  'smoke': Preset(
    'a minute',
    {
      'vgg': Run(4, 8, 2e-3, 0.5, (1 / 10,), 60, 40),
      'bert': Run(4, 4, 1e-3, 0.01, (1 / 3,), 60, 40),
    },
    seeds=(0,),
  ),
  'quick': Preset(
    'some ten minutes on one CPU core',
    {
      'vgg': Run(300, 32, 2e-3, 1.0, (1 / 10, 1 / 20), 60_000, 2000),
      'lenet-5': Run(200, 32, 1e-3, 1.0, (1 / 10, 1 / 20), 60_000, 2000),
      'bert': Run(80, 16, 1e-3, 0.01, (1 / 3, 1 / 6), 2000, 1000),
    },
  ),
}


def plan(preset: Preset, root: str) -> list[study.Cell]:
  """List the cells of each network and seed: dense, then every family at every number of bytes.

  Args:
    preset: a value of `PRESETS`.
    root: folder that holds `mnist/`, or '' for scikit-learn's digits.

  Raises:
    ValueError, FileNotFoundError: for missing or damaged data.
  """
  data, cells = digits.load(root).name, []
  for net, run in preset.runs.items():
    numbers = {k: v for k, v in run._asdict().items() if k != 'shares'}
    places = [('dense', 1.0)] + [
      (family, share)
      for share in run.shares
      for family in FAMILIES
      if training.fits(net, family, share, root, run.train, run.test)
    ]
    for seed in preset.seeds:
      for family, share in places:
        labels = {'net': net, 'family': family, 'share': round(share, 6), 'seed': seed}
        labels['data'] = subjects.TASK if net == 'bert' else data
        cells.append(study.Cell(labels, {**labels, **numbers}))
  return cells


def reads(root: str, pydoc: str) -> dict[str, str]:
  """Digests of the digits, of the task's texts and of the packaged model."""
  del pydoc
  return {
    'digits': digits.fingerprint(root),
    'task': tasks.fingerprint(subjects.TASK),
    'nano': inputs.model_content(inputs.NANO),
  }


STUDY = study.Study(
  name='families',
  title='Families of compression at equal bytes',
  source='ours; each family after its own papers',
  presets=PRESETS,
  plan=plan,
  measure=training.measure,
  reads=reads,
  claims=claims.claims,
  tables=report.tables,
  figures=report.figures,
  captions=report.CAPTIONS,
)
reproduce, write_report, redraw, compare = study.verbs(STUDY)
