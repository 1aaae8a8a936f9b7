"""Reproduce Han et al. 2015 and 2016: pruning with retraining, and Deep Compression.

LeNets are pruned, their weights shared, Huffman coded, and written as files.

  python -m prunejax reproduce han2016 --preset=quick [--config.data.root=FOLDER]
  python -m prunejax reproduce han2016 --preset=end [--config.data.root=FOLDER]

FOLDER holds `mnist/`, the four idx files; without it the images are scikit-learn's digits, enlarged
to 28 x 28.
"""

from typing import NamedTuple

from experiments.han2016 import claims, paper, report, training
from prunejax.data import handwritten_digits
from prunejax.sweep import study


class Preset(NamedTuple):
  """One size of the study. A pair of values is for (scikit-learn's digits, MNIST).

  Attributes:
    seeds, conv_seeds: of LeNet-300-100 and of LeNet-5.
    steps, retrain: steps of training and retraining of LeNet-300-100.
    conv_steps, conv_retrain: the same of LeNet-5.
    centroids: steps of training the centroids.
    rounds: of retraining.
    scales: multiples of the paper's kept fractions that are compared.
    bits: widths of the codes that are compared.
    cost: what the preset takes, in words.
    own: run the papers' settings with widths and fractions of the network's own, and nothing else.
    conv_centroids: steps of training the centroids of LeNet-5; 0 for those of `centroids`.
  """

  seeds: tuple
  conv_seeds: tuple
  steps: tuple
  retrain: tuple
  conv_steps: tuple
  conv_retrain: tuple
  centroids: int
  rounds: int
  scales: tuple
  bits: tuple
  cost: str
  own: bool = False
  conv_centroids: int = 0


PRESETS = {
  'quick': Preset(
    seeds=(0, 1, 2),
    conv_seeds=(0,),
    steps=(300, 1000),
    retrain=(200, 500),
    conv_steps=(60, 300),
    conv_retrain=(40, 200),
    centroids=50,
    rounds=2,
    scales=(4.0, 0.5, 0.25),
    bits=(2, 3, 4, 5),
    cost='three minutes on one CPU core; MNIST, six',
  ),
  'papers': Preset(
    seeds=(0, 1, 2),
    conv_seeds=(0, 1, 2),
    steps=(1000, 5000),
    retrain=(1000, 5000),
    conv_steps=(300, 1000),
    conv_retrain=(300, 1000),
    centroids=200,
    rounds=4,
    scales=(),
    bits=(),
    cost=(
      "only the papers' own settings of both networks, trained for longer; some half an hour on "
      'one CPU core'
    ),
  ),
  'end': Preset(
    seeds=(0, 1, 2, 3, 4),
    conv_seeds=(0, 1, 2),
    steps=(1000, 5000),
    retrain=(1000, 5000),
    conv_steps=(300, 700),
    conv_retrain=(300, 700),
    centroids=1000,
    rounds=4,
    scales=(),
    bits=(),
    cost=(
      "as `papers`, with kept fractions, widths of codes and of indices of each layer's own, and "
      'more training of shared values; some ten minutes on one CPU core'
    ),
    own=True,
    conv_centroids=300,
  ),
  'long': Preset(
    seeds=(0, 1, 2, 3, 4),
    conv_seeds=(0, 1, 2),
    steps=(2000, 9400),
    retrain=(2000, 9400),
    conv_steps=(1000, 4700),
    conv_retrain=(1000, 4700),
    centroids=470,
    rounds=4,
    scales=(4.0, 2.0, 0.5, 0.25, 0.125),
    bits=(2, 3, 4, 5, 6, 8),
    cost='some three hours on one CPU core; not run here',
  ),
  'smoke': Preset(
    seeds=(0,),
    conv_seeds=(),
    steps=(40, 40),
    retrain=(20, 20),
    conv_steps=(4, 4),
    conv_retrain=(4, 4),
    centroids=4,
    rounds=1,
    scales=(),
    bits=(2,),
    cost='seconds',
  ),
}


def plan(preset: Preset, root: str) -> list[study.Cell]:
  """List the cells: the papers' own settings of both networks, then the comparisons.

  Cells that start from the same trained or pruned network share it, see `training.measure`. A cell
  of scale 0 is not pruned and trains on for as many steps instead.

  Args:
    preset: a value of `PRESETS`.
    root: folder that holds `mnist/`, or '' for scikit-learn's digits.

  Raises:
    FileNotFoundError, ValueError: if `root` holds no MNIST.
  """
  mnist = int(bool(root))
  data = training.images(root).name
  fixed = {'data': data, 'batch': 128, 'learning_rate': 2e-3, 'centroid_rate': 5e-4, 'decay': 1e-5}
  cells = []

  def add(net, seed, scale, bits, init='linear'):
    prefix = 'conv_' if net == 'lenet-5' else ''
    labels = {'net': net, 'seed': seed, 'scale': scale, 'bits': bits, 'init': init}
    lengths = {
      'steps': getattr(preset, f'{prefix}steps')[mnist],
      'retrain': getattr(preset, f'{prefix}retrain')[mnist],
      'rounds': preset.rounds,
      'centroids': _centroids(preset, net) if bits else 0,
    }
    cells.append(study.Cell(labels, fixed | labels | lengths))

  if preset.own:
    for bits in ('fitted', 'own'):
      for seed in preset.seeds:
        add('lenet-300-100', seed, 1.0, bits)
    for seed in preset.conv_seeds:
      add('lenet-5', seed, 1.0, 'fitted')
    return cells
  for seed in preset.seeds:
    add('lenet-300-100', seed, 1.0, 'paper')
    add('lenet-300-100', seed, 0.0, 0)
  for seed in preset.conv_seeds:
    add('lenet-5', seed, 1.0, 'paper')
  for seed in preset.seeds:
    for scale in (1.0, *preset.scales):
      add('lenet-300-100', seed, scale, 0)
    for bits in preset.bits:
      add('lenet-300-100', seed, 0.0, bits)
      for init in paper.INITS:
        add('lenet-300-100', seed, 1.0, bits, init)
    for scale in preset.scales[1:]:
      add('lenet-300-100', seed, scale, 4)
  return cells


def _centroids(preset, net):
  own = preset.conv_centroids if net == 'lenet-5' else 0
  return own or preset.centroids


STUDY = study.Study(
  name='han2016',
  title='Learning both Weights and Connections; Deep Compression',
  source=(
    'Han, Pool, Tran & Dally, NIPS 2015, arXiv 1506.02626; Han, Mao & Dally, ICLR 2016, arXiv '
    '1510.00149'
  ),
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
