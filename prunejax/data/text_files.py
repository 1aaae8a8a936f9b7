"""Documents from local files: plain text or WikiExtractor shards, compressed or not.

Archives are read as streams. Nothing is unpacked to disk, so no member can write a file.
"""

import gzip
import io
import lzma
import os
import pathlib
import re
import tarfile
import zlib
from collections.abc import Iterator

SUFFIXES = ('.txt', '.text', '.gz', '.xz', '.tar', '.tgz', '')  # '' : WikiExtractor's `wiki_00`
MAX_BYTES = 2**31  # of one text, unpacked; a small archive can hold more than any memory
_TAR = re.compile(r'\.(tar(\.[a-z0-9]+)?|tgz)$')
_HIDDEN = re.compile(r'(^|/)\.[^./]')  # such as the files that macOS adds to an archive
_DOC = re.compile(r'<doc [^>]*>\n?(.*?)</doc>', re.DOTALL)


def files(folder: str | os.PathLike) -> list[pathlib.Path]:
  """Returns the text files below a folder, sorted by path; or the one file that `folder` is.

  Raises:
    FileNotFoundError: no such folder, or no text in it.
  """
  folder = pathlib.Path(folder).expanduser()
  if folder.is_file():
    return [folder]
  if not folder.is_dir():
    raise FileNotFoundError(
      f'no text folder {str(folder)!r}: expected a folder of text files or .tar.xz archives'
    )
  found = sorted(
    p
    for p in folder.rglob('*')
    if p.is_file()
    and p.suffix in SUFFIXES
    and not any(q.startswith('.') for q in p.parts[len(folder.parts) :])
  )
  if not found:
    raise FileNotFoundError(
      f'the text folder {str(folder)!r} holds no text: expected .txt files, WikiExtractor shards, '
      'or .tar.xz/.gz files'
    )
  return found


def documents(folder: str | os.PathLike) -> Iterator[str]:
  """Yields the documents of a folder in a fixed order, one paragraph a line.

  A WikiExtractor shard holds many documents; any other file is one. Text is UTF-8, with or without
  a byte order mark.

  Raises:
    FileNotFoundError: no such folder, or no text in it.
    ValueError: a damaged archive, or a text that is too large.
  """
  for path in files(folder):
    for raw in _members(path):
      yield from _split(raw)


def fingerprint(folder: str | os.PathLike) -> list:
  """Returns what identifies the text of a folder: [[name, bytes], ...]."""
  folder = pathlib.Path(folder).expanduser()
  return [
    [str(p.relative_to(folder)) if p != folder else p.name, p.stat().st_size] for p in files(folder)
  ]


def _members(path):
  """Yields the bytes of each text in a file."""
  try:
    if tarfile.is_tarfile(path) or _TAR.search(path.name):
      with tarfile.open(path, 'r:*') as archive:
        for member in archive:
          if member.isfile() and not _HIDDEN.search(member.name):
            yield _whole(archive.extractfile(member), f'{path}, {member.name}')
      return
    opener = {'.gz': gzip.open, '.xz': lzma.open}.get(path.suffix, io.open)
    with opener(path, 'rb') as stream:
      yield _whole(stream, path)
  except (tarfile.TarError, lzma.LZMAError, gzip.BadGzipFile, zlib.error, EOFError) as error:
    raise ValueError(f'{path}: not a readable archive ({error})') from error


def _whole(stream, name):
  """All bytes of a stream. It is read in pieces, since the size it states may be wrong."""
  pieces, size = [], 0
  while piece := stream.read(2**24):
    pieces.append(piece)
    size += len(piece)
    if size > MAX_BYTES:
      raise ValueError(f'{name}: one text of more than {MAX_BYTES} bytes; split it into shards')
  return b''.join(pieces)


def _split(raw):
  text = raw.decode('utf-8-sig', errors='replace').replace('\r\n', '\n')
  shards = _DOC.findall(text)
  if not shards:
    # Lines of a paragraph are joined, as in a novel: a paragraph ends at an empty line.
    paragraphs = [' '.join(p.split()) for p in re.split(r'\n\s*\n', text)]
    shards = ['\n'.join(p for p in paragraphs if p)]
  for shard in shards:
    lines = [line.strip() for line in shard.split('\n')]
    body = '\n'.join(line for line in lines if line)
    if body:
      yield body
