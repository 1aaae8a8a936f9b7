"""Labelled files of one's own: what the name of the task says, and each fault of a file."""

import numpy as np
import pytest

from prunejax.data import examples, tasks
from prunejax.train import evaluate

TSV = '\ufeffid\tquestion\tanswer\ty\r\n1\tWho "is it?\tI am .\tno\r\n2\tWhere?\tHere.\tyes\r\n'
CSV = 'id,question,answer,y\n1,"Who, then?","I ""am"".\nHere.",2.5\n2,Where?,Here.,-1\n'
NAME = "labelled('a.tsv', 'a.tsv', texts=('question', 'answer'), label='y', classes=('yes', 'no'))"


def test_the_columns_and_classes_of_the_name_are_read(tmp_path):
  (tmp_path / 'a.tsv').write_text(TSV, encoding='utf-8', newline='')
  task = tasks.get(NAME)
  assert task == examples.Task(NAME, ('yes', 'no'), ('accuracy',), True)
  rows = tasks.load(NAME, 'validation', root=tmp_path)
  assert rows.a == ['Who "is it?', 'Where?'] and rows.b == ['I am .', 'Here.']
  np.testing.assert_array_equal(rows.label, np.array([1, 0], np.int32))


def test_a_csv_of_scores(tmp_path):
  (tmp_path / 'a.csv').write_text(CSV)
  name = "labelled('a.csv', 'a.csv', 'a.csv', ('answer',), 'y', metrics=('spearman', 'pearson'))"
  assert tasks.get(name)[1:4] == (None, ('spearman', 'pearson'), False)
  rows = tasks.load(name, 'train', root=tmp_path)
  assert rows.a == ['I "am".\nHere.', 'Here.'] and rows.b is None
  np.testing.assert_array_equal(rows.label, np.array([2.5, -1], np.float32))
  np.testing.assert_array_equal(tasks.load(name, 'test', root=tmp_path).label, [0.0, 0.0])


def test_the_metrics_are_those_of_the_evaluation():
  assert set(examples.METRICS) == set(evaluate.METRICS)


@pytest.mark.parametrize(
  'name, words',
  [
    ('labelled(', ['expected labelled(']),
    ('labelled()', ['train']),
    ("labelled('a.tsv', 'a.tsv', text=('a',))", ["'text'", "did you mean 'texts'"]),
    ("labelled('a.tsv', 'a.tsv', texts=('a', 'b', 'c'))", ['one or two']),
    ("labelled('a.tsv', 'a.tsv', texts='a')", ["texts='a'", 'a tuple']),
    ("labelled('a.tsv', 'a.tsv', classes=('a',))", ["classes=('a',)", 'two or more']),
    ("labelled('a.tsv', 'a.tsv', classes=('a', 'a'))", ['different']),
    ("labelled('a.tsv', 'a.tsv', classes=('a', 'b'), metrics=('acuracy',))", ["'accuracy'"]),
    ("labelled('a.tsv', 'a.tsv', classes=('a', 'b', 'c'), metrics=('f1',))", ['f1', 'two classes']),
    ("labelled('a.tsv', 'a.tsv', metrics=('accuracy',))", ['pearson']),
    ("labelled('a.tsv', '')", ["validation=''"]),
    ("labelled(open('a'), 'b')", ['expected labelled(']),
    ('labelled(' + '(' * 5000, ['expected labelled(']),
  ],
)
def test_a_wrong_name_is_refused(name, words):
  with pytest.raises(ValueError) as error:
    tasks.get(name)
  assert all(word in str(error.value) for word in words), error.value


@pytest.mark.parametrize(
  'text, words',
  [
    ('', ['a header and rows']),
    ('question\tanswer\ty\n', ['a header and rows']),
    ('question\tanswer\n1\t2\n', ['line 1', "no column 'y'"]),
    ('question\tanswer\ty\na\tb\n', ['line 2', '2 columns, expected 3']),
    ('question\tanswer\ty\na\tb\tyes\n\na\tb\tmaybe\n', ['line 4', "'maybe'", 'yes, no']),
    (b'question\tanswer\ty\n\xff\tb\tyes\n', ['not UTF-8']),
  ],
)
def test_a_damaged_file_is_refused_with_its_line(text, words, tmp_path):
  (tmp_path / 'a.tsv').write_bytes(text if isinstance(text, bytes) else text.encode())
  with pytest.raises(ValueError) as error:
    tasks.load(NAME, 'train', root=tmp_path)
  assert all(word in str(error.value) for word in ('a.tsv', *words)), error.value


def test_files_are_below_the_root(tmp_path):
  (tmp_path / 'b').mkdir()
  (tmp_path / 'a.tsv').write_text(TSV)
  (tmp_path / 'b' / 'a.txt').write_text(TSV)
  with pytest.raises(ValueError, match='is not below'):
    tasks.load(NAME.replace('a.tsv', '../a.tsv'), 'train', root=tmp_path / 'b')
  with pytest.raises(ValueError, match='expected a .tsv or .csv'):
    tasks.load(NAME.replace('a.tsv', 'a.txt'), 'train', root=tmp_path / 'b')
  with pytest.raises(FileNotFoundError, match='no file'):
    tasks.load(NAME, 'train', root=tmp_path / 'b')
  with pytest.raises(ValueError, match='no test file'):
    tasks.load(NAME, 'test', root=tmp_path)


def test_a_column_that_is_there_twice_is_refused(tmp_path):
  (tmp_path / 'a.tsv').write_text('question\tanswer\tanswer\ty\na\tb\tc\tno\n')
  with pytest.raises(ValueError, match="2 columns are named 'answer'"):
    tasks.load(NAME, 'validation', root=tmp_path)
