"""Every verb x wrong input: one line on stderr, exit status 2, nothing written."""

import json
import pathlib

import pytest
import tiny_runs

from prunejax import __main__ as command
from prunejax.cli.command import VERBS

# {out}: a folder that must not appear; {none}: a path with nothing there; {run}: a finished run;
# {text}: a text file; {other}, {ledger}: ledgers of two papers. The line must hold the words.
CONFIG = '--config=configs/base.py'
CASES = {
  '': [
    ('', ['train,sweep,reproduce,report,predict,export,evaluate,prune,bench', 'prunejax --help']),
    ('trian', ['trian', 'train']),
    ('--verson', ['train,sweep']),
  ],
  'train': [
    ('--workdir={out}', ['--config', 'train --help']),
    (CONFIG, ['train needs --workdir=FOLDER']),
    ('--config=configs/bse.py --workdir={out}', ["did you mean 'configs/base.py'"]),
    ('--config=configs/nano.py:big --workdir={out}', ['configs/nano.py:big', 'anneal']),
    ('--config={none}/c.py --workdir={out}', ['/c.py', 'no such file']),
    ('--config={text} --workdir={out}', ['text.txt', 'a Python file']),
    ('--config={empty} --workdir={out}', ['empty.py', 'no get_config(arg)']),
    (f'{CONFIG} --workdir={{out}} --config.stepz=1', ['stepz', "did you mean 'steps'"]),
    (f'{CONFIG} --workdir={{out}} --config.steps=many', ["steps='many'", 'a whole number']),
    (f'{CONFIG} --workdir={{out}} --config.model=3', ["'model' is a group of"]),
    (
      f'{CONFIG} --workdir={{out}} --config.prune.weights.schedule=cubik(0.9)',
      ['prune.weights.schedule', "did you mean 'cubic'"],
    ),
    (f'{CONFIG} --workdir={{out}} --steps=5', ['--steps=5', '--config.key=value']),
    (f'{CONFIG} --workdir={{out}} --config.steps 5', ["'--config.steps'"]),
    (f'{CONFIG} --workdir={{out}} extra', ["'extra'"]),
    (f'{CONFIG} --workdir={{out}} --distributed=here', ['--distributed=here', 'HOST:PORT']),
    (f'{CONFIG} --workdir={{out}} --distributed=localhost:1,2,2', ['process 2 of 2']),
    (f'{CONFIG} --workdir={{text}}', ['text.txt', 'is a file']),
    (f'{CONFIG} --workdir={{text}}/run', ['text.txt', 'is a file']),
    (f'{CONFIG} --dry-run --topology=v9e:2x2', ['v9e:2x2', 'v5e']),
  ],
  'sweep': [
    ('--config=configs/sparsity.py --dry-run --topology=v9e:2x2', ['v9e:2x2', 'v5e']),
    (f'{CONFIG} --workdir={{out}}', ['configs/base.py', 'no sweep()']),
    ('--workdir={out}', ['--config', 'sweep --help']),
    ('--config=configs/sparsity.py', ['sweep needs --workdir']),
    ('--config=configs/sparsity.py --workdir={out} --worker=1', ['--worker=1', '--workers=N']),
    ('--config=configs/sparsity.py --workdir={out} --workers=2', ['--workers=2', '--worker=I']),
    ('--config=configs/sparsity.py --workdir={out} --worker=2 --workers=2', ['from 0 to N - 1']),
    ('--config=configs/sparsity.py --workdir={out} --worker=one', ['--worker', "'one'"]),
    ('--config=configs/sparsity.py --workdir={out} --workers=two', ['--workers', "'two'"]),
    ('--config=configs/sparsity.py --workdir={out} --config.stepz=1', ["did you mean 'steps'"]),
    ('--config=configs/sparsity.py --workdir={out} --one-by-one=2', ['--one-by-one']),
    ('--config=configs/methods.py --workdir={out} --config.steps=9', ['sweep()', 'steps of every']),
    ('--config=configs/sparsity.py --dry-run --topology=cpu --out={out}.json', ['.json', 'in .md']),
    ('--config=configs/sparsity.py --dry-run --topology=cpu --out={out}', ['--out=', 'in .md']),
  ],
  'reproduce': [
    ('', ['paper', 'reproduce --help']),
    ('gordon2021', ['gordon2021', "did you mean 'gordon2020'"]),
    ('gordon2020 --dry-run --topology=v9e:2x2', ['v9e:2x2', 'v5e']),
    ('gordon2020 --preset=quik --workdir={out}', ['quik', "did you mean 'quick'"]),
    ('bytes --preset=quik --workdir={out}', ['quik', "did you mean 'quick'"]),
    ('gordon2020 --workdir={out} --config.stepz=3', ['stepz', "did you mean 'steps'"]),
    ('gordon2020 --workdir={out} --tasks=glue/colla', ["did you mean 'glue/cola'"]),
    ('gordon2020 --workdir={out} --sparsities=half', ['--sparsities', "'half'", 'numbers']),
    ('gordon2020 --workdir={out} --sparsities=1.5', ['--sparsities', '1.5']),
    ('gordon2020 --workdir={out} --seeds=0.5', ['--seeds', "'0.5'", 'whole numbers']),
    ('gordon2020 --workdir={out} --rates=fast', ['--rates', "'fast'"]),
    ('gordon2020 --workdir={out} --arms=papr', ['--arms', "did you mean 'paper'"]),
    ('gordon2020 --workdir={out} --scale=big', ['--scale', "'big'"]),
    ('gordon2020 --workdir={out} --scale=-1', ['--scale=-1', 'above 0']),
    ('gordon2020 --workdir={out} --reuse={none}', ['--reuse', 'no finished cell']),
    ('gordon2020 --workdir={out} --worker=3', ['--worker=3']),
    ('gordon2020 --workdir={out} --workers=two', ['--workers', "'two'"]),
    ('gordon2020 --workdir={out} --distributed=here', ['--distributed=here']),
  ],
  'report': [
    ('', ['one or two', 'got 0']),
    ('a b c', ['one or two', 'got 3']),
    ('--workdir={none}', ['holds no grid']),
    ('{run}', ['holds no grid']),
    ('--ledger={ledger}', ['ledger.jsonl', '--out=FOLDER']),
    ('{none}.jsonl --out={out}', ['none.jsonl', 'no ledger there']),
    ('{ledger} {other} --out={out}', ["'a paper'", "'another paper'", 'nothing to compare']),
    ('{ledger} --out={out}', ["no experiment 'a paper'"]),
    ('{ledger} --config.steps=3', ['--config.steps=3', 'report --help']),
  ],
  'predict': [
    ('', ['RUN', 'predict --help']),
    ('{run}', ['--out']),
    ('{none} --out={out}', ['none', 'holds no run']),
    ('{run} --out={out}', ['no run on a task of GLUE', "data.task is ''"]),
    ('{run} --out={out} --config.steps=3', ['--config.steps=3']),
  ],
  'export': [
    ('--workdir={none} --out={out}', ['none', 'holds no run']),
    ('{none} --out={out}', ['none', 'holds no run', 'Hugging Face']),
    ('--workdir={none}', ['--out']),
    ('--out={out}', ['RUN', '--workdir']),
    ('{run} --workdir={run} --out={out}', ['one of them']),
    ('{run} --out={out} --dtype=float8', ['float8', 'bfloat16']),
    ('{run} --out={out} --to=onx', ["did you mean 'onnx'"]),
    ('{run} --out={text} --to=sparse', ['text.txt']),
    ('{run} --out={out} --config.steps=3', ['--config.steps=3']),
  ],
  'evaluate': [
    ('{none}', ['--on', 'evaluate --help']),
    ('{none} --on=text:{text}', ['{none}']),
    ('{run} --on=glue', ["'glue'"]),
    ('{none} --on=text:{text} --window=a', ['--window', "'a'"]),
    ('{none} --on=text:{text} --stride=a', ['--stride', "'a'"]),
    ('{none} --on=text:{text} --windows=a', ['--windows', "'a'"]),
  ],
  'prune': [
    ('{none}', ['--out', 'prune --help']),
    ('{none} --out={out}', ['{none}']),
    ('{none} --out={out} --sparsity=half', ['--sparsity', "'half'"]),
    ('{none} --out={out} --segments=a', ['--segments', "'a'"]),
    ('{none} --out={out} --length=a', ['--length', "'a'"]),
    ('{none} --out={out} --seed=a', ['--seed', "'a'"]),
    ('{none} --out={out} --batch=a', ['--batch', "'a'"]),
    ('{none} --out={out} --devices=a', ['--devices', "'a'"]),
  ],
  'bench': [
    ('--only=selektion', ["did you mean 'selection'"]),
    ('--size=bas', ["did you mean 'base'"]),
    ('--only=train --topology=v9e:2x2', ['v9e:2x2', 'v5e']),
    ('--times=many', ["'many'"]),
    ('--only=kill --times=0', ['--times=0', 'at least 1']),
    ('--rounds=3', ['bench RUN']),
    ('--length=3', ['bench RUN']),
    ('--batches=a', ['--batches', "'a'", 'whole numbers']),
    ('{none}', ['holds no run']),
    ('{run} --only=train', ['takes no --only']),
    ('--compare {none}', ['none', 'no file']),
    ('--only=compile --out={text}', ['text.txt', 'in .json']),
    ('--compare {none} --only=train', ['takes no --only']),
    ('--times=3', ['--times=3', '--only=kill']),
    ('{run} --size=base', ['takes no --size']),
    ('--config.steps=3', ['--config.steps=3']),
  ],
}


