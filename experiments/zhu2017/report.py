"""The table and the figure of the report, from the ledger."""

import math

from experiments.zhu2017 import paper
from experiments.zhu2017.claims import losses_of
from prunejax.report import drawing, statistics
from prunejax.report import tables as tabular

SIZES = ('small', 'medium', 'large')
COLOURS = {'small': '#7b6888', 'medium': '#2a9d8f', 'large': '#d1495b'}
CAPTIONS = {
  'perplexity': (
    'Held-out perplexity against non-zero parameters: ours, and those of the paper on the Penn '
    'Treebank. Numbers beside points are sparsities. Bars span the seeds.'
  )
}


def tables(rows: list[dict]) -> list[tabular.Table]:
  """Tabulate our perplexities beside the paper's, one line an arm."""
  first = min(row['interval'] for row in rows)
  arms = sorted({(SIZES.index(row['size']), row['sparsity'], row['interval']) for row in rows})
  lines = []
  for index, sparsity, interval in arms:
    arm = SIZES[index], sparsity, interval
    metrics = [
      row['metrics'] for row in rows if (row['size'], row['sparsity'], row['interval']) == arm
    ]
    perplexities = [values['perplexity'] for values in metrics]
    paper_value = paper.PERPLEXITY[arm[0]].get(sparsity) if interval == first else None
    paper_nonzeros = paper.nonzeros(arm[0], sparsity)
    lines.append(
      {
        'model': arm[0],
        'sparsity': sparsity,
        'masks move every': interval if sparsity else '-',
        'seeds': len(metrics),
        'non-zeros': f'{statistics.mean([values["nonzeros"] for values in metrics]):,.0f}',
        'perplexity': f'{statistics.cautious(perplexities).mean:.1f}',
        'of each seed': ' '.join(f'{perplexity:.1f}' for perplexity in perplexities),
        'paper, PTB': '-' if paper_value is None else f'{paper_value:.2f}',
        'paper, M non-zeros': '-' if paper_value is None else f'{paper_nonzeros:.1f}',
      }
    )
  note = "Held-out perplexity a word. The paper's models are some sixty times larger."
  return [tabular.records('Perplexity against non-zero parameters', lines, note)]


def figures(rows: list[dict]) -> dict[str, bytes]:
  """Draw {'perplexity': PNG}: our results on the left, the paper's on the right."""
  losses = losses_of(rows)
  nonzeros = {(row['size'], row['sparsity']): row['metrics']['nonzeros'] for row in rows}
  with drawing.canvas(11, 4.8, 2) as (figure, (ours, theirs)):
    for size in SIZES:
      style = dict(color=COLOURS[size], marker='o', markeredgecolor='white', label=size)
      levels = sorted(sparsity for name, sparsity in losses if name == size)
      middle, reach = drawing.ranges(
        [[math.exp(loss) for loss in losses[size, level].values()] for level in levels]
      )
      x = [nonzeros[size, level] for level in levels]
      ours.errorbar(x, middle, yerr=reach, capsize=3, **style)
      _label_points(ours, x, middle, levels)
      paper_levels = sorted(paper.PERPLEXITY[size])
      paper_x = [1e6 * paper.nonzeros(size, level) for level in paper_levels]
      paper_y = [paper.PERPLEXITY[size][level] for level in paper_levels]
      theirs.plot(paper_x, paper_y, **style)
      _label_points(theirs, paper_x, paper_y, paper_levels)
    for axes, title in ((ours, 'prunejax'), (theirs, 'Zhu & Gupta 2017, Penn Treebank')):
      axes.set_xscale('log')
      axes.set_xlabel('non-zero parameters')
      axes.set_ylabel('perplexity')
      axes.set_title(title)
    drawing.below(figure, ours)
    return {'perplexity': drawing.png(figure)}


def _label_points(axes, x, y, sparsities):
  for point_x, point_y, sparsity in zip(x, y, sparsities, strict=True):
    axes.annotate(
      f'{sparsity:g}' if sparsity else 'dense',
      (point_x, point_y),
      textcoords='offset points',
      xytext=(5, 6),
      fontsize=8,
      color='#555555',
    )
