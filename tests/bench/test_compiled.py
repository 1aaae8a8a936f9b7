"""`bench --topology`: requests of the benches, and rows from what a compiler says."""

import json

import jax
import pytest

from prunejax import __main__ as command
from prunejax.bench import compiled, measure, sizes, table
from prunejax.topology import chips, dry_run, hlo, programs, slices

CHIP = chips.CHIPS['v5e']
COST = {'flops': {'bf16': 1e9}, 'bytes': 8.19e8, 'sent': 1e6, 'guessed': 1.0}
COST |= {'collectives': {'all-reduce': [3.0, 2e6]}}


def answer(request, chips_of=16):
  """What a worker says; a program of many members does half of the work a member."""
  members = len(getattr(request, 'streams', ('',)))
  scale = (members + 1) / 2
  scaled = {'flops': {'bf16': 1e9 * scale}, 'bytes': 8.19e8 * scale}
  return {
    'reason': '',
    'chip': CHIP._asdict(),
    'chips': chips_of,
    'hosts': 4,
    'device': 'TPU v5 lite',
    'mesh': {'data': chips_of},
    'places': members,
    'arguments': 2**30,
    'temporaries': 2**29,
    'held': 2**30,
    'step': COST | scaled,
    'mask_step': COST | scaled | {'bytes': 2 * 8.19e8 * scale},
    'seconds': 1.0,
  }


@pytest.fixture
def compiler(monkeypatch):
  monkeypatch.setattr(slices, 'check', lambda name: None)
  monkeypatch.setattr(
    dry_run, 'compile_all', lambda requests, *rest, **how: [answer(r) for r in requests]
  )


def test_rows_of_all_benches(compiler, tmp_path, capsys, monkeypatch):
  monkeypatch.chdir(tmp_path)
  out = tmp_path / 'x.json'
  assert command.main(['bench', '--topology=v5e:4x4', '--size=tiny', f'--out={out}']) == 0
  results = table.read(out)
  values = {
    (bench, row['name']): row['value']
    for bench, part in results['benches'].items()
    for row in part['rows']
  }
  assert set(results['benches']) == set(compiled.NAMES)
  assert values['train', 'matmul rate'] == 16 * 197e3
  # 8.19e8 bytes at 819 GB/s are a millisecond, and a mask step reads twice as much.
  assert values['train', 'prunejax, off mask steps'] == pytest.approx(256 * 128 / 1e-3)
  assert values['train', 'a mask step'] == pytest.approx(2)
  assert values['train', 'all-reduce a step'] == 3
  assert values['selection', 'uniform, fp32, time'] == pytest.approx(2)
  assert values['population', 'packaged: members of one program'] == 40
  assert values['population', 'packaged: FLOPs a member'] == pytest.approx(41 / 80)
  gain = values['population', 'packaged: one program, against one after the other']
  assert gain == pytest.approx(80 / 41)
  text = out.with_suffix('.md').read_text()
  assert 'compiled for and not run' in text and CHIP.source in text
  assert 'all-reduce' in capsys.readouterr().out


def test_what_does_not_compile_is_a_row(compiler, tmp_path, capsys, monkeypatch):
  refused = {'reason': 'the compiler ended with signal 9', 'seconds': 1.0}
  monkeypatch.setattr(dry_run, 'compile_all', lambda requests, *rest, **how: [refused] * 2)
  out = tmp_path / 'x.json'
  argv = ['bench', '--topology=v5e:4x4', '--size=tiny', '--only=train', f'--out={out}']
  monkeypatch.chdir(tmp_path)
  assert command.main(argv) == 0
  rows = table.read(out)['benches']['train']['rows']
  assert [row['value'] for row in rows] == [None, None]
  assert all('signal 9' in row['detail'] for row in rows)


