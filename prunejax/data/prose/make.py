"""Makes the packaged text from the installed libraries: python -m prunejax.data.prose.make.

Only another edition of the text needs this. Its sha256 then goes into `__init__.py`, and every cell
that reads the text gets another name.
"""

import hashlib
import importlib.metadata
import json
import lzma
import pathlib
import platform
import sysconfig

from prunejax.data import prose, pydoc

# Libraries with 5,500 words of prose or more, under a licence that lets their text be given on:
# {import name: (licence, the name of its file; '' for Apache-2.0, whose text is printed once)}.
SOURCES = {
  'stdlib': ('PSF-2.0', 'LICENSE.txt'),
  'numpy': ('BSD-3-Clause', 'LICENSE.txt'),
  'jax': ('Apache-2.0', ''),
  'scipy': ('BSD-3-Clause', 'LICENSE.txt'),
  'flax': ('Apache-2.0', ''),
  'optax': ('Apache-2.0', ''),
  'orbax': ('Apache-2.0', ''),
  'matplotlib': ('Matplotlib (PSF-based)', 'LICENSE'),
  'transformers': ('Apache-2.0', ''),
  'tensorflow_datasets': ('Apache-2.0', ''),
  'grain': ('Apache-2.0', ''),
  'huggingface_hub': ('Apache-2.0', ''),
  'PIL': ('MIT-CMU', 'LICENSE'),
  'fontTools': ('MIT', 'LICENSE'),
  'rich': ('MIT', 'LICENSE'),
  'pygments': ('BSD-2-Clause', 'LICENSE'),
  'absl': ('Apache-2.0', ''),
  'treescope': ('Apache-2.0', ''),
  'fsspec': ('BSD-3-Clause', 'LICENSE'),
  'urllib3': ('MIT', 'LICENSE.txt'),
  'packaging': ('BSD-2-Clause', 'LICENSE.BSD'),
  'click': ('BSD-3-Clause', 'LICENSE.txt'),
  'mpl_toolkits': ('Matplotlib (PSF-based)', ''),  # of matplotlib
}
# What follows in a licence file is about other software that a wheel carries.
BUNDLED = (
  '\n----\n',
  '\nThe NumPy repository and source distributions bundle',
  '\n===== ',
)
INTRODUCTION = """\
The text in prose.json.xz is the prose of the docstrings of the libraries below: whole sentences,
without code, tables and markup. Paragraphs that repeat others are left out. Each library has its
own licence, which follows.
"""


def licence_of(library: str, file: str) -> str:
  """Returns the licence text of an installed library, without what is about bundled software."""
  if library == 'stdlib':
    folders = [pathlib.Path(sysconfig.get_path('stdlib'))]
  else:
    paths = importlib.metadata.files(pydoc.LIBRARIES[library])
    found = [path for path in paths if path.name == file and 'dist-info' in str(path)]
    folders = [min(found, key=lambda path: len(path.parts)).locate().parent]
  text = (folders[0] / file).read_text(encoding='utf-8')
  for start in BUNDLED:
    text = text.split(start)[0]
  return '\n'.join(line.rstrip() for line in text.strip().splitlines())


def version_of(library: str) -> str:
  """Returns the version of an installed library, or of Python."""
  if library == 'stdlib':
    return platform.python_version()
  return importlib.metadata.version(pydoc.LIBRARIES[library])


def licences() -> str:
  """Returns the content of LICENSES.txt."""
  names = {lib: 'Python (standard library)' if lib == 'stdlib' else lib for lib in SOURCES}
  lines = [f'  {names[lib]} {version_of(lib)}: {kind}' for lib, (kind, _) in SOURCES.items()]
  parts = [INTRODUCTION, '\n'.join(lines) + '\n']
  for library, (kind, file) in SOURCES.items():
    if file:
      parts += [f'{"=" * 80}\n{names[library]}: {kind}\n{"=" * 80}\n', licence_of(library, file)]
  apache = [lib for lib, (kind, _) in SOURCES.items() if kind == 'Apache-2.0']
  parts += [
    f'{"=" * 80}\n{", ".join(apache)}: Apache-2.0\n{"=" * 80}\n',
    licence_of('jax', 'LICENSE'),
  ]
  return '\n'.join(parts) + '\n'


def main():
  """Writes prose.json.xz and LICENSES.txt, and prints the sha256 of the text."""
  entries = pydoc.build(SOURCES)
  content = json.dumps(entries, separators=(',', ':')).encode()
  packed = lzma.compress(content, preset=9 | lzma.PRESET_EXTREME)
  prose.PATH.write_bytes(packed)
  (prose.PATH.parent / 'LICENSES.txt').write_text(licences(), encoding='utf-8')
  print(pydoc.format_statistics(pydoc.statistics(pydoc.joined(entries))))
  print(f'{len(packed)} bytes, sha256 {hashlib.sha256(packed).hexdigest()}')


if __name__ == '__main__':
  main()
