"""The bench command: the benches it runs, the verdicts, and the files it writes."""

import json
import pathlib
import threading

import jax
import pytest

from prunejax import __main__ as command
from prunejax.bench import (
  measure,
  names,
  population_speed,
  scaling,
  sizes,
  suite,
  table,
  train_step,
)
from prunejax.bench import results as result_files
from prunejax.sweep import population
from prunejax.train import sharding

BENCHES = pathlib.Path(__file__).parents[2] / 'experiments' / 'bench'


def output_of(capsys, argv, status=0):
  assert command.main(argv) == status
  captured = capsys.readouterr()
  return (captured.err if status else captured.out).strip()


@pytest.mark.parametrize(
  'value, target, ok',
  [
    (5, '<= 5', True),
    (5.01, '<= 5', False),
    (150, '>= 150', True),
    (149, '>= 150', False),
    (10, '< 10', False),
    (9.99, '< 10', True),
    (1, '== 1', True),
    (2, '== 1', False),
    (1.1, '<= 1.10', True),
    (0.5, '> 0.5', False),
  ],
)
def test_targets(value, target, ok):
  assert measure.row('x', value, 's', target)['ok'] is ok


def test_rows_without_a_verdict():
  assert measure.row('x', 5, 's')['ok'] is None
  assert measure.row('x', None, 's', '<= 5')['ok'] is None
  assert measure.row('x', 50, 'ms', '<= 10', where=False)['ok'] is None
  with pytest.raises(ValueError, match="'about 5'"):
    measure.row('x', 5, 's', 'about 5')


def test_rounds_are_interleaved_and_ratios_pair_them():
  order = []
  times = measure.interleaved(
    {name: lambda name=name: order.append(name) for name in 'abc'}, rounds=3
  )
  assert (
    ''.join(order) == 'abc' + 'abc' + 'bca' + 'cab'
  )  # a warm-up, then each round starts one later
  assert all(len(t.rounds) == 3 for t in times.values())
  a, b = measure.Times((1.0, 10.0, 3.0)), measure.Times((2.0, 20.0, 1.0))
  assert measure.ratio(a, b) == 0.5 and a.median == 3.0
  assert str(a) == '3 s (1 s to 10 s, 3 rounds)'


def test_a_target_belongs_to_its_sizes():
  row = measure.row('x', 9, 'reads', '<= 5', 'how it was')
  assert measure.at_size(row, 'base', ('base',)) == row and row['ok'] is False
  other = measure.at_size(row, 'small', ('base', 'large'))
  assert other == row | {
    'target': '',
    'ok': None,
    'detail': 'no target at small (base, large: <= 5); how it was',
  }
  bare = measure.row('x', 9, 'reads')
  assert measure.at_size(bare, 'small', ('base',)) == bare


@pytest.mark.parametrize('size', ['tiny', 'small', 'base', 'large'])
def test_a_bench_is_judged_at_the_size_of_its_targets(size, fakes, tmp_path, capsys):
  out = tmp_path / 'x.json'
  output_of(capsys, ['bench', f'--size={size}', '--only=good,kill', f'--out={out}'])
  results = json.loads(out.read_text())
  good = results['benches']['good']['rows']
  text = out.with_suffix('.md').read_text()
  if size == 'base':
    assert [row['ok'] for row in good] == [True, False] and 'MISS' in text
    assert table.verdict(results) == '2 of 3 targets met; missed: 1 in good'
  else:
    assert [row['ok'] for row in good] == [None, None] and 'MISS' not in text
    assert text.count(f'no target at {size} (base: <= 5)') == 2
    assert table.verdict(results) == '1 of 1 targets met'
  results['benches'].pop('kill')
  if size != 'base':
    assert table.verdict(results) == 'no row has a target'


def test_compare_puts_sizes_side_by_side(fakes, tmp_path, capsys):
  paths = []
  for size in ('small', 'base'):
    paths.append(str(tmp_path / f'{size}.json'))
    output_of(capsys, ['bench', f'--size={size}', '--only=good', f'--out={paths[-1]}'])
  lines = output_of(capsys, ['bench', '--compare', *paths]).splitlines()
  assert '| good: slow | reads | <= 5 | 9 | 9 MISS |' in lines
  assert len([line for line in lines if 'slow' in line]) == 1


