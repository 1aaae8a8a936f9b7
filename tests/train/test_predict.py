"""Predictions for test sets, in the format of a submission, and the scores of other dev sets."""

import json
import pathlib

import numpy as np
import pytest
import tiny_runs
from glue_files import FILES

from prunejax import __main__ as command
from prunejax.data import glue
from prunejax.train import evaluate, predict

TESTS = {
  'cola': (
    'index\tsentence\n7\tThe rope broke.\n8\tA "rope.\n',
    ['The rope broke.', 'A "rope.'],
    None,
  ),
  'mrpc': (
    '\ufeffindex\t#1 ID\t#2 ID\t#1 String\t#2 String\n7\t1\t2\tOne .\tTwo .\n8\t1\t2\tA\tB\n',
    ['One .', 'A'],
    ['Two .', 'B'],
  ),
  'qqp': ('id\tquestion1\tquestion2\n7\tWho?\tWhat?\n8\tA\tB\n', ['Who?', 'A'], ['What?', 'B']),
  'stsb': (
    'index\tgenre\tsentence1\tsentence2\n7\tg\tA man.\tA woman.\n8\tg\tA\tB\n',
    ['A man.', 'A'],
    ['A woman.', 'B'],
  ),
}


@pytest.mark.parametrize('task', TESTS)
def test_a_test_set_is_read_as_it_is_published(task, tmp_path):
  text, a, b = TESTS[task]
  (submission,) = glue.submissions(task)
  folder = tmp_path / glue.TASKS[task].folder
  folder.mkdir()
  (folder / submission.source).write_text(text, encoding='utf-8')
  assert glue.read_test(tmp_path, task, submission.source) == (['7', '8'], a, b)
  assert submission.name == f'{glue.TASKS[task].folder}.tsv'
  (folder / submission.source).write_text(text + '9\n')
  with pytest.raises(ValueError, match='line 4: 1 columns'):
    glue.read_test(tmp_path, task, submission.source)


def test_labels_are_spelled_as_in_a_submission():
  assert glue.spelled('mnli') == ('entailment', 'neutral', 'contradiction')
  assert glue.spelled('rte') == ('entailment', 'not_entailment')
  assert glue.spelled('cola') == ('0', '1') and glue.spelled('stsb') is None


def trained(folder, **changes):
  changes = {'steps': 60, 'checkpoint__every': 0, **changes}
  return tiny_runs.train(tiny_runs.config(False, **changes), folder, say=lambda line: None)


def rows_of(path):
  head, *rows = [line.split('\t') for line in path.read_text().splitlines()]
  assert head == ['index', 'prediction']
  return rows


def test_the_predictions_of_a_run_score_what_the_run_scores(tmp_path, capsys):
  result = trained(tmp_path / 'run', data__task='glue/cola')
  source = tiny_runs.home() / 'glue' / 'CoLA' / 'dev.tsv'
  rows = [line.split('\t') for line in source.read_text().splitlines()]
  folder = tmp_path / 'glue' / 'CoLA'
  folder.mkdir(parents=True)
  lines = [f'{i}\t{row[3]}\n' for i, row in enumerate(rows)]
  (folder / 'test.tsv').write_text(''.join(['index\tsentence\n', *lines]))
  argv = ['predict', str(tmp_path / 'run'), f'--out={tmp_path / "out"}', f'--data={tmp_path}']
  assert command.main(argv) == 0
  predicted = rows_of(tmp_path / 'out' / 'CoLA.tsv')
  assert [row[0] for row in predicted] == [str(i) for i in range(len(rows))]
  guess = np.array([int(row[1]) for row in predicted])
  label = np.array([int(row[1]) for row in rows])
  assert len(set(guess)) == 2
  assert evaluate.accuracy(guess, label) == result['metrics']['accuracy']
  assert command.main(argv) == 2 and 'CoLA.tsv already' in capsys.readouterr().err
  argv = [*argv[:2], f'--out={tmp_path / "more"}']
  assert command.main(argv) == 2 and 'test.tsv' in capsys.readouterr().err


