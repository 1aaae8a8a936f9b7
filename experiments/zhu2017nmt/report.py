"""The table and the figure of the report, from the ledger."""

from experiments.zhu2017nmt import paper
from experiments.zhu2017nmt.claims import by_seed
from prunejax.report import drawing, statistics
from prunejax.report import tables as tabular
from prunejax.report.verdicts import shown

COLOURS = {'small': '#7b6888', 'large': '#d1495b'}
GLOBAL = '#1b6ca8'
CAPTIONS = {
  'bleu': (
    'BLEU against non-zero parameters: ours, and that of the paper from English to German on WMT. '
    'Numbers beside points are sparsities. Bars span the seeds.'
  )
}


def _arms(rows):
  """{(size, sparsity, allocation): rows}, the small model first."""
  arms = {}
  for row in rows:
    arms.setdefault((row['size'], row['sparsity'], row['allocation']), []).append(row['metrics'])
  return dict(sorted(arms.items(), key=lambda item: (item[0][0] != 'small', *item[0][1:])))


def tables(rows: list[dict]) -> list[tabular.Table]:
  """Tabulate our BLEU beside the paper's, one line an arm."""
  lines = []
  for (size, sparsity, allocation), cells in _arms(rows).items():
    nonzeros, bleu = paper.BLEU.get((size, sparsity), ('-', None))
    known = bleu is not None and allocation != 'global'
    lines.append(
      {
        'model': size,
        'sparsity': f'{sparsity:g}',
        'threshold': {'': '-', 'layer': 'one a matrix', 'global': 'one for all'}[allocation],
        'seeds': len(cells),
        'non-zeros': f'{statistics.mean([m["nonzeros"] for m in cells]):,.0f}',
        'BLEU': shown([m['bleu'] for m in cells], '.2f'),
        'paper, BLEU': f'{bleu:.2f}' if known else '-',
        'paper, M non-zeros': f'{nonzeros}' if known else '-',
      }
    )
  names = sorted({row['data'] for row in rows})
  note = (
    'cipher is a made-up language, no real translation'
    if 'cipher' in names
    else 'test_2016_flickr, the sentences that are short enough'
  )
  return [tabular.records(f'BLEU on {", ".join(names)}', lines, note)]


def figures(rows: list[dict]) -> dict[str, bytes]:
  """Draw {'bleu': PNG}: our results on the left, the paper's on the right."""
  nonzeros = {
    arm: statistics.mean([m['nonzeros'] for m in cells]) for arm, cells in _arms(rows).items()
  }
  with drawing.canvas(11, 4.4, 2) as (figure, (ours, theirs)):
    for size, allocation, colour, label in (
      ('small', 'layer', COLOURS['small'], 'small'),
      ('large', 'layer', COLOURS['large'], 'large, one threshold a matrix'),
      ('large', 'global', GLOBAL, 'large, one threshold for all'),
    ):
      arms = sorted(
        arm
        for arm in nonzeros
        if arm[0] == size and arm[2] in ((allocation,) if allocation == 'global' else ('', 'layer'))
      )
      if not arms:
        continue
      middle, reach = drawing.ranges(
        [list(by_seed(rows, name, s, kind or 'layer').values()) for name, s, kind in arms]
      )
      x = [nonzeros[arm] for arm in arms]
      ours.errorbar(x, middle, yerr=reach, capsize=3, marker='o', color=colour, label=label)
      _sparsities(ours, x, middle, [arm[1] for arm in arms])
    for size, colour in COLOURS.items():
      points = [(n * 1e6, bleu, s) for (name, s), (n, bleu) in paper.BLEU.items() if name == size]
      x, y, levels = zip(*points, strict=True)
      theirs.plot(x, y, marker='o', color=colour)
      _sparsities(theirs, x, y, levels)
    titles = (', '.join(sorted({row['data'] for row in rows})), 'Zhu & Gupta 2017, WMT En-De')
    for axes, title in zip((ours, theirs), titles, strict=True):
      axes.set_xscale('log')
      axes.set(xlabel='non-zero parameters', ylabel='BLEU', title=title)
    drawing.below(figure, ours)
    return {'bleu': drawing.png(figure)}


def _sparsities(axes, x, y, levels):
  for point_x, point_y, level in zip(x, y, levels, strict=True):
    axes.annotate(
      f'{level:g}' if level else 'dense',
      (point_x, point_y),
      textcoords='offset points',
      xytext=(5, 6),
      fontsize=8,
      color='#555555',
    )
