"""Reproduce The Journey Matters: does the loss follow the average number of weights?

Small decoders are pre-trained from nothing, dense in several widths, and pruned on the way.

  python -m prunejax reproduce journey2025 --preset=quick [--config.data.root=FOLDER]
"""

from typing import NamedTuple

import numpy as np

import prunejax
from configs import gpt2
from experiments.journey2025 import claims, report
from prunejax.sweep import grid, study
from prunejax.train import configs


class Preset(NamedTuple):
  """One size of the study.

  Attributes:
    cost: what the preset takes, in words.
    seeds: one model of every arm each.
    steps: of a dense run, and of a pruned run in the comparison at equal steps.
    widths: of the dense models; the first is also that of the pruned ones.
    sparsities: in the end, of the comparison at equal steps.
    windows: first and last step of pruning in per cent, of the comparison at equal steps.
    judged: (sparsity, windows) of the comparison at equal compute; the first window is the
      paper's, and is among those of the comparison at equal steps, as is the sparsity.
    every: steps between changes of the masks.
    batch: sequences in a step.
    rate: peak learning rate.
    held_out: batches of 128 held-out sequences.
  """

  cost: str
  seeds: tuple = (0, 1, 2)
  steps: int = 300
  widths: tuple = (128, 96, 64, 32)
  sparsities: tuple = (0.5, 0.8)
  windows: tuple = ((25, 75), (0, 50), (50, 100))
  judged: tuple = (0.8, ((25, 75), (0, 50), (50, 100), (75, 100)))
  every: int = 5
  batch: int = 16
  rate: float = 2e-3
  held_out: int = 6


PRESETS = {
  'smoke': Preset(
    'half a minute',
    seeds=(0,),
    steps=8,
    widths=(16, 8),
    sparsities=(0.5,),
    windows=((25, 75),),
    judged=(0.5, ((25, 75), (0, 50))),
    every=1,
    batch=4,
    held_out=1,
  ),
  'quick': Preset('some fifteen minutes of a CPU core'),
  'long': Preset(
    'some five hours of a CPU core; not run here', seeds=(0, 1, 2, 3, 4), steps=3000, every=20
  ),
}


def plan(preset: Preset, overrides: dict) -> list[grid.Cell]:
  """List the cells, seed by seed: dense, pruned in as many steps, pruned with as much compute.

  Args:
    preset: a value of `PRESETS`.
    overrides: {dotted key: value} for every run.

  Raises:
    ValueError: for an unknown key.
  """
  cells = []

  def add(seed, arm, compare, width, steps, sparsity=0.0, window=()):
    # Masks move at multiples of `every`, the last of which is in the run.
    last = (steps - 1) // preset.every
    at = lambda part: min(round(part * steps / 100 / preset.every), last) * preset.every
    begin, end = map(at, window or (0, 0))
    config = configs.override(_config(preset, width), overrides)
    changes = {'steps': steps, 'seed': seed}
    if sparsity:
      changes['prune.weights.schedule'] = f'cubic({sparsity}, begin={begin}, end={end})'
      changes['prune.weights.when'] = f'every({preset.every}, begin={begin}, until={end})'
    config = configs.override(config, changes)
    fixed, prunable = counts(config)
    density = mean_density(sparsity, begin, end, preset.every, steps)
    labels = {
      'stage': 'pretrain',
      'task': '',
      'arm': arm,
      'compare': compare,
      'width': width,
      'sparsity': sparsity,
      'window': '-'.join(map(str, window)),
      'parameters': fixed + prunable,
      'final': fixed + round((1 - sparsity) * prunable),
      'average': fixed + round(density * prunable),
      'seed': seed,
    }
    cells.append(grid.Cell(labels, config))

  widest = preset.widths[0]
  judged, windows = preset.judged
  for seed in preset.seeds:
    for width in preset.widths:
      add(seed, 'dense', 'steps', width, preset.steps)
    for sparsity in preset.sparsities:
      for window in preset.windows:
        add(seed, 'pruned', 'steps', widest, preset.steps, sparsity, window)
    for window in windows:
      # As many products of weights and tokens as in the paper's window.
      longer = density_of(judged, windows[0]) / density_of(judged, window)
      if window != windows[0]:  # The first is a cell of the comparison at equal steps.
        steps = round(preset.steps * longer)
        add(seed, 'pruned', 'compute', widest, steps, judged, window)
  return cells


def counts(config) -> tuple[int, int]:
  """Count the parameters of a fresh decoder that are never pruned, and those that may be.

  Args:
    config: a ConfigDict of `configs.gpt2`.
  """
  model, words = config.model, config.data.vocab_size
  width, inner, layers = model.hidden_size, model.intermediate_size, model.num_hidden_layers
  prunable = words * width + layers * (4 * width**2 + 2 * width * inner)
  biases = layers * (4 * width + inner + width)
  norms = (2 * layers + 1) * 2 * width
  return model.max_position_embeddings * width + biases + norms, prunable


def mean_density(sparsity: float, begin: int, end: int, every: int, steps: int) -> float:
  """Compute the mean fraction of weights that are left over the steps of a run.

  Args:
    sparsity: in the end.
    begin, end: first and last step of the cubic schedule.
    every: steps between changes of the masks.
    steps: of the run.
  """
  if not sparsity:
    return 1.0
  at = np.arange(steps)
  moved = begin + (np.clip(at, begin, end) - begin) // every * every
  levels = np.asarray(prunejax.cubic(sparsity, begin=begin, end=end)(moved))
  return float(1 - np.mean(np.where(at >= begin, levels, 0)))


def density_of(sparsity: float, window: tuple) -> float:
  """Compute the mean density of a cubic schedule in closed form.

  Args:
    sparsity: in the end.
    window: first and last step, in per cent of the run.
  """
  begin, end = (part / 100 for part in window)
  return 1 - sparsity * (0.75 * (end - begin) + 1 - end)


def _config(preset, width):
  config = gpt2.get_config('nano')
  config.model.update(hidden_size=width, intermediate_size=4 * width)
  config.optimizer.learning_rate = preset.rate
  config.batch_size = preset.batch
  config.eval.update(every=0, batches=preset.held_out)
  config.keep_model = False
  config.checkpoint.every = 0
  config.log.update(every=50, tensorboard=False, who_pays=False)
  return config


STUDY = study.Study(
  name='journey2025',
  title='The journey matters: the average number of weights',
  source='The Journey Matters, 2025, arXiv 2501.12486',
  presets=PRESETS,
  plan=plan,
  measure=None,
  claims=claims.claims,
  tables=report.tables,
  figures=report.figures,
  captions=report.CAPTIONS,
)
reproduce, write_report, redraw, compare = study.verbs(STUDY)
