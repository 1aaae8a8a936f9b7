"""The tables and figures of the study, from its ledger."""

import matplotlib.ticker

from experiments.han2016 import claims, paper
from prunejax.models import lenet
from prunejax.report import drawing, statistics, verdicts
from prunejax.report import tables as tabular

COLOURS = {'pruned': '#7b6888', 'shared': '#2a9d8f', 'both': '#d1495b'}
STARTS = {'linear': '#d1495b', 'forgy': '#2a9d8f', 'density': '#7b6888'}
CAPTIONS = {
  'curves': 'LeNet-300-100: accuracy against the bytes of the file, as a share of dense float32; pruned only (sparse '
  'file of float32 values), shared only, and both. Bars reach over the seeds; the dotted line is dense.',
  'inits': 'LeNet-300-100 at the kept shares of the paper: accuracy by the bits of a shared weight and by where '
  'k-means starts, before and after training the centroids.',
  'layers': 'Where the bytes of the kernels are: codes, indices, and codebooks with code tables, layer by layer, with '
  'and without Huffman coding.',
}


def tables_of(rows):
  """Stages, layers beside the paper's, and every arm of the comparisons."""
  return [
    _stages(rows),
    *[_layers(rows, net) for net in claims.NAMES if claims.cells(rows, net, bits='paper')],
    _arms(rows),
  ]


def _stages(rows):
  lines = []
  for net, name in claims.NAMES.items():
    found = list(claims.cells(rows, net, scale=1.0, bits='paper').values())
    if not found:
      continue
    one = lambda key, form='.2f', scale=100.0, found=found: verdicts.shown(
      [m[key] for m in found], form, scale
    )
    before, after, rate, fixed = paper.DEEP[net]
    lines.append(
      {
        'net': name,
        'seeds': len(found),
        'dense, %': one('accuracy_dense'),
        'pruned, %': one('accuracy_pruned'),
        'shared, %': one('accuracy_shared'),
        'centroids trained, %': one('accuracy'),
        'paper, %': f'{100 - before:.2f} to {100 - after:.2f}',
        'dense, bytes': f'{found[0]["bytes_dense"]:,}',
        'file, bytes': one('bytes', ',.0f', 1),
        'rate': one('rate', '.1f', 1),
        'paper, rate': f'{rate}',
        'rate without Huffman': one('rate_fixed', '.1f', 1),
        'paper, without': f'{fixed}',
      }
    )
  note = (
    'Accuracy on the test images after each stage; the last is that of the file read back. Bytes are those of '
    'whole files: heads, code tables, codebooks and biases too.'
  )
  return tabular.records('From dense to a file', lines, note)


def _layers(rows, net):
  found = list(claims.cells(rows, net, scale=1.0, bits='paper').values())
  lines = []
  for place, (layer, (side, wide, out)) in enumerate(lenet.LAYERS[net].items()):
    mean = lambda key, place=place: statistics.mean([m[key][place] for m in found])
    weights = max(1, side * side) * wide * out
    theirs = paper.CODED[net][layer]
    lines.append(
      {
        'layer': layer,
        'weights': f'{weights:,}',
        'kept': f'{mean("kept"):.2f}',
        'bits': str(paper.BITS[net][layer]),
        'coded': f'{mean("layer_value_bits"):.1f}',
        'paper, coded': str(theirs[0]),
        'index bits': str(paper.INDEX_BITS),
        'index coded': f'{mean("layer_gap_bits"):.1f}',
        'paper, index coded': str(theirs[1]),
        'size without Huffman': f'{mean("layer_bytes_fixed") / (4 * weights):.2%}',
        'paper, without': f'{theirs[2]:.2%}',
        'size': f'{mean("layer_bytes") / (4 * weights):.2%}',
        'paper, size': f'{theirs[3]:.2%}',
        'fillers': f'{mean("layer_entries") - mean("kept") * weights:,.0f}',
        'dead units': f'{mean("dead"):.0f}',
      }
    )
  note = 'Bits are those of a stored entry, fillers among them; sizes are of the kernel, with codebook and code tables.'
  return tabular.records(f'{claims.NAMES[net]}, layer by layer', lines, note)


