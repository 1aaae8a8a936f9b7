"""Local text as a run reads it: its encoding, and edits between two runs of one process."""

import numpy as np
import pytest
import tiny_runs

from prunejax.sweep import grid
from prunejax.train import configs, inputs, program, recipe


def config(root, **changes):
  keys = {'data.root': str(root), 'data.cache': str(root / 'cache')}
  return tiny_runs.config(**keys, **{f'data.{key}': value for key, value in changes.items()})


def text_of(config):
  return inputs.text_of(recipe.data_of(config.data))


def tokens(config):
  resolved = recipe.resolve(config)
  return np.array(program.read_inputs(resolved)[1].train(0)['input_ids'])


def test_a_run_reads_text_in_the_encoding_that_its_config_names(tmp_path):
  folder = tiny_runs.write_text(tmp_path / 'text')
  for path in folder.iterdir():
    path.write_bytes(path.read_text().replace('a', 'ä').encode('latin-1'))
  with pytest.raises(ValueError, match='000.txt: byte .* is not text in utf-8.*data.encoding'):
    program.read_inputs(recipe.resolve(config(tmp_path)))
  latin = config(tmp_path, encoding='latin-1')
  assert tokens(latin).shape[0] == latin.batch_size
  assert text_of(latin) != text_of(config(tmp_path))
  with pytest.raises(ValueError, match="data.encoding='latin-x': expected a text encoding"):
    program.read_inputs(recipe.resolve(config(tmp_path, encoding='latin-x')))


def test_the_encoding_counts_for_a_cell_only_where_it_is_another_one(tmp_path):
  cells = [grid.Cell({}, config(tmp_path, **changes)) for changes in ({}, {'encoding': 'latin-1'})]
  assert 'data.encoding' not in configs.counted(cells[0].config)
  assert grid.key(cells[0]) != grid.key(cells[1])


def test_labels_that_change_within_a_process_are_read_again(tmp_path):
  tiny_runs.write_text(tmp_path / 'text')
  tiny_runs.write_glue(tmp_path)
  run = tiny_runs.config(False, data__root=str(tmp_path), data__task='glue/cola')
  labels = lambda: program.read_inputs(recipe.resolve(run))[1].train(0)['label'].tolist()
  first, name = labels(), text_of(run)
  path = tmp_path / 'glue' / 'CoLA' / 'train.tsv'
  swapped = path.read_text().replace('\t0\t', '\tx\t').replace('\t1\t', '\t0\t')
  path.write_text(swapped.replace('\tx\t', '\t1\t'))  # of the same size
  assert text_of(run) != name and labels() == [1 - label for label in first]


def test_text_that_changes_within_a_process_is_read_again(tmp_path):
  folder = tiny_runs.write_text(tmp_path / 'text')
  run = config(tmp_path)
  first, name = tokens(run), text_of(run)
  for path in folder.iterdir():
    words = path.read_text()[:-1].split(' ')
    path.write_text(' '.join(reversed(words)) + '\n')  # of the same size
  assert text_of(run) != name and not np.array_equal(tokens(run), first)
