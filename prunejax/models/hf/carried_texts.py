"""Chat templates and generation_config.json, which every folder that we write has from its source.

They change no number here, so they are read and written as texts, byte for byte.
"""

import json
import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any

from prunejax.data import gguf_metadata
from prunejax.models.hf.folder import CARRIED, GENERATION, MORE_TEMPLATES, TEMPLATE, CheckpointError

GGUF_TEMPLATE = 'tokenizer.chat_template'


def read(source: str | os.PathLike) -> dict[str, str]:
  """Reads what is carried.

  A template may stand in tokenizer_config.json, in chat_template.json or in a file of its own, of
  which the last wins. The first two may hold a list of named templates.

  Args:
    source: a Hugging Face folder or a GGUF file.

  Returns:
    {path in the folder: text}, the templates as files of their own, as transformers writes them.

  Raises:
    CheckpointError: a file that is damaged; a template whose name cannot be that of a file.
  """
  source = pathlib.Path(source)
  if gguf_metadata.is_gguf(source):
    return _of_gguf(source)
  texts: dict[str, str] = {}
  for name in ('tokenizer_config.json', 'chat_template.json'):
    if (source / name).is_file():
      texts |= _templates(_object(source / name).get('chat_template'), source / name)
  files = [source / TEMPLATE, *sorted((source / MORE_TEMPLATES).glob('*.jinja'))]
  for path in [*files, source / GENERATION]:
    if path.is_file():
      texts[path.relative_to(source).as_posix()] = _text(path)
  return texts


def _of_gguf(path):
  try:
    reader = gguf_metadata.opened(path)
    template = gguf_metadata.value(reader, GGUF_TEMPLATE, str, '')
    names = gguf_metadata.value(reader, f'{GGUF_TEMPLATE}s', list, [])
    named = [
      {'name': name, 'template': gguf_metadata.value(reader, f'{GGUF_TEMPLATE}.{name}', str)}
      for name in names
    ]
  except gguf_metadata.GgufError as error:
    raise CheckpointError(f'{path}: {error}') from error
  return ({TEMPLATE: template} if template else {}) | _templates(named, path)


def _templates(stored: Any, where: pathlib.Path) -> dict[str, str]:
  """{path: text} of a text, or of [{'name', 'template'}, ...]."""
  if isinstance(stored, str):
    return {TEMPLATE: stored}
  texts = {}
  for row in stored if isinstance(stored, list) else [] if stored is None else [stored]:
    name, text = map(row.get, ('name', 'template')) if isinstance(row, dict) else (None, None)
    file = TEMPLATE if name == 'default' else f'{MORE_TEMPLATES}/{name}.jinja'
    if not (isinstance(name, str) and isinstance(text, str) and re.fullmatch(CARRIED, file)):
      raise CheckpointError(
        f'{where} has the chat template {row!r:.200}: expected a text, or rows with a name that a'
        ' file can have, and a text'
      )
    texts[file] = text
  return texts


def write(folder: str | os.PathLike, texts: Mapping[str, str]) -> None:
  """Writes texts, {path in the folder: text}, into a folder that exists."""
  for name, text in texts.items():
    path = pathlib.Path(folder) / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(text.encode('utf-8'))


def _object(path):
  try:
    content = json.loads(_text(path))
  except (ValueError, RecursionError) as error:
    raise CheckpointError(f'{path} is damaged: {error!s:.200}') from None
  if not isinstance(content, dict):
    raise CheckpointError(f'{path} is damaged: expected a JSON object')
  return content


def _text(path):
  try:
    return path.read_bytes().decode('utf-8')
  except UnicodeDecodeError as error:
    raise CheckpointError(f'{path} is not UTF-8: {error}') from None
