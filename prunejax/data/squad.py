"""Questions with answers in a text: files in the format of SQuAD 1.1 (Rajpurkar et al. 2016).

A task is named `squad`, whose files are those of the data set below FOLDER/squad, or

    squad('train.json', 'dev.json', test='more.json')

for files of one's own below the root of the data. An answer is a span of its text. Scores are exact
match and F1 by the rule of the data set: case, punctuation, articles and white space do not count,
and of several true answers the nearest one does.
"""

import ast
import collections
import json
import os
import pathlib
import re
import string
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tokenizers

from prunejax.data.examples import Task, nearest

MAX_BYTES = 2**30  # of one file; SQuAD's largest has 30 million
PREFIX = 'squad'
METRICS = ('f1', 'exact_match')
SPLITS = ('train', 'validation', 'test')
SPECIAL = ('[CLS]', '[SEP]', '[PAD]')
LONGEST = 30  # tokens of an answer
STARTS = 20  # places that an answer may begin or end at, the likeliest ones
LONGEST_QUESTION = 64  # tokens


class Files(NamedTuple):
  """The files of a task: of training, of the held-out set, and of one without answers or ''."""

  train: str = 'squad/train-v1.1.json'
  validation: str = 'squad/dev-v1.1.json'
  test: str = ''


class Question(NamedTuple):
  """One question.

  Attributes:
    id: names it in a file of predictions.
    question: its words.
    context: the text that holds the answer.
    answers: the true answers.
    starts: where each of them starts in the text, in characters.
  """

  id: str
  question: str
  context: str
  answers: tuple[str, ...]
  starts: tuple[int, ...]


class Windows(NamedTuple):
  """Questions as token ids, `[CLS] question [SEP] part of the text [SEP]`.

  Attributes:
    arrays: `input_ids` and `segment_ids` int32 and `valid` bool [n, seq_len]; `label` and `end`
      int32 [n], the first and the last token of the answer, 0 where the window does not hold it;
      `row` int32 [n], the number of the window.
    question: int64 [n], the question of each window.
    offsets: int32 [n, seq_len, 2], the characters of each token of the text; -1 elsewhere.
  """

  arrays: dict[str, np.ndarray]
  question: np.ndarray
  offsets: np.ndarray


def is_name(name: str) -> bool:
  """Returns whether a name is that of a task of questions."""
  return name == PREFIX or name.startswith(f'{PREFIX}(')


def parse(name: str) -> Files:
  """Reads the name of a task.

  Raises:
    ValueError: no such name; the message says what is accepted.
  """
  if name == PREFIX:
    return Files()
  try:
    node = ast.parse(name, mode='eval').body
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
      raise ValueError('no call')
    values = [ast.literal_eval(value) for value in node.args]
    named = {word.arg: ast.literal_eval(word.value) for word in node.keywords}
    for key in named:
      if key not in Files._fields:
        raise ValueError(f'no argument {key!r}: {nearest(key, Files._fields)}')
    files = Files(*values, **named)
    if len(values) + len(named) < 2:
      raise ValueError('a file of training and a held-out file are needed')
    for key, file in files._asdict().items():
      if not isinstance(file, str) or not (file or key == 'test'):
        raise ValueError(f'{key}={file!r} is no file name')
  except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError) as error:
    raise ValueError(
      f"task {name[:200]!r}: {error}; expected squad, or squad('train.json', 'dev.json')"
    ) from None
  return files


def task_of(name: str) -> Task:
  """Returns the task of a name. Raises ValueError as `parse` does."""
  parse(name)
  return Task(name, None, METRICS, True, spans=True)


def path_of(name: str, split: str, root: str | os.PathLike | None) -> pathlib.Path:
  """Returns the file of one split.

  Raises:
    ValueError: an unknown split; a file that is not below the root.
    FileNotFoundError: a file that is missing.
  """
  if split not in SPLITS:
    raise ValueError(f'task {name} has no split {split!r}: {nearest(split, SPLITS)}')
  file = getattr(parse(name), split)
  if not file:
    raise ValueError(f"task {name} has no {split} file: name it, {split}='FILE.json'")
  folder = pathlib.Path(root or '.').expanduser()
  path = folder / file
  if not path.resolve().is_relative_to(folder.resolve()):
    raise ValueError(f'task {name}: {split}={file!r} is not below {str(folder)!r}')
  if not path.is_file():
    raise FileNotFoundError(f'task {name}: no file {path} (looked below root {str(folder)!r})')
  return path


