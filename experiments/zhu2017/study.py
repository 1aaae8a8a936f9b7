"""Reproduce Zhu & Gupta 2017: a large model pruned against a small model left dense.

*To prune, or not to prune*, on language modelling.

  python -m prunejax reproduce zhu2017 --preset=quick [--config.data.root=FOLDER]

FOLDER holds `books/` of plain text; without it the text is the embedded corpus.
"""

from typing import NamedTuple

from experiments.zhu2017 import claims, corpus, report, training
from prunejax.sweep import study


class Preset(NamedTuple):
  """One size of the study.

  Attributes:
    sizes: {name: hidden units}.
    sparsities: {name: sparsities that are trained}.
    seeds: one model of every arm each.
    steps: of training.
    begin, end: first and last step of the cubic ramp.
    intervals: steps between mask updates; every arm has the first, only the large model the others.
    intervals_at: sparsity at which intervals are compared.
    shared: settings that every cell has.
    cost: what the preset takes, in words.
  """

  sizes: dict
  sparsities: dict
  seeds: tuple
  steps: int
  begin: int
  end: int
  intervals: tuple
  intervals_at: float
  shared: dict
  cost: str


SHARED = {
  'most_words': 400_000,
  'vocabulary': 2000,
  'dropout': 0.0,
  'learning_rate': 5e-3,
  'clip': 1.0,
  'batch': 20,
  'length': 20,
}
PRESETS = {
  # Large at 0.9 has the non-zeros of small, and at 0.7 those of medium, within 2 %.
  'quick': Preset(
    {'small': 24, 'medium': 64, 'large': 160},
    {'small': (0.0,), 'medium': (0.0, 0.8, 0.9), 'large': (0.0, 0.8, 0.85, 0.9, 0.95)},
    seeds=(0, 1, 2),
    steps=500,
    begin=100,
    end=375,
    intervals=(5, 50),
    intervals_at=0.9,
    shared=SHARED,
    cost='about ten minutes on one idle CPU core',
  ),
  'long': Preset(
    {'small': 24, 'medium': 64, 'large': 160},
    {'small': (0.0,), **dict.fromkeys(('medium', 'large'), (0.0, 0.8, 0.85, 0.9, 0.95))},
    seeds=(0, 1, 2),
    steps=6000,
    begin=1200,
    end=4500,
    intervals=(5, 50),
    intervals_at=0.9,
    shared={**SHARED, 'most_words': 1_500_000, 'vocabulary': 5000, 'dropout': 0.1},
    cost='some ten hours on one CPU core; not run here',
  ),
  'smoke': Preset(
    {'large': 8},
    {'large': (0.0, 0.9)},
    seeds=(0,),
    steps=20,
    begin=4,
    end=14,
    intervals=(2, 5),
    intervals_at=0.9,
    shared={**SHARED, 'most_words': 4000, 'vocabulary': 50, 'batch': 4, 'length': 5},
    cost='seconds',
  ),
}


def plan(preset: Preset, root: str, pydoc: str = 'installed') -> list[study.Cell]:
  """List one cell for each size, sparsity, interval and seed.

  All cells of a seed come before the next seed's, so that a part of the ledger can be judged.

  Args:
    preset: a value of `PRESETS`.
    root: folder of plain text, or '' for the embedded corpus.
    pydoc: which text the embedded corpus is, 'installed' or 'packaged'.

  Raises:
    ValueError, FileNotFoundError: if `root` holds no or too little text.
  """
  corpus.load(root, preset.shared['most_words'], preset.shared['vocabulary'], pydoc)
  arms = [
    (size, sparsity, preset.intervals[0])
    for size, sparsities in preset.sparsities.items()
    for sparsity in sparsities
  ]
  arms += [('large', preset.intervals_at, interval) for interval in preset.intervals[1:]]
  shared = {
    **preset.shared,
    'text': 'books' if root else {'installed': 'pydoc', 'packaged': 'prose'}[pydoc],
    'steps': preset.steps,
    'begin': preset.begin,
    'end': preset.end,
  }
  cells = []
  for seed in preset.seeds:
    for size, sparsity, interval in arms:
      variant = {'sparsity': sparsity, 'interval': interval, 'seed': seed}
      cells.append(
        study.Cell({'size': size, **variant}, {**shared, 'hidden': preset.sizes[size], **variant})
      )
  return cells


STUDY = study.Study(
  name='zhu2017',
  title='To prune, or not to prune: large and sparse against small and dense',
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
