"""The command `prune`: a folder in, a text, a folder out; wrong input is one line."""

import json
import shutil

import numpy as np
import pytest
import safetensors.numpy
import transformers
from tokenizers import Tokenizer, models

from prunejax.cli import command as cli
from prunejax.data import bpe
from prunejax.models.hf import gpt2 as gpt2_hf
from prunejax.models.hf import stored_masks
from prunejax.oneshot import command
from prunejax.pruning.paths import named_leaves
from prunejax.train import families

WORDS = 'the quick brown fox jumps over the lazy dog while a small decoder reads every line of it'


@pytest.fixture(scope='module')
def there(tmp_path_factory):
  """A folder with a model and its vocabulary, and one with a text."""
  root = tmp_path_factory.mktemp('there')
  rng = np.random.default_rng(0)
  lines = [' '.join(rng.permutation(WORDS.split())) for _ in range(40)]
  (root / 'text').mkdir()
  (root / 'text' / 'a.txt').write_text('\n'.join(lines))
  (root / 'short.txt').write_text('too short')
  tokenizer = bpe.train(lines, 280)
  size = transformers.GPT2Config(
    vocab_size=tokenizer.get_vocab_size(),
    n_positions=16,
    n_embd=16,
    n_layer=2,
    n_head=2,
    n_inner=32,
  )
  params = _random(size)
  gpt2_hf.save(root / 'model', params, size, vocab=bpe.parts(tokenizer))
  return root


def _random(size):
  import jax

  from prunejax.models import gpt2

  ids = np.zeros((1, 4), np.int32)
  params = gpt2.Gpt2(size, initializer='fan_in').init(jax.random.key(0), ids, ids, ids >= 0)
  return jax.tree.map(np.asarray, params['params'])


def run(there, out, **options):
  given = {
    'criterion': 'sparsegpt()',
    'sparsity': 0.5,
    'calibration': there / 'text',
    'segments': 4,
    'length': 16,
    'out': out,
    **options,
  }
  given['where'] = given.pop('kernels', None)
  words = [f'--{name}={value}' for name, value in given.items() if value is not None]
  return cli.main(['prune', str(there / 'model'), *words])


def test_the_folder_holds_the_model_its_masks_and_what_was_done(there, tmp_path, capsys):
  assert run(there, tmp_path / 'out', structure='n_m(2, 4)') == 0
  assert 'block 2/2  sparsity 0.5000' in capsys.readouterr().out
  params, size = gpt2_hf.load(tmp_path / 'out')
  leaves, masks = named_leaves(params), stored_masks.read(tmp_path / 'out')
  assert len(masks) == 12 and all(name.endswith('kernel') for name in masks)
  for name, mask in masks.items():
    assert mask.shape == leaves[name].shape and not leaves[name][~mask].any()
    assert (mask.reshape(-1, 4, mask.shape[1]).sum(1) == 2).all()
  report = json.loads((tmp_path / 'out' / 'pruning.json').read_text())
  assert report['removed'] * 2 == report['weights'] == sum(m.size for m in masks.values())
  assert report['calibration'] == {'segments': 4, 'length': 16, 'seed': 0}
  assert sorted(p.name for p in tmp_path.iterdir()) == ['out']
  dense = named_leaves(gpt2_hf.load(there / 'model')[0])
  assert np.array_equal(leaves['embeddings/word/embedding'], dense['embeddings/word/embedding'])


def test_magnitude_needs_no_text_and_a_narrower_model_loads(there, tmp_path):
  assert run(there, tmp_path / 'a', criterion='magnitude()', calibration=None) == 0
  unsaid = {'criterion': None, 'sparsity': None}
  narrow = {**unsaid, 'criterion': 'wanda()', 'smaller': 'ffn_width(20)'}
  assert run(there, tmp_path / 'b', **narrow) == 0
  assert gpt2_hf.load(tmp_path / 'b')[1].n_inner == 20
  report = json.loads((tmp_path / 'b' / 'pruning.json').read_text())
  assert 'structure' not in report  # `smaller` decides it
  assert run(there, tmp_path / 'c', **unsaid, smaller="drop_blocks(1, by='perplexity')") == 0
  assert gpt2_hf.load(tmp_path / 'c')[1].n_layer == 1
  report = json.loads((tmp_path / 'c' / 'pruning.json').read_text())
  assert 'criterion' not in report and len(report['dropped']) == 1
  assert not (tmp_path / 'c' / 'masks.safetensors').exists()


