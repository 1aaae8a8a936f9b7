"""Prune a small BERT or SmolLM2 in one shot, without training, by the methods of three papers.

SparseGPT (Frantar & Alistarh, 2023), Wanda (Sun et al., 2023) and oBERT (Kurtic et al., 2022).

  python -m prunejax reproduce oneshot2023 --preset=quick
  python -m prunejax reproduce oneshot2023 --preset=smollm2 --config.data.root=FOLDER
"""

from typing import NamedTuple

from experiments.oneshot2023 import claims, oneshot, report, smollm2, smollm2_report
from prunejax.sweep import study


class Preset(NamedTuple):
  """One size of the study.

  Attributes:
    methods: names from `oneshot.METHODS`.
    sparsities: fractions of the encoder's kernels that are removed.
    seeds: of the draws of calibration sequences.
    batches: held-out batches of 128 sequences.
    calibration: sequences that a method sees.
    cost: what the preset takes, in words.
    born, born_rate: steps and learning rate of a network of its own for each seed; 0 for the
      packaged one, whose seeds are draws of calibration sequences.
  """

  methods: tuple
  sparsities: tuple
  seeds: tuple
  batches: int
  calibration: int
  cost: str
  born: int = 0
  born_rate: float = 2e-3


PRESETS = {
  'smoke': Preset(('magnitude',), (0.5,), (0,), 1, 8, 'seconds'),
  'quick': Preset(
    ('magnitude', 'wanda', 'sparsegpt'), (0.5, 0.6, 0.7, 0.8), (0, 1, 2), 4, 64, 'two CPU minutes'
  ),
  'fisher': Preset(
    ('magnitude', 'fisher 1', 'fisher 4'), (0.7, 0.8), (0, 1, 2), 4, 64, 'some CPU minutes'
  ),
  # Seeds are networks, so that verdicts are about more than one.
  'nets': Preset(
    tuple(oneshot.METHODS),
    (0.5, 0.6, 0.7, 0.8),
    (0, 1, 2),
    4,
    64,
    'not measured: some forty minutes of a CPU core',
    born=6000,
  ),
  # The sizes of the published tables, but for the number of calibration segments.
  'smollm2': smollm2.Preset(
    targets=tuple(smollm2.TARGETS),
    seeds=(0, 1, 2),
    segments=32,
    length=2048,
    sweep=(8, 128),
    windows={'dense': -1, '50 %': -1, '2:4': -1, '60 %': 48, '70 %': 48, '4:8': 48},
    recovered=('50 %',),
    steps=200,
    cost='some two days of two CPU cores',
  ),
  # A first look: one window, and calibrations of 2,048 tokens.
  'smollm2-quick': smollm2.Preset(
    targets=tuple(smollm2.TARGETS),
    seeds=(0, 1, 2),
    segments=4,
    length=512,
    sweep=(1, 16),
    windows=dict.fromkeys(('dense', *smollm2.TARGETS), 1),
    recovered=(),
    steps=0,
    cost='half an hour of two idle CPU cores',
  ),
  # What a small machine does in an evening.
  'smollm2-small': smollm2.Preset(
    targets=tuple(smollm2.TARGETS),
    seeds=(0, 1, 2),
    segments=16,
    length=512,
    sweep=(4, 64),
    windows=dict.fromkeys(('dense', *smollm2.TARGETS), 4),
    recovered=('50 %',),
    steps=50,
    cost='two and a half hours of two CPU cores',
  ),
}


def plan(preset: Preset | smollm2.Preset, root: str, pydoc: str = 'installed') -> list[study.Cell]:
  """List one cell for each method, pattern, sparsity and draw of the calibration sequences.

  Magnitude sees no calibration sequences and has one cell a network. The block Fisher is run at 0.7
  and above and not as 2:4.

  Args:
    preset: a value of `PRESETS`.
    root: the data of a preset on SmolLM2; '' for the others, which have model and text in the
      package.
    pydoc: which text, 'installed' or 'packaged'; unused by the presets on SmolLM2.

  Raises:
    ValueError: a preset on SmolLM2 without root, or another one with root.
  """
  if not _on_bert(preset):
    return smollm2.plan(preset, root)
  if root:
    others = ', '.join(name for name, other in PRESETS.items() if not _on_bert(other))
    raise ValueError(
      f'--config.data.root={root}: this preset of oneshot2023 reads only the packaged model and'
      f' text; leave it out, or take one of {others}'
    )
  cells, text = [], {} if pydoc == 'installed' else {'pydoc': pydoc}
  for method in preset.methods:
    fisher = method.startswith('fisher')
    patterns = [('unstructured', s) for s in preset.sparsities if s >= 0.7 or not fisher]
    patterns += [] if fisher else [('2:4', 0.5)]
    for pattern, sparsity in patterns:
      one = method == 'magnitude' and not preset.born
      for seed in preset.seeds[:1] if one else preset.seeds:
        labels = {'method': method, 'pattern': pattern, 'sparsity': sparsity, 'seed': seed}
        sizes = {'batches': preset.batches, 'calibration': preset.calibration}
        net = {'net': seed, 'born': preset.born, 'born_rate': preset.born_rate}
        fixed = {**sizes, **text, **(oneshot.FISHER if fisher else {})}
        fixed |= net if preset.born else {}
        cells.append(study.Cell(labels, {**labels, **fixed}))
  return cells


def _on_bert(preset):
  return isinstance(preset, Preset)


def measure(settings: dict, root: str, folder, say) -> dict:
  """Measure one cell, see `smollm2.measure` and `oneshot.measure`."""
  of = smollm2 if 'model' in settings else oneshot
  return of.measure(settings, root, folder, say)


def reads(root: str, pydoc: str) -> dict[str, str]:
  """Digests of what is read: the texts below `root` where one is given, else what is packaged."""
  return smollm2.reads(root) if root else oneshot.reads(root, pydoc)


def _of_rows(name):
  """A function of the report of SmolLM2, or of the small BERT, by the rows of the ledger."""

  def drawn(rows):
    return getattr(smollm2_report if 'model' in rows[0] else report, name)(rows)

  return drawn


STUDY = study.Study(
  name='oneshot2023',
  title='One-shot pruning without recovery',
  source='Frantar & Alistarh 2023 (SparseGPT), Sun et al. 2023 (Wanda), Kurtic et al. 2022 (oBERT)',
  presets=PRESETS,
  plan=plan,
  measure=measure,
  reads=reads,
  embedded=_on_bert,
  claims=claims.claims,
  tables=_of_rows('tables'),
  figures=_of_rows('figures'),
  captions={**report.CAPTIONS, **smollm2_report.CAPTIONS},
)
reproduce, write_report, redraw, compare = study.verbs(STUDY)
