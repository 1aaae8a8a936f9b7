"""Wrong input through the command line: one line, an exit status, nothing half done."""

import errno
import io
import json
import tarfile

import jax
import numpy as np
import pytest
import tiny_runs

from prunejax import __main__ as command
from prunejax.train import loop, program, workdir


def refused(capsys, argv, *words):
  """Runs a command that must fail: the one line that it says."""
  status = command.main(argv)
  captured = capsys.readouterr()
  assert status == 2, captured
  lines = captured.err.strip().splitlines()
  assert len(lines) == 1 and lines[0].startswith('prunejax: '), captured.err
  assert 'Traceback' not in captured.err and len(lines[0]) < 3000
  for word in words:
    assert word in lines[0], lines[0]
  return lines[0]


@pytest.fixture
def nothing_compiled(monkeypatch, capsys):
  """Fails the test when a step, a draw or a gradient is compiled or run."""
  tiny_runs.finished('pruned')  # what tests here start from
  capsys.readouterr()  # what the run and its imports said is not the command's

  def never(*args, **kwargs):
    pytest.fail('something was computed before the input was refused')

  monkeypatch.setattr(program, 'initial_state', never)
  monkeypatch.setattr(loop, 'train_members', never)
  monkeypatch.setattr(jax.stages.Lowered, 'compile', never)


PRUNE = 'prune.weights.'
GLUE = {'data__task': 'glue/cola'}
TABLE = {
  'a misspelt key': (
    {'optimizer.learnin_rate': 1},
    ["did you mean 'optimizer.learning_rate'", 'learnin_rate'],
  ),
  'a misspelt group': (
    {'prune.weigths.schedule': 1},
    ['prune.weigths', "did you mean 'prune.weights'"],
  ),
  'a group': ({'optimizer': 1}, ["'optimizer' is a group of b1"]),
  'a word for a number': ({'steps': 'many'}, ["steps='many'", 'a whole number']),
  'half a step': ({'steps': 1.5}, ['steps=1.5', 'a whole number']),
  'a number for a bool': ({'hold_zeros': 1}, ["hold_zeros='1'", 'true or false']),
  'no steps': ({'steps': 0}, ['steps=0']),
  'a negative seed': ({'seed': -1}, ['seed=-1', 'at least 0']),
  'an empty batch': ({'batch_size': 0}, ['batch_size=0']),
  'no evaluation': ({'eval.batches': 0}, ['eval.batches=0', 'at least 1']),
  'dropout': ({'model.dropout': 1.5}, ['model.dropout=1.5', '[0, 1)']),
  'a view': ({'view': 'aply'}, ["view='aply'", "did you mean 'apply'", 'straight_through']),
  'a dtype': ({'model.dtype': 'float64'}, ["model.dtype='float64'", 'bfloat16']),
  'an initializer': ({'model.initializer': 'zeros'}, ["model.initializer='zeros'", 'fan_in']),
  'heads': ({'model.num_attention_heads': 3}, ['hidden_size=16', 'num_attention_heads=3']),
  'sparsity of one': (
    {PRUNE + 'schedule': 'cubic(1.0, end=5)'},
    ['prune.weights.schedule', 'sparsity=1.0', '[0, 1)'],
  ),
  'sparsity below zero': (
    {PRUNE + 'schedule': 'constant(-0.5)'},
    ['prune.weights.schedule', '-0.5', '[0, 1)'],
  ),
  'a percentage': ({PRUNE + 'schedule': 'constant(90)'}, ['prune.weights.schedule', '90 % is 0.9']),
  'begin after end': (
    {PRUNE + 'schedule': 'cubic(0.5, 9, 5)'},
    ['prune.weights.schedule', 'begin=9', 'end=5'],
  ),
  'a method': ({PRUNE + 'schedule': 'cubik(0.5)'}, ["did you mean 'cubic'", 'constant']),
  'an argument': ({PRUNE + 'criterion': 'magnitude(p=1)'}, ['prune.weights.criterion', "'p'"]),
  'a learning rate for an optimizer': (
    {PRUNE + 'criterion': 'movement(1e-2)'},
    ['prune.weights.criterion', 'tx=0.01', 'learning_rate='],
  ),
  'a word for an optimizer': (
    {PRUNE + 'criterion': 'soft_movement(0.1, tx="adam")'},
    ['prune.weights.criterion', "tx='adam'"],
  ),
  'a regex of no leaf': (
    {PRUNE + 'schedule': 'constant(0.5)', PRUNE + 'where': 'encoder/layer_7/.*'},
    ['prune.weights: ', 'encoder/layer_7/.*', 'matches no'],
  ),
  'a leaf that nothing goes into': (
    {
      PRUNE + 'schedule': 'one_shot(0.5, at=0)',
      PRUNE + 'when': 'every(1, until=0)',
      PRUNE + 'criterion': 'wanda()',
    },
    ['prune.weights: wanda()', "'embeddings/word/embedding'", 'where='],
  ),
  'a broken regex': ({PRUNE + 'where': '['}, ["prune.weights.where='['", 'regular expression']),
  'n:m that does not divide': (
    {PRUNE + 'schedule': 'constant(0.4)', PRUNE + 'structure': 'n_m(3, 5)'},
    ['n_m(3, 5)', 'embeddings/word/embedding'],
  ),
  'n:m the wrong way round': (
    {PRUNE + 'schedule': 'constant(0.4)', PRUNE + 'structure': 'n_m(4, 2)'},
    ['n_m(4, 2)'],
  ),
  'nothing to hold': ({'hold_zeros': 'true', PRUNE + 'where': 'nobody'}, ['nobody', 'matches no']),
  'latent weights without a view': (
    {PRUNE + 'schedule': 'constant(0.4)', PRUNE + 'zero_pruned': 'false'},
    ['zero_pruned=False', 'view=apply'],
  ),
  'a text folder': ({'data.corpus': 'txet'}, ['no text folder', 'txet']),
  'no root': ({'data.root': ''}, ["data.corpus='text'", 'data.root=FOLDER']),
  'a corpus': ({'data.corpus': 'text*x'}, ["data.corpus='text*x'"]),
  'a short sequence': ({'data.seq_len': 7}, ['data.seq_len=7']),
  'a long sequence': ({'data.seq_len': 99}, ['data.seq_len=99', '16 positions']),
  'a share of tokens': ({'data.predict': 1.5}, ['data.predict=1.5']),
  'a vocabulary file': ({'data.vocab': '/nowhere/vocab.txt'}, ['/nowhere/vocab.txt']),
  'a task': ({'data.task': 'glue/colla'}, ['glue/colla', "'glue/cola'"]),
  'a task without a folder': ({'data.task': 'glue/rte'}, ['glue/RTE']),
  'a model folder': ({'init': '/nowhere/bert'}, ['/nowhere/bert']),
  'a mesh': ({'mesh.data': 64}, ['mesh.data=64', 'devices']),
  'a mesh axis': ({'mesh.rules': "(('.*/kernel', (None, 'pipe')),)"}, ['mesh.rules', "'pipe'"]),
}


