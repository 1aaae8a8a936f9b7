"""Several workers on one sweep: each cell is run once, by somebody, after what it starts from."""

import itertools
import json
import os
import random
import subprocess
import sys
import threading
from typing import NamedTuple

import pytest
import tiny_runs

from experiments.gordon2020 import plan, presets
from experiments.gordon2020 import study as gordon
from experiments.gordon2020.analysis import probes
from prunejax import __main__ as command
from prunejax.data import corpus, wordpiece
from prunejax.report import ledger
from prunejax.sweep import dependencies, grid, identity, population, study, workers
from prunejax.train import inputs, loop, recipe, resume


class Distill(NamedTuple):
  teacher: str = ''


class Config(NamedTuple):
  steps: int
  init: str = ''
  distill: Distill = Distill()


class Cell(NamedTuple):
  config: Config
  parent: str | None = None


def drawn(seed):
  """A random forest of cells, parents first."""
  rng = random.Random(seed)
  cells = []
  for i in range(rng.randrange(1, 30)):
    parent, teacher = (
      f'k{rng.randrange(i)}' if i and rng.random() < share else None for share in (0.5, 0.2)
    )
    taught = Distill(f'cell:{teacher}' if teacher else 'nano')
    cells.append(
      Cell(Config(rng.randrange(1, 1000), f'cell:{parent}' if parent else '', taught), parent)
    )
  return cells, [f'k{i}' for i in range(len(cells))]


@pytest.mark.parametrize('seed, count', list(itertools.product(range(20), (1, 2, 3, 7, 40))))
def test_every_cell_is_one_workers_with_all_it_starts_from(seed, count):
  cells, keys = drawn(seed)
  cells = [
    cell._replace(config=cell.config._replace(steps=cell.config.steps * 1000 + i))
    for i, cell in enumerate(cells)
  ]  # all different
  shares = [workers.share(cells, keys, (i, count)) for i in range(count)]
  assert sorted(itertools.chain(*shares)) == sorted(cells) and sum(map(len, shares)) == len(cells)
  for share in shares:
    assert share == [cell for cell in cells if cell in share]  # in the grid's order
  trunk = workers.trunk(cells, keys)
  for index, share in enumerate(shares):
    names = [keys[cells.index(cell)] for cell in share]
    awaited = workers.awaited(cells, keys, (index, count))
    for i, cell in enumerate(share):
      for key, name in dependencies.reads(cell):
        assert key in names[:i] or name in awaited and index and key in trunk
    assert count == 1 or trunk <= set(names) or index
    assert not awaited or index


@pytest.mark.parametrize('count', (2, 3, 5))
def test_a_model_that_most_of_a_grid_starts_from_does_not_leave_workers_idle(count):
  cells = plan.plan(presets.minilm_glue(), {})
  shares = [grid.share(cells, (i, count)) for i in range(count)]
  first = shares[0].pop(0)
  assert first.labels['stage'] == 'born' and sum(map(len, shares)) == len(cells) - 1
  loads = [sum(cell.config.steps for cell in share) for share in shares]
  assert max(loads) < 1.2 * sum(loads) / count
  waits = [grid.awaited(cells, (i, count)) for i in range(count)]
  assert waits == [set()] + (count - 1) * [{f'cell:{grid.key(first)}'}]


@pytest.mark.parametrize('failed', (False, True))
def test_a_share_begins_when_what_it_starts_from_is_there(failed, tmp_path, monkeypatch):
  said, slept = [], []

  def sleep(seconds):
    slept.append(seconds)
    if len(slept) == 2:  # the row comes after the model
      model = tmp_path / 'cells' / 'abc' / 'model' / 'config.json'
      model.parent.mkdir(parents=True)
      if not failed:
        model.write_text('{}')
    if len(slept) == 3:
      row = {'cell': 'abc', 'time': '', **({'failed': 'not finite'} if failed else {})}
      ledger.append(tmp_path / 'ledger.jsonl', row)

  monkeypatch.setattr(grid.time, 'sleep', sleep)
  grid._wait_for({'cell:abc'}, tmp_path, said.append)
  assert slept == 3 * [grid.POLL]
  assert said == ['waiting for cell abc, which worker 0 runs: this share starts from it']


