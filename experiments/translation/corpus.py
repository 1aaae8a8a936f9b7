"""Sentence pairs in two languages: Multi30k from local files, or a made-up language."""

import codecs
import itertools
import json
import pathlib
import random
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from prunejax.data import content, prose, pydoc_prose

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
READ = ('train', 'test_2016_flickr')  # by the studies
MAX_BYTES = 2**28  # of a file that is read
CIPHER = 'cipher'  # The made-up language's name in labels and reports.
_ARTICLES = frozenset(('a', 'an', 'the'))
_WORD = re.compile(r'[a-z]+|[.,;:!?]')


class Pairs(NamedTuple):
  """Two lists of sentences of equal length; line i of `target` translates line i of `source`."""

  source: list[str]
  target: list[str]


class Batch(NamedTuple):
  """Padded ids of one bucket.

  Attributes:
    source: int32 [batch, s]; each row is the words, then </s>.
    target: int32 [batch, t]; each row is <s>, the words, then </s>.
  """

  source: np.ndarray
  target: np.ndarray


def multi30k(root: str, split: str, source: str = 'en', target: str = 'de') -> Pairs:
  """Read one split of Multi30k and leave out pairs with an empty side.

  Args:
    root: folder that holds `multi30k/<split>.lc.norm.tok.{en,de}`.
    split: one of `SPLITS`.
    source, target: the two languages.

  Raises:
    ValueError: for an unknown split, equal languages, or files that differ in lines.
    FileNotFoundError: for a missing file.
  """
  if split not in SPLITS:
    raise ValueError(f'multi30k has no split {split!r}; known: {", ".join(SPLITS)}')
  if source == target:
    raise ValueError(f'multi30k: source and target are both {source!r}; name two languages')
  paths = [
    pathlib.Path(root) / 'multi30k' / f'{split}.lc.norm.tok.{language}'
    for language in (source, target)
  ]
  sides = [_read_lines(path) for path in paths]
  if len(sides[0]) != len(sides[1]):
    counts = ' and '.join(
      f'{path.name} {len(side)}' for path, side in zip(paths, sides, strict=True)
    )
    raise ValueError(
      f'{str(paths[0].parent)!r}: the two languages differ in lines: {counts}; '
      'line i of one must translate line i of the other'
    )
  pairs = [(a, b) for a, b in zip(*sides, strict=True) if a and b]
  if not pairs:
    raise ValueError(f'{str(paths[0])!r}: no line has words in both languages')
  return Pairs([a for a, _ in pairs], [b for _, b in pairs])


def reads(root: str, pydoc: str) -> dict[str, str]:
  """Digests of the files of Multi30k that are read, or of the embedded corpus where there are none.

  Args:
    root: folder that holds `multi30k/`, or ''.
    pydoc: which text the embedded corpus is.

  Raises:
    FileNotFoundError: for a missing file.
  """
  if not root:
    return {'pydoc': content.of(prose.fingerprint(pydoc))}
  folder = pathlib.Path(root) / 'multi30k'
  names = [f'{split}.lc.norm.tok.{side}' for split in READ for side in ('en', 'de')]
  for name in names:
    _check_file(folder / name)
  return {'multi30k': content.of_files(folder, names)}


def cipher(count: int, *, longest: int = 14, seed: int = 0, pydoc: str = 'installed') -> Pairs:
  """Draw sentences of the embedded corpus and translate them into the made-up language.

  The made-up language stands in where no data is at hand. It has rules and a lexicon to learn, and
  one right answer for each sentence; see `encipher`. Reading the whole corpus takes seconds, so the
  sentences are drawn from the first 2 x `count`.

  Args:
    count: sentences to draw.
    longest: most words in a sentence.
    seed: of the draw.
    pydoc: which text the embedded corpus is, 'installed' or 'packaged'.

  Raises:
    ValueError: if the corpus has fewer than `count` such sentences.
  """
  sentences = dict.fromkeys(itertools.islice(_short_sentences(longest, pydoc), 2 * count))
  if len(sentences) < count:
    raise ValueError(
      f'the embedded corpus has {len(sentences)} sentences of 4 to {longest} words, '
      f'fewer than count={count}'
    )
  source = random.Random(seed).sample(sorted(sentences), count)
  return Pairs(source, [encipher(line) for line in source])


def encipher(line: str) -> str:
  """Translate a line of words into the made-up language.

  Articles are dropped, the other words come in reverse order, and each word is written in rot13. A
  word of more than three letters also has its halves swapped and ends in 'en'. A final punctuation
  mark stays at the end.
  """
  words = line.split()
  marks = words[-1:] if words and not words[-1].isalpha() else []
  words = words[: len(words) - len(marks)]
  kept = [word for word in reversed(words) if word not in _ARTICLES]
  return ' '.join([*map(_encipher_word, kept), *marks])


def vocabulary(lines: Iterable[str], size: int) -> Tokenizer:
  """Learn a joint BPE vocabulary of at most `size` pieces from `lines`.

  The same lines give the same ids in every process. Ids 0 to 3 are <pad>, <s>, </s> and <unk>. The
  last piece of a word ends in </w>.

  Raises:
    ValueError: if `size` is below 64.
  """
  if not (isinstance(size, int) and size >= 64):
    raise ValueError(f'vocabulary size={size!r}: expected a whole number of at least 64')
  lines = list(lines)
  # The trainer reads words in a random order and numbers the last letters of words as they come;
  # ties between merges are broken by these numbers. So a first training finds the pieces of one
  # letter, and the second one gets them in a fixed order.
  letters = set(_trained(lines, 0, SPECIAL)['vocab']) - set(SPECIAL)
  model = _trained(lines, size, (*SPECIAL, *sorted(letters, key=lambda p: (len(p), p))))
  merges = [tuple(pair) for pair in model['merges']]
  tokenizer = _tokenizer(model['vocab'], merges)
  tokenizer.add_special_tokens(list(SPECIAL))
  return tokenizer


