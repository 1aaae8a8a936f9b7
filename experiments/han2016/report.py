"""The tables and figures of the report, from the ledger."""

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
  'terms': (
    'Bytes of the file by what they hold: the paper (from its tables), and ours with fractions and '
    'widths of its own. The dotted line is the whole size that the paper states.'
  ),
}
OWN = ('fitted', 'own')  # Values of `bits` of cells with widths of their own.
TERM_COLOURS = {
  'codes': '#7b6888',
  'indices': '#2a9d8f',
  'codebooks, code tables': '#d1495b',
  'biases and head': '#e9a23b',
}


def tables(rows: list[dict]) -> list[tabular.Table]:
  """Tabulate the stages, the layers beside the paper's, and every arm of the comparisons."""
  nets = [net for net in NAMES if select(rows, net, bits='paper')]
  terms = [_terms(rows, net) for net in dict.fromkeys([*nets, *_own_nets(rows)])]
  own_layers = [_own_layers(rows, net) for net in NAMES if select(rows, net, bits='fitted')]
  if _own_only(rows):
    return [_own_stages(rows), *terms, *own_layers]
  layers = [_layers(rows, net) for net in nets]
  return [_stages(rows), *layers, _arms(rows), *terms, *own_layers]


def _own_nets(rows):
  """The networks that have cells with widths of their own, of either kind."""
  return [net for net in NAMES if any(select(rows, net, bits=bits) for bits in OWN)]


def _own_only(rows):
  """Whether every cell has widths of its own: the ledger of `end`, or a part of it."""
  return bool(rows) and all(row['bits'] in OWN for row in rows)


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


def published_terms(net: str) -> dict:
  """Compute the bytes of the paper's file by what they hold, from its tables.

  A layer's size is that of its codes and indices with fillers. The tables do not state biases,
  codebooks and head; the last term is what the whole file has beyond the layers.

  Args:
    net: of `claims.NAMES`.

  Returns:
    {'codes', 'indices', 'rest': bytes}.
  """
  terms, parameters = {'codes': 0.0, 'indices': 0.0}, 0
  for layer, (side, inputs, outputs) in lenet.LAYERS[net].items():
    weights = max(1, side * side) * inputs * outputs
    coded, index_coded, _, size = paper.CODED[net][layer]
    parameters += weights + outputs
    terms['codes'] += 4 * weights * size * coded / (coded + index_coded)
    terms['indices'] += 4 * weights * size * index_coded / (coded + index_coded)
  whole = 4 * parameters / paper.DEEP[net][2]
  return terms | {'rest': whole - sum(terms.values())}


def measured_terms(rows: list[dict], net: str, bits: str) -> dict:
  """Average the bytes of our files by what they hold.

  Args:
    rows: of the ledger.
    net: of `claims.NAMES`.
    bits: 'paper', 'fitted' or 'own'.

  Returns:
    {'codes', 'indices', 'tables', 'biases', 'head': bytes}; {} where the ledger has no such cell.
  """
  cells = list(select(rows, net, scale=1.0, bits=bits, init='linear').values())
  if not cells:
    return {}
  stored = lambda m, width: sum(
    n * b / 8 for n, b in zip(m['layer_entries'], m[width], strict=True)
  )
  terms = {
    'codes': statistics.mean([stored(m, 'layer_value_bits') for m in cells]),
    'indices': statistics.mean([stored(m, 'layer_gap_bits') for m in cells]),
  }
  kernels = statistics.mean([sum(m['layer_bytes']) for m in cells])
  terms['tables'] = kernels - sum(terms.values())
  terms['biases'] = 4 * sum(outputs for _, _, outputs in lenet.LAYERS[net].values())
  whole = statistics.mean([m['bytes'] for m in cells])
  return terms | {'head': whole - kernels - terms['biases']}


def _terms(rows, net):
  published = published_terms(net)
  names = {
    'codes': 'codes of weights',
    'indices': 'relative indices',
    'tables': 'codebooks and code tables',
    'biases': 'biases, float32',
    'head': 'head of the file',
  }
  ours = {bits: measured_terms(rows, net, bits) for bits in ('paper', 'fitted', 'own')}
  ours = {bits: terms for bits, terms in ours.items() if terms}
  words = {'paper': "the paper's widths", 'fitted': "the paper's bytes", 'own': 'own widths'}
  lines = []
  for term, text in names.items():
    line = {'term': text, 'paper': f'{published[term]:,.0f}' if term in published else '-'}
    for bits, terms in ours.items():
      line[words[bits]] = f'{terms[term]:,.0f}'
      difference = terms[term] - published.get(term, 0)
      line[f'{words[bits]}, minus paper'] = f'{difference:+,.0f}'
    lines.append(line)
  whole = sum(published.values())
  rest = {'term': 'not stated', 'paper': f'{published["rest"]:,.0f}'}
  total = {'term': 'whole file', 'paper': f'{whole:,.0f}'}
  for bits, terms in ours.items():
    rest |= {words[bits]: '-', f'{words[bits]}, minus paper': f'{-published["rest"]:+,.0f}'}
    total[words[bits]] = f'{sum(terms.values()):,.0f}'
    total[f'{words[bits]}, minus paper'] = f'{sum(terms.values()) - whole:+,.0f}'
  note = (
    "The paper's codes and indices share the size of each layer in its table as their coded bits "
    "do. What its whole file has beyond the layers is 'not stated'."
  )
  return tabular.records(f'{NAMES[net]}, bytes by term', [*lines, rest, total], note)


