"""Shared code of the papers on translation: data, models, training and decoding."""

import functools
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.translation import corpus, decoding, task, training
from prunejax.models import seq2seq, transformer_nmt
from prunejax.pruning.paths import named_leaves

MODELS = {
  'lstm': seq2seq.Seq2Seq(30, 8, 2),
  'feeding': seq2seq.Seq2Seq(30, 8, 1, feeding=True),
  'pre-norm': transformer_nmt.Transformer(30, 8, 1, 2, 16),
  'post-norm': transformer_nmt.Transformer(30, 8, 1, 2, 16, pre_norm=False, tied=True),
}
SOURCE = np.array([[5, 6, 7, 8, 2], [9, 10, 2, 0, 0]], np.int32)
TARGET = np.array([[1, 11, 12, 13], [1, 14, 15, 16]], np.int32)


@functools.cache
def built(name):
  """(model, params, a compiled apply of one shape)."""
  model = MODELS[name]
  shapes = jax.eval_shape(model.init, jax.random.key(3), SOURCE, TARGET)['params']
  rng = np.random.default_rng(3)
  params = jax.tree.map(lambda leaf: rng.normal(0, 0.5, leaf.shape).astype(np.float32), shapes)
  return (
    model,
    params,
    jax.jit(lambda source, target: model.apply({'params': params}, source, target)),
  )


@pytest.mark.parametrize('name', MODELS)
def test_padding_does_not_leak_and_no_decoder_looks_ahead(name):
  _, params, apply = built(name)
  scores = apply(SOURCE, TARGET)
  assert scores.shape == (2, 4, 30)
  alone = apply(SOURCE[1:, :3], TARGET[1:])
  np.testing.assert_allclose(scores[1:], alone, atol=2e-5)
  later = TARGET.copy()
  later[:, 2] = 20
  changed = apply(SOURCE, later)
  np.testing.assert_array_equal(changed[:, :2], scores[:, :2])
  assert float(jnp.abs(changed[:, 2:] - scores[:, 2:]).max()) > 1e-3
  other = SOURCE.copy()
  other[:, 0] = 21
  assert float(jnp.abs(apply(other, TARGET) - scores).max()) > 1e-4
  matrices = [
    leaf
    for path, leaf in named_leaves(params).items()
    if path.endswith(('kernel', 'below', 'before'))
  ]
  assert matrices and all(leaf.ndim == 2 for leaf in matrices)


@pytest.mark.parametrize('name', MODELS)
def test_greedy_is_the_argmax_of_the_whole_model_step_by_step(name):
  model, params, apply = built(name)
  decoded = np.asarray(decoding.greedy(model, params, SOURCE, 3))
  words = TARGET.copy()
  for t in range(3):  # the model sees no later word
    scores = np.array(apply(SOURCE, words))[:, t]
    scores[:, : corpus.EOS] = -np.inf
    best = np.where((words[:, 1 : t + 1] == corpus.EOS).any(1), corpus.PAD, scores.argmax(-1))
    np.testing.assert_array_equal(decoded[:, t], best)
    words[:, t + 1] = best


def test_lstm_is_its_equations_in_numpy():
  _, params, apply = built('feeding')
  p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
  sigmoid = lambda x: 1 / (1 + np.exp(-x))

  def cell(layer, x, c, h, fed=None):
    gates = (
      x @ layer['below']
      + h @ layer['before']
      + layer['bias']
      + (0 if fed is None else fed @ layer['feed'])
    )
    i, f, g, o = np.split(gates, 4)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return c, sigmoid(o) * np.tanh(c)

  c = h = fed = np.zeros(8)
  memory, want = [], []
  for word in SOURCE[1][:3]:
    c, h = cell(p['source']['layer_0'], p['source']['embedding']['embedding'][word], c, h)
    memory.append(h)
  for word in TARGET[1]:
    c, h = cell(p['target']['layer_0'], p['target']['embedding']['embedding'][word], c, h, fed)
    score = np.array([h @ (m @ p['attention']['score']) for m in memory])
    weight = np.exp(score) / np.exp(score).sum()
    fed = np.tanh(np.concatenate([weight @ np.array(memory), h]) @ p['attention']['output'])
    want.append(fed @ p['softmax']['kernel'] + p['softmax']['bias'])
  np.testing.assert_allclose(apply(SOURCE, TARGET)[1], want, atol=1e-5)


def test_heads_that_do_not_divide_are_refused():
  with pytest.raises(ValueError, match='hidden=8 does not split into heads=3'):
    jax.eval_shape(transformer_nmt.Transformer(30, 8, 1, 3).init, jax.random.key(0), SOURCE, TARGET)


def written(
  folder, split='train', en='a dog .\n\ntwo cats\n', de='ein hund .\nnichts\nzwei katzen\n'
):
  (folder / 'multi30k').mkdir(exist_ok=True)
  for language, text in (('en', en), ('de', de)):
    (folder / 'multi30k' / f'{split}.lc.norm.tok.{language}').write_bytes(
      text.encode('utf-8', 'surrogateescape')
    )
  return folder