def test_a_killed_command_goes_on_and_writes_the_same_bytes(there, tmp_path, monkeypatch):
  assert run(there, tmp_path / 'whole') == 0
  said = command.console.say

  def kill(line):
    said(line)
    if line.startswith('block 1/'):
      raise KeyboardInterrupt

  kwargs = dict(calibration=str(there / 'text'), segments=4, length=16)
  with pytest.raises(KeyboardInterrupt):
    command.prune(str(there / 'model'), str(tmp_path / 'out'), say=kill, **kwargs)
  assert not (tmp_path / 'out').exists()
  lines = []
  command.prune(str(there / 'model'), str(tmp_path / 'out'), say=lines.append, **kwargs)
  assert '1 of 2 blocks are pruned already' in lines
  for name in ('model.safetensors', 'masks.safetensors', 'config.json'):
    assert (tmp_path / 'out' / name).read_bytes() == (tmp_path / 'whole' / name).read_bytes()


def test_dropping_blocks_leaves_the_blocks_of_an_interrupted_command_alone(there, tmp_path, capsys):
  def kill(line):
    if line.startswith('block 1/'):
      raise KeyboardInterrupt

  given = dict(calibration=str(there / 'text'), segments=4, length=16)
  with pytest.raises(KeyboardInterrupt):
    command.prune(str(there / 'model'), str(tmp_path / 'out'), say=kill, **given)
  unsaid = {'criterion': None, 'sparsity': None}
  assert run(there, tmp_path / 'out', **unsaid, smaller='drop_blocks(1)') == 2
  assert 'holds an unfinished pruning with other settings' in capsys.readouterr().err
  lines = []
  command.prune(str(there / 'model'), str(tmp_path / 'out'), say=lines.append, **given)
  assert '1 of 2 blocks are pruned already' in lines


def test_a_pruned_model_is_pruned_on_and_exported_with_its_masks(there, tmp_path, capsys):
  def again(source, out, sparsity, *more):
    options = [
      f'--out={tmp_path / out}',
      '--criterion=magnitude()',
      f'--sparsity={sparsity}',
      *more,
    ]
    assert cli.main(['prune', str(source), *options]) == 0
    return stored_masks.read(tmp_path / out)

  half = again(there / 'model', 'half', 0.5)
  less, more = again(tmp_path / 'half', 'less', 0.3), again(tmp_path / 'half', 'more', 0.75)
  for name, mask in half.items():
    assert np.array_equal(less[name], mask)  # nothing is revived
    assert not (more[name] & ~mask).any() and abs(more[name].mean() - 0.25) < 0.01
  part = again(tmp_path / 'half', 'part', 0.75, '--where=encoder/layer_0/.*')
  for name, mask in half.items():  # masks of what --where leaves out are kept
    assert np.array_equal(part[name], more[name] if 'layer_0' in name else mask)
  for smaller, kept in (('ffn_width(20)', 20), ('drop_blocks(1)', 32)):
    options = [f'--calibration={there / "text"}', '--segments=4', '--length=16']
    options += [f'--smaller={smaller}', f'--out={tmp_path / smaller}']
    assert cli.main(['prune', str(tmp_path / 'half'), *options]) == 0
    leaves, masks = gpt2_hf.load(tmp_path / smaller)[0], stored_masks.read(tmp_path / smaller)
    for name, mask in masks.items():
      assert mask.shape == named_leaves(leaves)[name].shape
      assert not named_leaves(leaves)[name][~mask].any()
    assert masks['encoder/layer_0/ffn/output/kernel'].shape == (kept, 16)

  capsys.readouterr()
  assert cli.main(['export', str(tmp_path / 'half'), f'--out={tmp_path / "exported"}']) == 0
  for name in (stored_masks.NAME, stored_masks.RECORD):
    assert (tmp_path / 'exported' / name).read_bytes() == (tmp_path / 'half' / name).read_bytes()
  sparse = [f'--out={tmp_path / "half.sparse"}', '--to=sparse']
  assert cli.main(['export', str(tmp_path / 'half'), *sparse]) == 0
  assert 'masks.safetensors is left out' in capsys.readouterr().out
  masks = tmp_path / 'half' / stored_masks.NAME
  masks.write_bytes(masks.read_bytes()[:100])
  given = [f'--out={tmp_path / "not"}', '--criterion=magnitude()']
  assert cli.main(['prune', str(tmp_path / 'half'), *given]) == 2
  assert 'is damaged or no file of masks' in capsys.readouterr().err


