"""The embedded corpus: English prose of docstrings, the standard library's and the dependencies'."""

import ast
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
from typing import NamedTuple

from prunejax.data import pydoc_prose

FORMAT = 2
MOST = 2**29  # characters of a cached corpus, unpacked
# import name -> distribution, in corpus order. The list is fixed, so that machines differ only
# by versions and by what is missing.
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
# Tests, vendored copies, generated code; `modular_*` is what `modeling_*` repeats.
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
  """The prose of one docstring; `summary`: the first paragraph opens with the docstring's own."""

  document: str
  library: str
  summary: bool
  paragraphs: tuple[str, ...]


class Document(NamedTuple):
  """A module's prose: `text` is one paragraph a line."""

  name: str
  library: str
  text: str


def _sources(library):
  """(module name, path) of every source file of a library, sorted, nothing imported."""
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
  """Docstrings of one source file in file order; none for a file that cannot be read.

  Whole syntax trees take half a minute for 120 MB of source. A docstring is a string that
  follows the colon of a header (or opens the file), so only those literals go through `ast`.
  """
  try:
    source = path.read_text(encoding='utf-8')
  except (OSError, UnicodeDecodeError):
    return
  for literal in _LITERAL.finditer(source):
    try:
      yield ast.literal_eval(literal[1])
    except (SyntaxError, ValueError):
      continue  # not a literal after all, such as the tail of another string


def _key(text):
  return hashlib.blake2b(
    _HASH_WORDS.sub(' ', text.lower()).strip().encode(), digest_size=8
  ).digest()


def build(libraries=None):
  """Read the corpus from source files: a fixed order, no paragraph twice (case and digits aside)."""
  seen, built = set(), []
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')  # invalid escapes in other people's files
    for library in LIBRARIES if libraries is None else libraries:
      for module, path in _sources(library):
        built += _read(module, library, path, seen)
  return built


def _read(module, library, path, seen):
  """Entries of one source file; `seen` gathers what the corpus has: docstrings, sentences."""
  found = []
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
      found.append(Entry(module, library, summary, tuple(kept)))
  return found


def signature(libraries=None):
  """Hex key of a corpus: format number, Python's version, every library's version or absence."""
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


def default_cache():
  """$PRUNEJAX_CACHE, else ~/.cache/prunejax."""
  return pathlib.Path(
    os.environ.get('PRUNEJAX_CACHE') or pathlib.Path('~/.cache/prunejax').expanduser()
  )


def entries(cache_dir=None):
  """Docstring by docstring; from the cache, else built and cached.

  A damaged cache or a read-only folder costs time and a warning, nothing else.
  """
  path = pathlib.Path(cache_dir or default_cache()) / f'pydoc-{signature()}.json.gz'
  if path.exists():
    try:
      with gzip.open(path, 'rt', encoding='utf-8') as f:
        text = f.read(MOST + 1)
      if len(text) > MOST:
        raise ValueError(f'more than {MOST} characters')
      return [Entry(d, lib, s, tuple(p)) for d, lib, s, p in json.loads(text)]
    except (OSError, EOFError, ValueError, TypeError, RecursionError) as e:
      warnings.warn(
        f'{path}: damaged cache ({type(e).__name__}: {e}); building the corpus again', stacklevel=2
      )
  print(
    'pydoc: reading the docstrings of the installed libraries (once, 10 to 30 s)', file=sys.stderr
  )
  built = build()
  print(format_statistics(statistics(_documents(built))), file=sys.stderr)
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, part = tempfile.mkstemp(prefix=path.name, dir=path.parent)
    try:
      with (
        os.fdopen(handle, 'wb') as raw,
        gzip.GzipFile(fileobj=raw, mode='wb', compresslevel=4, mtime=0) as f,
      ):
        f.write(json.dumps(built).encode())
      os.replace(part, path)
    except BaseException:
      os.unlink(part)
      raise
  except OSError as e:
    warnings.warn(
      f'{path}: cannot write the cache ({e}); the corpus is built again next time', stacklevel=2
    )
  return built


def split_of(name):
  """'train' (90 %), 'validation' (5 %) or 'test' (5 %), by the sha256 of a document's name."""
  part = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], 'big') % 100
  return 'train' if part < 90 else 'validation' if part < 95 else 'test'


def documents(cache_dir=None, split=None):
  """One Document a module, in corpus order; `split` keeps one of 'train', 'validation', 'test'."""
  if split not in (None, 'train', 'validation', 'test'):
    raise ValueError(
      f"pydoc: split {split!r}; accepted: 'train', 'validation', 'test' or None for all"
    )
  return [d for d in _documents(entries(cache_dir)) if split is None or split_of(d.name) == split]


def _documents(found):
  texts, library = {}, {}
  for e in found:
    texts.setdefault(e.document, []).extend(e.paragraphs)
    library[e.document] = e.library
  return [Document(name, library[name], '\n'.join(p)) for name, p in texts.items()]


def statistics(docs):
  """{(library, split): {'documents', 'paragraphs', 'words', 'characters'}}; 'all' for sums."""
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


def format_statistics(table):
  """The statistics as lines of text, the largest library first."""
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