def read(name: str, split: str, root: str | os.PathLike | None) -> list[Question]:
  """Reads one split. Questions of the split 'test' may lack answers.

  Raises:
    FileNotFoundError: a file that is missing.
    ValueError: an unknown split; a damaged file, with the question.
  """
  path = path_of(name, split, root)
  size = path.stat().st_size
  if size > MAX_BYTES:
    raise ValueError(f'{path}: {size} bytes; expected at most {MAX_BYTES}')
  try:
    content = json.loads(path.read_bytes().decode('utf-8-sig'))
  except (ValueError, RecursionError) as error:
    raise ValueError(f'{path} cannot be read as JSON: {error}') from None
  found, seen = [], set()
  for article in _list(content, 'data', path, 'the file'):
    for paragraph in _list(article, 'paragraphs', path, 'an article'):
      context = _text(paragraph, 'context', path, 'a paragraph')
      for one in _list(paragraph, 'qas', path, 'a paragraph'):
        question = _question(one, context, path, answered=split != 'test')
        if question.id in seen:
          raise ValueError(f'{path}: the id {question.id!r} names two questions')
        seen.add(question.id)
        found.append(question)
  if not found:
    raise ValueError(f'{path} holds no question')
  return found


def _question(one, context, path, answered):
  where = f'question {one.get("id")!r:.80}' if isinstance(one, dict) else 'a question'
  identity, words = (_text(one, key, path, where) for key in ('id', 'question'))
  if one.get('is_impossible'):
    raise ValueError(f'{path}: {where} has no answer: expected SQuAD 1.1, not 2.0')
  answers = _list(one, 'answers', path, where) if answered or one.get('answers') else []
  if answered and not answers:
    raise ValueError(f'{path}: {where} has no answers: expected at least one')
  texts = tuple(_text(answer, 'text', path, where) for answer in answers)
  starts = tuple(answer.get('answer_start') for answer in answers)
  for text, start in zip(texts, starts, strict=True):
    if type(start) is not int or start < 0 or context[start : start + len(text)] != text:
      raise ValueError(
        f'{path}: {where}: the answer {text[:60]!r} does not stand at answer_start={start!r:.40} of'
        ' its context'
      )
  return Question(identity, words, context, texts, starts)


def _list(value, key, path, where):
  found = value.get(key) if isinstance(value, dict) else None
  if not isinstance(found, list):
    raise ValueError(f'{path}: {where} has no list {key!r}: expected the format of SQuAD 1.1')
  return found


def _text(value, key, path, where):
  found = value.get(key) if isinstance(value, dict) else None
  if not isinstance(found, str) or not found.strip():
    raise ValueError(f'{path}: {where} has no text {key!r}: expected the format of SQuAD 1.1')
  return found


