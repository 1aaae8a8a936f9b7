"""Documents from local files: plain text, WikiExtractor shards or .jsonl, compressed or not.

Archives are read as streams. Nothing is unpacked to disk, so no member can write a file.
"""

import bz2
import codecs
import gzip
import io
import json
import lzma
import os
import pathlib
import re
import tarfile
import zlib
from collections.abc import Iterator

from prunejax.data import content

COMPRESSED = {'.gz': gzip.open, '.xz': lzma.open, '.bz2': bz2.open}
# No suffix at all: WikiExtractor's `wiki_00`.
SUFFIXES = ('.txt', '.text', '.jsonl', *COMPRESSED, '.tar', '.tgz', '.tbz2', '.txz', '')
EXPECTED = '.txt files, WikiExtractor shards, .jsonl files, or .tar.xz/.gz/.xz/.bz2 files'
# Files of data that are not read: a corpus of which they are a part would be incomplete.
UNREAD = ('.zst', '.lz4', '.zip', '.7z', '.rar', '.parquet', '.arrow')
MAX_BYTES = 2**31  # of one text, unpacked; a small archive can hold more than any memory
_CHUNK = 2**18
_MAX_HEADER = 2**24  # bytes of the headers of one member of an archive
_TAR = re.compile(r'\.(tar(\.[a-z0-9]+)?|tgz|tbz2|txz)$', re.IGNORECASE)
_HIDDEN = re.compile(r'(^|/)\.[^./]')  # such as the files that macOS adds to an archive
_MAGIC = (
  (b'\x1f\x8b', gzip.open),
  (b'BZh', bz2.open),
  (b'\xfd7zXZ\x00', lzma.open),
  (b'\x5d\x00\x00', lzma.open),
)


def files(folder: str | os.PathLike) -> list[pathlib.Path]:
  """Returns the text files below a folder, sorted by path; or the one file that `folder` is.

  Raises:
    FileNotFoundError: no such folder, or no text in it.
    ValueError: a link to a file outside the folder.
  """
  folder = pathlib.Path(folder).expanduser()
  if folder.is_file():
    return [folder]
  if not folder.is_dir():
    raise FileNotFoundError(
      f'no text folder {str(folder)!r}: '
      'expected a folder of text files or .tar.xz archives, or one file'
    )
  paths = [path for path in _visible(folder) if path.suffix.lower() in SUFFIXES]
  if not paths:
    raise FileNotFoundError(f'the text folder {str(folder)!r} holds no text: expected {EXPECTED}')
  inside = folder.resolve()
  for path in paths:
    if not path.resolve().is_relative_to(inside):
      raise ValueError(
        f'{path} is a link to {path.resolve()}, outside the text folder: put a copy in its place'
      )
  return paths


def check_whole(folder: str | os.PathLike):
  """Refuses a folder with data that is not read, of which a corpus would lack a part.

  Raises:
    ValueError: there is such a file.
  """
  folder = pathlib.Path(folder).expanduser()
  if unread := [path for path in _visible(folder) if path.suffix.lower() in UNREAD]:
    raise ValueError(
      f'{unread[0]} in a text folder is not read, so the text would be incomplete: expected'
      f' {EXPECTED}; convert it, or take it out'
    )


def _visible(folder):
  """The files below a folder, sorted by path, without hidden ones."""
  return sorted(
    path
    for path in folder.rglob('*')
    if path.is_file() and not any(part.startswith('.') for part in path.parts[len(folder.parts) :])
  )