def test_files_of_ones_own_from_the_command_to_predictions(tmp_path, capsys):
  rng = np.random.default_rng(0)
  words = ['deni', 'foru', 'gist', 'ku']
  for name in ('train', 'dev'):
    labels = rng.integers(0, 3, 48)
    lines = [
      f'"{["ba", "tu", "lo"][y]}, {" ".join(rng.choice(words, 3))}",{"xyz"[y]}\n' for y in labels
    ]
    (tmp_path / f'{name}.csv').write_text(''.join(['text,kind\n', *lines]))
  (tmp_path / 'new.csv').write_text('text\n' + ''.join(f'"{w}, ku gist"\n' for w in ('ba', 'lo')))
  task = "labelled('train.csv', 'dev.csv', 'new.csv', ('text',), 'kind', ('x', 'y', 'z'),"
  task += " ('matthews', 'accuracy'))"
  given = tiny_runs.argv('train', tmp_path / 'run', **{'steps': 80, 'data.task': task})
  given += [f'--config.data.root={tmp_path}', f'--config.data.vocab={vocabulary(tmp_path)}']
  assert command.main(given) == 0, capsys.readouterr().err
  result = json.loads((tmp_path / 'run' / 'result.json').read_text())['metrics']
  assert {'dev_loss', 'matthews', 'accuracy', 'train_loss', 'majority'} == set(result)
  argv = ['predict', str(tmp_path / 'run'), f'--out={tmp_path / "out"}']
  assert command.main(argv) == 0
  predicted = rows_of(tmp_path / 'out' / 'new.tsv')
  assert [row[0] for row in predicted] == ['0', '1'] and {row[1] for row in predicted} <= set('xyz')


def vocabulary(folder):
  words = ['ba', 'tu', 'lo', 'deni', 'foru', 'gist', 'ku', ',', 'x', 'y', 'z']
  path = folder / 'vocab.txt'
  path.write_text('\n'.join(['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', *words]) + '\n')
  return path


def test_mismatched_scores_stand_beside_the_matched_ones(tmp_path):
  folder = tmp_path / 'glue' / 'MNLI'
  folder.mkdir(parents=True)
  head, *rows = FILES['mnli'][0].splitlines(keepends=True)
  matched, mismatched = [rows[0]] * 4, [rows[0], rows[1]] * 2
  for name, chosen in (('train', rows), ('dev_matched', matched), ('dev_mismatched', mismatched)):
    (folder / f'{name}.tsv').write_text(''.join([head, *chosen]))
  changes = {'data__task': 'glue/mnli', 'data__root': str(tmp_path), 'steps': 4}
  changes |= {'data__vocab': str(vocabulary(tmp_path))}
  metrics = trained(tmp_path / 'run', **changes)['metrics']
  # All words are unknown, so every pair gets the same class.
  assert metrics['accuracy'] in (0.0, 1.0)
  assert metrics['mismatched_accuracy'] in (0.0, 0.5)
  for source in ('test_matched', 'test_mismatched'):
    (folder / f'{source}.tsv').write_text('index\tsentence1\tsentence2\n5\tA.\tB.\n')
  names = predict.predict(tmp_path / 'run', tmp_path / 'out', say=lambda line: None)
  assert names == ['MNLI-m.tsv', 'MNLI-mm.tsv']
  assert rows_of(pathlib.Path(tmp_path / 'out' / 'MNLI-mm.tsv'))[0][1] in glue.spelled('mnli')
  (folder / 'dev_mismatched.tsv').unlink()
  assert 'mismatched_accuracy' not in trained(tmp_path / 'other', **changes)['metrics']


def test_two_files_of_questions_of_one_name_are_refused(tmp_path):
  for folder in ('train', 'dev', 'test'):
    (tmp_path / folder).mkdir()
    (tmp_path / folder / 'q.json').write_text('{}')
  name = "squad('train/q.json', 'dev/q.json', test='test/q.json')"
  with pytest.raises(ValueError, match='would go into one file, q-predictions.json'):
    predict._answers(None, name, tmp_path, tmp_path / 'out', print)
  assert not (tmp_path / 'out').exists()
