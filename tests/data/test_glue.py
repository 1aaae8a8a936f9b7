"""GLUE from TSV folders: every task's layout, and each fault that a file can have."""

import numpy as np
import pytest
from glue_files import FILES

from prunejax.data import glue, tasks

# task -> (file as it is published, expected texts a, b, labels)
NLI = 'index\tsentence1\tsentence2\tlabel\n'


def write(root, task, text, split='train'):
  row = glue.TASKS[task]
  folder = root / row.folder
  folder.mkdir(parents=True, exist_ok=True)
  path = folder / dict(row.files)[split]
  path.write_bytes(text if isinstance(text, bytes) else text.encode())
  return path


def test_every_task_has_a_file_here():
  assert set(FILES) == set(glue.TASKS)


@pytest.mark.parametrize('inside', ['', 'glue'])
@pytest.mark.parametrize('task', FILES)
def test_reads_the_published_layout(task, inside, tmp_path):
  text, a, b, label = FILES[task]
  for split, _ in glue.TASKS[task].files:
    write(tmp_path / inside, task, text, split)
  for split, _ in glue.TASKS[task].files:
    examples = tasks.load(f'glue/{task}', split, root=tmp_path)
    assert (examples.a, examples.b) == (a, b)
    np.testing.assert_array_equal(
      examples.label, np.array(label, np.float32 if task == 'stsb' else np.int32), strict=True
    )


def test_mnli_validation_is_the_matched_file(tmp_path):
  text = FILES['mnli'][0]
  write(tmp_path, 'mnli', text, 'validation')
  write(tmp_path, 'mnli', text.replace('It rains.', 'It snows.'), 'validation_mismatched')
  assert glue.read(tmp_path, 'mnli', 'validation').a[0] == 'It rains.'
  assert glue.read(tmp_path, 'mnli', 'validation_matched').a[0] == 'It rains.'
  assert glue.read(tmp_path, 'mnli', 'validation_mismatched').a[0] == 'It snows.'


@pytest.mark.parametrize(
  'task, text, message',
  [
    ('sst2', '', 'train.tsv: empty'),
    ('sst2', 'sentence\tlabel\n', 'train.tsv: empty'),
    ('cola', '\n', 'train.tsv: empty'),
    (
      'sst2',
      'sentence\tlabel\ngood\t1\nbad\n',
      r"train.tsv, line 3: 1 columns, expected 2 \(\['sentence', 'label'\]\)",
    ),
    ('sst2', 'sentence\tlabel\ngood\t1\textra\n', 'train.tsv, line 2: 3 columns, expected 2'),
    ('sst2', 'sentence\tlabel\ngood\t1\n\nbad\t0\n', 'train.tsv, line 3: 1 columns'),
    ('cola', 'a\t1\t\tYes.\nb\t1\tNo.\n', 'train.tsv, line 2: 3 columns, expected 4'),
    ('sst2', 'sentence\tlabel\ngood\t1\nbad\t2\n', "train.tsv, line 3: label '2'; accepted: 0, 1"),
    ('cola', 'a\tx\t\tYes.\n', "train.tsv, line 1: label 'x'; accepted: 0, 1"),
    (
      'rte',
      NLI + '0\ta\tb\tneutral\n',
      "line 2: label 'neutral'; accepted: entailment, not_entailment",
    ),
    (
      'stsb',
      FILES['stsb'][0].replace('3.800', '5.1'),
      "line 2: score '5.1'; accepted: a number from 0 to 5",
    ),
    ('stsb', FILES['stsb'][0].replace('3.800', 'nan'), "line 2: score 'nan'"),
    ('stsb', FILES['stsb'][0].replace('3.800', 'high'), "line 2: score 'high'"),
    (
      'rte',
      'index\tsentence1\tlabel\n0\ta\tentailment\n',
      "line 1: no column 'sentence2' in the header",
    ),
    ('sst2', b'sentence\tlabel\n\xff\xfe\t1\n', 'not UTF-8'),
  ],
)
def test_faulty_files_are_errors(task, text, message, tmp_path):
  write(tmp_path, task, text)
  with pytest.raises(ValueError, match=message) as caught:
    glue.read(tmp_path, task, 'train')
  assert '\n' not in str(caught.value)


def test_the_few_cut_rows_of_qqp_are_left_out_with_a_warning(tmp_path):
  head, row = FILES['qqp'][0].splitlines()
  write(tmp_path, 'qqp', '\n'.join([head, *[row] * 1500, '9\t9', row]))
  with pytest.warns(UserWarning, match='1 incomplete rows left out, the first at line 1502'):
    assert len(glue.read(tmp_path, 'qqp', 'train').a) == 1501
  write(tmp_path, 'qqp', '\n'.join([head, row, '9\t9', '9\t9']))
  with pytest.raises(ValueError, match='line 3: 2 columns, expected 6'):
    glue.read(tmp_path, 'qqp', 'train')


def test_missing_folder_file_and_names(tmp_path):
  with pytest.raises(FileNotFoundError, match='glue.SST-2 nor .* is a folder'):
    glue.read(tmp_path, 'sst2', 'train')
  write(tmp_path, 'sst2', FILES['sst2'][0])
  with pytest.raises(
    FileNotFoundError, match=r"no file .*dev.tsv; the folder holds \['train.tsv'\]"
  ):
    glue.read(tmp_path, 'sst2', 'validation')
  with pytest.raises(ValueError, match="unknown GLUE task 'sst': did you mean 'sst2'"):
    glue.read(tmp_path, 'sst', 'train')
  with pytest.raises(ValueError, match="no split 'test': accepted: train, validation"):
    glue.read(tmp_path, 'sst2', 'test')
  with pytest.raises(ValueError, match="unknown task 'glue/mlni': did you mean 'glue/mnli'"):
    tasks.get('glue/mlni')
  with pytest.raises(ValueError, match='data.root'):
    tasks.load('glue/sst2', 'train')


def test_table_is_whole():
  known = {'accuracy', 'f1', 'matthews', 'pearson', 'spearman'}
  for name in glue.TASKS:
    for source in ('glue', 'tfds/glue'):
      task = tasks.get(f'{source}/{name}')
      assert task.name == f'{source}/{name}' and set(task.metrics) <= known
      assert task.pair == (name not in ('cola', 'sst2'))
      assert (task.classes is None) == (name == 'stsb')