def _arms(rows):
  lines = []
  for key in sorted({(r['net'], r['scale'], str(r['bits']), r['init']) for r in rows}):
    net, scale, bits, init = key
    found = [r['metrics'] for r in rows if (r['net'], r['scale'], str(r['bits']), r['init']) == key]
    one = lambda name, form='.2f', scale=100.0, found=found: (
      verdicts.shown([m[name] for m in found], form, scale) if name in found[0] else '-'
    )
    lines.append(
      {
        'net': net,
        'kept, of the weights': f'{found[0]["kept_in_all"]:.3f}',
        'bits': bits if bits != '0' else '-',
        'start': init if bits != '0' else '-',
        'seeds': len(found),
        'cut, not retrained, %': one('accuracy_cut'),
        'pruned, %': one('accuracy_pruned'),
        'shared, %': one('accuracy_shared'),
        'in the end, %': one('accuracy'),
        'bytes': one('bytes', ',.0f', 1),
        'rate': one('rate', '.1f', 1),
      }
    )
  return tabular.records('Every arm', lines)


def figures(rows):
  """{name: PNG}."""
  out = {'curves': _curves(rows)}
  if any(row['init'] != 'linear' for row in rows):
    out['inits'] = _inits(rows)
  if any(row['bits'] == 'paper' for row in rows):
    out['layers'] = _bars(rows)
  return out


def _points(axes, at, places, **style):
  """Means with bars from the least to the greatest seed."""
  middle, reach = drawing.ranges([list(p.values()) for p in places])
  axes.errorbar(
    at, middle, yerr=reach, marker='o', markeredgecolor='white', capsize=3, elinewidth=1.2, **style
  )


def _curves(rows):
  with drawing.canvas(8, 4.6, 1) as (figure, (axes,)):
    for arm, places in claims.curve(rows).items():
      if places:
        _points(
          axes,
          [100 * size for size, _ in places],
          [p for _, p in places],
          color=COLOURS[arm],
          label=arm,
        )
    dense = list(claims.cells(rows, init='linear').values())
    axes.axhline(
      100 * statistics.mean([m['accuracy_dense'] for m in dense]),
      color='#555555',
      ls=':',
      lw=1.4,
      label='dense',
    )
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
  with drawing.canvas(11, 4.4, 2) as (figure, panels):
    for axes, key, title in zip(
      panels, ('accuracy_shared', 'accuracy'), ('k-means alone', 'centroids trained'), strict=True
    ):
      for nudge, (init, colour) in enumerate(STARTS.items()):
        at = {b: claims.cells(rows, scale=1.0, bits=b, init=init) for b in widths}
        places = [
          {seed: claims.points(m, key) for seed, m in found.items()}
          for found in at.values()
          if found
        ]
        if places:
          _points(
            axes,
            [b + 0.05 * (nudge - 1) for b, found in at.items() if found],
            places,
            color=colour,
            label=init,
          )
      axes.set_xlabel('bits of a shared weight')
      axes.set_ylabel('test accuracy, %')
      axes.set_xticks(widths)
      axes.set_title(title)
    drawing.below(figure, *panels)
    return drawing.png(figure)


def _bars(rows):
  nets = [net for net in claims.NAMES if claims.cells(rows, net, bits='paper')]
  with drawing.canvas(5.5 * len(nets), 4.4, len(nets)) as (figure, panels):
    for axes, net in zip(panels, nets, strict=True):
      found = list(claims.cells(rows, net, scale=1.0, bits='paper').values())
      layers = list(lenet.LAYERS[net])
      mean = lambda key, place, found=found: statistics.mean([m[key][place] for m in found])
      for place, layer in enumerate(layers):
        entries = mean('layer_entries', place)
        bits = paper.BITS[net][layer], paper.INDEX_BITS
        coded = mean('layer_value_bits', place), mean('layer_gap_bits', place)
        for shift, (value, gap), whole in (
          (-0.2, bits, mean('layer_bytes_fixed', place)),
          (0.2, coded, mean('layer_bytes', place)),
        ):
          parts = [entries * value / 8, entries * gap / 8]
          parts.append(max(0.0, whole - sum(parts)))
          base = 0.0
          for part, colour, name in zip(
            parts, COLOURS.values(), ('codes', 'indices', 'codebook, tables'), strict=True
          ):
            label = name if place == 0 and shift < 0 else None
            axes.bar(place + shift, part / 1000, 0.36, base / 1000, color=colour, label=label)
            base += part
      axes.set_xticks(range(len(layers)), layers)
      axes.set_ylabel('kilobytes')
      axes.set_title(f'{claims.NAMES[net]}: left fixed width, right Huffman')
    drawing.below(figure, *panels)
    return drawing.png(figure)