def test_measured_tables_stand_beside_it(compiler, tmp_path, capsys, monkeypatch):
  monkeypatch.chdir(tmp_path)
  measured = tmp_path / 'runs' / 'bench' / 'cpu-9-cores-tiny.json'
  measured.parent.mkdir(parents=True)
  row = measure.row('prunejax, off mask steps', 123.0, 'tokens/s')
  machine = {'kind': 'cpu-9-cores', 'versions': {}}
  part = {'rows': [row], 'seconds': 1.0, 'command': '', 'date': ''}
  results = {'machine': machine, 'size': 'tiny', 'benches': {'train': part}}
  measured.write_text(json.dumps(results))
  assert command.main(['bench', '--topology=v5e:4x4', '--size=tiny', '--only=train']) == 0
  out = capsys.readouterr().out
  assert '| figure | unit | target | cpu-9-cores, tiny | v5e-4x4, tiny |' in out
  assert (tmp_path / 'runs' / 'bench' / 'v5e-4x4-tiny.json').exists()


def compile_for(out, topology='v5e:4x4', only='train', size='tiny'):
  argv = ['bench', f'--topology={topology}', f'--size={size}', f'--only={only}', f'--out={out}']
  return command.main(argv)


def test_the_other_benches_of_a_file_stay(compiler, tmp_path, capsys, monkeypatch):
  monkeypatch.chdir(tmp_path)
  out = tmp_path / 'x.json'
  assert compile_for(out, only='train') == compile_for(out, only='selection') == 0
  before = table.read(out)
  assert list(before['benches']) == ['train', 'selection']
  capsys.readouterr()
  for how, words in (
    ({'size': 'small'}, '(size tiny and not small)'),
    ({'topology': 'v5e:2x2'}, '(kind v5e-4x4 and not v5e-2x2)'),
  ):
    assert compile_for(out, **how) == 2
    assert words in capsys.readouterr().err
  # A GPU of another kind has the same name of its topology.
  before['machine']['device'] = 'TPU v9 x16'
  out.write_text(json.dumps(before))
  assert compile_for(out) == 2
  assert 'device TPU v9 x16 and not TPU v5 lite x16' in capsys.readouterr().err
  assert table.read(out) == before


def test_all_files_are_looked_at_before_anything_is_compiled(tmp_path, monkeypatch, capsys):
  monkeypatch.setattr(slices, 'check', lambda name: None)
  monkeypatch.setattr(dry_run, 'compile_all', pytest.fail)
  (tmp_path / 'x-v5e-2x2.json').write_text('{}')
  assert compile_for(tmp_path / 'x.json', 'v5e:4x4,v5e:2x2') == 2
  assert 'x-v5e-2x2.json' in capsys.readouterr().err
  assert compile_for(tmp_path / 'x.md') == 2
  assert 'ends in .json' in capsys.readouterr().err


def test_a_target_belongs_to_its_sizes(compiler, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  for size in ('tiny', 'base'):
    out = tmp_path / f'{size}.json'
    compile_for(out, only='train', size=size)
    rows = {row['name']: row for row in table.read(out)['benches']['train']['rows']}
    row = rows['prune_transform, off mask steps']
    assert row['target'] == ('<= 1.01' if size == 'base' else '')
    assert (row['ok'] is None) == ('no target at tiny' in row['detail']) == (size == 'tiny')


@pytest.mark.parametrize(
  'argv, words',
  [
    (['--topology=v9:1'], ['--topology=v9:1', 'expected']),
    (['--topology=cpu', '--only=kill'], ['--only=kill', 'population']),
    (['--topology=cpu', '--times=3'], ['--times']),
    (['somewhere', '--topology=cpu'], ['--topology', 'somewhere']),
  ],
)
def test_wrong_input(argv, words, capsys):
  assert command.main(['bench', *argv]) == 2
  line = capsys.readouterr().err.strip()
  assert '\n' not in line and all(word in line for word in words), line


def test_a_mask_update_is_built_for_given_devices():
  request = compiled.MaskUpdate('uniform, fp32', 'tiny', 'uniform', 'fp32')
  step = compiled.step(request, jax.devices()[:1])
  plain, _ = hlo.cost(hlo.parse(step.lower(1).compile().as_text()))
  weights = sum(rows * columns for rows, columns in sizes.shapes('tiny').values())
  # One read at least, and the search as often as it is said to read.
  assert hlo.ROUNDS * weights <= plain.bytes and plain.guessed >= 1


def test_members_are_those_of_the_measured_bench():
  request = compiled._members('packaged', 40)
  assert len(request.streams) == 40 and len(set(request.streams)) == 1
  assert programs.runs(compiled._members('BERT-mini', 1)) == 1
