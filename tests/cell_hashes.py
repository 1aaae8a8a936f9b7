"""The hash of every cell of every preset of every experiment, in the order in which the cells run.

`python tests/cell_hashes.py` writes the current hashes to tests/reference/cell_hashes.json. If a
hash changes, no run recognises the row of its cell in a ledger or its folder in a work directory.
"""

import hashlib
import json

import redrawn

from prunejax.sweep import study

PATH = redrawn.ROOT / 'tests' / 'reference' / 'cell_hashes.json'
NAMES = sorted({path.parent.name for path in (redrawn.ROOT / 'experiments').glob('*/results*')})


def of(name):
  """{preset: {'cells': number, 'first': hash of the first, 'hashes', 'labels': sha256 of all}}.

  A preset that needs files of `--config.data.root` has no cells here.
  """
  declared = redrawn.experiment(name).STUDY
  summaries = {}
  for preset in declared.presets:
    try:
      summaries[preset] = _summary(study.cells(declared, preset))
    except ValueError as error:
      if 'data.root' not in str(error):
        raise
  return summaries


def _summary(cells):
  keys, labels = [study.key(cell) for cell in cells], [cell.labels for cell in cells]
  return {'cells': len(cells), 'first': keys[0], 'hashes': _digest(keys), 'labels': _digest(labels)}


def _digest(values):
  return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


if __name__ == '__main__':
  import sys

  sys.path.insert(0, str(redrawn.ROOT))
  PATH.write_text(json.dumps({name: of(name) for name in NAMES}, indent=1) + '\n')
