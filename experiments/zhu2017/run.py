"""Zhu & Gupta 2017, 'To prune, or not to prune': a large model pruned against a small one dense, on language modelling.

  python -m prunejax reproduce zhu2017 --preset=quick [--config.data.root=FOLDER]

FOLDER holds `books/` of plain text, packed or not; without it the text is the embedded corpus.
"""

from typing import NamedTuple

from experiments.zhu2017 import claims, training
from prunejax.sweep import study


class Preset(NamedTuple):
  """One size of the study.

  sizes: {name: hidden units}. sparsities: {name: those that are trained}. begin, end: of the cubic ramp, steps.
  intervals: steps between moves of the masks; the first is that of every arm, the others are the large model's.
  intervals_at: the sparsity at which intervals are compared.
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
  # The non-zeros of large at 0.9 are those of small, at 0.7 those of medium, within 2 %.
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


def plan(preset, root):
  """One cell for each size, sparsity, interval and seed; all of a seed before the next, so that a part says something.

  Raises ValueError, FileNotFoundError for a root without text.
  """
  p = preset
  training.words.load(root, p.shared['most_words'], p.shared['vocabulary'])
  arms = [(size, s, p.intervals[0]) for size, levels in p.sparsities.items() for s in levels]
  arms += [('large', p.intervals_at, interval) for interval in p.intervals[1:]]
  shared = {
    **p.shared,
    'text': 'books' if root else 'pydoc',
    'steps': p.steps,
    'begin': p.begin,
    'end': p.end,
  }
  return [
    study.Cell(
      {'size': size, 'sparsity': s, 'interval': interval, 'seed': seed},
      {**shared, 'hidden': p.sizes[size], 'sparsity': s, 'interval': interval, 'seed': seed},
    )
    for seed in p.seeds
    for size, s, interval in arms
  ]


STUDY = study.Study(
  name='zhu2017',
  title='To prune, or not to prune: large and sparse against small and dense',
  source='Zhu & Gupta 2017, arXiv:1710.01878',
  presets=PRESETS,
  plan=plan,
  measure=training.measure,
  claims=claims.check,
  tables=claims.tables,
  figures=claims.figures,
  captions={
    'perplexity': 'Held-out perplexity against non-zero parameters, ours and those of the paper on the Penn Treebank; '
    'numbers beside points are sparsities, bars reach over the seeds.',
  },
)
reproduce, write_report, redraw, compare = study.verbs(STUDY)
