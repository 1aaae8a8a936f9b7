"""Questions with answers in a text: the format, the windows, the scores of the data set's rule."""

import json

import numpy as np
import pytest
from tokenizers import Tokenizer

from prunejax.data import squad, tasks, wordpiece

LETTERS = [chr(c) for c in range(ord('a'), ord('z') + 1)]
WORDS = ['the', 'cat', 'sat', 'on', 'mat', 'who', 'where', 'dog', 'ran', 'home', '.', ',', '?']
VOCAB = [*wordpiece.SPECIAL, *WORDS, *LETTERS, *(f'##{c}' for c in LETTERS)]
CONTEXT = 'The cat sat on the mat. A dog ran home, and the cat sat where the dog ran.'


def asked(identity, question, *answers, context=CONTEXT):
  return {
    'id': identity,
    'question': question,
    'answers': [{'text': a, 'answer_start': context.index(a)} for a in answers],
  }


def written(folder, qas, name='a.json', context=CONTEXT):
  paragraphs = [{'context': context, 'qas': qas}]
  content = {'version': '1.1', 'data': [{'title': 't', 'paragraphs': paragraphs}]}
  (folder / name).write_text(json.dumps(content))
  return f'squad({name!r}, {name!r})'


@pytest.fixture(scope='module')
def tokenizer():
  return wordpiece.from_vocab(VOCAB)


QUESTIONS = [
  squad.Question('q1', 'who sat ?', CONTEXT, ('The cat', 'cat'), (0, 4)),
  squad.Question('q2', 'where ?', CONTEXT, ('home',), (34,)),
]


def test_a_file_is_read(tmp_path):
  name = written(tmp_path, [asked('q1', 'who sat ?', 'The cat', 'cat'), asked('q2', 'w', 'home')])
  task = tasks.get(name)
  assert task.spans and task.classes is None and task.metrics == ('f1', 'exact_match')
  first, second = tasks.load(name, 'train', root=tmp_path)
  assert first == QUESTIONS[0]
  assert second.answers == ('home',) and second.starts == (CONTEXT.index('home'),)
  before = tasks.fingerprint(name, root=tmp_path)
  written(tmp_path, [asked('q1', 'who sat ?', 'The cat')])
  assert tasks.fingerprint(name, root=tmp_path) != before


def test_the_published_names_lie_below_the_root(tmp_path):
  with pytest.raises(FileNotFoundError, match='train-v1.1.json'):
    tasks.load('squad', 'train', root=tmp_path)
  assert tasks.get('squad').spans


@pytest.mark.parametrize(
  'name, words',
  [
    ('squad(', ['expected squad']),
    ("squad('a.json')", ['held-out']),
    ("squad('a.json', dev='b.json')", ["'dev'"]),
    ("squad('a.json', 3)", ['validation=3']),
    ("squad('a.json', '')", ["validation=''"]),
  ],
)
def test_a_wrong_name_is_refused(name, words):
  with pytest.raises(ValueError) as error:
    tasks.get(name)
  assert all(word in str(error.value) for word in words), error.value


def spoiled(**changes):
  return {**asked('q1', 'who ?', 'cat'), **changes}


@pytest.mark.parametrize(
  'qas, words',
  [
    ([], ['holds no question']),
    (['q'], ['a question', "'id'"]),
    ([spoiled(id=3)], ["'id'"]),
    ([spoiled(question=' ')], ["'question'", 'q1']),
    ([spoiled(answers=[])], ['no answers', 'q1']),
    ([spoiled(answers=None)], ["no list 'answers'", 'q1']),
    ([spoiled(is_impossible=True)], ['not 2.0']),
    ([spoiled(answers=[{'text': 'cat', 'answer_start': 5}])], ["'cat'", 'answer_start=5']),
    ([spoiled(answers=[{'text': 'cat', 'answer_start': True}])], ['answer_start=True']),
    ([spoiled(answers=[{'text': 'cat', 'answer_start': -70}])], ['answer_start=-70']),
    ([spoiled(), spoiled()], ['two questions']),
  ],
)
def test_a_damaged_file_is_refused_with_its_question(qas, words, tmp_path):
  name = written(tmp_path, qas)
  with pytest.raises(ValueError) as error:
    tasks.load(name, 'train', root=tmp_path)
  assert all(word in str(error.value) for word in ['a.json', *words]), error.value


@pytest.mark.parametrize('text', ['{', '[]', '{"data": 3}', '{"data": [{}]}', '[' * 9999])
def test_other_json_is_refused(text, tmp_path):
  (tmp_path / 'a.json').write_text(text)
  with pytest.raises(ValueError, match=r'a\.json'):
    tasks.load("squad('a.json', 'a.json')", 'train', root=tmp_path)


def test_files_outside_of_the_root_are_refused(tmp_path):
  with pytest.raises(ValueError, match='not below'):
    tasks.load("squad('../a.json', 'a.json')", 'train', root=tmp_path)