def test_a_share_that_is_done_waits_for_nothing(tmp_path, monkeypatch):
  monkeypatch.setattr(grid, '_made', lambda name, folder: pytest.fail('it waits'))
  labels = {'stage': 'finetune', 'arm': 'a', 'sparsity': 0.0, 'seed': 0}
  cell = grid.Cell(labels, tiny_runs.config(init='cell:abc'))
  row = {'cell': grid.key(cell), 'time': '', 'metrics': {}, **labels}
  ledger.append(tmp_path / 'ledger.jsonl', row)
  how = {'experiment': 'e', 'preset': 'p', 'awaited': {'cell:abc'}, 'say': lambda line: None}
  assert grid.run([cell], tmp_path, **how) == [row]


def test_a_missing_model_that_others_read_is_made_again(tmp_path):
  labels = {'stage': 'pretrain', 'arm': 'a', 'sparsity': 0.0, 'seed': 0}
  teacher = grid.Cell(labels, tiny_runs.config())
  reader = grid.Cell(labels, tiny_runs.config(seed=1, init=f'cell:{grid.key(teacher)}'))
  every = [teacher, reader]
  others = grid.others(every, [teacher])
  assert others == [reader]
  row = {'cell': grid.key(teacher), 'time': '', 'metrics': {}, 'steps': 1, **labels}
  ledger.append(tmp_path / 'ledger.jsonl', row)
  said = []
  how = {'experiment': 'e', 'preset': 'p', 'say': said.append}
  assert grid.run([teacher], tmp_path, **how) == [row]  # nobody needs its model
  grid.run([teacher], tmp_path, others=others, **how)
  assert (tmp_path / 'cells' / grid.key(teacher) / 'model' / 'config.json').exists()
  assert any('1 of the done run again' in line for line in said)


def test_the_steps_are_spread():
  cells = [Cell(Config(steps)) for steps in (9, 1, 1, 5, 4, 4, 3, 3)]
  loads = [
    sum(c.config.steps for c in workers.share(cells, list(range(8)), (i, 3))) for i in range(3)
  ]
  assert sorted(loads) == [9, 10, 11]
  # In a paper's grid each arm is a family for itself at each sparsity and seed.
  whole = gordon.cells('quick', {})
  shares = [grid.share(whole, (i, 4)) for i in range(4)]
  loads = [sum(cell.config.steps for cell in share) for share in shares]
  assert sum(map(len, shares)) == len(whole) and max(loads) < 1.5 * sum(loads) / 4
  assert presets.PRESETS['quick']().seeds


SLURM = {'SLURM_ARRAY_TASK_ID': '7', 'SLURM_ARRAY_TASK_MIN': '1', 'SLURM_ARRAY_TASK_STEP': '2'}


@pytest.mark.parametrize(
  'said, environ, place',
  [
    ({}, {}, (0, 1)),
    ({'workers': 1}, {}, (0, 1)),
    ({'worker': 2, 'workers': 3}, {}, (2, 3)),
    ({}, {**SLURM, 'SLURM_ARRAY_TASK_COUNT': '4'}, (3, 4)),
    ({}, {'SLURM_ARRAY_TASK_ID': '2', 'SLURM_ARRAY_TASK_COUNT': '4'}, (2, 4)),
    ({'workers': 9}, SLURM, (3, 9)),
    ({'worker': 0, 'workers': 2}, {**SLURM, 'SLURM_ARRAY_TASK_COUNT': '4'}, (0, 2)),
    ({'workers': 5}, {'JOB_COMPLETION_INDEX': '4'}, (4, 5)),
    ({'joined': True}, {'JOB_COMPLETION_INDEX': '4'}, (0, 1)),  # of the hosts that train as one
    ({'joined': True, 'worker': 1, 'workers': 2}, {'JOB_COMPLETION_INDEX': '4'}, (1, 2)),
  ],
)
def test_where_a_worker_is(said, environ, place):
  assert workers.place(**said, environ=environ) == place