@pytest.fixture(scope='module')
def places(tmp_path_factory):
  folder = tmp_path_factory.mktemp('wrong')
  for name, paper in (('ledger', 'a paper'), ('other', 'another paper')):
    row = {'stage': 'pretrain', 'arm': 'dense', 'sparsity': 0.0, 'seed': 0, 'metrics': {}}
    (folder / f'{name}.jsonl').write_text(json.dumps({'experiment': paper, 'cell': 'c', **row}))
  (folder / 'text.txt').write_text('{"a": 1}')
  (folder / 'empty.py').write_text('')
  return folder, {
    'out': folder / 'out',
    'none': folder / 'none',
    'text': folder / 'text.txt',
    'empty': folder / 'empty.py',
    'ledger': folder / 'ledger.jsonl',
    'other': folder / 'other.jsonl',
    'run': tiny_runs.finished('pruned').folder,
  }


@pytest.mark.parametrize(
  'verb, text, words',
  [(verb, text, words) for verb, cases in CASES.items() for text, words in cases],
)
def test_wrong_input_is_one_line_and_writes_nothing(
  verb, text, words, places, monkeypatch, tmp_path, capsys
):
  folder, names = places
  monkeypatch.chdir(tmp_path)  # where the default of --out would lie
  before = _contents(folder)
  argv = [word.format(**names) for word in [verb, *text.split()] if word]
  assert command.main(argv) == 2
  captured = capsys.readouterr()
  line = captured.err.strip()
  assert captured.out == '' and '\n' not in line and line.startswith('prunejax: '), captured
  for word in words:
    assert word.format(**names) in line, line
  assert _contents(folder) == before and not list(tmp_path.iterdir())


def test_every_verb_has_wrong_input():
  assert set(CASES) == {'', *VERBS}
  # Every option whose value can be wrong by itself.
  for verb, cases in CASES.items():
    if verb:
      sub = command.parser()._subparsers._group_actions[0].choices[verb]
      typed = [action.option_strings[0] for action in sub._actions if action.type]
      tried = ' '.join(text for text, _ in cases)
      assert not [name for name in typed if f'{name}=' not in tried], verb


def _contents(folder: pathlib.Path):
  return {path: path.stat().st_mtime_ns for path in folder.rglob('*')}
