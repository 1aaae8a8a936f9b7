"""Chat templates and defaults of generation survive every way from a folder to a folder."""

import json

import pytest
import tiny_llama
from gguf import GGUFWriter

from prunejax.data import gguf_metadata
from prunejax.models.hf import carried
from prunejax.oneshot import command
from prunejax.train import export, saved_model

ONE, TWO = '{{ one }}\n', '{% if two %}ü{% endif %}'
GENERATION = '{"do_sample": true, "temperature": 0.6}\n'
NAMED = [{'name': 'default', 'template': ONE}, {'name': 'tools', 'template': TWO}]
ROWS = {
  'none': ({}, {}),
  'in the config': ({'tokenizer_config.json': {'chat_template': ONE}}, {carried.TEMPLATE: ONE}),
  'in a file of JSON': ({'chat_template.json': {'chat_template': ONE}}, {carried.TEMPLATE: ONE}),
  'named': (
    {'tokenizer_config.json': {'chat_template': NAMED}},
    {carried.TEMPLATE: ONE, 'additional_chat_templates/tools.jinja': TWO},
  ),
  'a file wins': (
    {'tokenizer_config.json': {'chat_template': TWO}, carried.TEMPLATE: ONE},
    {carried.TEMPLATE: ONE},
  ),
  'generation': ({carried.GENERATION: GENERATION}, {carried.GENERATION: GENERATION}),
  'no template': ({'tokenizer_config.json': {'chat_template': [3, {'name': '../x'}]}}, {}),
}


@pytest.mark.parametrize('row', ROWS)
def test_what_a_folder_says_is_read_as_files_of_their_own(row, tmp_path):
  stored, expected = ROWS[row]
  for name, content in stored.items():
    text = content if isinstance(content, str) else json.dumps(content)
    (tmp_path / name).write_text(text, encoding='utf-8')
  found = carried.read(tmp_path)
  assert found == expected
  assert all(map(carried.is_name, found))
  (tmp_path / 'out').mkdir()
  carried.write(tmp_path / 'out', found)
  assert carried.read(tmp_path / 'out') == expected


def test_the_template_of_a_gguf_file_is_read(tmp_path):
  writer = GGUFWriter(tmp_path / 'm.gguf', 'llama')
  writer.add_chat_template(ONE)
  writer.write_header_to_file()
  writer.write_kv_data_to_file()
  writer.close()
  assert gguf_metadata.is_gguf(tmp_path / 'm.gguf')
  assert carried.read(tmp_path / 'm.gguf') == {carried.TEMPLATE: ONE}


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """A decoder with a chat template, one more of a name, and defaults of generation."""
  where = tmp_path_factory.mktemp('chat') / 'model'
  tiny_llama.write(where)
  texts = {carried.TEMPLATE: ONE, 'additional_chat_templates/tools.jinja': TWO}
  carried.write(where, {**texts, carried.GENERATION: GENERATION})
  return where


def test_every_form_that_holds_a_model_carries_them(folder, tmp_path):
  expected = carried.read(folder)
  assert len(expected) == 3
  export.export(folder, tmp_path / 'hf')
  export.export(folder, tmp_path / 'm.sparse', to='sparse')
  export.export(tmp_path / 'm.sparse', tmp_path / 'again')
  command.prune(folder, str(tmp_path / 'pruned'), criterion='magnitude()', sparsity=0.5)
  for name in ('hf', 'again', 'pruned'):
    assert carried.read(tmp_path / name) == expected, name
    assert saved_model.load(tmp_path / name).carried == expected
