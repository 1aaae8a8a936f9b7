"""WikiText-2 raw (Merity et al. 2017), as the tables of perplexity read it."""

import os
import pathlib

from prunejax.data import vocabulary

MOST = 2**31  # bytes of a file


def text(path: str | os.PathLike) -> str:
  """Reads wiki.test.raw as one text: its rows joined by two newlines.

  A row of the published data set is a line with its newline, or nothing where the line is blank.

  Args:
    path: the file, or the folder that holds wiki.test.raw.

  Raises:
    FileNotFoundError: it is missing. ValueError: it is too large, no regular file, not UTF-8, or
      empty.
  """
  path = pathlib.Path(path).expanduser()
  if path.is_dir():
    path = path / 'wiki.test.raw'
  content = vocabulary.read_text(path, MOST)
  lines = content.split('\n')
  if not lines[-1]:  # what follows the last newline
    lines.pop()
  rows = [f'{line}\n' if line.strip() else '' for line in lines]
  if not any(rows):
    raise ValueError(f'{str(path)!r} holds no text')
  return '\n\n'.join(rows)