@pytest.mark.parametrize('what', TABLE)
def test_refused_before_anything_is_compiled_or_written(what, tmp_path, capsys, nothing_compiled):
  changes, words = TABLE[what]
  argv = tiny_runs.argv('train', tmp_path / 'run') + [
    f'--config.{k}={v}' for k, v in changes.items()
  ]
  refused(capsys, argv, *words)
  assert not (tmp_path / 'run').exists()


def test_an_empty_data_folder(tmp_path, capsys, nothing_compiled):
  (tmp_path / 'text').mkdir()
  argv = tiny_runs.argv('train', tmp_path / 'run', data__root=tmp_path)
  refused(capsys, argv, str(tmp_path / 'text'), 'holds no text')
  assert not (tmp_path / 'run').exists()


def test_a_damaged_archive_in_the_data_folder(tmp_path, capsys, nothing_compiled):
  (tmp_path / 'text').mkdir()
  buffer = io.BytesIO()
  with tarfile.open(fileobj=buffer, mode='w:xz') as archive:
    info = tarfile.TarInfo('../evil')
    info.size = 5000
    archive.addfile(info, io.BytesIO(np.random.default_rng(0).bytes(5000)))
  (tmp_path / 'text' / 'a.tar.xz').write_bytes(buffer.getvalue()[:3000])
  argv = tiny_runs.argv(
    'train', tmp_path / 'run', data__root=tmp_path, data__cache=tmp_path / 'cache'
  )
  refused(capsys, argv, str(tmp_path / 'text' / 'a.tar.xz'), 'not a readable archive')
  assert not list(tmp_path.rglob('evil*'))


@pytest.mark.parametrize(
  'broken, words',
  [
    ('made\t1\tonly three\n', ['train.tsv', 'line 49']),
    ('made\t7\t\tba deni foru.\n', ['train.tsv', 'line 49', "'7'"]),
  ],
)
def test_a_broken_row_and_a_strange_label_name_file_and_line(
  tmp_path, capsys, nothing_compiled, broken, words
):
  tiny_runs.write_glue(tmp_path)
  vocab = tiny_runs.finished('pruned').folder / 'model' / 'vocab.txt'
  with open(tmp_path / 'glue' / 'CoLA' / 'train.tsv', 'a') as stream:
    stream.write(broken)
  argv = tiny_runs.argv('train', tmp_path / 'run', data__root=tmp_path, data__vocab=vocab, **GLUE)
  refused(capsys, argv, *words)
  assert not (tmp_path / 'run').exists()


def model_copy(folder, **size):
  """The shared model in a folder as a stranger's, without checksums, its config.json changed."""
  folder.mkdir()
  for path in (tiny_runs.finished('pruned').folder / 'model').iterdir():
    (folder / path.name).write_bytes(path.read_bytes())
  (folder / 'checksums.json').unlink()
  config = json.loads((folder / 'config.json').read_text())
  (folder / 'config.json').write_text(json.dumps({**config, **size}))
  return folder


