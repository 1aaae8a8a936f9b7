"""The tables and the figure of the report, from the ledger."""

from experiments.families.claims import select
from experiments.families.subjects import NAMES
from prunejax.report import drawing, statistics, verdicts
from prunejax.report import tables as tabular

# Okabe and Ito's palette, which any colour vision tells apart; each family has its own marker too.
STYLES = {
  'pruned': ('#0072B2', 'o'),
  'shared': ('#D55E00', 's'),
  'low rank': ('#E69F00', '^'),
  'small': ('#777777', 'D'),
  'distilled': ('#009E73', 'v'),
  'separable': ('#CC79A7', 'P'),
  'squeezed': ('#56B4E9', 'X'),
}
WORDS = {
  'pruned': 'pruned',
  'shared': 'shared values',
  'low rank': 'low rank',
  'small': 'small, full filters',
  'distilled': 'small, with a teacher',
  'separable': 'separable filters',
  'squeezed': 'squeezed filters',
}
CAPTIONS = {
  'families': (
    'Accuracy on test examples against the bytes of the file, by family. Bars span the seeds; the '
    'dotted line is dense. Every network had the same number of training steps.'
  )
}


def tables(rows: list[dict]) -> list[tabular.Table]:
  """Tabulate accuracy and bytes of each network, a line a family."""
  out = []
  for net in _nets(rows):
    dense = select(rows, net, 'dense')[1.0].values()
    whole = statistics.mean([m['bytes'] for m in dense])
    shares = sorted({row['share'] for row in rows if row['net'] == net} - {1.0}, reverse=True)
    lines = []
    for family, words in WORDS.items():
      cells = select(rows, net, family)
      if not cells:
        continue
      line = {'family': words}
      for share in shares:
        at = list(cells.get(share, {}).values())
        line[f'1/{1 / share:.0f}'] = _accuracy(at) if at else '-'
        size = f'{statistics.mean([m["bytes"] for m in at]):,.0f}' if at else '-'
        line[f'bytes, 1/{1 / share:.0f}'] = size
      lines.append(line)
    note = (
      f'Dense: {_accuracy(list(dense))} % in {whole:,.0f} bytes. Accuracy in per cent at shares of '
      'these bytes, mean and 95 % interval over seeds, and the mean bytes of the files.'
    )
    out.append(tabular.records(f'{NAMES[net]} at equal bytes', lines, note))
  return out


def figures(rows: list[dict]) -> dict[str, bytes]:
  """Draw {'families': PNG}: accuracy against bytes, one panel a network."""
  nets = [net for net in NAMES if any(select(rows, net, family) for family in ('dense', *STYLES))]
  with drawing.canvas(4.6 * len(nets), 4.6, len(nets)) as (figure, panels):
    for axes, net in zip(panels, nets, strict=True):
      for family, (colour, marker) in STYLES.items():
        cells = select(rows, net, family)
        if not cells:
          continue
        kilobytes = [
          statistics.mean([m['bytes'] / 1000 for m in at.values()]) for at in cells.values()
        ]
        points = [[100 * m['accuracy'] for m in at.values()] for at in cells.values()]
        middle, reach = drawing.ranges(points)
        axes.errorbar(
          kilobytes,
          middle,
          yerr=reach,
          color=colour,
          marker=marker,
          markeredgecolor='white',
          capsize=3,
          elinewidth=1.2,
          label=WORDS[family],
        )
      if dense := select(rows, net, 'dense'):
        level = statistics.mean([100 * m['accuracy'] for m in dense[1.0].values()])
        axes.axhline(level, color='#222222', ls=':', lw=1.4, label='dense')
      axes.set_xscale('log', base=2)
      axes.xaxis.set_major_formatter('{x:g}')
      axes.set_xlabel('kilobytes of the file')
      axes.set_ylabel('test accuracy, %')
      axes.set_title(NAMES[net])
    drawing.below(figure, *panels, columns=4)
    return {'families': drawing.png(figure)}


def _nets(rows):
  return [net for net in NAMES if select(rows, net, 'dense')]


def _accuracy(cells):
  return verdicts.shown([m['accuracy'] for m in cells], '.1f', 100)