def test_the_sizes_of_targets_are_sizes():
  for bench in suite.BENCHES.values():
    assert set(getattr(bench, 'TARGET_SIZES', ('base',))) <= set(sizes.SIZES)


class Fake:
  """A bench that yields the given rows and raises the exceptions among them."""

  def __init__(self, *rows, target_sizes=('base',)):
    self.rows, self.TARGET_SIZES = rows, target_sizes

  def run(self, size, say, **options):
    for row in self.rows:
      if isinstance(row, Exception):
        raise row
      yield row


@pytest.fixture
def fakes(monkeypatch):
  good = Fake(
    measure.row('fast', 2, 'reads', '<= 5', 'how | it was'), measure.row('slow', 9, 'reads', '<= 5')
  )
  broken = Fake(measure.row('before', 1, 's'), MemoryError('too large'))
  kill = Fake(measure.row('hours', 1, 'h', '<= 2'), target_sizes=tuple(sizes.SIZES))
  monkeypatch.setattr(names, 'NAMES', ('good', 'broken', 'kill'))
  monkeypatch.setattr(suite, 'BENCHES', {'good': good, 'broken': broken, 'kill': kill})


def test_the_whole_command(fakes, tmp_path, capsys):
  out = tmp_path / 'deep' / 'x.json'
  line = output_of(capsys, ['bench', '--size=base', f'--out={out}'], 2)
  assert line == 'prunejax: bench broken failed: MemoryError: too large'
  results = json.loads(out.read_text())
  assert list(results['benches']) == ['good', 'broken']  # the kill bench runs only by name
  assert (
    results['machine']['versions']['jax']
    and results['machine']['kind']
    and str(tmp_path) not in out.read_text()
  )
  assert [r['ok'] for r in results['benches']['good']['rows']] == [True, False]
  assert [r['value'] for r in results['benches']['broken']['rows']] == [1.0, None]
  assert table.verdict(results) == '1 of 2 targets met; missed: 1 in good'
  text = out.with_suffix('.md').read_text()
  assert (
    'how \\| it was' in text and '| slow | 9 reads | <= 5 | MISS |' in text and 'too large' in text
  )

  # Another bench writes to the same file; the rows in it stay.
  shown = output_of(capsys, ['bench', '--size=base', '--only=kill', f'--out={out}'])
  assert 'hours: 1 h' in shown and list(json.loads(out.read_text())['benches']) == [
    'good',
    'broken',
    'kill',
  ]
  line = output_of(capsys, ['bench', '--size=small', '--only=kill', f'--out={out}'], 2)
  assert 'x.json' in line and '(size base and not small)' in line
  # Each bench has its commit, so a file outlives a version of this package, but of no other one.
  saved = json.loads(out.read_text())
  saved['machine']['versions']['prunejax'] = '0.0.1'
  out.write_text(json.dumps(saved))
  assert 'hours: 1 h' in output_of(capsys, ['bench', '--only=kill', f'--out={out}'])
  saved['machine']['versions']['jax'] = '0.0.1'
  out.write_text(json.dumps(saved))
  line = output_of(capsys, ['bench', '--only=kill', f'--out={out}'], 2)
  assert '(jax 0.0.1 and not' in line

  results['machine']['kind'] = 'gpu-x1'
  results['benches'].pop('broken')
  (tmp_path / 'gpu.json').write_text(json.dumps(results))
  shown = output_of(capsys, ['bench', '--compare', str(out), str(tmp_path / 'gpu.json')])
  assert 'gpu-x1, base' in shown and '| good: slow | reads | <= 5 | 9 MISS | 9 MISS |' in shown
  assert '| broken: before | s |  | 1 |  |' in shown


def test_a_row_is_kept_as_it_comes(fakes, tmp_path, monkeypatch):
  class Stop(BaseException):
    pass

  suite.BENCHES['good'].rows = (measure.row('first', 1, 's'), Stop())
  monkeypatch.setattr(Fake, 'run', lambda self, size, say, **options: _until_stop(self.rows))
  with pytest.raises(Stop):
    suite.run(['good'], 'tiny', out=tmp_path / 'x.json', say=lambda line: None)
  assert table.read(tmp_path / 'x.json')['benches']['good']['rows'][0]['name'] == 'first'


