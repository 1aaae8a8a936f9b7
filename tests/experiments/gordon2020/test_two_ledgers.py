"""What differs between two ledgers."""

import json

import pytest
import synthetic_ledger as synthetic

from experiments.gordon2020 import claims
from experiments.gordon2020.analysis import two_ledgers
from prunejax.report import compare

SMALL = {'sparsities': (0.5, 0.9), 'tasks': ('pydoc/order',)}


def shifted(rows, **changes):
  """The same cells with every score one point lower, on another machine, with changed configs."""
  found = json.loads(json.dumps(rows))
  for row in found:
    row['config'].update(changes)
    row['device'] = 'NVIDIA H200 x1'
    if 'accuracy' in row['metrics']:
      row['metrics']['accuracy'] -= 0.01
  return found


def test_differences_are_paired_and_verdicts_beside_each_other():
  a = synthetic.make(seeds=3, noise=0.01, **SMALL)
  b = shifted(a)
  table = two_ledgers.differences(a, b)
  assert all(line[4] == '-1.0 ± 0.0' and line[7] in ('+0.00 ± 0.00', '-') for line in table.rows)
  same = compare.verdict_table(*[claims.check(claims.grid(a))] * 2)
  assert {line[3] for line in same.rows} == {''} and len(same.rows) == len(claims.CLAIMS)
  told = {line[0]: line[1:] for line in two_ledgers.settings(a, b).rows}
  assert told['device'] == ('cpu x1', 'NVIDIA H200 x1') and 'version of jax' not in told


def test_only_what_both_were_tuned_at_is_compared():
  a = synthetic.make(seeds=3, noise=0.01, **SMALL)
  better = [
    {
      **row,
      'cell': row['cell'] + 'r',
      'learning_rate': 7.0,
      'metrics': {**row['metrics'], 'accuracy': row['metrics']['accuracy'] + 0.05},
    }
    for row in a
    if row['stage'] == 'finetune'
  ]
  epochs = [
    {**row, 'cell': row['cell'] + 'e', 'arm': 'epochs', 'epochs': n}
    for row in better
    for n in (1, 12)
  ]
  assert two_ledgers.differences(a, a + better + epochs) == two_ledgers.differences(a, a)
  told = [two_ledgers.settings(a, b) for b in (a + better, better + a)]
  assert told[0] == told[1]  # whatever the order of the rows


def test_other_seeds_are_compared_by_welch():
  import numpy as np
  import scipy.stats

  rng = np.random.default_rng(0)
  one, two = (
    {('t', i + k): v for i, v in enumerate(rng.normal(size=n))} for k, n in ((0, 4), (10, 4))
  )
  got = two_ledgers._difference(one, two, 0.95)[2]
  want = scipy.stats.ttest_ind(list(two.values()), list(one.values()), equal_var=False)
  low, high = want.confidence_interval(0.95)
  assert got.mean == pytest.approx((low + high) / 2)
  # Whole degrees of freedom are never more than Welch's: never narrower.
  assert got.low <= low and got.high >= high and got.high - got.low < 1.3 * (high - low)


def test_other_tasks_and_seeds_break_nothing(tmp_path):
  a = synthetic.make(seeds=2, **SMALL)
  b = [
    {**row, 'preset': 'mini'}
    for row in synthetic.make(seeds=1, tasks=('glue/cola',), sparsities=(0.7,))
  ]
  assert two_ledgers.differences(a, b).rows and two_ledgers.settings(a, b).rows
  assert all(png.startswith(b'\x89PNG') for png in two_ledgers.figures(a, b).values())
