"""What a pruned BERT weighs: every codec's bytes of the packaged model, with and without its embeddings.

  python -m prunejax reproduce bytes --preset=quick

No paper's experiment: the table that a claim of 'ten times smaller' has to stand beside.
"""

import pathlib
from typing import NamedTuple

import jax
import numpy as np

import prunejax
from prunejax import models
from prunejax.compress import codecs
from prunejax.models.hf import bert as bert_hf
from prunejax.pruning.paths import named_leaves
from prunejax.report import drawing
from prunejax.report import tables as tabular
from prunejax.sweep import study

EMBEDDINGS = r'embeddings/.*'
PARTS = {'all': r'(?!)', 'no embeddings': EMBEDDINGS}
SHOWN = {
  'dense float32': '#555555',
  'bit mask, float32': '#7b6888',
  'sparse file, int8': '#2a9d8f',
  'Deep Compression, 5 bits': '#d1495b',
  'bound: mask and shared codes': '#e9a23b',
}


class Preset(NamedTuple):
  """The sparsities of the kernels, the parts of the model, and bits of a shared weight."""

  sparsities: tuple
  parts: tuple
  bits: int
  cost: str


PRESETS = {
  'quick': Preset((0.5, 0.8, 0.9), tuple(PARTS), 5, 'half a minute on one CPU core'),
  'smoke': Preset((0.9,), ('no embeddings',), 5, 'seconds'),
}


def plan(preset, root):
  """One cell for each sparsity and part of the model. Raises ValueError for a root: the model is the package's."""
  if root:
    raise ValueError(
      f'bytes: --config.data.root={root!r}: it reads no data, only the packaged model'
    )
  return [
    study.Cell(
      {'model': 'nano', 'sparsity': s, 'part': part},
      {'model': 'nano', 'sparsity': s, 'part': part, 'bits': preset.bits},
    )
    for part in preset.parts
    for s in preset.sparsities
  ]


def measure(settings, root, folder, say):
  """Bytes by codec of the model with its encoder's kernels cut to a sparsity, the smallest weights of each first."""
  del root, folder, say
  params, _ = bert_hf.load(pathlib.Path(models.__path__[0]) / 'nano')
  leaves = {name: np.asarray(leaf) for name, leaf in named_leaves(params).items()}
  chosen = {
    name: leaf
    for name, leaf in leaves.items()
    if name.startswith('encoder/') and name.endswith('/kernel')
  }
  masks = _masks({name: np.abs(leaf) for name, leaf in chosen.items()}, settings['sparsity'])
  pruned = leaves | {
    name: np.where(np.asarray(masks[name]), leaf, 0) for name, leaf in chosen.items()
  }
  rows = codecs.table(pruned, leave_out=PARTS[settings['part']], bits=settings['bits'])
  out = {f'{row["codec"]}': row['bytes'] for row in rows}
  return out | {'pruned_weights': sum(leaf.size for leaf in chosen.values())}


_masks = jax.jit(prunejax.select_masks)  # one program for every sparsity


def tables(rows):
  """One table a part: bytes by codec and sparsity, and how many times smaller than dense float32."""
  out = []
  for part in PARTS:
    mine = [row for row in rows if row['part'] == part]
    lines = []
    for codec in mine[0]['metrics'] if mine else ():
      if codec != 'pruned_weights':
        line = {'codec': codec}
        for row in mine:
          size = row['metrics'][codec]
          line[f'at {row["sparsity"]:g}'] = (
            f'{size:,} ({row["metrics"]["dense float32"] / size:.1f}x)'
          )
        lines.append(line)
    if mine:
      note = f'{mine[0]["metrics"]["pruned_weights"]:,} weights are pruned, those of the kernels of the encoder. '
      note += 'A bound is no file: the entropy of the mask, and 32 bits a value (zlib and lzma may find less in the '
      note += 'exponents) or the entropy of the shared codes, with their codebook.'
      out.append(tabular.records(f'Bytes of the packaged BERT: {part}', lines, note))
  return out


def figures(rows):
  """{'bytes': PNG}: bytes by sparsity, one panel a part."""
  parts = [part for part in PARTS if any(row['part'] == part for row in rows)]
  with drawing.canvas(5 * len(parts), 4.4, len(parts)) as (figure, panels):
    for axes, part in zip(panels, parts, strict=True):
      mine = sorted((row for row in rows if row['part'] == part), key=lambda row: row['sparsity'])
      for codec, colour in SHOWN.items():
        if mine and codec in mine[0]['metrics']:
          axes.plot(
            [row['sparsity'] for row in mine],
            [row['metrics'][codec] / 1000 for row in mine],
            color=colour,
            marker='o',
            markeredgecolor='white',
            ls='--' if 'bound' in codec else '-',
            label=codec,
          )
      axes.set_title(part)
      axes.set_yscale('log')
      axes.set_xticks([row['sparsity'] for row in mine])
      axes.set_xlabel("sparsity of the encoder's kernels")
      axes.set_ylabel('kilobytes')
    drawing.below(figure, *panels)
    return {'bytes': drawing.png(figure)}


STUDY = study.Study(
  name='bytes',
  title='What a pruned BERT weighs',
  source='no paper; codecs of prunejax.compress on the packaged model',
  presets=PRESETS,
  plan=plan,
  measure=measure,
  claims=lambda rows: [],
  tables=tables,
  figures=figures,
  captions={
    'bytes': 'Bytes of the packaged BERT by the sparsity of its encoder, as files and as the bound.'
  },
)
reproduce, write_report, redraw, compare = study.verbs(STUDY)
