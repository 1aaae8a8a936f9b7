"""Reproduce Optimal Brain Surgeon on the MONK's problems and XOR (Hassibi & Stork, 1993).

  python -m prunejax reproduce hassibi1993 --preset=quick [--config.data.root=FOLDER]

FOLDER holds `monks/`, the published files; without it the training sets are generated.
"""

import itertools
from typing import NamedTuple

import jax

from experiments.hassibi1993 import claims, monk, network, report, xor
from prunejax.data import monks
from prunejax.sweep import study


class Preset(NamedTuple):
  """One size of the study.

  Attributes:
    cost: what the preset takes, in words.
    seeds: one trained network each.
    tries: initialisations that are trained for each seed; the best is taken.
    steps: of training.
    retrain: steps of retraining after each weight.
    rate: first learning rate.
    decay: (MONK's problem, weight decay) pairs.
    alpha: damping of the inverse Hessian in OBS.
    methods: names from `network.METHODS`.
    xor_nets: trained XOR networks for each weight decay.
    xor_decays: their weight decays.
  """

  cost: str
  seeds: tuple = tuple(range(5))
  tries: int = 6
  steps: int = 3000
  retrain: int = 300
  rate: float = 0.05
  decay: tuple = ((1, 1e-4), (2, 1e-4), (3, 1e-3))
  alpha: float = 1e-6
  methods: tuple = network.METHODS
  xor_nets: int = 10
  xor_decays: tuple = (0.0, 1e-5, 1e-4)


PRESETS = {
  'smoke': Preset(
    'seconds',
    seeds=(0,),
    tries=2,
    steps=20,
    retrain=2,
    decay=((3, 1e-3),),
    methods=('obs',),
    xor_nets=0,
  ),
  'quick': Preset('about two minutes on one core'),
  # The best of six initialisations is nearly always one and the same minimum. Without the choice
  # networks end apart, and each minimum is a unit of replication.
  'apart': Preset(
    'about three minutes on one core',
    seeds=tuple(range(10)),
    tries=1,
    methods=('obs', 'obs, retrained', 'obd', 'magnitude'),
    xor_nets=0,
  ),
}


def plan(preset: Preset, root: str) -> list[study.Cell]:
  """List the cells: each MONK's problem by method and seed, then XOR by method, decay and seed.

  Args:
    preset: a value of `PRESETS`.
    root: folder that holds `monks/`, or '' for generated training sets.

  Raises:
    ValueError, FileNotFoundError: for missing or damaged files.
  """
  cells = []
  training = {
    'tries': preset.tries,
    'steps': preset.steps,
    'rate': preset.rate,
    'alpha': preset.alpha,
  }
  for problem, decay in preset.decay:
    source = monks.load(problem, root).source.split(',')[0]
    for method in preset.methods:
      for seed in preset.seeds:
        settings = {
          'problem': problem,
          'method': method,
          'seed': seed,
          'source': source,
          'decay': decay,
          **training,
          'retrain': preset.retrain if 'retrained' in method else 0,
        }
        labels = {'problem': f'monks-{problem}', 'method': method, 'seed': seed, 'source': source}
        cells.append(study.Cell(labels, settings))
  for method, decay, seed in itertools.product(
    network.CRITERIA, preset.xor_decays, range(preset.xor_nets)
  ):
    settings = {'problem': 'xor', 'method': method, 'seed': seed, 'decay': decay, **training}
    labels = {
      'problem': 'xor',
      'method': method,
      'decay': decay,
      'seed': seed,
      'source': 'four patterns',
    }
    cells.append(study.Cell(labels, settings))
  return cells


def measure(settings: dict, root: str, folder, say) -> dict:
  """Measure one cell in float64.

  Args:
    settings: of a cell of `plan`.
    root: folder that holds `monks/`, or ''.
    folder, say: unused.

  Returns:
    The metrics of `monk.measure` or `xor.measure`.

  Raises:
    FloatingPointError: if an error is not finite.
  """
  del folder, say
  with jax.enable_x64(True):
    if settings['problem'] == 'xor':
      return xor.measure(settings)
    return monk.measure(settings, root)


STUDY = study.Study(
  name='hassibi1993',
  title="Optimal Brain Surgeon: the MONK's problems and XOR",
  source='Hassibi & Stork, NIPS 5 (1993)',
  presets=PRESETS,
  plan=plan,
  measure=measure,
  reads=lambda root, pydoc: {'monks': monks.fingerprint(root)},
  claims=claims.claims,
  tables=report.tables,
  figures=report.figures,
  captions=report.CAPTIONS,
)
reproduce, write_report, redraw, compare = study.verbs(STUDY)
