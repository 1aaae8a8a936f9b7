"""The output of a committed ledger as plain data: numbers of tables, verdicts, data of figures.

`python tests/redrawn.py PAPER/results.jsonl` writes the current output to tests/reference/reports/,
without a ledger that of all. Run it for a new ledger, or where numbers are meant to change.
"""

import importlib
import json
import math
import pathlib
import re
import struct

import numpy as np
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure

ROOT = pathlib.Path(__file__).parent.parent
REFERENCE = ROOT / 'tests' / 'reference' / 'reports'
OF_A_SWEEP = 'results-margins'  # ledgers of a plain sweep, which has settings and no claims
LEDGERS = sorted(
  str(path.relative_to(ROOT / 'experiments'))
  for path in (ROOT / 'experiments').glob('*/results*.jsonl')
  if not path.name.startswith(OF_A_SWEEP)
)
NUMBER = re.compile(r'[-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?|not reproduced|reproduced|undecided')


def reference(ledger):
  """The file that holds the reference output of a ledger."""
  return REFERENCE / (ledger.replace('/', '-').removesuffix('.jsonl') + '.json')


def redraw(ledger, out, path=None):
  """Draws a ledger below experiments/, or `path`, into `out`; returns what `main` writes of it."""
  figures = {}
  with _figures_as_data(figures):
    module = experiment(ledger.split('/')[0])
    said = []
    module.redraw(path or ROOT / 'experiments' / ledger, out, say=said.append)
  verdicts = {}
  for line in said:
    if found := re.match(r'(not reproduced|reproduced|undecided) +([^:]+): ', line):
      verdicts[found[2]] = found[1]
  text = (out / 'report.md').read_text()
  tables = dict(read_tables(text.partition('\n## Tables\n')[2]))
  claims = dict(read_tables(text)).get('What held', [])
  return {
    'verdicts': verdicts,
    'deciding': [(verdict.strip(), number.strip()) for _, verdict, number in claims],
    'evidence': read_evidence(text),
    'tables': {title: numbers(lines) for title, lines in tables.items()},
    'figures': {path.stem: figures[_identity(path)] for path in sorted(out.glob('*.png'))},
  }


def experiment(name):
  """The module that the command line calls for an experiment."""
  return importlib.import_module(f'experiments.{name}.study')


def read_tables(text):
  """[(title, [cells of each row])] of the Markdown tables in a report, in their order."""
  tables, title = [], ''
  for line in text.split('\n'):
    if line.startswith('**') and line.endswith('**'):
      title = line.strip('*')
    elif line.startswith('|---'):
      tables.append((title, []))
    elif line.startswith('| ') and tables and title == tables[-1][0]:
      tables[-1][1].append(re.split(r'(?<!\\)\|', line.strip('| ')))
  return tables


def read_evidence(text):
  """{claim: the numbers of its evidence} from the section that holds the evidence."""
  section = text.partition('\n## Evidence\n')[2].partition('\n## ')[0]
  claims = [part.partition('\n') for part in section.split('\n### ')[1:]]
  return {heading.split(':')[0]: ' '.join(NUMBER.findall(body)) for heading, _, body in claims}


def numbers(lines):
  """The numbers and verdicts of each cell of a table, without its words."""
  return [' | '.join(' '.join(NUMBER.findall(cell)) for cell in line) for line in lines]


def drawn(figure):
  """{kind of mark: [count, sum, mean position]} of each panel of a figure."""
  return [
    {kind: _digest(values) for kind, values in _marks(axes).items() if values}
    for axes in figure.axes
  ]


def same(here, there):
  """Whether two `drawn` hold the same data to six digits."""
  if isinstance(there, dict):
    return here.keys() == there.keys() and all(same(here[k], there[k]) for k in there)
  if isinstance(there, list):
    return len(here) == len(there) and all(map(same, here, there))
  return math.isclose(here, there, rel_tol=1e-6, abs_tol=1e-9)


def _marks(axes):
  lines = [line.get_xydata() for line in axes.lines]
  bars = [
    patch.get_path().transformed(patch.get_patch_transform()).vertices for patch in axes.patches
  ]
  points, segments, images = [], [], []
  for collection in axes.collections:
    if isinstance(collection, QuadMesh):
      images.append(collection.get_array())
    elif len(offsets := collection.get_offsets()) > 1:
      points.append(offsets)
    else:
      segments += [path.vertices for path in collection.get_paths()]
  images += [image.get_array() for image in axes.images]
  return {'lines': lines, 'bars': bars, 'points': points, 'segments': segments, 'images': images}


def _digest(arrays):
  flat = np.concatenate([np.ma.filled(np.ma.asarray(a, float), np.nan).ravel() for a in arrays])
  finite = np.isfinite(flat)
  values = flat[finite]
  place = 1 + np.flatnonzero(finite)  # tells the order of the numbers, as the sum does not
  return [
    len(flat),
    float(f'{values.sum():.9g}'),
    float(f'{(values * place).sum() / len(flat):.9g}'),
  ]


class _figures_as_data:
  """Within it a figure is saved as a stub with a number, and `figures` holds {number: data}."""

  def __init__(self, figures):
    self.figures = figures

  def __enter__(self):
    self.savefig = Figure.savefig

    def stub(figure, file, **_):
      name = len(self.figures)
      self.figures[name] = drawn(figure)
      file.write(b'\x89PNG\r\n\x1a\n\0\0\0\rIHDR' + struct.pack('>III', 15, 15, name))

    Figure.savefig = stub

  def __exit__(self, *_):
    Figure.savefig = self.savefig


def _identity(path):
  return struct.unpack('>I', path.read_bytes()[24:28])[0]


def main(out, ledgers):
  REFERENCE.mkdir(parents=True, exist_ok=True)
  for ledger in ledgers:
    found = redraw(ledger, pathlib.Path(out) / ledger.replace('/', '-'))
    del found['deciding']  # its words may change
    reference(ledger).write_text(json.dumps(found, indent=1) + '\n')


if __name__ == '__main__':
  import sys
  import tempfile

  sys.path.insert(0, str(ROOT))
  with tempfile.TemporaryDirectory() as folder:
    main(folder, sys.argv[1:] or LEDGERS)