@pytest.mark.parametrize(
  'said, environ, words',
  [
    ({'worker': 3, 'workers': 3}, {}, '--worker=3 of 3 workers: expected --worker=I --workers=N'),
    ({'worker': -1, 'workers': 3}, {}, '--worker=-1 of 3'),
    ({'worker': 0, 'workers': 0}, {}, '--worker=0 of 0'),
    ({'workers': 0}, {}, '--workers=0, but which'),
    ({'workers': 3}, {}, '--workers=3, but which of them'),
    ({'worker': 3}, {}, '--worker=3, but of how many'),
    ({}, {'JOB_COMPLETION_INDEX': '2'}, 'JOB_COMPLETION_INDEX=2, but of how many'),
    (
      {},
      {'SLURM_ARRAY_TASK_ID': 'x', 'SLURM_ARRAY_TASK_COUNT': '4'},
      "SLURM_ARRAY_TASK_ID='x' is no whole number",
    ),
    ({}, {'SLURM_ARRAY_TASK_ID': '9', 'SLURM_ARRAY_TASK_COUNT': '4'}, 'SLURM_ARRAY_TASK_ID=9 of 4'),
  ],
)
def test_a_worker_that_cannot_be_is_one_line(said, environ, words):
  with pytest.raises(ValueError) as error:
    workers.place(**said, environ=environ)
  assert words in str(error.value) and '\n' not in str(error.value)


def test_the_command_refuses_before_anything_is_written(tmp_path, capsys):
  for argv in (
    ['sweep', '--config=configs/sparsity.py'],
    ['reproduce', 'gordon2020', '--preset=smoke'],
  ):
    assert command.main([*argv, f'--workdir={tmp_path}/out', '--worker=2', '--workers=2']) == 2
    assert '--worker=2 of 2 workers' in capsys.readouterr().err
  assert not (tmp_path / 'out').exists()


@pytest.mark.slow
def test_real_processes_run_each_cell_once(tmp_path):
  shared = tiny_runs.overrides(checkpoint__every=0, steps=4, keep_model=False)
  (tmp_path / 'mine.py').write_text(f"""
from configs import base
from prunejax.train import configs

def get_config(arg):
  return configs.override(base.get_config(), {shared!r})

def sweep():
  return [{{'seed': seed}} for seed in range(6)]
""")
  argv = [
    sys.executable,
    '-m',
    'prunejax',
    'sweep',
    f'--config={tmp_path}/mine.py',
    f'--workdir={tmp_path}/sweep',
  ]
  environment = {**os.environ, 'PYTHONPATH': str(tiny_runs.ROOT), 'JAX_PLATFORMS': 'cpu'}
  environment['XLA_FLAGS'] = tiny_runs.QUICK_COMPILE
  places = (
    (['--worker=0', '--workers=2'], {}),
    ([], {'SLURM_ARRAY_TASK_ID': '2', 'SLURM_ARRAY_TASK_COUNT': '2'}),
  )
  places[1][1]['SLURM_ARRAY_TASK_MIN'] = '1'
  start = lambda flags, more: subprocess.Popen(
    [*argv, *flags],
    env={**environment, **more},
    cwd=tiny_runs.ROOT,
    stdout=subprocess.PIPE,
    text=True,
  )
  jobs = [start(*place) for place in places]
  said = [job.communicate(timeout=300)[0] for job in jobs]
  assert [job.returncode for job in jobs] == [0, 0]
  lines = [
    json.loads(line) for line in (tmp_path / 'sweep' / 'ledger.jsonl').read_text().splitlines()
  ]
  assert (
    sorted(row['seed'] for row in lines) == list(range(6))
    and len({row['cell'] for row in lines}) == 6
  )
  assert all(text.count('[') >= 3 and '3 cells, 0 done, 3 left' in text for text in said)
  assert len(ledger.read(tmp_path / 'sweep' / 'ledger.jsonl')) == 6


