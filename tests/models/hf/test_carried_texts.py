"""Chat templates and defaults of generation survive every way from a folder to a folder."""

import json
import re

import pytest
import tiny_llama
from gguf import GGUFWriter

from prunejax.data import gguf_metadata
from prunejax.models.hf import carried_texts
from prunejax.models.hf import folder as folder_files
from prunejax.models.hf import llama as llama_hf
from prunejax.oneshot import command
from prunejax.train import export, saved_model

ONE, TWO = '{{ one }}\n', '{% if two %}ü{% endif %}'
GENERATION = '{"do_sample": true, "temperature": 0.6}\n'
NAMED = [{'name': 'default', 'template': ONE}, {'name': 'tools', 'template': TWO}]
ROWS = {
  'none': ({}, {}),
  'in the config': (
    {'tokenizer_config.json': {'chat_template': ONE}},
    {carried_texts.TEMPLATE: ONE},
  ),
  'in a file of JSON': (
    {'chat_template.json': {'chat_template': ONE}},
    {carried_texts.TEMPLATE: ONE},
  ),
  'named': (
    {'tokenizer_config.json': {'chat_template': NAMED}},
    {carried_texts.TEMPLATE: ONE, 'additional_chat_templates/tools.jinja': TWO},
  ),
  'a file wins': (
    {'tokenizer_config.json': {'chat_template': TWO}, carried_texts.TEMPLATE: ONE},
    {carried_texts.TEMPLATE: ONE},
  ),
  'generation': ({carried_texts.GENERATION: GENERATION}, {carried_texts.GENERATION: GENERATION}),
  'lines that end as on Windows': (
    {carried_texts.TEMPLATE: 'a\r\nb'},
    {carried_texts.TEMPLATE: 'a\r\nb'},
  ),
}


@pytest.mark.parametrize('row', ROWS)
def test_what_a_folder_says_is_read_as_files_of_their_own(row, tmp_path):
  stored, expected = ROWS[row]
  for name, content in stored.items():
    text = content if isinstance(content, str) else json.dumps(content)
    (tmp_path / name).write_bytes(text.encode('utf-8'))
  found = carried_texts.read(tmp_path)
  assert found == expected
  assert all(re.fullmatch(carried_texts.CARRIED, name) for name in found)
  (tmp_path / 'out').mkdir()
  carried_texts.write(tmp_path / 'out', found)
  assert carried_texts.read(tmp_path / 'out') == expected


@pytest.mark.parametrize(
  'name, content, words',
  [
    ('tokenizer_config.json', b'{', 'tokenizer_config.json is damaged'),
    ('tokenizer_config.json', b'[]', 'expected a JSON object'),
    (carried_texts.TEMPLATE, b'\xff', 'chat_template.jinja is not UTF-8'),
    ('tokenizer_config.json', b'{"chat_template": 3}', 'has the chat template 3'),
    ('tokenizer_config.json', b'{"chat_template": {"a": 1}}', 'expected a text, or rows'),
    *(
      (
        'chat_template.json',
        json.dumps({'chat_template': [row]}).encode(),
        'expected a text, or rows',
      )
      for row in (3, {'name': 'x'}, {'name': '../x', 'template': ''}, {'name': '', 'template': ''})
    ),
  ],
)
def test_what_cannot_be_carried_is_refused_by_file(name, content, words, tmp_path):
  (tmp_path / name).write_bytes(content)
  with pytest.raises(folder_files.CheckpointError, match=words):
    carried_texts.read(tmp_path)


def test_the_templates_of_a_gguf_file_are_read(tmp_path):
  writer = GGUFWriter(tmp_path / 'm.gguf', 'llama')
  writer.add_chat_template(NAMED)
  writer.write_header_to_file()
  writer.write_kv_data_to_file()
  writer.close()
  assert gguf_metadata.is_gguf(tmp_path / 'm.gguf')
  assert carried_texts.read(tmp_path / 'm.gguf') == ROWS['named'][1]


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """A decoder with a chat template, one more of a name, and defaults of generation."""
  where = tmp_path_factory.mktemp('chat') / 'model'
  tiny_llama.write(where)
  texts = {carried_texts.TEMPLATE: ONE, 'additional_chat_templates/tools.jinja': TWO}
  carried_texts.write(where, {**texts, carried_texts.GENERATION: GENERATION})
  return where


def test_every_form_that_holds_a_model_carries_them(folder, tmp_path):
  expected = carried_texts.read(folder)
  assert len(expected) == 3
  export.export(folder, tmp_path / 'hf')
  export.export(folder, tmp_path / 'm.sparse', to='sparse')
  export.export(tmp_path / 'm.sparse', tmp_path / 'again')
  command.prune(folder, str(tmp_path / 'pruned'), criterion='magnitude()', sparsity=0.5)
  for name in ('hf', 'again', 'pruned'):
    assert carried_texts.read(tmp_path / name) == expected, name
    assert saved_model.load(tmp_path / name).carried == expected


def test_carried_texts_are_checked_and_those_of_the_model_before_are_removed(folder, tmp_path):
  out = tmp_path / 'out'
  tree, size = tiny_llama.write(out)
  save = lambda texts: llama_hf.save(out, tree, size, carried=texts)
  save(carried_texts.read(folder))
  folder_files.check(out)
  (out / carried_texts.TEMPLATE).write_text('another')
  with pytest.raises(folder_files.CheckpointError, match='is not the file that was written'):
    folder_files.check(out)
  save({carried_texts.TEMPLATE: TWO})
  assert carried_texts.read(out) == {carried_texts.TEMPLATE: TWO}
  folder_files.check(out)
