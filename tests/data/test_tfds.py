"""TFDS without TensorFlow: datasets prepared here, offline, in its own on-disk format."""

import shutil
import sys

import numpy as np
import pytest
import tensorflow_datasets.text.glue as stock_glue
from glue_files import FILES
from tfds_builders import local_glue, text_corpus

from prunejax.data import corpus, glue, tasks, tfds


@pytest.fixture(scope='module')
def data_dir(tmp_path_factory):
  folder, raw = tmp_path_factory.mktemp('tfds'), tmp_path_factory.mktemp('raw')
  for task in ('sst2', 'rte', 'stsb'):
    text = FILES[task][0]
    (raw / glue.TASKS[task].folder).mkdir()
    for split in ('train', 'dev', 'test'):
      (raw / glue.TASKS[task].folder / f'{split}.tsv').write_text(text)
    local_glue(raw)(config=task, data_dir=folder, file_format='array_record').download_and_prepare()
  texts = [f'Article {i} says na\u00efve things.' for i in range(30)]
  text_corpus('wikipedia', texts, '20230601.en')(
    config='20230601.en', data_dir=folder, file_format='array_record'
  ).download_and_prepare()
  text_corpus('lm1b', texts[:7])(data_dir=folder, file_format='array_record').download_and_prepare()
  return folder


def test_no_tensorflow_is_imported(data_dir):
  list(tfds.documents('lm1b', data_dir, 'train'))
  assert 'tensorflow' not in sys.modules


@pytest.mark.parametrize('name, count', [('wikipedia/20230601.en', 30), ('lm1b', 7)])
def test_corpora(name, count, data_dir):
  texts = list(tfds.documents(name, data_dir, 'train'))
  assert sorted(texts) == sorted(f'Article {i} says na\u00efve things.' for i in range(count))
  assert texts == list(tfds.documents(name, data_dir, 'train'))


def test_plain_wikipedia_is_whichever_edition_is_prepared(data_dir):
  assert len(list(tfds.documents('wikipedia', data_dir, 'train'))) == 30


@pytest.mark.parametrize('task', ['sst2', 'rte', 'stsb'])
def test_glue_is_the_same_from_tfds_and_from_tsv(task, data_dir, tmp_path):
  row = glue.TASKS[task]
  (tmp_path / row.folder).mkdir()
  (tmp_path / row.folder / 'dev.tsv').write_text(FILES[task][0])
  local = tasks.load(f'glue/{task}', 'validation', root=tmp_path)
  stored = tasks.load(f'tfds/glue/{task}', 'validation', root=data_dir)
  strip = lambda texts: texts and [t.strip() for t in texts]
  assert sorted(strip(stored.a)) == sorted(local.a) and (stored.b is None) == (local.b is None)
  np.testing.assert_array_equal(np.sort(stored.label), np.sort(local.label), strict=True)


@pytest.mark.parametrize('task', glue.TASKS)
def test_table_agrees_with_tfds(task):
  config = next(c for c in stock_glue.Glue.BUILDER_CONFIGS if c.name == task)
  row = glue.TASKS[task]
  assert tuple(config.text_features) == row.features
  assert row.classes == (tuple(config.label_classes) if config.label_classes else None)


def test_a_dataset_that_is_not_prepared_says_how(tmp_path):
  for call in (
    lambda: tfds.documents('lm1b', tmp_path, 'train'),
    lambda: tfds.read_task('qqp', tmp_path, 'train'),
  ):
    with pytest.raises(
      FileNotFoundError, match='is not prepared in .*download_and_prepare'
    ) as caught:
      call()
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize(
  'call, message',
  [
    (lambda d: tfds.documents('wikipdia', d, 'train'), "did you mean 'wikipedia'"),
    (lambda d: tfds.documents('glue/sst2', d, 'train'), 'is not a corpus'),
    (lambda d: tfds.documents('wikipedia/2001.xx', d, 'train'), "no dataset 'wikipedia/2001.xx'"),
    (lambda d: tfds.documents('lm1b', d, 'dev'), "'lm1b' has no split 'dev': accepted: train"),
    (lambda d: tfds.read_task('sst', d, 'train'), "did you mean 'sst2'"),
    (lambda d: tfds.read_task('sst2', d, 'test'), "no split 'test': accepted: train, validation"),
  ],
)
def test_errors_name_what_is_accepted(call, message, data_dir):
  with pytest.raises(ValueError, match=message):
    call(data_dir)


def test_a_dataset_that_lost_records_is_refused(tmp_path):
  text_corpus('lm1b', ['one', 'two', 'three'])(
    data_dir=tmp_path, file_format='array_record'
  ).download_and_prepare()
  info = next(tmp_path.rglob('dataset_info.json'))
  info.write_text(info.read_text().replace('"3"', '"5"'))
  with pytest.raises(ValueError, match='3 records on disk, dataset_info says 5'):
    tfds.documents('lm1b', tmp_path, 'train')


def test_files_that_need_tensorflow_are_refused(tmp_path):
  text_corpus('lm1b', ['one', 'two'])(
    data_dir=tmp_path, file_format='array_record'
  ).download_and_prepare()
  info = next(tmp_path.rglob('dataset_info.json'))
  info.write_text(info.read_text().replace('"array_record"', '"tfrecord"'))
  with pytest.raises(ValueError, match='is stored as tfrecord, which needs TensorFlow'):
    tfds.documents('lm1b', tmp_path, 'train')


def test_tokens_are_made_again_when_a_dataset_is_prepared_anew(tmp_path):
  keys = []
  for count in (5, 6, 6):
    shutil.rmtree(tmp_path / 'lm1b', ignore_errors=True)
    texts = [f'Text {i}' for i in range(count)]
    text_corpus('lm1b', texts)(data_dir=tmp_path, file_format='array_record').download_and_prepare()
    keys.append(corpus.key('tfds:lm1b', root=tmp_path))
  assert keys[0] != keys[1] == keys[2]
