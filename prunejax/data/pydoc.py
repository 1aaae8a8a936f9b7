"""The embedded corpus: English prose from the docstrings of Python and of installed libraries."""

import ast
import functools
import gzip
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import pathlib
import platform
import re
import sys
import sysconfig
import tempfile
import warnings
from collections.abc import Iterable
from typing import NamedTuple

from prunejax.data import pydoc_prose

FORMAT = 2
MAX_CHARACTERS = 2**29  # of a cached corpus, unpacked
# {import name: distribution}, in the order of the corpus. The list is fixed: two machines differ
# only by the versions of libraries and by libraries that are missing.
LIBRARIES = {
  'stdlib': None,
  'numpy': 'numpy',
  'jax': 'jax',
  'scipy': 'scipy',
  'flax': 'flax',
  'optax': 'optax',
  'orbax': 'orbax-checkpoint',
  'matplotlib': 'matplotlib',
  'transformers': 'transformers',
  'tensorflow_datasets': 'tensorflow-datasets',
  'grain': 'grain',
  'huggingface_hub': 'huggingface-hub',
  'tokenizers': 'tokenizers',
  'safetensors': 'safetensors',
  'PIL': 'pillow',
  'fontTools': 'fonttools',
  'rich': 'rich',
  'pygments': 'Pygments',
  'absl': 'absl-py',
  'etils': 'etils',
  'ml_collections': 'ml_collections',
  'tensorstore': 'tensorstore',
  'treescope': 'treescope',
  'fsspec': 'fsspec',
  'pyparsing': 'pyparsing',
  'dateutil': 'python-dateutil',
  'requests': 'requests',
  'urllib3': 'urllib3',
  'yaml': 'PyYAML',
  'tqdm': 'tqdm',
  'packaging': 'packaging',
  'psutil': 'psutil',
  'opt_einsum': 'opt_einsum',
  'ml_dtypes': 'ml_dtypes',
  'pyarrow': 'pyarrow',
  'click': 'click',
  'tensorboardX': 'tensorboardX',
  'simplejson': 'simplejson',
  'einops': 'einops',
  'attr': 'attrs',
  'mpl_toolkits': 'matplotlib',
  'cloudpickle': 'cloudpickle',
  'contourpy': 'contourpy',
  'tree': 'dm-tree',
  'filelock': 'filelock',
}
# Tests, vendored copies and generated code are left out; `modeling_*` repeats `modular_*`.
_LEFT_OUT = re.compile(
  r'(^|/)(tests?|testing|_tests?|idlelib|lib2to3|ensurepip|site-packages|turtledemo|_vendor|'
  r'vendored?|_?externals?|__pycache__|config-[^/]*)/|(^|/)(test_[^/]*|[^/]*_tests?|conftest|'
  r'modular_[^/]*|convert_[^/]*|[^/]*_pb2[^/]*|dummy_[^/]*)\.py$'
)
_LITERAL = re.compile(
  r'(?:\A|:)(?:[ \t]*(?:#[^\n]*)?\n)*[ \t]*([rRuU]?(\"\"\"|\'\'\').*?(?<!\\)\2)', re.S
)
_HASH_WORDS = re.compile(r'[^a-z]+')


class Entry(NamedTuple):
  """The prose of one docstring.

  Attributes:
    document: name of the module.
    library: import name of the library.
    summary: whether the first paragraph starts as the docstring does.
    paragraphs: the prose, one string a paragraph.
  """

  document: str
  library: str
  summary: bool
  paragraphs: tuple[str, ...]


class Document(NamedTuple):
  """The prose of one module.

  Attributes:
    name: name of the module.
    library: import name of the library.
    text: the prose, one paragraph a line.
  """

  name: str
  library: str
  text: str


def _sources(library):
  """Yields (module name, path) of each source file of a library, sorted. Imports nothing."""
  if library == 'stdlib':
    roots, prefix = [sysconfig.get_path('stdlib')], ''
  else:
    spec = importlib.util.find_spec(library)
    if spec is None or not spec.submodule_search_locations:
      return
    roots, prefix = list(spec.submodule_search_locations), library + '.'
  for root in sorted(roots):
    for folder, below, files in os.walk(root):
      inside = os.path.relpath(folder, root).replace(os.sep, '/') + '/'
      below[:] = sorted(d for d in below if not _LEFT_OUT.search(d + '/'))
      for name in sorted(files):
        if name.endswith('.py') and not _LEFT_OUT.search(name):
          module = (prefix + inside.removeprefix('./').replace('/', '.') + name[:-3]).removesuffix(
            '.__init__'
          )
          yield module, pathlib.Path(folder, name)