def encode(questions: Sequence[Question], tokenizer: tokenizers.Tokenizer, seq_len: int) -> Windows:
  """Turns questions into windows of token ids. Windows of one text overlap by a third.

  Args:
    questions: n questions.
    tokenizer: a WordPiece tokenizer.
    seq_len: tokens of a window. Questions are cut to a third of it, or to LONGEST_QUESTION.

  Raises:
    ValueError: no questions; a `seq_len` below 12; a tokenizer without [CLS], [SEP] and [PAD].
  """
  if seq_len < 12:
    raise ValueError(f'seq_len={seq_len}: expected at least 12, for a question and a text')
  if not questions:
    raise ValueError('no questions to encode')
  cls, sep, pad = ids = [tokenizer.token_to_id(piece) for piece in SPECIAL]
  if None in ids:
    raise ValueError(
      f'the vocabulary ({tokenizer.get_vocab_size()} pieces) lacks one of {", ".join(SPECIAL)}: a'
      ' span head needs a WordPiece vocabulary'
    )
  bare = tokenizers.Tokenizer.from_str(tokenizer.to_str())
  bare.no_truncation()
  bare.no_padding()
  plain = lambda texts: bare.encode_batch(texts, add_special_tokens=False)
  contexts = list(dict.fromkeys(question.context for question in questions))
  texts = dict(zip(contexts, plain(contexts), strict=True))
  most = min(LONGEST_QUESTION, seq_len // 3)
  rows, owner, offsets = [], [], []
  for number, (question, asked) in enumerate(
    zip(questions, plain([question.question for question in questions]), strict=True)
  ):
    head = [cls, *asked.ids[:most], sep]
    text = texts[question.context]
    room = seq_len - len(head) - 1
    step = max(room - min(seq_len // 3, room // 2), 1)
    answer = _tokens(text.offsets, question)
    for first in range(0, max(len(text.ids) - room, 0) + step, step):
      part = text.ids[first : first + room]
      row = [*head, *part, sep]
      ends = [at - first + len(head) for at in answer]
      inside = answer and first <= answer[0] and answer[1] < first + len(part)
      rows.append((row, len(head), ends if inside else [0, 0]))
      owner.append(number)
      spans = np.full((seq_len, 2), -1, np.int32)
      if part:
        spans[len(head) : len(head) + len(part)] = text.offsets[first : first + room]
      offsets.append(spans)
      if first + room >= len(text.ids):
        break
  column = np.arange(seq_len)
  length = np.array([len(row) for row, *_ in rows])
  filled = np.full((len(rows), seq_len), pad, np.int32)
  for i, (row, *_) in enumerate(rows):
    filled[i, : len(row)] = row
  heads = np.array([head for _, head, _ in rows])
  valid = column < length[:, None]
  arrays = {
    'input_ids': filled,
    'segment_ids': ((column >= heads[:, None]) & valid).astype(np.int32),
    'valid': valid,
    'label': np.array([ends[0] for *_, ends in rows], np.int32),
    'end': np.array([ends[1] for *_, ends in rows], np.int32),
    'row': np.arange(len(rows), dtype=np.int32),
  }
  return Windows(arrays, np.array(owner), np.stack(offsets))


def _tokens(offsets, question):
  """(first, last) token of the first answer, () where it has none or no token covers it."""
  if not question.answers:
    return ()
  start = question.starts[0]
  stop = start + len(question.answers[0])
  inside = [i for i, (a, b) in enumerate(offsets) if a < stop and b > start]
  return (inside[0], inside[-1]) if inside else ()


def best(windows: Windows, logits: np.ndarray, questions: Sequence[Question]) -> dict[str, str]:
  """Finds the likeliest answer of each question.

  Of all its windows, the span within the text with the largest sum of two logits, of at most
  LONGEST tokens, that starts and ends at one of the STARTS likeliest places.

  Args:
    windows: of `encode`.
    logits: float [windows, seq_len, 2], of the first token and of the last.
    questions: those that were encoded.

  Returns:
    {id of a question: its answer}, '' where a text has no token.
  """
  found = {question.id: (-np.inf, '') for question in questions}
  for number, spans, scores in zip(windows.question, windows.offsets, logits, strict=True):
    question = questions[number]
    places = np.flatnonzero(spans[: len(scores), 0] >= 0)
    if not len(places):
      continue
    ranked = np.argsort(-scores[places], axis=0, kind='stable')[:STARTS]
    first, last = places[ranked[:, :1]], places[ranked[:, 1]][None, :]
    fits = (first <= last) & (last < first + LONGEST)
    total = np.where(fits, scores[first, 0] + scores[last, 1], -np.inf)
    i, j = np.unravel_index(total.argmax(), total.shape)
    if total[i, j] > found[question.id][0]:
      text = question.context[spans[first[i, 0], 0] : spans[last[0, j], 1]]
      found[question.id] = (total[i, j], text)
  return {name: text for name, (_, text) in found.items()}


def normalized(text: str) -> str:
  """Returns a text in lower case without punctuation, articles and needless white space."""
  kept = ''.join(letter for letter in text.lower() if letter not in string.punctuation)
  return ' '.join(re.sub(r'\b(a|an|the)\b', ' ', kept).split())


def f1(guess: str, truth: str) -> float:
  """Returns the harmonic mean of precision and recall over the words of two answers."""
  ours, theirs = normalized(guess).split(), normalized(truth).split()
  shared = sum((collections.Counter(ours) & collections.Counter(theirs)).values())
  return 2 * shared / (len(ours) + len(theirs)) if shared else 0.0


def score(answers: Mapping[str, str], questions: Sequence[Question]) -> dict[str, float]:
  """Returns {'f1', 'exact_match'}, shares of 1, of answers.

  Args:
    answers: {id of a question: answer}; a question without one counts as wrong.
    questions: with at least one true answer each.
  """
  exact = total = 0.0
  for question in questions:
    guess = answers.get(question.id)
    if guess is None:
      continue
    exact += max(normalized(guess) == normalized(truth) for truth in question.answers)
    total += max(f1(guess, truth) for truth in question.answers)
  return {'f1': total / len(questions), 'exact_match': exact / len(questions)}


def subset(questions: Sequence[Question], count: int, seed: int) -> list[Question]:
  """Draws `count` questions by `seed` and keeps their order; returns all if there are fewer."""
  n = len(questions)
  chosen = np.sort(np.random.default_rng([seed, n]).permutation(n)[:count])
  return [questions[i] for i in chosen]


def submission(answers: Mapping[str, str]) -> str:
  """Returns the text of a file of predictions, as the program of the data set reads it."""
  plain: dict[str, Any] = dict(answers)
  return json.dumps(plain, ensure_ascii=False, indent=0) + '\n'
