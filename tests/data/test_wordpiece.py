"""WordPiece vocabularies: training, files, errors."""

import subprocess
import sys

import numpy as np
import pytest

from prunejax.data import wordpiece
from prunejax.train import families

LINES = [
  'Ba deni foru gist, kuba leni.',
  'Mu noru; pist ra seni!',
  'Teni dagist (bakuba) 1999.',
] * 3


def test_training_gives_the_same_ids_in_every_process():
  program = f"""
from prunejax.data import bpe, wordpiece
for words in (wordpiece, bpe):
  tokenizer = words.train({LINES!r}, 300)
  print(sorted(tokenizer.get_vocab().items(), key=lambda item: item[1]))
"""
  run = [sys.executable, '-c', program]
  outputs = [subprocess.run(run, capture_output=True, text=True, check=True).stdout for _ in '12']
  assert outputs[0] == outputs[1]
  pieces = wordpiece.pieces(wordpiece.train(LINES, 300))
  letters = [piece for piece in pieces if len(piece) == 1]
  inner = [piece for piece in pieces if piece.startswith('##') and len(piece) == 3]
  assert pieces[5 : 5 + len(letters) + len(inner)] == sorted(letters) + sorted(inner)
  assert '##!' not in pieces  # no word has punctuation inside


def test_the_commonest_letters_are_kept_and_ties_go_by_code_point():
  trained = wordpiece.train(['cc bb aa dd', 'c'], 20, alphabet=3)
  letters = [piece for piece in wordpiece.pieces(trained) if len(piece) == 1]
  assert letters == ['a', 'b', 'c']
  assert trained.encode('dd', add_special_tokens=False).tokens == ['[UNK]']


def test_a_vocabulary_goes_to_a_file_and_back(tmp_path):
  trained = wordpiece.train(LINES, 120)
  assert trained.get_vocab_size() <= 120 and wordpiece.pieces(trained)[:5] == list(
    wordpiece.SPECIAL
  )
  (tmp_path / 'vocab.txt').write_text(''.join(piece + '\n' for piece in wordpiece.pieces(trained)))
  for path in (tmp_path, tmp_path / 'vocab.txt'):
    back = wordpiece.load(path)
    assert wordpiece.pieces(back) == wordpiece.pieces(trained)
    assert wordpiece.fingerprint(back) == wordpiece.fingerprint(trained)
    assert back.encode('Ba deni, foru.').ids == trained.encode('Ba deni, foru.').ids
  assert trained.encode('ba', 'deni').type_ids[-1] == 1


def test_a_cased_folder_stays_cased(tmp_path):
  pieces = [*wordpiece.SPECIAL, 'The', 'the', 'apple']
  (tmp_path / 'vocab.txt').write_text('\n'.join(pieces))  # and no line end after the last
  (tmp_path / 'tokenizer_config.json').write_text('{"do_lower_case": false}')
  cased, ids = wordpiece.load(tmp_path), lambda words: [pieces.index(word) for word in words]
  assert cased.get_vocab_size() == len(pieces) and not wordpiece.lowered(cased)
  assert cased.encode('The apple Apple').ids[1:-1] == ids(['The', 'apple', '[UNK]'])
  (tmp_path / 'tokenizer_config.json').unlink()
  lower = wordpiece.load(tmp_path / 'vocab.txt')
  assert lower.encode('The apple Apple').ids[1:-1] == ids(['the', 'apple', 'apple'])
  assert wordpiece.fingerprint(lower) != wordpiece.fingerprint(cased)
  assert families.FAMILIES['bert'].spelled(cased) == {
    'vocab': pieces,
    'lowercase': False,
    'strip_accents': None,
    'handle_chinese_chars': True,
    'added': [],
  }
  for value in ('"false"', '0', 'null', '[]'):
    (tmp_path / 'tokenizer_config.json').write_text(f'{{"do_lower_case": {value}}}')
    with pytest.raises(ValueError, match='do_lower_case=.*: expected true or false'):
      wordpiece.load(tmp_path)
  (tmp_path / 'tokenizer_config.json').write_text('[')
  with pytest.raises(ValueError, match='tokenizer_config.json.*JSON'):
    wordpiece.load(tmp_path)


@pytest.mark.parametrize(
  'text, match',
  [
    ('', 'lacks .PAD.'),
    ('[PAD]\n[UNK]\n[CLS]\n[SEP]\nword\n', r'lacks \[MASK\]'),
    ('\n'.join([*wordpiece.SPECIAL, 'a', 'a']) + '\n', 'repeats 1'),
  ],
)
def test_a_file_that_is_no_vocabulary_is_refused(tmp_path, text, match):
  (tmp_path / 'vocab.txt').write_text(text)
  with pytest.raises(ValueError, match=match):
    wordpiece.load(tmp_path)


def test_bytes_that_are_not_text_are_named(tmp_path):
  (tmp_path / 'vocab.txt').write_bytes(b'[PAD]\n\xff\n')
  with pytest.raises(ValueError, match=r'vocab.txt. is not UTF-8 text: .*position 6'):
    wordpiece.load(tmp_path)


def test_a_missing_vocabulary_is_named(tmp_path):
  with pytest.raises(FileNotFoundError, match='vocab.txt'):
    wordpiece.load(tmp_path / 'vocab.txt')


def test_a_script_with_more_letters_than_the_alphabet_is_refused():
  rng = np.random.default_rng(0)
  lines = [''.join(chr(0x4E00 + i) for i in rng.integers(0, 3000, 40)) for _ in range(50)]
  with pytest.raises(ValueError, match=r'85% of the letters .* \[UNK\]: name a data.vocab='):
    wordpiece.train(lines, 8192)
  assert wordpiece.train(lines, 8192, alphabet=3000)