ALONE = {'criterion': None, 'sparsity': None}  # options that --smaller decides
WRONG = {
  'a text that is too short': ({'calibration': 'short.txt'}, 'expected 4; give a longer text'),
  'n:m that does not divide': ({'structure': 'n_m(2, 5)'}, 'n_m(2, 5): 5 does not divide'),
  'too much for the structure': (
    {'structure': 'n_m(2, 4)', 'sparsity': 0.6},
    '--sparsity=0.6 is outside of what n_m(2, 4) can remove, [0, 0.5]',
  ),
  'a folder that is there': ({'out': 'text'}, 'is there already: nothing was written'),
  'no text': ({'calibration': None}, '--criterion=sparsegpt() reads activations: give'),
  'no such text': ({'calibration': 'nowhere'}, 'nowhere'),
  'too long': ({'length': 17}, '--length=17: the model has 16 positions'),
  'a criterion that needs gradients': ({'criterion': 'movement()'}, 'this criterion needs grad'),
  'an unknown criterion': ({'criterion': 'sparsgpt()'}, "did you mean 'sparsegpt'?"),
  'a batch': ({'batch': 3}, '--batch=3: expected a power of two'),
  'a seed': ({'seed': -1}, '--seed=-1: expected at least 0'),
  'no output': ({'out': ''}, '--out= is empty'),
  'a regex': ({'kernels': '('}, "--where='(' is not a regular expression"),
  'an encoding': ({'encoding': 'utf-9'}, "encoding='utf-9': expected a text encoding"),
  'a recovery without a text': (
    {'criterion': 'magnitude()', 'recover': 'reconstruct(5)', 'calibration': None},
    '--recover=reconstruct(5) reads activations: give',
  ),
  'the type of an argument': ({'criterion': "random('a')"}, "seed='a': expected a number"),
  'the seed of a recovery': ({'recover': 'reconstruct(5, seed=-1)'}, 'seed=-1 must be'),
  'what dropping blocks decides': (
    {**ALONE, 'smaller': 'drop_blocks(1)', 'recover': 'reconstruct(5)'},
    '--recover=reconstruct(5) has no meaning with --smaller=drop_blocks(1)',
  ),
  'what a width decides': (
    {**ALONE, 'smaller': 'ffn_width(20)', 'shares': 'owl()'},
    '--shares=owl() has no meaning with',
  ),
  'perplexity of one token': (
    {**ALONE, 'smaller': "drop_blocks(1, by='perplexity')", 'length': 1},
    '--length=1: expected at least 2',
  ),
  'shares at the most of a structure': (
    {'structure': 'n_m(2, 4)', 'criterion': 'wanda()', 'shares': 'owl()'},
    'prunes some blocks more than sparsity=0.5',
  ),
  'an object store': ({**ALONE, 'out': 'gs://b/out'}, "--out='gs://b/out': expected a folder of"),
  'devices without use': (
    {**ALONE, 'smaller': 'drop_blocks(1)', 'devices': 1},
    '--devices=1 has no meaning with --smaller=drop_blocks(1)',
  ),
  'devices': ({'devices': 99}, '--devices=99: there are'),
  'shares': ({'shares': 'owl(spread=2)'}, 'owl: spread=2 must be in [0, 0.5]'),
  'heads of GPT-2': ({**ALONE, 'smaller': 'kv_groups(1)'}, 'has no num_key_value_heads'),
}


