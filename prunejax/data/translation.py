"""Pairs of sentences in two languages: Multi30k from local files, or a made-up language from the embedded corpus."""

import codecs
import itertools
import pathlib
import random
import re
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from prunejax.data import pydoc
from prunejax.data import pydoc_prose as prose

PAD, BOS, EOS, UNK = range(4)
SPECIAL = ('<pad>', '<s>', '</s>', '<unk>')
SPLITS = (
  'train',
  'val',
  'test_2016_flickr',
  'test_2017_flickr',
  'test_2017_mscoco',
  'test_2018_flickr',
)
MOST = 2**28  # bytes of a file
CIPHER = 'cipher'  # the name of the made-up language in labels and reports
_DROPPED = frozenset(('a', 'an', 'the'))
_WORD = re.compile(r'[a-z]+|[.,;:!?]')


class Pairs(NamedTuple):
  """Two lists of sentences of equal length, line i of one being the translation of line i of the other."""

  source: list
  target: list


class Batch(NamedTuple):
  """Ids of one bucket, padded: source [batch, s] ends with </s>; target [batch, t] is <s> words </s>. int32."""

  source: np.ndarray
  target: np.ndarray


def multi30k(root, split, source='en', target='de') -> Pairs:
  """One split of the Multi30k files `root`/multi30k/<split>.lc.norm.tok.{en,de}; lines empty on a side are left out.

  Raises ValueError for a split or language that is unknown and for files of unequal length, FileNotFoundError for
  files that are missing.
  """
  if split not in SPLITS:
    raise ValueError(f'multi30k has no split {split!r}; known: {", ".join(SPLITS)}')
  if source == target:
    raise ValueError(
      f'multi30k: source and target are both {source!r}; two of its languages are needed, en and de'
    )
  paths = [
    pathlib.Path(root) / 'multi30k' / f'{split}.lc.norm.tok.{language}'
    for language in (source, target)
  ]
  sides = [_lines(path) for path in paths]
  if len(sides[0]) != len(sides[1]):
    counts = ' and '.join(
      f'{path.name} {len(side)}' for path, side in zip(paths, sides, strict=True)
    )
    raise ValueError(
      f'{str(paths[0].parent)!r}: its two sides differ in lines: {counts}; line i must translate line i'
    )
  both = [(a, b) for a, b in zip(*sides, strict=True) if a and b]
  if not both:
    raise ValueError(f'{str(paths[0])!r}: no line has words on both sides')
  return Pairs([a for a, _ in both], [b for _, b in both])


def cipher(count, *, longest=14, seed=0, cache=None) -> Pairs:
  """`count` sentences of the pydoc corpus in lower case, and their translation into a made-up language.

  See `encipher` for its rules. It stands in for a real language where no data is at hand: it has rules and a lexicon to
  learn, and one right answer. They are drawn by `seed` from the first of the corpus, twice as many, since to read it
  whole takes seconds. Raises ValueError where it has fewer sentences.
  """
  found = dict.fromkeys(itertools.islice(_short_sentences(longest, cache), 2 * count))
  if len(found) < count:
    raise ValueError(
      f'the embedded corpus has {len(found)} sentences of 4 to {longest} words, not count={count}'
    )
  source = random.Random(seed).sample(sorted(found), count)
  return Pairs(source, [encipher(line) for line in source])


def encipher(line) -> str:
  """The made-up translation of a line of words: words in reverse order, articles dropped, each word in rot13, those of
  more than three letters ending in 'en' (their second half first); a mark of punctuation at the end stays there.
  """
  words = line.split()
  marks = words[-1:] if words and not words[-1].isalpha() else []
  words = words[: len(words) - len(marks)]
  kept = [word for word in reversed(words) if word not in _DROPPED]
  return ' '.join([*map(_turned, kept), *marks])