def documents(
  folder: str | os.PathLike, *, encoding: str = 'utf-8', divide: bool = False
) -> Iterator[str]:
  """Yields the documents of a folder in a fixed order, one paragraph a line.

  - A WikiExtractor shard, which starts with `<doc ...>`, holds many documents.
  - Each line of a .jsonl file is an object whose "text" is a document.
  - Any other file is one document, and blank lines separate its paragraphs.

  Args:
    folder: a folder of files, or one file.
    encoding: of the text; a byte order mark is accepted with UTF-8.
    divide: whether a plain text without other files beside it is divided as in BERT's own format:
      blank lines separate documents, and each line is a sentence or paragraph.

  Raises:
    FileNotFoundError: no such folder, or no text in it.
    ValueError: an unknown encoding; bytes that are no text in it, with their file and position; a
      damaged archive, shard or .jsonl; a text that is too large.
  """
  encoding = _checked_encoding(encoding)
  paths = files(folder)
  for path in paths:
    try:
      for stream, name, alone in _texts(path):
        lines = _lines(stream, name, encoding)
        if pathlib.PurePath(_uncompressed(name)).suffix.lower() == '.jsonl':
          yield from _from_jsonl(lines, name)
        else:
          yield from _from_text(lines, name, divide and alone and len(paths) == 1)
    except (tarfile.TarError, lzma.LZMAError, zlib.error, EOFError, OSError) as error:
      if isinstance(error, OSError) and error.errno:  # bz2 and gzip raise OSError without a number
        raise
      raise ValueError(f'{path}: not a readable archive ({error})') from error


def fingerprint(folder: str | os.PathLike) -> list:
  """Returns what identifies the text of a folder: [[name, digest of the bytes], ...]."""
  folder = pathlib.Path(folder).expanduser()
  return [
    [path.relative_to(folder).as_posix() if path != folder else path.name, content.of_file(path)]
    for path in files(folder)
  ]


def _checked_encoding(encoding):
  try:
    name = codecs.lookup(encoding).name
    if not isinstance(codecs.getincrementaldecoder(encoding)().decode(b'', True), str):
      raise ValueError('not a text encoding')  # such as 'hex', which gives bytes
  except (LookupError, TypeError, ValueError) as error:
    raise ValueError(
      f'data.encoding={encoding!r}: '
      'expected a text encoding of Python, such as "utf-8" or "latin-1"'
    ) from error
  return 'utf-8-sig' if name == 'utf-8' else name


def _uncompressed(name):
  """A file name without the suffix of its compression."""
  suffix = pathlib.PurePath(name).suffix
  return name.removesuffix(suffix) if suffix.lower() in COMPRESSED else name


class _Limited:
  """A stream for tarfile that stops when headers ask for more than `left` bytes.

  tarfile reads as many bytes as a header says at once, whatever the size of the file.
  """

  def __init__(self, stream):
    self.stream, self.left = stream, _MAX_HEADER
    self.seek, self.tell = stream.seek, stream.tell

  def read(self, size=-1):
    self.left -= size
    if size < 0 or self.left < 0:
      raise tarfile.ReadError(f'a header asks for {size} bytes')
    return self.stream.read(size)


def _texts(path):
  """Yields (stream, name, whether it is a file by itself) of each text in a file."""
  by_suffix = COMPRESSED.get(path.suffix.lower())
  if by_suffix and not path.stat().st_size:
    raise EOFError('the file is empty')
  with open(path, 'rb') as file:
    start = file.read(8)
  by_content = next((opener for magic, opener in _MAGIC if start.startswith(magic)), io.open)
  if _TAR.search(path.name) or _is_tar(path, by_content):
    with by_content(path, 'rb') as stream:
      yield from _members(stream, path)
  else:
    with (by_suffix or io.open)(path, 'rb') as stream:
      yield stream, str(path), True


def _is_tar(path, opener):
  """Whether the file starts with the header of a tar archive."""
  try:
    with opener(path, 'rb') as stream:
      tarfile.TarInfo.frombuf(stream.read(tarfile.BLOCKSIZE), 'utf-8', 'surrogateescape')
  except (tarfile.TarError, lzma.LZMAError, zlib.error, EOFError, OSError):
    return False
  return True