def _own_stages(rows):
  lines = []
  for net, bits in [(net, bits) for net in NAMES for bits in OWN]:
    cells = list(select(rows, net, bits=bits).values())
    if not cells:
      continue
    before, after, rate, _ = paper.DEEP[net]
    lines.append(
      {
        'net': NAMES[net],
        'bits': {'fitted': "the paper's bytes", 'own': 'a tenth of a point a layer'}[bits],
        'seeds': len(cells),
        'dense, %': _show(cells, 'accuracy_dense'),
        'pruned, %': _show(cells, 'accuracy_pruned'),
        'shared, %': _show(cells, 'accuracy_shared'),
        'centroids trained, %': _show(cells, 'accuracy'),
        'paper, %': f'{100 - before:.2f} to {100 - after:.2f}',
        'kept, of the weights': _show(cells, 'kept_in_all', '.3f', 1),
        'file, bytes': _show(cells, 'bytes', ',.0f', 1),
        'rate': _show(cells, 'rate', '.1f', 1),
        'paper, rate': f'{rate}',
        "bytes at the paper's widths": _show(cells, 'bytes_at_papers_widths', ',.0f', 1),
      }
    )
  note = (
    'Accuracy on the test images after each stage; the last is that of the file that was read '
    "back. The last column is the same pruned network, shared and coded with the paper's widths."
  )
  return tabular.records('Fractions and widths of its own', lines, note)


def _own_layers(rows, net):
  cells = list(select(rows, net, bits='fitted').values())
  every = lambda key, index, form: ', '.join(
    dict.fromkeys(format(m[key][index], form) for m in cells)
  )
  lines = []
  for index, (layer, (side, inputs, outputs)) in enumerate(lenet.LAYERS[net].items()):
    mean = lambda key, index=index: statistics.mean([m[key][index] for m in cells])
    weights = max(1, side * side) * inputs * outputs
    lines.append(
      {
        'layer': layer,
        'weights': f'{weights:,}',
        'kept': every('kept', index, '.3f'),
        'paper, kept': f'{paper.KEPT[net][layer]:g}',
        'bits': every('layer_bits', index, 'd'),
        'paper, bits': f'{paper.BITS[net][layer]}',
        'coded': f'{mean("layer_value_bits"):.1f}',
        'paper, coded': f'{paper.CODED[net][layer][0]}',
        'index bits': every('layer_index_bits', index, 'd'),
        'paper, index bits': f'{paper.INDEX_BITS}',
        'index coded': f'{mean("layer_gap_bits"):.1f}',
        'paper, index coded': f'{paper.CODED[net][layer][1]}',
        'size': f'{mean("layer_bytes") / (4 * weights):.2%}',
        'paper, size': f'{paper.CODED[net][layer][3]:.2%}',
        'fillers': f'{mean("layer_entries") - mean("kept") * weights:,.0f}',
      }
    )
  note = 'Where the seeds chose several widths or fractions, all are listed.'
  return tabular.records(f'{NAMES[net]}, own fractions and widths', lines, note)


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
  if _own_only(rows):
    return {'terms': _term_bars(rows)}
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
    axes.xaxis.set_major_formatter('{x:g}')
    axes.xaxis.set_minor_formatter('')
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


def _term_bars(rows):
  nets = _own_nets(rows)
  with drawing.canvas(max(8.5, 5.5 * len(nets)), 4.6, len(nets)) as (figure, panels):
    for axes, net in zip(panels, nets, strict=True):
      published = published_terms(net)
      rest = max(published['rest'], 0)
      bars = {'paper,\nby its tables': [published['codes'], published['indices'], 0, rest]}
      for bits, label in (('fitted', "ours,\nthe paper's bytes"), ('own', 'ours,\nown widths')):
        if terms := measured_terms(rows, net, bits):
          others = terms['biases'] + terms['head']
          bars[label] = [terms['codes'], terms['indices'], terms['tables'], others]
      for place, parts in enumerate(bars.values()):
        bottom = 0.0
        for part, (name, colour) in zip(parts, TERM_COLOURS.items(), strict=True):
          label = name if place == 1 else None
          axes.bar(place, part / 1000, 0.5, bottom / 1000, color=colour, label=label)
          bottom += part
        axes.text(place, bottom / 1000, f'{bottom / 1000:.1f}', ha='center', va='bottom')
      stated = sum(published.values()) / 1000
      label = 'the size that the paper states'
      axes.axhline(stated, color='#222222', ls=':', lw=1.4, label=label)
      axes.set_xticks(range(len(bars)), list(bars))
      axes.set_ylabel('kilobytes')
      axes.set_title(NAMES[net])
    drawing.below(figure, *panels, columns=3)
    return drawing.png(figure)
