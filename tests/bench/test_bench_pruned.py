"""The bench of a pruned model: every form computes the same; a form without gain is marked."""

import json

import numpy as np
import pytest
import shrunk_bert

from prunejax import __main__ as command
from prunejax.bench import encoders, measure, pruned_model, results, table
from prunejax.models.hf import bert as bert_hf


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  where = tmp_path_factory.mktemp('bench') / 'model'
  leaves, size = shrunk_bert.whole()
  bert_hf.save(where, shrunk_bert.tree(leaves), size)
  return where


def test_the_table_has_bytes_times_and_outputs_of_each_form(folder, tmp_path, capsys):
  out = tmp_path / 'measured.json'
  argv = ['bench', str(folder), '--batches=2', '--length=6', '--rounds=3', f'--out={out}']
  assert command.main(argv) == 0
  found = json.loads(out.read_text())
  assert (
    list(found['benches']) == ['bytes', 'batch 2'] and str(folder.parent) not in out.read_text()
  )
  size = {row['name']: row for row in found['benches']['bytes']['rows']}
  dense = sum(leaf.nbytes for leaf in shrunk_bert.whole()[0].values())
  assert (
    size['dense, float32']['value'] == 1 and f'{dense:,} bytes' in size['dense, float32']['detail']
  )
  assert size['shrunk, float32']['value'] < 0.75
  # The file of a model this small is mostly names, and the row says so.
  assert (
    size['sparse file, float32']['value'] > 1
    and 'no gain' in size['sparse file, float32']['detail']
  )
  rows = {row['name']: row for row in found['benches']['batch 2']['rows']}
  assert set(rows) == {
    'dense',
    'sparse, BCSR',
    'shrunk',
    *(f'ONNX Runtime{small}, {kind}' for small in ('', ', shrunk') for kind in ('float32', 'int8')),
  }
  for name, row in rows.items():
    assert ('no gain' in row['detail']) == (
      name != 'dense' and row['value'] >= pruned_model.GAIN
    ), row
    far = float(row['detail'].split('differ by at most ')[1].split(',')[0])
    assert 0 < far < 1 if 'int8' in name else far < 1e-5
  assert 'no gain' not in rows['dense']['detail'] and rows['dense']['value'] == 1
  assert (tmp_path / 'measured.md').read_text().count('\n| ') == 2 + len(size) + len(rows)
  for part in found['benches'].values():
    assert part['command'].endswith(' --batches=2 --length=6 --rounds=3')
  assert 'MLM' not in capsys.readouterr().out  # a folder has no held-out text


def test_parts_have_seconds_of_their_own_and_others_stay(folder, tmp_path, monkeypatch):
  forms = [encoders.Form('dense', lambda batch: None, 0, '')]
  monkeypatch.setattr(encoders, 'forms', lambda *_: (forms, []))
  monkeypatch.setattr(pruned_model, '_bytes', lambda *_: [measure.row('a', 1, '')])
  monkeypatch.setattr(pruned_model, '_outputs', lambda *_: ({}, ''))
  ticks = iter(range(0, 10**6, 10))
  monkeypatch.setattr(results.Part.__init__, '__defaults__', (lambda: next(ticks),))
  monkeypatch.setattr(pruned_model, '_times', lambda *_: [measure.row('dense', 1, '')])
  out = tmp_path / 'x.json'
  for batches in ((1, 2), (2, 4)):
    pruned_model.run(folder, batches=batches, length=6, out=out, say=lambda line: None)
  parts = table.read(out)['benches']
  assert list(parts) == ['bytes', 'batch 1', 'batch 2', 'batch 4']
  assert len({part['seconds'] for part in parts.values()}) == 1
  with pytest.raises(ValueError, match='size model and not other'):
    other = folder.rename(folder.with_name('other'))
    try:
      pruned_model.run(other, out=out, say=lambda line: None)
    finally:
      other.rename(folder)


def test_verdicts_say_no_gain_in_words():
  verdicts = [pruned_model._verdict(ratio, 'shrunk') for ratio in (0.5, 0.96, 0.99, 1.0, 3.0)]
  assert verdicts == ['', '', '; no gain', '; no gain', '; no gain']
  assert (
    'undecided' in pruned_model._verdict(0.5, 'shrunk', 1.1)
    and pruned_model._verdict(1.0, 'dense', 1.1) == ''
  )
  assert (
    pruned_model._zeros({'encoder/a/kernel': np.array([[0.0, 1.0]]), 'b/kernel': np.zeros((2, 2))})
    == 0.5
  )


@pytest.mark.parametrize(
  'argv, words',
  [
    (['{}', '--length=11'], ['--length=11', '1 to 10']),
    (['{}', '--batches=0'], ['--batches=0', 'at least 1']),
    (['{}', '--rounds=0'], ['--rounds=0']),
    (['{}', '--only=train'], ['takes no --only']),
    (['{}', '--size=small'], ['takes no --size']),
    (['{}', '--out={}/x.md'], ['--out=', 'ends in .json']),
    (['{}/none'], ['none', 'holds no run']),
    (['--batches=2'], ['bench RUN']),
  ],
)
def test_bad_arguments_are_one_line(folder, capsys, argv, words):
  assert command.main(['bench', *(word.format(folder) for word in argv)]) == 2
  line = capsys.readouterr().err.strip()
  assert line.count('\n') == 0
  for word in words:
    assert word in line
