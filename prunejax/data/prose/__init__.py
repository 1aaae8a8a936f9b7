"""The packaged text: the prose of `pydoc` as 23 libraries had it on one day. It never changes.

`pydoc` reads the docstrings of the libraries that are installed, so its text changes with them. The
experiments read this text instead, so that a grid can be made again anywhere. `make.py` wrote it;
`LICENSES.txt` names the version and the licence of each library.
"""

import functools
import hashlib
import json
import lzma
import pathlib

from prunejax.data import pydoc

PATH = pathlib.Path(__file__).parent / 'prose.json.xz'
# sha256 of the file. It identifies the text in names of cells and in ledger rows.
SHA256 = '983b5d5a5549ec597380a50e30f7ad41f1f10c9f40d41683019614dfee03a743'


@functools.lru_cache(maxsize=1)
def entries() -> list[pydoc.Entry]:
  """Returns the text, one entry a docstring, in a fixed order.

  Raises:
    FileNotFoundError: the file is not in this copy of the package.
    ValueError: the file is damaged or another one.
  """
  if not PATH.is_file():
    raise FileNotFoundError(f'{PATH} is missing: install prunejax again')
  packed = PATH.read_bytes()
  if hashlib.sha256(packed).hexdigest() != SHA256:
    raise ValueError(f'{PATH} is damaged: install prunejax again')
  return [pydoc.Entry(d, lib, s, tuple(p)) for d, lib, s, p in json.loads(lzma.decompress(packed))]


def chosen(pydoc_text: str) -> list[pydoc.Entry]:
  """Returns the entries that `data.pydoc` names: 'installed', of today's libraries, or 'packaged'.

  Raises:
    ValueError: another name.
  """
  if pydoc_text not in ('installed', 'packaged'):
    raise ValueError(f'data.pydoc={pydoc_text!r}: expected installed or packaged')
  return entries() if pydoc_text == 'packaged' else pydoc.entries()


def fingerprint(pydoc_text: str) -> str:
  """Returns what identifies the entries of `chosen`."""
  return SHA256[:32] if pydoc_text == 'packaged' else pydoc.fingerprint()


def documents() -> list[pydoc.Document]:
  """Returns the text, one document a module; its split is `pydoc.split_of` its name."""
  return pydoc.joined(entries())