def test_workers_that_start_together_share_one_cache(tmp_path, monkeypatch):
  tiny_runs.write_text(tmp_path / 'text', documents=9)
  start, honest, got = threading.Barrier(6), corpus._encode, []

  def encode(*args):
    made = honest(*args)
    start.wait()  # all have found nothing there, and all have made it
    return made

  def work():
    tokenizer = inputs.trained('text', 90, tmp_path, tmp_path / 'cache')
    start.wait()
    part = corpus.load('text', 'train', tokenizer, root=tmp_path, cache=tmp_path / 'cache')
    got.append((wordpiece.pieces(tokenizer), part))

  monkeypatch.setattr(corpus, '_encode', encode)
  threads = [threading.Thread(target=work) for _ in range(6)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert len(got) == 6 and all(pieces == got[0][0] for pieces, _ in got)
  assert all((a == b).all() for _, part in got for a, b in zip(part, got[0][1], strict=True))
  assert [len(list((tmp_path / 'cache' / room).iterdir())) for room in ('vocab', 'tokens')] == [
    1,
    1,
  ]


def test_the_last_worker_writes_the_report(tmp_path, monkeypatch):
  whole = gordon.cells('smoke', {**identity.CONTENT, **identity.PACKAGED})
  ran, lines = [], []

  def runs(cells, folder, **_):
    for cell in cells:
      ran.append(grid.key(cell))
      ledger.append(folder / 'ledger.jsonl', {'cell': grid.key(cell), 'time': ''})

  monkeypatch.setattr(grid, 'run', runs)
  measured = []
  monkeypatch.setattr(probes, 'measure', lambda cells, folder, **_: measured.append(len(cells)))
  monkeypatch.setattr(study, 'write_report', lambda study, folder, say: 'the report')
  written = [
    gordon.reproduce('smoke', tmp_path / 'w', worker=(i, 3), say=lines.append) for i in (2, 0, 1)
  ]
  assert measured == [len(whole)], 'models are measured once, by the last one, for all'
  assert written == [None, None, 'the report'] and sorted(ran) == sorted(
    grid.key(cell) for cell in whole
  )
  assert len(lines) == 2 and 'cells are left to other workers' in lines[0]


def test_a_worker_goes_on_with_its_own_waves_and_removes_those_that_are_done(tmp_path):
  """Of a wave that workers divided, the part that was begun later counts."""
  labels = {'stage': 'pretrain', 'arm': 'a', 'sparsity': 0.0, 'seed': 0}
  cell = grid.Cell(labels, tiny_runs.config())
  key, done = grid.key(cell), {'x': {}, 'y': {}}
  one = recipe.resolve(cell.config)

  def begun(*members):
    home = resume.home_of(tmp_path, members)
    home.mkdir(parents=True)
    plan = {'members': list(members), 'width': len(members), 'streams': 1}
    (home / 'config.json').write_text(json.dumps(plan))
    return home.name

  run = loop.Run(key, '', one, tmp_path, None, None, None)
  found = lambda: list(population.groups({key: cell}, {key: one}, done, tmp_path, lambda k: run))
  over, foreign = begun('x', 'y'), begun(key, 'z')
  assert found() == [(key, None)]
  assert set(resume.under_way(tmp_path)) == {foreign}  # `over` is removed
  whole = begun(key, 'x')
  assert [how['resumes'] for _, how in found()] == [{key: whole}]
  part = begun(key)
  assert [how['resumes'] for _, how in found()] == [{key: part}]
  assert over not in resume.under_way(tmp_path)
