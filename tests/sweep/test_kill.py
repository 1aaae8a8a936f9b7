"""`kill -9`, shortly: `python -m prunejax bench --only=kill --times=100` is the long version."""

import json

import pytest

from prunejax.bench import kill


@pytest.fixture(scope='module')
def rows():
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(kill, 'SAVED', 2)
    rows = list(kill.run('tiny', lambda line: None, times=3))
  # What was told after two kills is told again in the end.
  assert [row['name'] for row in rows[:5]] == [row['name'] for row in rows[5:]]
  assert [rows[i]['value'] for i in (0, 5)] == [2, 3]
  return {row['name']: row for row in rows}


@pytest.mark.slow
def test_a_sweep_that_was_killed_ends_as_one_left_alone(rows):
  assert rows['kills']['value'] == 3 and 'kill -9' in rows['kills']['detail']
  assert rows['sweeps that ended differently']['ok'], rows['sweeps that ended differently'][
    'detail'
  ]


def test_what_is_compared_knows_every_difference(tmp_path):
  def finished(folder, weights=b'abc', loss=1.5, steps=(3, 6)):
    home = folder / 'cells' / 'c1'
    (home / 'model').mkdir(parents=True)
    (home / 'model' / 'model.safetensors').write_bytes(weights)
    lines = [json.dumps({'kind': 'train', 'step': step}) + '\n' for step in steps]
    (home / 'metrics.jsonl').write_text(''.join(lines))
    row = {
      'cell': 'c1',
      'metrics': {'loss': loss},
      'mask_hash': 'ff',
      'time': str(folder),
      'seconds': len(str(folder)),
    }
    (folder / 'ledger.jsonl').write_text(json.dumps(row) + '\n')
    return kill.outcome(folder)

  whole = finished(tmp_path / 'whole')
  named = lambda other: [line.partition(' (')[0] for line in kill.differences(whole, other)]
  assert named(finished(tmp_path / 'same')) == []
  assert named(finished(tmp_path / 'a', weights=b'abd')) == ['c1/model.safetensors']
  assert named(finished(tmp_path / 'b', loss=1.25)) == ['row c1 metrics']
  assert named(finished(tmp_path / 'c', steps=(3, 3, 6))) == ['c1 logged']
  assert named({}) == sorted(whole)