def _tokenizer(*vocab_and_merges):
  model = models.BPE(*vocab_and_merges, unk_token=SPECIAL[UNK], end_of_word_suffix='</w>')
  tokenizer = Tokenizer(model)
  tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
  tokenizer.decoder = decoders.BPEDecoder(suffix='</w>')
  return tokenizer


def _trained(lines, size, first):
  """The vocabulary and merges of a training. The pieces `first` get the first ids."""
  tokenizer = _tokenizer()
  trainer = trainers.BpeTrainer(
    vocab_size=size,
    special_tokens=list(first),
    end_of_word_suffix='</w>',
    show_progress=False,
    min_frequency=2,
  )
  tokenizer.train_from_iterator(lines, trainer)
  return json.loads(tokenizer.to_str())['model']


def encode(tokenizer: Tokenizer, lines: Iterable[str]) -> list[list[int]]:
  """Turn each line into its ids, without <s> and </s>."""
  encodings = tokenizer.encode_batch(list(lines), add_special_tokens=False)
  return [encoding.ids for encoding in encodings]


def decode(tokenizer: Tokenizer, ids) -> list[str]:
  """Turn each row of ids, up to its first </s>, into words separated by spaces."""
  rows = []
  for row in np.asarray(ids).tolist():
    row = row[: row.index(EOS)] if EOS in row else row
    rows.append([piece for piece in row if piece > UNK])
  return tokenizer.decode_batch(rows)


def buckets(source: list, target: list, bounds) -> list[Batch]:
  """Put every pair into the first bucket that is long enough for both sides.

  Args:
    source, target: lists of ids, one list a sentence.
    bounds: (longest source, longest target) of each bucket, in pieces, </s> included.

  Returns:
    One `Batch` a bound; it may be empty. Pairs longer than the last bound are left out.

  Raises:
    ValueError: if `source` and `target` differ in length.
  """
  if len(source) != len(target):
    raise ValueError(
      f'buckets: {len(source)} sources and {len(target)} targets; give one target for each source'
    )
  members = [[] for _ in bounds]
  for i, (a, b) in enumerate(zip(source, target, strict=True)):
    for bucket, (s, t) in zip(members, bounds, strict=True):
      if len(a) < s and len(b) < t:
        bucket.append(i)
        break
  return [
    Batch(
      pad([source[i] + [EOS] for i in bucket], s),
      pad([[BOS, *target[i], EOS] for i in bucket], t + 1),
    )
    for bucket, (s, t) in zip(members, bounds, strict=True)
  ]


def pad(rows: list, length: int) -> np.ndarray:
  """Cut each row at `length` and fill shorter rows with <pad>: int32 [rows, length]."""
  out = np.full((len(rows), length), PAD, np.int32)
  for line, row in zip(out, rows, strict=True):
    line[: len(row)] = row[:length]
  return out


def epoch(
  filled_buckets: list[Batch], batch: int, steps: int, rng: np.random.Generator
) -> Iterator[Batch]:
  """Yield groups of batches, each group from one bucket, all groups in random order.

  Pairs that do not fill a bucket's last group are left out. Each epoch draws them anew.

  Args:
    filled_buckets: of `buckets`.
    batch: pairs in a batch.
    steps: batches in a group.
    rng: draws the order.

  Yields:
    `Batch`es of shape [steps, batch, length].
  """
  groups = []
  for number, bucket in enumerate(filled_buckets):
    order = rng.permutation(len(bucket.source))
    whole = len(order) // (batch * steps)
    groups += [
      (number, part) for part in order[: whole * batch * steps].reshape(whole, steps, batch)
    ]
  for i in rng.permutation(len(groups)):
    number, part = groups[i]
    yield Batch(filled_buckets[number].source[part], filled_buckets[number].target[part])


def _check_file(path):
  if not path.is_file():
    raise FileNotFoundError(
      f'no file {str(path)!r}: expected Multi30k as <split>.lc.norm.tok.en and .de in the folder '
      'multi30k of data.root'
    )
  if path.stat().st_size > MAX_BYTES:
    raise ValueError(f'{str(path)!r} has {path.stat().st_size} bytes; at most {MAX_BYTES} are read')


def _read_lines(path):
  _check_file(path)
  try:
    return [
      ' '.join(line.split())
      for line in path.read_text(encoding='utf-8').removesuffix('\n').split('\n')
    ]
  except UnicodeDecodeError as error:
    raise ValueError(f'{str(path)!r} is not UTF-8 text: {error}') from error


def _short_sentences(longest, pydoc):
  for entry in prose.chosen(pydoc):
    for paragraph in entry.paragraphs:
      for sentence in pydoc_prose.sentences(paragraph):
        if len(sentence) < 12 * longest and sentence.isascii():
          words = _WORD.findall(sentence.lower())
          if 4 <= len(words) <= longest:
            yield ' '.join(words)


def _encipher_word(word):
  if not word.isalpha():
    return word
  word = codecs.encode(word, 'rot13')
  half = len(word) // 2
  return word[half:] + word[:half] + 'en' if len(word) > 3 else word