def test_windows_hold_the_question_and_every_token_of_the_text(tokenizer):
  windows = squad.encode(QUESTIONS, tokenizer, 16)
  arrays, offsets = windows.arrays, windows.offsets
  assert arrays['input_ids'].shape == (len(windows.question), 16)
  tokens = tokenizer.encode(CONTEXT, add_special_tokens=False)
  for number, question in enumerate(QUESTIONS):
    rows = np.flatnonzero(windows.question == number)
    assert len(rows) > 1
    seen = {tuple(at) for row in rows for at in offsets[row] if at[0] >= 0}
    assert seen == set(tokens.offsets)
    head = tokenizer.encode(question.question, add_special_tokens=False).ids[:5]
    for row in rows:
      ids, valid = arrays['input_ids'][row], arrays['valid'][row]
      assert list(ids[: len(head) + 2]) == [
        tokenizer.token_to_id('[CLS]'),
        *head,
        tokenizer.token_to_id('[SEP]'),
      ]
      assert ids[valid][-1] == tokenizer.token_to_id('[SEP]')
      assert not ids[~valid].any() and not arrays['segment_ids'][row, : len(head) + 2].any()
      assert arrays['segment_ids'][row][valid][len(head) + 2 :].all()
      # The tokens of a window are those at their offsets.
      for place, (a, b) in enumerate(offsets[row]):
        if a >= 0:
          assert ids[place] == tokens.ids[tokens.offsets.index((a, b))]


def test_targets_point_at_the_answer_or_at_the_first_token(tokenizer):
  windows = squad.encode(QUESTIONS, tokenizer, 16)
  held = 0
  for row, number in enumerate(windows.question):
    first, last = windows.arrays['label'][row], windows.arrays['end'][row]
    question, spans = QUESTIONS[number], windows.offsets[row]
    stop = question.starts[0] + len(question.answers[0])
    whole = any(a == question.starts[0] for a, _ in spans) and any(b == stop for _, b in spans)
    assert bool(first) == whole
    if first:
      held += 1
      assert question.context[spans[first][0] : spans[last][1]] == question.answers[0]
    else:
      assert last == 0
  assert held >= 2


def test_the_answer_with_the_largest_sum_is_found(tokenizer):
  windows = squad.encode(QUESTIONS, tokenizer, 16)
  logits = np.random.default_rng(0).normal(size=(len(windows.question), 16, 2)).astype('f')
  told = squad.best(windows, logits, QUESTIONS)
  for number, question in enumerate(QUESTIONS):  # an oracle that tries every span
    best = (-np.inf, '')
    for row in np.flatnonzero(windows.question == number):
      spans = windows.offsets[row]
      for i in range(16):
        for j in range(i, 16):
          if spans[i][0] >= 0 and spans[j][0] >= 0:
            total = logits[row, i, 0] + logits[row, j, 1]
            best = max(best, (total, question.context[spans[i][0] : spans[j][1]]))
    assert told[question.id] == best[1]


def test_scores_follow_the_rule_of_the_data_set():
  assert squad.normalized('  The, CAT!  an a ') == 'cat'
  assert squad.f1('the black cat', 'A cat') == pytest.approx(2 / 3)
  assert squad.f1('dog', 'cat') == 0 and squad.f1('Cat.', 'cat') == 1
  # Repeated words count as often as both have them.
  assert squad.f1('dog dog', 'dog') == pytest.approx(2 / 3)
  scored = squad.score({'q1': 'cat', 'q2': 'ran home'}, QUESTIONS)
  assert scored == {'f1': pytest.approx((1 + 2 / 3) / 2), 'exact_match': 0.5}
  assert squad.score({'q1': 'The Cat'}, QUESTIONS) == {'f1': 0.5, 'exact_match': 0.5}


def test_a_submission_is_json():
  answers = {'q1': 'naïve "cat"', 'q2': ''}
  assert json.loads(squad.submission(answers)) == answers


def test_wrong_calls_of_encode_are_refused(tokenizer):
  with pytest.raises(ValueError, match='at least 12'):
    squad.encode(QUESTIONS, tokenizer, 11)
  with pytest.raises(ValueError, match='no questions'):
    squad.encode([], tokenizer, 16)
  from prunejax.data import bpe

  other = bpe.train(['a cat'] * 3, 260)
  assert isinstance(other, Tokenizer)
  with pytest.raises(ValueError, match='WordPiece'):
    squad.encode(QUESTIONS, other, 16)


def test_a_subset_keeps_its_order():
  many = [squad.Question(str(i), 'q', 'c', ('c',), (0,)) for i in range(20)]
  some = squad.subset(many, 5, 1)
  assert len(some) == 5 and [q.id for q in some] == sorted((q.id for q in some), key=int)
  assert squad.subset(many, 50, 1) == many and squad.subset(many, 5, 2) != some