def _docstrings(path):
  """Yields the docstrings of one source file in order; none of a file that cannot be read.

  Whole syntax trees take half a minute for 120 MB of source. A docstring is a string that follows
  the colon of a header or opens the file, so only such literals go through `ast`.
  """
  try:
    source = path.read_text(encoding='utf-8')
  except (OSError, UnicodeDecodeError):
    return
  for literal in _LITERAL.finditer(source):
    try:
      yield ast.literal_eval(literal[1])
    except (SyntaxError, ValueError):
      continue  # not a literal, but for example the end of another string


def _key(text):
  return hashlib.blake2b(
    _HASH_WORDS.sub(' ', text.lower()).strip().encode(), digest_size=8
  ).digest()


def build(libraries: Iterable[str] | None = None) -> list[Entry]:
  """Reads the corpus from source files, in a fixed order.

  No paragraph comes twice; two that differ only in case, digits or punctuation count as one.

  Args:
    libraries: import names in `LIBRARIES`; None for all.

  Returns:
    The prose, one entry a docstring.
  """
  seen, entries_read = set(), []
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')  # invalid escapes in other people's files
    for library in LIBRARIES if libraries is None else libraries:
      for module, path in _sources(library):
        entries_read += _read(module, library, path, seen)
  return entries_read


def _read(module, library, path, seen):
  """The entries of one source file; `seen` collects the docstrings and sentences of the corpus."""
  file_entries = []
  for doc in _docstrings(path):
    if doc in seen:
      continue
    seen.add(doc)
    kept, summary = [], False
    for i, paragraph in enumerate(pydoc_prose.paragraphs(doc)):
      keys = [(_key(s), len(s)) for s in pydoc_prose.sentences(paragraph)]
      whole = keys[0][0] if len(keys) == 1 else _key(paragraph)
      old = sum(n for k, n in keys if k in seen)
      new = whole not in seen and 2 * old <= sum(n for _, n in keys)
      seen.add(whole)
      seen.update(k for k, _ in keys)
      if new:
        summary = summary or i == 0 and pydoc_prose.plain(doc[:400]).startswith(paragraph[:20])
        kept.append(paragraph)
    if kept:
      file_entries.append(Entry(module, library, summary, tuple(kept)))
  return file_entries


def signature(libraries: Iterable[str] | None = None) -> str:
  """Returns 16 hex digits that identify a corpus by the versions that it was read from.

  They cover the format number, the version of Python, and the version or absence of each library.
  """
  versions = {}
  for library in LIBRARIES if libraries is None else libraries:
    try:
      versions[library] = (
        importlib.metadata.version(LIBRARIES[library])
        if library != 'stdlib'
        else platform.python_version()
      )
    except importlib.metadata.PackageNotFoundError:
      versions[library] = 'unversioned' if importlib.util.find_spec(library) else None
  return hashlib.sha256(json.dumps([FORMAT, versions], sort_keys=True).encode()).hexdigest()[:16]


def default_cache() -> pathlib.Path:
  """Returns $PRUNEJAX_CACHE, or ~/.cache/prunejax if that is not set."""
  return pathlib.Path(
    os.environ.get('PRUNEJAX_CACHE') or pathlib.Path('~/.cache/prunejax').expanduser()
  )


def entries(cache_dir: str | os.PathLike | None = None) -> list[Entry]:
  """Returns the corpus, one entry a docstring, from the cache or else from source files.

  A damaged cache or a read-only folder gives a warning; the corpus is then read again.

  Args:
    cache_dir: folder of the cache; None for `default_cache`.
  """
  path = pathlib.Path(cache_dir or default_cache()) / f'pydoc-{signature()}.json.gz'
  if path.exists():
    try:
      with gzip.open(path, 'rt', encoding='utf-8') as f:
        text = f.read(MAX_CHARACTERS + 1)
      if len(text) > MAX_CHARACTERS:
        raise ValueError(f'more than {MAX_CHARACTERS} characters')
      return [Entry(d, lib, s, tuple(p)) for d, lib, s, p in json.loads(text)]
    except (OSError, EOFError, ValueError, TypeError, RecursionError) as e:
      warnings.warn(
        f'{path}: damaged cache ({type(e).__name__}: {e}); building the corpus again', stacklevel=2
      )
  print(
    'pydoc: reading the docstrings of the installed libraries (once, 10 to 30 s)', file=sys.stderr
  )
  corpus = build()
  print(format_statistics(statistics(joined(corpus))), file=sys.stderr)
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, part = tempfile.mkstemp(prefix=path.name, dir=path.parent)
    try:
      with (
        os.fdopen(handle, 'wb') as raw,
        gzip.GzipFile(fileobj=raw, mode='wb', compresslevel=4, mtime=0) as f,
      ):
        f.write(json.dumps(corpus).encode())
      os.replace(part, path)
    except BaseException:
      os.unlink(part)
      raise
  except OSError as e:
    warnings.warn(
      f'{path}: cannot write the cache ({e}); the corpus is built again next time', stacklevel=2
    )
  return corpus