def saved(path):
  """({bench: names of its rows} of a file, the same of what is unfinished), and of its table."""
  results = table.read(path)
  names_of = lambda parts: {name: [r['name'] for r in part['rows']] for name, part in parts.items()}
  return names_of(results['benches']), names_of(results.get('unfinished', {}))


def test_rows_of_a_bench_stay_until_it_is_whole_anew(fakes, tmp_path, monkeypatch):
  class Stop(BaseException):
    pass

  out = tmp_path / 'x.json'
  run = lambda: suite.run(['good'], 'tiny', out=out, say=lambda line: None)
  monkeypatch.setattr(Fake, 'run', lambda self, size, say, **options: _until_stop(self.rows))
  first, second = measure.row('first', 1, 's'), measure.row('second', 2, 's')

  suite.BENCHES['good'].rows = (first, Stop())  # nothing is there yet: its rows are all there is
  with pytest.raises(Stop):
    run()
  assert saved(out) == ({'good': ['first']}, {})
  assert '## good, unfinished' in out.with_suffix('.md').read_text()
  suite.BENCHES['good'].rows = (first, second)
  run()
  assert saved(out) == ({'good': ['first', 'second']}, {})
  assert 'unfinished' not in out.read_text() + out.with_suffix('.md').read_text()

  for end, error in ((Stop(), Stop), (OSError('no'), ValueError)):
    suite.BENCHES['good'].rows = (measure.row('new', 3, 's'), end)
    with pytest.raises(error):
      run()
    benches, unfinished = saved(out)
    assert benches == {'good': ['first', 'second']} and unfinished['good'][0] == 'new'
    for text in (out.with_suffix('.md').read_text(), table.text(table.read(out))):
      assert 'good, unfinished' in text and 'second' in text and 'new' in text
  suite.BENCHES['good'].rows = (measure.row('new', 3, 's'),)
  run()
  assert saved(out) == ({'good': ['new']}, {})


def test_a_later_row_takes_the_place_of_one_of_the_same_name(fakes, tmp_path):
  out = tmp_path / 'x.json'
  rows = [measure.row(name, value, 's') for name, value in (('a', 1), ('b', 2), ('a', 3))]
  suite.BENCHES['good'].rows = rows
  found = suite.run(['good'], 'tiny', out=out, say=lambda line: None)['benches']['good']['rows']
  assert [(row['name'], row['value']) for row in found] == [('a', 3), ('b', 2)]


def test_a_part_says_when_where_and_how_it_was_measured(fakes, tmp_path, monkeypatch):
  monkeypatch.setattr(result_files, 'commit', lambda: 'abc123+')
  out = tmp_path / 'x.json'
  suite.run(['good', 'kill'], 'base', times=3, out=out, say=lambda line: None)
  parts = table.read(out)['benches']
  assert [part['command'].rpartition(' ')[2] for part in parts.values()] == [
    '--size=base',
    '--times=3',
  ]
  assert out.with_suffix('.md').read_text().count(', commit abc123+\n') == 2
  with pytest.raises(ValueError, match='ends in .json'):
    suite.run(['good'], out=tmp_path / 'x.md')


@pytest.mark.parametrize('path', sorted(BENCHES.rglob('*.json')), ids=lambda path: path.stem)
def test_committed_tables_are_those_of_their_results(path):
  assert path.with_suffix('.md').read_text() == table.markdown(table.read(path))


def test_steps_that_are_compared_take_one_device(monkeypatch):
  class Made(Exception):
    pass

  def make_mesh(*shape, devices=None):
    raise Made(len(jax.devices() if devices is None else devices))

  monkeypatch.setattr(jax, 'devices', lambda *_, devices=jax.devices: [devices()[0]] * 2)
  monkeypatch.setattr(sharding, 'make_mesh', make_mesh)
  with pytest.raises(Made, match='1'):
    train_step.stepping(*train_step.ours('tiny'), None)


