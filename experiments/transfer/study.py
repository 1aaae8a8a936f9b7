"""Transfer beyond language: the arms of Gordon et al. 2020 on a small VGG-like network.

The network learns the digits 0 to 4, is pruned, and is fine-tuned on the digits 5 to 9.

  python -m prunejax reproduce transfer --preset=quick [--config.data.root=FOLDER]

FOLDER holds `mnist/`; without it the images are scikit-learn's digits.
"""

from typing import NamedTuple

from experiments.gordon2020.analysis import arms
from experiments.transfer import claims, halves, report, training
from prunejax.data import handwritten_digits as digits
from prunejax.sweep import study


class Preset(NamedTuple):
  """One size of the study.

  Attributes:
    cost: what the preset takes, in words.
    seeds: one network each, with its own pre-training.
    sparsities: of the pruned arms.
    images: sizes of the training sets of fine-tuning.
    born: steps of pre-training before anything is pruned.
    steps, ramp: steps of pre-training that follow, and over which the sparsity rises.
    tune: steps of fine-tuning.
    batch, tune_batch: images of a batch.
    rate, tune_rate: first learning rates.
    decay: weight decay of pre-training, multiplied by the rate; fine-tuning has none.
    test: most test images of a half.
  """

  cost: str
  seeds: tuple = (0, 1, 2)
  sparsities: tuple = (0.3, 0.5, 0.7, 0.9)
  images: tuple = (25, 100)
  born: int = 1000
  steps: int = 200
  ramp: int = 100
  tune: int = 80
  batch: int = 32
  tune_batch: int = 25
  rate: float = 2e-3
  decay: float = 0.2
  tune_rate: float = 1e-3
  test: int = 1000


PRESETS = {
  'smoke': Preset(
    'seconds',
    seeds=(0,),
    sparsities=(0.5,),
    images=(25,),
    born=6,
    steps=20,
    ramp=10,
    tune=4,
    test=50,
  ),
  'quick': Preset('some four minutes on one CPU core'),
}


def plan(preset: Preset, root: str) -> list[study.Cell]:
  """List the cells of each seed: networks of pre-training, then each fine-tuned arm.

  Args:
    preset: a value of `PRESETS`.
    root: folder that holds `mnist/`, or '' for scikit-learn's digits.

  Raises:
    ValueError, FileNotFoundError: for missing or damaged data, or too few images.
  """
  data = halves.load(root, preset.test)
  for count in preset.images:
    halves.few(data.second, count, 0)  # Fails before anything is trained.
  numbers = ('born', 'steps', 'ramp', 'batch', 'rate', 'decay', 'test')
  shared = {'digits': data.name, **{name: getattr(preset, name) for name in numbers}}
  tune = {name: getattr(preset, name) for name in ('tune', 'tune_batch', 'tune_rate')}
  cells = []

  def add(stage, arm, sparsity, seed, images=0):
    labels = {'stage': stage, 'arm': arm, 'sparsity': sparsity, 'seed': seed}
    labels['task'] = f'{images} images' if images else ''
    labels['learning_rate'] = preset.tune_rate if images else preset.rate
    settings = {'stage': stage, 'arm': arm, 'sparsity': sparsity, 'seed': seed, 'images': images}
    cells.append(study.Cell(labels, {**shared, **settings, **(tune if images else {})}))

  for seed in preset.seeds:
    add('pretrain', 'dense', 0.0, seed)
    for arm in ('pruned', 'random'):
      for sparsity in preset.sparsities:
        add('pretrain', arm, sparsity, seed)
    for images in preset.images:
      add('finetune', 'dense', 0.0, seed, images)
      add('finetune', 'fresh', 0.0, seed, images)
      for arm in arms.CURVES:
        for sparsity in preset.sparsities:
          add('finetune', arm, sparsity, seed, images)
  return cells


STUDY = study.Study(
  name='transfer',
  title='Transfer beyond language: a pruned network of images',
  source='the arms of Gordon, Duh & Andrews 2020, arXiv:2002.08307, on digits',
  presets=PRESETS,
  plan=plan,
  measure=training.measure,
  reads=lambda root, pydoc: {'digits': digits.fingerprint(root)},
  claims=claims.claims,
  analyse=claims.grid,
  tables=report.tables,
  figures=report.figures,
  captions=report.CAPTIONS,
  colours={text: arms.colour(arm) for arm, name in arms.NAMES.items() for text in (arm, name)},
)
reproduce, write_report, redraw, compare = study.verbs(STUDY)