def test_a_vocabulary_that_does_not_fit_the_model(tmp_path, capsys, nothing_compiled):
  folder = model_copy(tmp_path / 'model')
  vocab = tmp_path / 'short.txt'
  vocab.write_text('\n'.join((folder / 'vocab.txt').read_text().split('\n')[:60]) + '\n')
  argv = tiny_runs.argv('train', tmp_path / 'run', init=folder, data__vocab=vocab)
  refused(capsys, argv, str(vocab), '60 pieces')
  assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize(
  'size, words',
  [
    ({'num_hidden_layers': 2}, ['bert.encoder.layer.1']),
    ({'hidden_size': 32}, ['32', '16']),
    ({'model_type': 'electra'}, ['electra']),
    ({'hidden_size': 'wide'}, ['config.json']),
  ],
)
def test_a_checkpoint_of_another_model(tmp_path, capsys, nothing_compiled, size, words):
  folder = model_copy(tmp_path / 'model', **size)
  refused(capsys, tiny_runs.argv('train', tmp_path / 'run', init=folder), str(folder), *words)
  assert not (tmp_path / 'run').exists()


def test_weights_that_are_no_weights(tmp_path, capsys, nothing_compiled):
  folder = model_copy(tmp_path / 'model')
  (folder / 'model.safetensors').write_bytes(b'\0' * 99)
  refused(
    capsys, tiny_runs.argv('train', tmp_path / 'run', init=folder), 'model.safetensors', 'damaged'
  )
  assert not (tmp_path / 'run').exists()


def test_a_work_directory_of_another_config(capsys, nothing_compiled):
  run = tiny_runs.finished('pruned')
  before = {p: p.stat().st_mtime_ns for p in run.folder.rglob('*')}
  argv = tiny_runs.argv('train', run.folder, seed=5)
  refused(capsys, argv, str(run.folder), 'belongs to another config', 'seed', 'nothing was written')
  assert {p: p.stat().st_mtime_ns for p in run.folder.rglob('*')} == before


def test_a_work_directory_that_cannot_be_written(tmp_path, capsys):
  (tmp_path / 'file').write_text('in the way')
  for folder in (tmp_path / 'file', tmp_path / 'file' / 'below'):
    words = [str(folder), 'cannot be made', f'{str(tmp_path / "file")!r} is a file']
    refused(capsys, tiny_runs.argv('train', folder), *words)
  assert (tmp_path / 'file').read_text() == 'in the way'


@pytest.mark.parametrize('number', [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_disk_that_refuses_the_first_file(tmp_path, capsys, monkeypatch, number):
  def refuse(where, data):
    raise OSError(number, errno.errorcode[number], str(where))

  monkeypatch.setattr(workdir.files, 'create', refuse)
  words = [str(tmp_path / 'run'), 'cannot write to the work directory', errno.errorcode[number]]
  refused(capsys, tiny_runs.argv('train', tmp_path / 'run'), *words)


def test_a_disk_that_fills_up_while_training(tmp_path, capsys, monkeypatch):
  """The first rows fit, a later one does not; with room again the run goes on."""
  from prunejax.train import metrics_log

  tiny_runs.finished('pruned')
  honest = metrics_log.Log.write

  def full(self, step, kind, values):
    if step > 6:
      raise OSError(errno.ENOSPC, 'No space left on device', 'metrics.jsonl')
    honest(self, step, kind, values)

  argv = tiny_runs.argv('train', tmp_path / 'run') + [
    f'--config.{k}={v}' for k, v in tiny_runs.PRUNED.items()
  ]
  monkeypatch.setattr(metrics_log.Log, 'write', full)
  refused(capsys, argv, 'No space left on device', 'metrics.jsonl')
  monkeypatch.undo()
  assert command.main(argv) == 0
  assert tiny_runs.same_weights(tmp_path / 'run', tiny_runs.finished('pruned').folder)


def test_a_loss_that_is_not_finite(tmp_path, capsys):
  tiny_runs.finished('pruned')
  argv = tiny_runs.argv('train', tmp_path / 'run', optimizer__learning_rate=1e30)
  argv += [f'--config.{k}={v}' for k, v in tiny_runs.PRUNED.items()]
  line = refused(capsys, argv, 'not finite at step', 'optimizer.learning_rate')
  assert int(line.split('at step ')[1].split(';')[0]) in (2, 3)
  assert (
    not (tmp_path / 'run' / 'result.json').exists() and not (tmp_path / 'run' / 'model').exists()
  )


def test_too_little_memory_is_one_line(tmp_path, capsys, monkeypatch):
  def fail(error):
    def members(*args, **kwargs):
      raise error

    monkeypatch.setattr(loop, 'train_members', members)
    return tiny_runs.argv('train', tmp_path / 'run')

  full = 'RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.\nmore'
  for error in (jax.errors.JaxRuntimeError(full), MemoryError()):
    refused(capsys, fail(error), 'out of memory', 'batch_size')
  with pytest.raises(jax.errors.JaxRuntimeError, match='a defect'):
    command.main(fail(jax.errors.JaxRuntimeError('INTERNAL: a defect')))
