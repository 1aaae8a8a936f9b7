"""Measure the bytes of a pruned BERT, the packaged model, by codec.

The study belongs to no paper. Its table tests claims of "ten times smaller".

  python -m prunejax reproduce bytes --preset=quick
"""

import pathlib
from typing import NamedTuple

import jax
import numpy as np

import prunejax
from experiments.bytes import report
from prunejax import models
from prunejax.compress import codecs
from prunejax.models.hf import bert as bert_hf
from prunejax.pruning.paths import named_leaves
from prunejax.sweep import study
from prunejax.train import inputs

# Part of the model: regex of the leaves that are left out.
PARTS = {'all': r'(?!)', 'no embeddings': r'embeddings/.*'}


class Preset(NamedTuple):
  """One size of the study.

  Attributes:
    sparsities: fractions of the encoder's kernels that are removed.
    parts: names from `PARTS`.
    bits: width of a shared weight's code.
    cost: what the preset takes, in words.
  """

  sparsities: tuple
  parts: tuple
  bits: int
  cost: str


PRESETS = {
  'quick': Preset((0.5, 0.8, 0.9), tuple(PARTS), 5, 'half a minute on one CPU core'),
  'smoke': Preset((0.9,), ('no embeddings',), 5, 'seconds'),
}


def plan(preset: Preset, root: str) -> list[study.Cell]:
  """List the cells: one for each part of the model and sparsity.

  Args:
    preset: a value of `PRESETS`.
    root: must be empty, since the model is in the package.

  Raises:
    ValueError: if `root` is given.
  """
  if root:
    raise ValueError(
      f'--config.data.root={root}: bytes reads no data, only the packaged model; leave it out'
    )
  return [
    study.Cell(
      {'model': 'nano', 'sparsity': sparsity, 'part': part},
      {'model': 'nano', 'sparsity': sparsity, 'part': part, 'bits': preset.bits},
    )
    for part in preset.parts
    for sparsity in preset.sparsities
  ]


def measure(settings: dict, root: str, folder, say) -> dict:
  """Prune the packaged model's encoder by magnitude and weigh it with every codec.

  Args:
    settings: of a cell of `plan`.
    root, folder, say: unused.

  Returns:
    {codec: bytes}, and under 'pruned_weights' the number of weights in the pruned kernels.
  """
  del root, folder, say
  params, _ = bert_hf.load(pathlib.Path(models.__path__[0]) / 'nano')
  leaves = {name: np.asarray(leaf) for name, leaf in named_leaves(params).items()}
  kernels = {
    name: leaf
    for name, leaf in leaves.items()
    if name.startswith('encoder/') and name.endswith('/kernel')
  }
  scores = {name: np.abs(kernel) for name, kernel in kernels.items()}
  masks = _select_masks(scores, settings['sparsity'])
  pruned = leaves | {
    name: np.where(np.asarray(masks[name]), kernel, 0) for name, kernel in kernels.items()
  }
  rows = codecs.table(pruned, leave_out=PARTS[settings['part']], bits=settings['bits'])
  metrics = {row['codec']: row['bytes'] for row in rows}
  return metrics | {'pruned_weights': sum(kernel.size for kernel in kernels.values())}


_select_masks = jax.jit(prunejax.select_masks)  # One program serves every sparsity.


STUDY = study.Study(
  name='bytes',
  title='What a pruned BERT weighs',
  source='no paper; codecs of prunejax.compress on the packaged model',
  presets=PRESETS,
  plan=plan,
  measure=measure,
  reads=lambda root, pydoc: {'nano': inputs.model_content(inputs.NANO)},
  claims=lambda rows: [],
  tables=report.tables,
  figures=report.figures,
  captions=report.CAPTIONS,
)
reproduce, write_report, redraw, compare = study.verbs(STUDY)