def _members(stream, path):
  """Yields the texts of a tar archive. Raises tarfile.ReadError for one that is not complete."""
  limited = _Limited(stream)
  with tarfile.open(fileobj=limited, mode='r:') as archive:
    for member in archive:
      if member.size < 0:
        raise tarfile.ReadError(f'{member.name} has the size {member.size}')
      if member.isfile() and not _HIDDEN.search(member.name):
        content = archive.extractfile(member)
        yield _Member(content, limited), f'{path}, {member.name}', False
      limited.left = _MAX_HEADER
    limited.seek(archive.offset)
    if limited.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
      raise tarfile.ReadError('its end is missing or damaged')


class _Member:
  """The content of a member: reading it does not count as reading headers."""

  def __init__(self, content, limited):
    self.content, self.limited = content, limited

  def read(self, size):
    self.limited.left = size + _MAX_HEADER
    return self.content.read(size)


def _lines(stream, name, encoding):
  """Yields the lines of a stream. It is read in pieces, since the size it states may be wrong."""
  decoder = codecs.getincrementaldecoder(encoding)()
  size, pieces = 0, []
  while True:
    chunk = stream.read(_CHUNK)
    try:
      text = decoder.decode(chunk, not chunk)
    except UnicodeDecodeError as error:
      # The decoder may hold bytes of the chunk before, or have taken a byte order mark off.
      position = size + error.start - (len(error.object) - len(chunk))
      raise ValueError(
        f'{name}: byte {position} is not text in {encoding.removesuffix("-sig")}; '
        'name the encoding of the text: --config.data.encoding=, of prune --encoding='
      ) from None
    size += len(chunk)
    if size > MAX_BYTES:
      raise ValueError(f'{name}: one text of more than {MAX_BYTES} bytes; split it into shards')
    first, *rest = text.split('\n')
    pieces.append(first)
    for line in rest:
      yield ''.join(pieces)
      pieces = [line]
    if not chunk:
      yield ''.join(pieces)
      return


def _from_jsonl(lines, name):
  """Yields the documents of .jsonl lines."""
  for number, line in enumerate(lines, 1):
    if not line.strip():
      continue
    try:
      text = json.loads(line)['text']
      if not isinstance(text, str):
        raise TypeError
    except (ValueError, KeyError, TypeError, RecursionError):
      raise ValueError(
        f'{name}, line {number}: expected a JSON object with a string "text", '
        f'found {line.strip()[:40]!r}'
      ) from None
    if document := _joined(text.split('\n')):
      yield document


def _from_text(lines, name, divide):
  """Yields the documents of a WikiExtractor shard, or of plain text."""
  paragraphs, block = [], []
  for line in lines:
    line = line.strip()
    if line.startswith('<doc ') and '>' in line and not paragraphs and not block:
      yield from _from_shard(line, lines, name)
      return
    if line:
      block.append(line)
    elif divide and block:
      yield '\n'.join(block)
      block = []
    elif block:
      paragraphs.append(_paragraph(block))
      block = []
  if divide and block:
    yield '\n'.join(block)
  elif block:
    paragraphs.append(_paragraph(block))
  if paragraphs:
    yield '\n'.join(paragraphs)


def _paragraph(lines):
  """Lines of a paragraph are joined, as a novel wraps them."""
  return ' '.join(' '.join(lines).split())


def _from_shard(line, lines, name):
  """Yields the documents of a shard: `<doc ...>`, the text, `</doc>`."""
  number, body, at = 1, None, 0  # body: lines of the document so far, None between documents
  while line is not None:
    if body is None:
      tag = line.find('<doc ', at)
      end = line.find('>', tag) if tag >= 0 else -1
      if end < 0:
        line, at = next(lines, None), 0
        continue
      body, at = [], end + 1
    end = line.find('</doc>', at)
    if end < 0:
      body.append(line[at:])
      line, at = next(lines, None), 0
    else:
      body.append(line[at:end])
      if document := _joined(body):
        yield document
      number, body, at = number + 1, None, end + len('</doc>')
  if body is not None:
    raise ValueError(f'{name}: document {number} has no </doc>; the file may be cut off')


def _joined(lines):
  """Lines without white space around them, and without those that are blank."""
  return '\n'.join(stripped for line in lines if (stripped := line.strip()))
