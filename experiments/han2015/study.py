"""Reproduce Han et al. 2015: prune, retrain, and prune again.

*Learning both Weights and Connections*: L1 against L2, one cut against several, thresholds in
deviations, the dropout of retraining, and the scan of the layers, on LeNets.

  python -m prunejax reproduce han2015 --preset=quick [--config.data.root=FOLDER]

FOLDER holds `mnist/`, the four idx files; without it the images are scikit-learn's digits, enlarged
to 28 x 28.
"""

from typing import NamedTuple

from experiments.han2015 import claims, report, training
from experiments.han2016 import training as lenets
from prunejax.data import handwritten_digits
from prunejax.sweep import study


class Preset(NamedTuple):
  """One size of the study. A pair of values is for (scikit-learn's digits, MNIST).

  Attributes:
    cost: what the preset takes, in words.
    seeds: one network of each kind each.
    strengths: {penalty: strengths}; the last one of L2 is that of every other arm.
    cuts: fractions of the weights that are kept, without retraining.
    levels: fractions that are kept, with retraining.
    steps, retrain: of training and of retraining LeNet-300-100.
    conv_steps: of training LeNet-5.
    rounds: of iterative pruning; retraining is as long in all.
    qualities: multiples of a layer's deviation that are its threshold.
    dropout: of the hidden units, in the arm of that name.
    removed: fractions of one layer that the scan removes.
    tolerances: rises of the loss that the scan accepts.
    held_out: the last training images, on which the scan measures.
    rate: of training; retraining begins at half of it.
    batch: images in a batch.
  """

  cost: str
  seeds: tuple = (0, 1, 2)
  strengths: dict = {'l2': (1e-4, 1e-3), 'l1': (1e-5, 1e-4)}  # noqa: RUF012 (never written to)
  cuts: tuple = (0.8, 0.6, 0.5, 0.4, 0.33, 0.25, 0.2, 0.15, 0.1, 0.05, 0.02)
  levels: tuple = (0.1, 0.05, 0.02, 0.01)
  steps: tuple = (600, 1500)
  retrain: tuple = (300, 400)
  conv_steps: tuple = (150, 300)
  rounds: int = 5
  qualities: tuple = (1.0, 1.5, 2.0, 2.5)
  dropout: float = 0.5
  removed: tuple = (0.3, 0.5, 0.7, 0.8, 0.9, 0.95)
  tolerances: tuple = (0.03, 0.1)
  held_out: tuple = (237, 5000)
  rate: float = 2e-3
  batch: int = 64


PRESETS = {
  'smoke': Preset(
    'seconds',
    seeds=(0,),
    strengths={'l2': (1e-4,), 'l1': (1e-5,)},
    cuts=(0.5, 0.1),
    levels=(0.1, 0.02),
    steps=(20, 20),
    retrain=(10, 10),
    conv_steps=(2, 2),
    qualities=(1.0,),
    removed=(0.5, 0.9),
    tolerances=(0.1,),
    held_out=(37, 100),
  ),
  'quick': Preset('some six minutes on one idle CPU core; MNIST, ten'),
  'long': Preset(
    'some hours on one CPU core; not run here',
    seeds=(0, 1, 2, 3, 4),
    steps=(8000, 20_000),
    retrain=(3000, 10_000),
    conv_steps=(2000, 5000),
  ),
}


def plan(preset: Preset, root: str) -> list[study.Cell]:
  """List the cells, seed by seed: penalties, iterative, thresholds, dropout, scans.

  Cells that start from the same trained network share it, see `training.measure`.

  Args:
    preset: a value of `PRESETS`.
    root: folder that holds `mnist/`, or '' for scikit-learn's digits.

  Raises:
    FileNotFoundError, ValueError: if `root` holds no MNIST, or fewer images than are held out.
  """
  mnist = int(bool(root))
  data = lenets.images(root)
  held_out = preset.held_out[mnist]
  if len(data.train_labels) < 2 * held_out:
    raise ValueError(
      f'data.root={root!r}: {len(data.train_labels)} training images are too few; expected at least'
      f' {2 * held_out}, of which {held_out} are held out'
    )
  shared = {
    'digits': data.name,
    'held_out': held_out,
    'rate': preset.rate,
    'batch': preset.batch,
    'steps': preset.steps[mnist],
    'retrain': preset.retrain[mnist],
    'levels': preset.levels,
  }
  l2 = preset.strengths['l2'][-1]
  cells = []

  def add(seed, arm, penalty, strength, net='lenet-300-100', **more):
    labels = {'net': net, 'arm': arm, 'penalty': penalty, 'strength': strength, 'seed': seed}
    cells.append(study.Cell({'digits': data.name, **labels}, {**shared, **labels, **more}))

  for seed in preset.seeds:
    for penalty, strengths in preset.strengths.items():
      for strength in strengths:
        add(seed, 'one shot', penalty, strength, cuts=preset.cuts)
    for strength in preset.strengths['l1']:
      add(seed, 'l1 then l2', 'l1', strength, then=l2)
    add(seed, 'iterative', 'l2', l2, rounds=preset.rounds)
    add(seed, 'by chance', 'l2', l2)
    # As in the paper a round is as long as the retraining of one cut; and one cut for as long.
    longer = {'levels': preset.levels[-2:], 'retrain': preset.rounds * preset.retrain[mnist]}
    add(seed, 'iterative, longer', 'l2', l2, rounds=preset.rounds, **longer)
    add(seed, 'one shot, longer', 'l2', l2, **longer)
    add(seed, 'threshold', 'l2', l2, rounds=preset.rounds, qualities=preset.qualities)
    add(seed, 'dropout', 'l2', l2, dropout=preset.dropout)
    scan = {'removed': preset.removed, 'tolerances': preset.tolerances}
    add(seed, 'scan', 'l2', l2, **scan)
    conv = {**scan, 'steps': preset.conv_steps[mnist], 'retrain': 0, 'tolerances': ()}
    add(seed, 'scan', 'l2', l2, 'lenet-5', **conv)
  return cells


STUDY = study.Study(
  name='han2015',
  title='Learning both Weights and Connections: prune, retrain, prune again',
  source='Han, Pool, Tran & Dally, NIPS 2015, arXiv 1506.02626',
  presets=PRESETS,
  plan=plan,
  measure=training.measure,
  reads=lambda root, pydoc: {'digits': handwritten_digits.fingerprint(root)},
  claims=claims.claims,
  tables=report.tables,
  figures=report.figures,
  captions=report.CAPTIONS,
)
reproduce, write_report, redraw, compare = study.verbs(STUDY)
