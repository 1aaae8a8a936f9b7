"""The tables and figures of the report, from the ledger."""

import matplotlib.ticker

from experiments.han2016 import paper
from experiments.han2016.claims import NAMES, points, select, sizes
from prunejax.models import lenet
from prunejax.report import drawing, statistics, verdicts
from prunejax.report import tables as tabular

COLOURS = {'pruned': '#7b6888', 'shared': '#2a9d8f', 'both': '#d1495b'}
INIT_COLOURS = {'linear': '#d1495b', 'forgy': '#2a9d8f', 'density': '#7b6888'}
PART_COLOURS = {'codes': '#7b6888', 'indices': '#2a9d8f', 'codebook, tables': '#d1495b'}
CAPTIONS = {
  'curves': (
    'LeNet-300-100: accuracy against the bytes of the file, as a fraction of dense float32; pruned '
    'only (sparse file of float32 values), shared only, and both. Bars span the seeds; the dotted '
    'line is dense.'
  ),
  'inits': (
    "LeNet-300-100 at the paper's kept fractions: accuracy by the bits of a shared weight and by "
    'the start of k-means, before and after training the centroids.'
  ),
  'layers': (
    'Where the bytes of the kernels are, layer by layer: codes, indices, and codebooks with code '
    'tables, with and without Huffman coding.'
  ),
}


def tables(rows: list[dict]) -> list[tabular.Table]:
  """Tabulate the stages, the layers beside the paper's, and every arm of the comparisons."""
  nets = [net for net in NAMES if select(rows, net, bits='paper')]
  return [_stages(rows), *(_layers(rows, net) for net in nets), _arms(rows)]


def _show(cells, key, form='.2f', scale=100.0):
  """The mean and interval of a metric; '-' where the cells lack it."""
  return verdicts.shown([m[key] for m in cells], form, scale) if key in cells[0] else '-'


def _stages(rows):
  lines = []
  for net, name in NAMES.items():
    cells = list(select(rows, net, scale=1.0, bits='paper').values())
    if not cells:
      continue
    before, after, rate, rate_fixed = paper.DEEP[net]
    lines.append(
      {
        'net': name,
        'seeds': len(cells),
        'dense, %': _show(cells, 'accuracy_dense'),
        'pruned, %': _show(cells, 'accuracy_pruned'),
        'shared, %': _show(cells, 'accuracy_shared'),
        'centroids trained, %': _show(cells, 'accuracy'),
        'paper, %': f'{100 - before:.2f} to {100 - after:.2f}',
        'dense, bytes': f'{cells[0]["bytes_dense"]:,}',
        'file, bytes': _show(cells, 'bytes', ',.0f', 1),
        'rate': _show(cells, 'rate', '.1f', 1),
        'paper, rate': f'{rate}',
        'rate without Huffman': _show(cells, 'rate_fixed', '.1f', 1),
        'paper, without': f'{rate_fixed}',
      }
    )
  note = (
    'Accuracy on the test images after each stage; the last is that of the file that was read '
    'back. Bytes are those of whole files, with heads, code tables, codebooks and biases.'
  )
  return tabular.records('From dense to a file', lines, note)


def _layers(rows, net):
  cells = list(select(rows, net, scale=1.0, bits='paper').values())
  lines = []
  for index, (layer, (side, inputs, outputs)) in enumerate(lenet.LAYERS[net].items()):
    mean = lambda key, index=index: statistics.mean([m[key][index] for m in cells])
    weights = max(1, side * side) * inputs * outputs
    coded, index_coded, size_fixed, size = paper.CODED[net][layer]
    lines.append(
      {
        'layer': layer,
        'weights': f'{weights:,}',
        'kept': f'{mean("kept"):.2f}',
        'bits': str(paper.BITS[net][layer]),
        'coded': f'{mean("layer_value_bits"):.1f}',
        'paper, coded': str(coded),
        'index bits': str(paper.INDEX_BITS),
        'index coded': f'{mean("layer_gap_bits"):.1f}',
        'paper, index coded': str(index_coded),
        'size without Huffman': f'{mean("layer_bytes_fixed") / (4 * weights):.2%}',
        'paper, without': f'{size_fixed:.2%}',
        'size': f'{mean("layer_bytes") / (4 * weights):.2%}',
        'paper, size': f'{size:.2%}',
        'fillers': f'{mean("layer_entries") - mean("kept") * weights:,.0f}',
        'dead units': f'{mean("dead"):.0f}',
      }
    )
  note = (
    'Bits are those of a stored entry, fillers included. Sizes are of the kernel with its codebook '
    'and code tables.'
  )
  return tabular.records(f'{NAMES[net]}, layer by layer', lines, note)