def test_members_train_in_as_many_threads_as_in_a_grid(monkeypatch):
  monkeypatch.setattr(population, 'waves_at_a_time', lambda recipe, alone: 2)
  used, step_of = set(), population_speed._wave

  def wave(*args):
    step = step_of(*args)

    def stepped(*how):
      used.add(threading.current_thread().name)
      barrier.wait(60)  # both are at work at once
      return step(*how)

    return stepped

  barrier = threading.Barrier(2)
  monkeypatch.setattr(population_speed, '_wave', wave)
  cells = [
    population_speed._cell(sizes.bert('tiny'), 'map', sparsity, 1e-4) for sparsity in (0, 0.5, 0.9)
  ]
  stepped, engine, members, at_a_time = population_speed._together(cells)
  assert (members, at_a_time, engine.width) == (3, 2, 2) and len(used) == 2
  assert len(stepped(engine.turn)) == 2


def _until_stop(rows):
  for row in rows:
    if isinstance(row, BaseException):
      raise row
    yield row


@pytest.mark.parametrize(
  'argv, words',
  [
    (['--only=selektion'], ["--only=selektion (did you mean 'selection'?)", 'expected some of']),
    (['--size=bas'], ["--size=bas (did you mean 'base'?)", 'large']),
    (['--compare', '{}/none.json'], ['none.json', 'python -m prunejax bench --out']),
    (['--compare', '{}/other.json'], ['other.json', 'no results']),
    (['--only=selection', '--out={}/other.json'], ['other.json', 'no results']),
    (['--only=selection', '--out={}/x.md'], ['--out=', 'x.md', 'ends in .json']),
    (['--only=selection', '--out={}/x'], ['--out=', 'ends in .json']),
    (['--compare', '{}/other.json', '--size=base'], ['--compare', 'takes no --size']),
    (['--compare', '{}/other.json', '--only=a', '--out={}/x.json'], ['takes no --only, --out']),
    (['--compare', '{}/other.json', '--rounds=3', '--times=3'], ['takes no --rounds, --times']),
    (['{}', '--compare', '{}/other.json'], ['--compare', 'takes no RUN']),
    (['--times=3'], ['--times=3', '--only=kill']),
    (['--only=selection,data', '--times=3'], ['--times=3', '--only=kill']),
    (['--times=many'], ['many']),
    (['--config.steps=3'], ['--config.steps=3']),
  ],
)
def test_a_bad_command_is_one_line(argv, words, tmp_path, capsys):
  (tmp_path / 'other.json').write_text('{"a": 1}')
  line = output_of(capsys, ['bench', *(word.replace('{}', str(tmp_path)) for word in argv)], 2)
  assert '\n' not in line and line.startswith('prunejax: ')
  for word in words:
    assert word in line, line
  assert [p.name for p in tmp_path.iterdir()] == ['other.json']


@pytest.fixture
def compiled_quickly():
  """The bench yields figures; their values do not matter here."""
  jax.config.update('jax_disable_most_optimizations', True)
  yield
  jax.config.update('jax_disable_most_optimizations', False)


@pytest.mark.slow
@pytest.mark.parametrize('name', [name for name in suite.BENCHES if name not in names.BY_NAME_ONLY])
def test_every_bench_runs_at_a_tiny_size(name, tmp_path, compiled_quickly):
  results = suite.run([name], 'tiny', out=tmp_path / 'x.json', say=lambda line: None)
  rows = results['benches'][name]['rows']
  assert rows and all(row['value'] is not None for row in rows), rows
  assert len({row['name'] for row in rows}) == len(rows)


def test_the_plot_of_scaling():
  times = measure.Times((0.001, 0.002, 0.0015))
  curves = {name: {2**20: times, 2**24: times} for name in ('uniform', 'global', 'one read')}
  assert scaling.draw(curves, 'a machine')[:8] == b'\x89PNG\r\n\x1a\n'


def test_flatness_is_judged_in_reads_beyond_the_cache():
  times = lambda seconds: measure.Times((seconds,) * 3)
  read = {2**20: times(1e-3), 2**24: times(1e-2), 2**26: times(4e-2)}
  ours = {
    2**20: times(1.0),
    2**24: times(4e-2),
    2**26: times(24e-2),
  }  # 4 and 6 reads; the smallest does not count
  [row] = scaling._flat({'uniform': ours, 'one read': read})
  assert row['value'] == pytest.approx(1.5) and row['name'].startswith('uniform')
  assert '4.0 to 6.0 reads' in row['detail']
  assert list(scaling._flat({'uniform': {2**20: times(1.0)}, 'one read': read})) == []