def fingerprint(cache_dir: str | os.PathLike | None = None) -> str:
  """Returns 32 hex digits of the corpus itself: the same versions may hold other text.

  Args:
    cache_dir: folder of the cache; None for `default_cache`.
  """
  path = pathlib.Path(cache_dir or default_cache()) / f'pydoc-{signature()}.json.gz'
  if not path.exists():
    entries(cache_dir)
  status = path.stat() if path.exists() else None  # a folder that cannot be written has no cache
  return _fingerprint(path.parent, status and (status.st_size, status.st_ctime_ns))


@functools.lru_cache(maxsize=8)
def _fingerprint(cache_dir, status):
  return hashlib.sha256(json.dumps(entries(cache_dir)).encode()).hexdigest()[:32]


def split_of(name: str) -> str:
  """Returns the split of a document, by the sha256 of its name.

  'train' gets 90 % of all documents, 'validation' and 'test' 5 % each.
  """
  part = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], 'big') % 100
  return 'train' if part < 90 else 'validation' if part < 95 else 'test'


def documents(
  cache_dir: str | os.PathLike | None = None, split: str | None = None
) -> list[Document]:
  """Returns the corpus, one document a module.

  Args:
    cache_dir: folder of the cache; None for `default_cache`.
    split: 'train', 'validation' or 'test'; None for all.

  Raises:
    ValueError: another split.
  """
  if split not in (None, 'train', 'validation', 'test'):
    raise ValueError(
      f"pydoc: split {split!r}; accepted: 'train', 'validation', 'test' or None for all"
    )
  return [d for d in joined(entries(cache_dir)) if split is None or split_of(d.name) == split]


def joined(corpus: Iterable[Entry]) -> list[Document]:
  """Joins the entries of each module to one document."""
  texts, library = {}, {}
  for e in corpus:
    texts.setdefault(e.document, []).extend(e.paragraphs)
    library[e.document] = e.library
  return [Document(name, library[name], '\n'.join(p)) for name, p in texts.items()]


def statistics(docs: Iterable[Document]) -> dict[tuple[str, str], dict[str, int]]:
  """Counts documents, paragraphs, words and characters.

  Returns:
    {(library, split): {'documents': n, 'paragraphs': n, 'words': n, 'characters': n}}; 'all' in
    place of a library or a split is the sum.
  """
  table = {}
  for d in docs:
    row = (1, d.text.count('\n') + 1, len(d.text.split()), len(d.text))
    split = split_of(d.name)
    for cell in ((d.library, split), (d.library, 'all'), ('all', split), ('all', 'all')):
      total = table.setdefault(
        cell, dict.fromkeys(('documents', 'paragraphs', 'words', 'characters'), 0)
      )
      for name, n in zip(total, row, strict=True):
        total[name] += n
  return table


def format_statistics(table: dict[tuple[str, str], dict[str, int]]) -> str:
  """Formats what `statistics` returned as a table, the largest library first."""
  names = ('documents', 'paragraphs', 'words', 'characters')
  lines = [f'{"library":<22}{"split":<12}' + ''.join(f'{n:>12}' for n in names)]
  order = sorted(
    {lib for lib, _ in table} - {'all'}, key=lambda lib: (-table[lib, 'all']['words'], lib)
  )
  for library in order + ['all']:
    for split in ('train', 'validation', 'test', 'all') if library == 'all' else ('all',):
      if (library, split) in table:
        lines.append(
          f'{library:<22}{split:<12}' + ''.join(f'{table[library, split][n]:>12,}' for n in names)
        )
  return '\n'.join(lines)