def _arms(rows):
  arm_of = lambda row: (row['net'], row['scale'], str(row['bits']), row['init'])
  lines = []
  for arm in sorted({arm_of(row) for row in rows}):
    net, _, bits, init = arm
    cells = [row['metrics'] for row in rows if arm_of(row) == arm]
    lines.append(
      {
        'net': net,
        'kept, of the weights': f'{cells[0]["kept_in_all"]:.3f}',
        'bits': bits if bits != '0' else '-',
        'start': init if bits != '0' else '-',
        'seeds': len(cells),
        'cut, not retrained, %': _show(cells, 'accuracy_cut'),
        'pruned, %': _show(cells, 'accuracy_pruned'),
        'shared, %': _show(cells, 'accuracy_shared'),
        'in the end, %': _show(cells, 'accuracy'),
        'bytes': _show(cells, 'bytes', ',.0f', 1),
        'rate': _show(cells, 'rate', '.1f', 1),
      }
    )
  return tabular.records('Every arm', lines)


def figures(rows: list[dict]) -> dict[str, bytes]:
  """Draw a PNG of 'curves', and of 'inits' and 'layers' where the ledger has such cells."""
  pngs = {'curves': _curves(rows)}
  if any(row['init'] != 'linear' for row in rows):
    pngs['inits'] = _inits(rows)
  if any(row['bits'] == 'paper' for row in rows):
    pngs['layers'] = _layer_bytes(rows)
  return pngs


def _errorbar(axes, x, by_seed, **style):
  """Draw means, with bars from the lowest to the highest seed."""
  middle, reach = drawing.ranges([list(accuracies.values()) for accuracies in by_seed])
  axes.errorbar(
    x, middle, yerr=reach, marker='o', markeredgecolor='white', capsize=3, elinewidth=1.2, **style
  )


def _curves(rows):
  with drawing.canvas(8, 4.6, 1) as (figure, (axes,)):
    for arm, models in sizes(rows).items():
      if models:
        x = [100 * size for size, _ in models]
        accuracies = [by_seed for _, by_seed in models]
        _errorbar(axes, x, accuracies, color=COLOURS[arm], label=arm)
    cells = select(rows, init='linear').values()
    dense = 100 * statistics.mean([m['accuracy_dense'] for m in cells])
    axes.axhline(dense, color='#555555', ls=':', lw=1.4, label='dense')
    axes.set_xscale('log')
    axes.xaxis.set_major_formatter(matplotlib.ticker.FormatStrFormatter('%g'))
    axes.xaxis.set_minor_formatter(matplotlib.ticker.NullFormatter())
    axes.set_xticks([1, 2, 3, 5, 10, 20, 50])
    axes.set_xlabel('bytes of the file, % of dense float32')
    axes.set_ylabel('test accuracy, %')
    axes.set_title('Pruned, shared, and both')
    drawing.below(figure, axes, columns=4)
    return drawing.png(figure)


def _inits(rows):
  widths = sorted({row['bits'] for row in rows if row['init'] != 'linear'})
  stages = {'accuracy_shared': 'k-means alone', 'accuracy': 'centroids trained'}
  with drawing.canvas(11, 4.4, 2) as (figure, panels):
    for axes, (key, title) in zip(panels, stages.items(), strict=True):
      for position, (init, colour) in enumerate(INIT_COLOURS.items()):
        cells = {bits: select(rows, scale=1.0, bits=bits, init=init) for bits in widths}
        by_width = {
          bits: {seed: points(m, key) for seed, m in by_seed.items()}
          for bits, by_seed in cells.items()
          if by_seed
        }
        if by_width:
          x = [bits + 0.05 * (position - 1) for bits in by_width]
          _errorbar(axes, x, by_width.values(), color=colour, label=init)
      axes.set_xlabel('bits of a shared weight')
      axes.set_ylabel('test accuracy, %')
      axes.set_xticks(widths)
      axes.set_title(title)
    drawing.below(figure, *panels)
    return drawing.png(figure)


def _layer_bytes(rows):
  nets = [net for net in NAMES if select(rows, net, bits='paper')]
  with drawing.canvas(5.5 * len(nets), 4.4, len(nets)) as (figure, panels):
    for axes, net in zip(panels, nets, strict=True):
      cells = list(select(rows, net, scale=1.0, bits='paper').values())
      layers = list(lenet.LAYERS[net])
      for index, layer in enumerate(layers):
        mean = lambda key, index=index, cells=cells: statistics.mean([m[key][index] for m in cells])
        fixed_bits = paper.BITS[net][layer], paper.INDEX_BITS
        coded_bits = mean('layer_value_bits'), mean('layer_gap_bits')
        for shift, (value_bits, gap_bits), total in (
          (-0.2, fixed_bits, mean('layer_bytes_fixed')),
          (0.2, coded_bits, mean('layer_bytes')),
        ):
          entries = mean('layer_entries')
          parts = [entries * value_bits / 8, entries * gap_bits / 8]
          parts.append(max(0.0, total - sum(parts)))
          bottom = 0.0
          for part, (name, colour) in zip(parts, PART_COLOURS.items(), strict=True):
            label = name if index == 0 and shift < 0 else None
            axes.bar(index + shift, part / 1000, 0.36, bottom / 1000, color=colour, label=label)
            bottom += part
      axes.set_xticks(range(len(layers)), layers)
      axes.set_ylabel('kilobytes')
      axes.set_title(f'{NAMES[net]}: left fixed width, right Huffman')
    drawing.below(figure, *panels)
    return drawing.png(figure)