def test_multi30k_leaves_out_lines_empty_on_a_side(tmp_path):
  pairs = corpus.multi30k(written(tmp_path), 'train')
  assert pairs == corpus.Pairs(['a dog .', 'two cats'], ['ein hund .', 'zwei katzen'])
  assert corpus.multi30k(tmp_path, 'train', 'de', 'en').source == ['ein hund .', 'zwei katzen']


@pytest.mark.parametrize(
  ('files', 'call', 'error', 'words'),
  [
    ({}, ('val',), FileNotFoundError, r'val\.lc\.norm\.tok\.en.*data\.root'),
    ({}, ('dev',), ValueError, "no split 'dev'; known: train, val"),
    ({}, ('train', 'en', 'en'), ValueError, "source and target are both 'en'"),
    ({}, ('train', 'en', 'fr'), FileNotFoundError, r'train\.lc\.norm\.tok\.fr'),
    (
      {'de': 'ein hund .\n'},
      ('train',),
      ValueError,
      r'train\.lc\.norm\.tok\.en 3 and train\.lc\.norm\.tok\.de 1',
    ),
    ({'en': '\n', 'de': '\n'}, ('train',), ValueError, 'no line has words in both languages'),
    ({'de': 'ein h\udcfcnd\n'}, ('train',), ValueError, r'train\.lc\.norm\.tok\.de.* is not UTF-8'),
  ],
)
def test_wrong_files_get_one_clear_error(tmp_path, files, call, error, words):
  with pytest.raises(error, match=words):
    corpus.multi30k(written(tmp_path, **files), *call)


def test_cipher_is_its_rules():
  assert corpus.encipher('the cat sees a horse .') == 'efruben rffren png .'
  assert corpus.encipher('of it') == 'vg bs'


def test_pieces_come_back_as_the_words_they_were():
  lines = ['a dog runs .', 'two dogs run , run .', 'über 12 hunde']
  tokenizer = corpus.vocabulary(lines * 3, 80)
  ids = corpus.encode(tokenizer, lines)
  rows = corpus.pad([[*row, corpus.EOS, 9] for row in ids], 40)
  assert corpus.decode(tokenizer, rows) == lines
  assert decoding.bleu(lines, lines) == pytest.approx(100)
  assert [tokenizer.token_to_id(piece) for piece in corpus.SPECIAL] == [
    corpus.PAD,
    corpus.BOS,
    corpus.EOS,
    corpus.UNK,
  ]
  with pytest.raises(ValueError, match='size=10'):
    corpus.vocabulary(lines, 10)


def test_training_gives_the_same_ids_in_every_process():
  lines = [
    'the quick brown fox jumps over the lazy dog .',
    'pack my box with five dozen jugs !',
  ] * 3
  program = f"""
from experiments.translation import corpus
tokenizer = corpus.vocabulary({lines!r}, 90)
print(sorted(tokenizer.get_vocab().items(), key=lambda item: item[1]))
print(tokenizer.encode({lines[0]!r}).ids)
"""
  run = [sys.executable, '-c', program]
  cwd = pathlib.Path(__file__).parents[2]
  outputs = [
    subprocess.run(run, capture_output=True, text=True, check=True, cwd=cwd).stdout for _ in '12'
  ]
  assert outputs[0] == outputs[1]


def test_buckets_hold_every_pair_that_fits_once():
  source, target = [[5] * n for n in (2, 3, 6, 9)], [[6] * n for n in (2, 5, 2, 2)]
  small, large = corpus.buckets(source, target, ((4, 4), (8, 8)))
  np.testing.assert_array_equal(small.source, [[5, 5, 2, 0]])
  np.testing.assert_array_equal(small.target, [[1, 6, 6, 2, 0]])
  assert large.source.shape == (2, 8) and large.target.shape == (2, 9)
  with pytest.raises(ValueError, match='4 sources and 3 targets'):
    corpus.buckets(source, target[:3], ((4, 4),))


def test_an_epoch_shows_no_pair_twice():
  rows = np.arange(50)[:, None]
  groups = list(
    corpus.epoch(
      [corpus.Batch(rows, rows), corpus.Batch(rows + 100, rows)], 3, 4, np.random.default_rng(0)
    )
  )
  seen = np.concatenate([group.source.ravel() for group in groups])
  assert len(groups) == 8 and all(group.source.shape == (4, 3, 1) for group in groups)
  assert len(set(seen.tolist())) == len(seen) == 96


def test_a_task_of_real_files_is_judged_on_what_fits(tmp_path):
  written(tmp_path, en='a dog .\n' * 20, de='ein hund .\n' * 20)
  written(
    tmp_path,
    'test_2016_flickr',
    en='a dog\n' + 'a ' * 40 + '\n',
    de='ein hund\n' + 'ein ' * 40 + '\n',
  )
  loaded = task.load(str(tmp_path), words=64, bounds=((20, 20),))
  assert loaded.name == 'multi30k en-de' and loaded.test == corpus.Pairs(['a dog'], ['ein hund'])
  assert len(loaded.buckets[0].source) == 20
  with pytest.raises(ValueError, match='no bucket holds 4 batches of 8'):
    training.fit(
      None, {}, loaded.buckets, steps=1, rate=1e-3, warmup=1, batch=8, seed=0, together=4
    )
