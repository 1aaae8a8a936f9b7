"""What a folder says for programs that run a model, carried to the folder that is written.

Chat templates and defaults of generation change no number here. They are read as text and written
as text, so what a program of a later version means by them is kept.
"""

import json
import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any

from prunejax.data import gguf_metadata

GENERATION = 'generation_config.json'
TEMPLATE = 'chat_template.jinja'
MORE_TEMPLATES = 'additional_chat_templates'  # the folder of named templates, as in transformers
GGUF_TEMPLATE = 'tokenizer.chat_template'


def read(source: str | os.PathLike) -> dict[str, str]:
  """Reads what is carried.

  Args:
    source: a Hugging Face folder or a GGUF file. A template may be a file of its own, or stand in
      tokenizer_config.json or chat_template.json, as a text or as a list of named ones.

  Returns:
    {path in the folder: text}, the templates as files of their own.
  """
  source = pathlib.Path(source)
  if gguf_metadata.is_gguf(source):
    template = gguf_metadata.value(gguf_metadata.opened(source), GGUF_TEMPLATE, str, '')
    return {TEMPLATE: template} if template else {}
  texts: dict[str, str] = {}
  for name in ('tokenizer_config.json', 'chat_template.json'):
    if (source / name).is_file():
      texts |= _templates(_json(source / name).get('chat_template'))
  for path in [source / TEMPLATE, *sorted((source / MORE_TEMPLATES).glob('*.jinja'))]:
    if path.is_file():
      texts[path.relative_to(source).as_posix()] = path.read_text(encoding='utf-8')
  if (source / GENERATION).is_file():
    texts[GENERATION] = (source / GENERATION).read_text(encoding='utf-8')
  return texts


def is_name(name: str) -> bool:
  """Whether a file of this name, a path in a folder, is one that `read` returns."""
  return name in (GENERATION, TEMPLATE) or bool(
    re.fullmatch(rf'{MORE_TEMPLATES}/[^/\\]+\.jinja', name)
  )


def write(folder: str | os.PathLike, texts: Mapping[str, str]) -> None:
  """Writes texts, {path in the folder: text}, into a folder that exists."""
  for name, text in texts.items():
    path = pathlib.Path(folder) / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding='utf-8', newline='\n')


def _templates(stored: Any) -> dict[str, str]:
  if isinstance(stored, str):
    return {TEMPLATE: stored}
  named = stored if isinstance(stored, list) else []
  pairs = [(row['name'], row['template']) for row in named if _is_named(row)]
  place = lambda name: TEMPLATE if name == 'default' else f'{MORE_TEMPLATES}/{name}.jinja'
  return {place(name): text for name, text in pairs}


def _is_named(row):
  name = row.get('name') if isinstance(row, dict) else None
  plain = isinstance(name, str) and pathlib.PurePath(name).name == name
  return plain and isinstance(row.get('template'), str)


def _json(path):
  try:
    content = json.loads(path.read_text(encoding='utf-8'))
  except (ValueError, RecursionError):
    return {}
  return content if isinstance(content, dict) else {}
