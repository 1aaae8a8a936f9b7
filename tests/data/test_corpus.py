"""Token caches follow the content of text; one file in any encoding and script is a corpus."""

import json
import os

import numpy as np
import pytest

from prunejax.data import corpus, wordpiece

WORDS = [*wordpiece.SPECIAL, 'one', 'two', 'six', '.', '[', ']']
TOKENIZER = wordpiece.from_vocab(WORDS)
LONG = 'One two one two one two one two.'


def tokens(name, root, split='train', **how):
  return corpus.load(name, split, TOKENIZER, root=root, cache=root / 'cache', **how)


def test_an_edit_that_keeps_size_and_time_is_read(tmp_path):
  (tmp_path / 'text').mkdir()
  for i in range(3):
    (tmp_path / 'text' / f'{i}.txt').write_text(LONG)
  first, key = tokens('text', tmp_path), corpus.key('text', tmp_path)
  path = tmp_path / 'text' / '0.txt'
  status = path.stat()
  path.write_text(LONG.replace('two', 'six'))
  os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
  second = tokens('text', tmp_path)
  assert corpus.key('text', tmp_path) != key
  assert WORDS.index('six') in second.tokens and WORDS.index('six') not in first.tokens


def test_the_key_of_the_embedded_corpus_is_what_it_was():
  # Ledgers and caches name the text by this key, so it must not depend on how local text is read.
  expected = json.dumps([1, [['pydoc', corpus.pydoc.signature()]], ''])
  digest = corpus.hashlib.sha256(expected.encode()).hexdigest()[:16]
  assert corpus.key('pydoc') == f'pydoc-{digest}' == corpus.key('pydoc', encoding='latin-1')


@pytest.mark.parametrize(
  ('name', 'content'),
  [
    ('bert.txt', f'{LONG}\nTwo one.\n\n{LONG}\n\n{LONG}\n'),
    ('lines.jsonl', f'{json.dumps({"text": LONG})}\n' * 3),
  ],
)
def test_one_file_is_a_corpus(tmp_path, name, content):
  (tmp_path / name).write_text(content)
  for split in corpus.SPLITS:
    assert len(tokens(name, tmp_path, split).documents) == 2
  assert tokens(name, tmp_path).starts.sum() == (2 if name == 'bert.txt' else 1)


def test_too_few_documents_say_what_would_be_enough(tmp_path):
  (tmp_path / 'text.txt').write_text(LONG * 3)
  with pytest.raises(ValueError, match='it has 1 of 8 tokens or more, expected .*blank lines'):
    tokens('text.txt', tmp_path)


def test_the_encoding_of_local_text(tmp_path):
  (tmp_path / 'text').mkdir()
  for i in range(3):
    (tmp_path / 'text' / f'{i}.txt').write_text(f'Öne. {LONG} Émile.', encoding='latin-1')
  with pytest.raises(ValueError, match='0.txt: byte 0 is not text in utf-8.*data.encoding'):
    tokens('text', tmp_path)
  assert next(corpus.lines('text', root=tmp_path, encoding='latin-1')).startswith('Öne.')
  part = tokens('text', tmp_path, encoding='latin-1')
  assert part.starts.sum() == 3 and part.tokens[0] == WORDS.index('one')
  assert corpus.key('text', tmp_path) != corpus.key('text', tmp_path, encoding='latin-1')


def test_large_groups_and_small_ones_give_the_same_tokens():
  documents = [('train', LONG * i) for i in range(1, 40)] + [('test', LONG), ('validation', LONG)]
  whole = corpus._encode(documents, TOKENIZER)
  for limits in ({'count': 3}, {'characters': 100}):
    parts = corpus._encode(documents, TOKENIZER, **limits)
    for split in corpus.SPLITS:
      for a, b in zip(whole[split], parts[split], strict=True):
        np.testing.assert_array_equal(a, b)
