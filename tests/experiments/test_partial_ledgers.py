"""A stopped run can be reported: every study draws a report of a part of its ledger.

The parts are rows of the committed ledgers. What a report says of a part is tested elsewhere; here
it must be written, with every verdict one of the three words.
"""

import random

import matplotlib.figure
import pytest
import redrawn

from prunejax.report import ledger, verdicts
from prunejax.sweep import study as studies

WORDS = {verdicts.REPRODUCED, verdicts.NOT_REPRODUCED, verdicts.UNDECIDED}


def is_dense(row: dict) -> bool:
  """Whether a row is of a model from which nothing was removed."""
  labels = studies.labels_of(row)
  return 'dense' in labels.values() or any(labels.get(k) == 0 for k in ('sparsity', 'scale'))


def one_kind(rows: list[dict]) -> list[dict]:
  """The rows whose labels are those of the last row, but for the seed and numbers."""
  kind = lambda row: {k: v for k, v in studies.labels_of(row).items() if isinstance(v, str)}
  return [row for row in rows if kind(row) == kind(rows[-1])]


def unequal_seeds(rows: list[dict]) -> list[dict]:
  """The rows without those of a random seed for each set of the other labels."""
  draw, chosen, seeds = random.Random(1), {}, sorted({str(row.get('seed')) for row in rows})
  out = []
  for row in rows:
    labels = {k: v for k, v in studies.labels_of(row).items() if k not in ('seed', 'parent')}
    left_out = chosen.setdefault(str(sorted(labels.items(), key=str)), draw.choice(seeds))
    if str(row.get('seed')) != left_out:
      out.append(row)
  return out


PARTS = {
  'the first row': lambda rows: rows[:1],
  'the last row': lambda rows: rows[-1:],
  'dense': lambda rows: [row for row in rows if is_dense(row)],
  'without dense': lambda rows: [row for row in rows if not is_dense(row)],
  'the first seed': lambda rows: [row for row in rows if row.get('seed') == rows[0].get('seed')],
  'half of the rows': lambda rows: [r for r in rows if random.Random(r['cell']).random() < 0.5],
  'one kind of rows': one_kind,
  'unequal seeds': unequal_seeds,
}


@pytest.fixture
def no_pixels(monkeypatch):
  """Figures are laid out, but not drawn in pixels, which takes most of the time."""
  laid_out = lambda figure, file, **_: figure.draw_without_rendering()
  monkeypatch.setattr(matplotlib.figure.Figure, 'savefig', laid_out)


# These run by default; the others of the table take minutes.
QUICK = ('the first row', 'the last row', 'dense', 'half of the rows')
LONG = ('league', 'gordon2020')  # Half of such a ledger takes many seconds.


def case(path: str, part: str):
  """A case of the table with its marks."""
  paper = path.split('/')[0]
  quick = part in QUICK and not (paper in LONG and part == 'half of the rows')
  quick = quick and (paper != 'gordon2020' or path == 'gordon2020/results.jsonl')
  return pytest.param(path, part, marks=[] if quick else [pytest.mark.slow])


@pytest.mark.parametrize(('path', 'part'), [case(p, w) for p in redrawn.LEDGERS for w in PARTS])
def test_a_part_of_a_ledger_has_a_report(path, part, no_pixels):
  study = redrawn.experiment(path.split('/')[0]).STUDY
  rows = [r for r in ledger.read(redrawn.ROOT / 'experiments' / path) if not r.get('failed')]
  rows = PARTS[part](rows)
  if not rows:
    return  # the ledger has no such rows
  quantities = study.analyse(rows)
  checks = study.claims(quantities)
  assert {check.verdict for check in checks} <= WORDS
  study.tables(quantities)
  study.figures(quantities)


@pytest.mark.parametrize(
  ('path', 'chosen', 'titles'),
  [
    (
      'han2016/results-end.jsonl',
      lambda row: row['bits'] == 'own',
      ['Fractions and widths of its own', 'LeNet-300-100, bytes by term'],
    ),
    (
      'hassibi1993/results-apart.jsonl',
      lambda row: True,
      ['Weights left where accuracy on the training set is still that of the dense net'],
    ),
  ],
)
def test_tables_are_those_of_the_rows(path, chosen, titles):
  study = redrawn.experiment(path.split('/')[0]).STUDY
  rows = [row for row in ledger.read(redrawn.ROOT / 'experiments' / path) if chosen(row)]
  assert [table.title for table in study.tables(study.analyse(rows))] == titles