@pytest.mark.parametrize('name', WRONG)
def test_wrong_input_is_one_line_and_nothing_is_written(name, there, tmp_path, capsys):
  options, message = WRONG[name]
  options = dict(options)
  for key in ('calibration', 'out'):
    if options.get(key) and '://' not in options[key]:
      options[key] = there / options[key]
  before = sorted(tmp_path.iterdir())
  assert run(there, options.pop('out', tmp_path / 'out'), **options) == 2
  error = capsys.readouterr().err
  assert message in error and len(error.splitlines()) == 1
  assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
  ('checksums', 'message'), [(True, 'checksums.json'), (False, 'holds NaN or infinite numbers in')]
)
def test_weights_that_are_damaged_are_one_line_and_nothing_is_written(
  checksums, message, there, tmp_path, capsys
):
  shutil.copytree(there / 'model', tmp_path / 'model')
  weights = tmp_path / 'model' / 'model.safetensors'
  tensors = safetensors.numpy.load_file(weights)
  tensors['transformer.h.1.mlp.c_fc.weight'][3, 4] = np.nan
  safetensors.numpy.save_file(tensors, weights)
  if not checksums:
    (tmp_path / 'model' / 'checksums.json').unlink()
  given = [
    '--criterion=sparsegpt()',
    f'--calibration={there / "text"}',
    '--segments=4',
    '--length=16',
  ]
  assert cli.main(['prune', str(tmp_path / 'model'), f'--out={tmp_path / "out"}', *given]) == 2
  error = capsys.readouterr().err
  assert message in error and error.count('\n') == 1
  assert [path.name for path in tmp_path.iterdir()] == ['model']


@pytest.mark.parametrize('how', ['another weight', 'the same weights', 'while it is written'])
def test_a_model_that_changes_while_it_is_pruned_is_refused(how, there, tmp_path, monkeypatch):
  shutil.copytree(there / 'model', tmp_path / 'model')
  weights, save = tmp_path / 'model' / 'model.safetensors', families.save

  def change():
    tensors = safetensors.numpy.load_file(weights)
    tensors['transformer.wte.weight'][0] += how != 'the same weights'
    safetensors.numpy.save_file(tensors, weights)

  def say(line):
    if line.startswith('block 1/') and how != 'while it is written':
      change()

  def save_later(*given, **more):
    if how == 'while it is written':
      change()
    return save(*given, **more)

  monkeypatch.setattr(families, 'save', save_later)
  prune = lambda: command.prune(
    str(tmp_path / 'model'),
    str(tmp_path / 'out'),
    say=say,
    calibration=str(there / 'text'),
    segments=4,
    length=16,
  )
  if how == 'the same weights':
    prune()
  else:
    with pytest.raises(
      ValueError, match=r'model. was changed while it was pruned: remove .*unfini'
    ):
      prune()
  assert (tmp_path / 'out').exists() == (how == 'the same weights')


def test_a_vocabulary_that_does_not_fit_is_refused():
  from prunejax.oneshot import calibration

  tokenizer = bpe.train([WORDS], 270)
  with pytest.raises(ValueError, match='the vocabulary has 270 pieces, the word embeddings'):
    calibration.of_text([WORDS], tokenizer, 100, count=1, length=4)


@pytest.mark.parametrize('token', bpe.ENDS)
def test_documents_are_told_apart_by_the_end_that_the_vocabulary_has(token):
  from prunejax.oneshot import calibration

  tokenizer = Tokenizer(models.BPE({'a': 0, 'b': 1, token: 2}, []))
  drawn = calibration.of_text(['aaa', 'bbb'] * 4, tokenizer, 3, count=2, length=8)
  assert (drawn == 2).sum() == 4


def test_segments_do_not_overlap_and_depend_on_the_seed():
  from prunejax.oneshot import calibration

  documents = [[10 * i + j for j in range(7)] for i in range(30)]
  encode = lambda texts: [documents[int(text)] for text in texts]
  draw = lambda seed: calibration.segments(
    map(str, range(30)), encode, count=5, length=8, end=-1, seed=seed
  )
  whole = np.array([x for document in documents for x in (*document, -1)])
  rows = {tuple(row) for row in whole[: len(whole) // 8 * 8].reshape(-1, 8)}
  first = draw(0)
  assert first.shape == (5, 8) and len({tuple(row) for row in first}) == 5
  assert {tuple(row) for row in first} <= rows
  assert np.array_equal(first, draw(0)) and not np.array_equal(first, draw(1))
