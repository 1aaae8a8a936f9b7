"""Fine-tune SmolLM2-135M after one-shot pruning, with its zeros held and with its zeros free.

python -m prunejax reproduce decoder_transfer --preset=quick --config.data.root=FOLDER
"""

from typing import NamedTuple

from experiments.decoder_transfer import claims, pruned, report
from experiments.oneshot2023 import smollm2
from prunejax.sweep import study


class Preset(NamedTuple):
  """One size of the study.

  Attributes:
    tasks: names from `pruned.TASKS`.
    sparsities: fractions of the kernels of all blocks that are removed.
    seeds: of the calibration segments, of the head, and of which labels are read in which order.
    labels: of each task.
    steps: of fine-tuning.
    cost: what the preset takes, in words.
    batch: examples of a step.
    rate: peak learning rate.
    segments: of a calibration.
    length: tokens of a segment.
    model: a folder, a file or the name of a package.
  """

  tasks: tuple
  sparsities: tuple
  seeds: tuple
  labels: int
  steps: int
  cost: str
  batch: int = 16
  rate: float = 5e-5
  segments: int = 8
  length: int = 512
  model: str = smollm2.MODEL


PRESETS = {
  # The sparsities that decide most come first, and all seeds of one before the next.
  'quick': Preset(
    ('glue/sst2',), (0.5, 0.7, 0.3), (0, 1, 2), 1000, 63, 'three hours of two CPU cores'
  ),
  'long': Preset(
    ('glue/sst2', 'glue/mrpc'), (0.5, 0.7, 0.3), (0, 1, 2), 1000, 189, 'a day of two CPU cores'
  ),
}


def plan(preset: Preset, root: str) -> list[study.Cell]:
  """List the dense models, then both arms of a sparsity for all seeds, then those of the next.

  Args:
    preset: a `Preset`.
    root: the folder that holds glue/ and wikipedia/.

  Raises:
    ValueError: no root.
  """
  if not root:
    raise ValueError(
      'decoder_transfer needs --config.data.root=FOLDER, which holds glue/ and wikipedia/'
    )
  arms = [('dense', 0.0)]
  arms += [(arm, sparsity) for sparsity in preset.sparsities for arm in ('held', 'free')]
  cells = []
  for arm, sparsity in arms:
    for seed in preset.seeds:
      for task in preset.tasks:
        labels = {'arm': arm, 'sparsity': sparsity, 'task': task, 'seed': seed}
        names = ('model', 'labels', 'steps', 'batch', 'rate')
        names += ('segments', 'length') if sparsity else ()
        cells.append(study.Cell(labels, {**labels, **{n: getattr(preset, n) for n in names}}))
  return cells


STUDY = study.Study(
  name='decoder_transfer',
  title='What one-shot pruning takes from a decoder that is fine-tuned after',
  source='the question of Gordon, Duh & Andrews 2020, on SmolLM2-135M',
  presets=PRESETS,
  plan=plan,
  measure=pruned.measure,
  reads=pruned.reads,
  embedded=False,
  claims=claims.claims,
  tables=report.tables,
  figures=report.figures,
  captions=report.CAPTIONS,
)
reproduce, write_report, redraw, compare = study.verbs(STUDY)
