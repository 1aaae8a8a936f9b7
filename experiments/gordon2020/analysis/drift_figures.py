"""Feature drift beside the scores: what `drift` judges, read from probe rows and drawn."""

from experiments.gordon2020.analysis import probe_rows, scoring
from experiments.gordon2020.analysis.mask_figures import short, style
from prunejax.report import drawing, statistics

CAPTIONS = {
  'drift': 'Drift of the features as a rule to stop: score less the dense one, against the cosine similarity of the '
  'hidden states to the dense model.',
}


def of(rows, scored, arm='pruned'):
  """({sparsity: mean cosine}, {task: {sparsity: mean score less dense}}) of an arm, from probes and scored rows."""
  alike = lambda metrics, i: statistics.mean(
    metrics['cosine'][i][1:]
  )  # over layers, the embeddings' sum apart
  found = probe_rows.over(probe_rows.of(rows, 'features', arm=arm), alike)
  cosines = {s: statistics.mean(place.values()) for (_, s), place in sorted(found.items())}
  scores = scoring.points([row for row in scored if row['arm'] in (arm, 'dense')])
  dense, differences = scores.get(('dense', 0.0), {}), {}
  for (name, s), place in sorted(scores.items()):
    if name == arm:
      for (task, seed), gap in statistics.paired(place, dense).items():
        differences.setdefault(task, {}).setdefault(s, {})[seed] = gap
  return cosines, {
    task: {s: statistics.mean(gaps.values()) for s, gaps in places.items()}
    for task, places in differences.items()
  }


def figure(cosines, differences):
  """Score less the dense one against feature cosine, a line a task, dots at the sparsities (section 6's suggestion).

  cosines: {sparsity: number}. differences: {task: {sparsity: number}}, fractions.
  """
  with drawing.canvas(7.6, 5, 1) as (figure, (axes,)):
    for k, (task, places) in enumerate(sorted(differences.items())):
      levels = [s for s in sorted(places) if s in cosines]
      axes.plot(
        [1.0] + [cosines[s] for s in levels],
        [0.0] + [100 * places[s] for s in levels],
        **style(k),
        markeredgecolor='white',
        markeredgewidth=0.7,
        label=short(task),
      )
    for s, cosine in cosines.items():
      axes.annotate(
        f'{s:g}',
        (cosine, 1),
        xycoords=('data', 'axes fraction'),
        ha='center',
        va='bottom',
        fontsize=8,
        color='#888888',
      )
    axes.axhline(0, color='#aaaaaa', linewidth=1)
    axes.invert_xaxis()
    axes.set(
      xlabel='cosine similarity of features to dense', ylabel='dev score less dense (points)'
    )
    axes.set_title('Feature drift and score; above, the sparsity', pad=20)
    drawing.below(figure, axes)
    return drawing.png(figure)