def vocabulary(lines: Iterable[str], size) -> Tokenizer:
  """A joint BPE vocabulary of at most `size` pieces, learnt from `lines`; pieces that go on carry no mark, ends do.

  Ids 0 to 3 are <pad>, <s>, </s> and <unk>. Raises ValueError for a size below 64.
  """
  if not (isinstance(size, int) and size >= 64):
    raise ValueError(f'vocabulary size={size!r}: expected a whole number of at least 64')
  tokenizer = Tokenizer(models.BPE(unk_token=SPECIAL[UNK], end_of_word_suffix='</w>'))
  tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
  tokenizer.decoder = decoders.BPEDecoder(suffix='</w>')
  trainer = trainers.BpeTrainer(
    vocab_size=size,
    special_tokens=list(SPECIAL),
    end_of_word_suffix='</w>',
    show_progress=False,
    min_frequency=2,
  )
  tokenizer.train_from_iterator(lines, trainer)
  return tokenizer


def encoded(tokenizer, lines) -> list:
  """A list of ids for each line, without <s> and </s>."""
  return [found.ids for found in tokenizer.encode_batch(list(lines), add_special_tokens=False)]


def decoded(tokenizer, ids) -> list:
  """The text of each row of ids, up to its first </s>; as the references are, in words parted by spaces."""
  rows = []
  for row in np.asarray(ids).tolist():
    row = row[: row.index(EOS)] if EOS in row else row
    rows.append([piece for piece in row if piece > UNK])
  return tokenizer.decode_batch(rows)


def buckets(source, target, bounds) -> list:
  """One `Batch` a bound (longest source, longest target, in pieces with </s>): every pair in the first that holds it.

  source, target: lists of ids. Pairs longer than the last bound are left out; a bucket may be empty.
  """
  if len(source) != len(target):
    raise ValueError(
      f'buckets: {len(source)} sources and {len(target)} targets; one target a source is needed'
    )
  places = [[] for _ in bounds]
  for i, (a, b) in enumerate(zip(source, target, strict=True)):
    for place, (s, t) in zip(places, bounds, strict=True):
      if len(a) < s and len(b) < t:
        place.append(i)
        break
  return [
    Batch(
      padded([source[i] + [EOS] for i in place], s),
      padded([[BOS, *target[i], EOS] for i in place], t + 1),
    )
    for place, (s, t) in zip(places, bounds, strict=True)
  ]


def padded(rows, length) -> np.ndarray:
  """int32 [rows, length]: each row cut at `length`, its rest <pad>."""
  out = np.full((len(rows), length), PAD, np.int32)
  for line, row in zip(out, rows, strict=True):
    line[: len(row)] = row[:length]
  return out


def epoch(filled, batch, steps, rng):
  """Yields `Batch`es of shape [steps, batch, length]: `steps` batches of one bucket, all buckets in a random order.

  What does not fill a last group of a bucket sits this epoch out; who that is is drawn anew each epoch.
  """
  groups = []
  for number, bucket in enumerate(filled):
    order = rng.permutation(len(bucket.source))
    whole = len(order) // (batch * steps)
    groups += [
      (number, part) for part in order[: whole * batch * steps].reshape(whole, steps, batch)
    ]
  for i in rng.permutation(len(groups)):
    number, part = groups[i]
    yield Batch(filled[number].source[part], filled[number].target[part])


def _lines(path):
  if not path.is_file():
    raise FileNotFoundError(
      f'no file {str(path)!r}: expected Multi30k as <split>.lc.norm.tok.en and .de in the folder multi30k of data.root'
    )
  if path.stat().st_size > MOST:
    raise ValueError(f'{str(path)!r} has {path.stat().st_size} bytes; at most {MOST} are read')
  try:
    return [
      ' '.join(line.split())
      for line in path.read_text(encoding='utf-8').removesuffix('\n').split('\n')
    ]
  except UnicodeDecodeError as error:
    raise ValueError(f'{str(path)!r} is not UTF-8 text: {error}') from error


def _short_sentences(longest, cache):
  for entry in pydoc.entries(cache):
    for paragraph in entry.paragraphs:
      for sentence in prose.sentences(paragraph):
        if len(sentence) < 12 * longest and sentence.isascii():
          words = _WORD.findall(sentence.lower())
          if 4 <= len(words) <= longest:
            yield ' '.join(words)


def _turned(word):
  if not word.isalpha():
    return word
  word = codecs.encode(word, 'rot13')
  half = len(word) // 2
  return word[half:] + word[:half] + 'en' if len(word) > 3 else word
