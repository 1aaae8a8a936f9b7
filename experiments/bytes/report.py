"""Tables and the figure of the report, from the ledger."""

from prunejax.report import drawing
from prunejax.report import tables as tabular

# Codecs that the figure shows, with their colours.
COLOURS = {
  'dense float32': '#555555',
  'bit mask, float32': '#7b6888',
  'sparse file, int8': '#2a9d8f',
  'Deep Compression, 5 bits': '#d1495b',
  'bound: mask and shared codes': '#e9a23b',
}
CAPTIONS = {
  'bytes': (
    "Bytes of the packaged BERT against the sparsity of the encoder's kernels: files, and the "
    'entropy bound.'
  )
}


def tables(rows: list[dict]) -> list[tabular.Table]:
  """Tabulate bytes by codec and sparsity, one table a part of the model."""
  out = []
  for part, part_rows in _by_part(rows).items():
    lines = []
    for codec in part_rows[0]['metrics']:
      if codec == 'pruned_weights':
        continue
      line = {'codec': codec}
      for row in part_rows:
        size = row['metrics'][codec]
        rate = row['metrics']['dense float32'] / size
        line[f'at {row["sparsity"]:g}'] = f'{size:,} ({rate:.1f}x)'
      lines.append(line)
    note = (
      f'{part_rows[0]["metrics"]["pruned_weights"]:,} weights are pruned: the kernels of the '
      'encoder. A bound is an entropy and no file: that of the mask, plus either 32 bits a value '
      '(zlib and lzma may find less in the exponents) or the entropy of the shared codes with '
      'their codebook.'
    )
    out.append(tabular.records(f'Bytes of the packaged BERT: {part}', lines, note))
  return out


def figures(rows: list[dict]) -> dict[str, bytes]:
  """Draw {'bytes': PNG}: bytes against sparsity, one panel a part of the model."""
  by_part = _by_part(rows)
  with drawing.canvas(5 * len(by_part), 4.4, len(by_part)) as (figure, panels):
    for axes, (part, part_rows) in zip(panels, by_part.items(), strict=True):
      part_rows = sorted(part_rows, key=lambda row: row['sparsity'])
      sparsities = [row['sparsity'] for row in part_rows]
      for codec, colour in COLOURS.items():
        if codec in part_rows[0]['metrics']:
          axes.plot(
            sparsities,
            [row['metrics'][codec] / 1000 for row in part_rows],
            color=colour,
            marker='o',
            markeredgecolor='white',
            ls='--' if 'bound' in codec else '-',
            label=codec,
          )
      axes.set_title(part)
      axes.set_yscale('log')
      axes.set_xticks(sparsities)
      axes.set_xlabel("sparsity of the encoder's kernels")
      axes.set_ylabel('kilobytes')
    drawing.below(figure, *panels)
    return {'bytes': drawing.png(figure)}


def _by_part(rows):
  """{part: rows}, the whole model first."""
  parts = sorted({row['part'] for row in rows})
  return {part: [row for row in rows if row['part'] == part] for part in parts}
