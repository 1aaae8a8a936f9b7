"""Reproduce Optimal Brain Damage on digits (LeCun, Denker & Solla, 1990).

  python -m prunejax reproduce lecun1990 --preset=quick [--config.data.root=FOLDER]

FOLDER holds `mnist/`; without it the images are scikit-learn's digits.
"""

from typing import NamedTuple

from experiments.lecun1990 import claims, deletion, fourfold, fourfold_report, report
from prunejax.data import handwritten_digits as digits
from prunejax.sweep import study

METHODS = ('obd', 'magnitude', 'random')


class Preset(NamedTuple):
  """One size of the study. Weights deleted at random are never retrained.

  Attributes:
    cost: what the preset takes, in words.
    seeds: one trained network each.
    train, test: use the first examples of the training and the test set; None for all.
    wide: maps of the first layer.
    steps: of training.
    retrain: steps of retraining after each of `cuts`.
    rate: first learning rate.
    batch: examples in a batch.
    curve: sparsities at which the loss is measured without retraining.
    cuts: sparsities with retraining, in turn.
    curvature: examples over which the curvature is averaged.
    again: share of the weights after which the arm 'obd again' computes saliencies again.
  """

  cost: str
  seeds: tuple = (0, 1, 2)
  train: int | None = 1400
  test: int | None = 360
  wide: int = 8
  steps: int = 1000
  retrain: int = 200
  rate: float = 0.005
  batch: int = 100
  curve: tuple = tuple(round(0.05 * i, 2) for i in range(20))
  cuts: tuple = (0.3, 0.5, 0.6, 0.8)
  curvature: int = 400
  again: float = 0.025


PRESETS = {
  'smoke': Preset(
    'seconds',
    seeds=(0,),
    train=40,
    test=20,
    wide=2,
    steps=3,
    retrain=2,
    batch=10,
    curve=(0.0, 0.3, 0.6),
    cuts=(0.6,),
    curvature=20,
  ),
  'quick': Preset('about two minutes on one core'),
  # The quadratic form describes a minimum, and a thousand steps do not reach one.
  'long': Preset(
    'about five minutes on one core', seeds=(0, 1, 2, 3, 4), steps=10_000, retrain=1000
  ),
  # The paper's opening: a network of 10,000 parameters comes down to a quarter.
  'fourfold': fourfold.Preset('about a minute on one core'),
  'fourfold-smoke': fourfold.Preset(
    'seconds',
    seeds=(0,),
    train=40,
    test=20,
    wide=2,
    hidden=3,
    steps=3,
    retrain=2,
    batch=10,
    kept=(0.5, 0.25, 0.125),
    curvature=20,
  ),
}


def plan(preset: Preset | fourfold.Preset, root: str) -> list[study.Cell]:
  """List one cell for each seed and method, then the arm 'obd again' of each seed.

  Args:
    preset: a value of `PRESETS`.
    root: folder that holds `mnist/`, or '' for scikit-learn's digits.

  Raises:
    ValueError, FileNotFoundError: for missing or damaged data.
  """
  if isinstance(preset, fourfold.Preset):
    return fourfold.plan(preset, root)
  name = digits.load(root, preset.train, preset.test).name
  numbers = {k: v for k, v in preset._asdict().items() if k not in ('cost', 'seeds', 'again')}
  cells = []
  for seed in preset.seeds:
    for method in METHODS:
      labels = {'digits': name, 'method': method, 'seed': seed}
      cells.append(study.Cell(labels, {**labels, **numbers}))
  for seed in preset.seeds:
    labels = {'digits': name, 'method': claims.AGAIN, 'seed': seed}
    cells.append(study.Cell(labels, {**labels, **numbers, 'cuts': (), 'again': preset.again}))
  return cells


def measure(settings: dict, root: str, folder, say) -> dict:
  """Measure a cell of the fourfold reduction or of the other presets."""
  one = fourfold if settings.get('part') == fourfold.PART else deletion
  return one.measure(settings, root, folder, say)


def _of(rows, whole, ours):
  """`ours` where the rows are of the fourfold reduction, else `whole`."""
  return ours if any(row.get('part') == fourfold.PART for row in rows) else whole


STUDY = study.Study(
  name='lecun1990',
  title='Optimal Brain Damage on digits',
  source='LeCun, Denker & Solla, NIPS 2 (1990)',
  presets=PRESETS,
  plan=plan,
  measure=measure,
  reads=lambda root, pydoc: {'digits': digits.fingerprint(root)},
  claims=claims.claims,
  tables=lambda rows: _of(rows, report, fourfold_report).tables(rows),
  figures=lambda rows: _of(rows, report, fourfold_report).figures(rows),
  captions=report.CAPTIONS,
)
reproduce, write_report, redraw, compare = study.verbs(STUDY)
