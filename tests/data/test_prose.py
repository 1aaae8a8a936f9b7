"""The packaged text: what it holds, that it never changes, and that an installation has it."""

import fnmatch
import hashlib
import lzma
import pathlib
import tomllib

import numpy as np
import pytest

from prunejax.data import corpus, prose, pydoc, pydoc_tasks, tasks, wordpiece
from prunejax.data.prose import make

ROOT = pathlib.Path(__file__).parents[2]
# Examples to train, to validate and to test.
COUNTS = {
  'library': [16870, 1115, 455],
  'summary': [24000, 1594, 2000],
  'order': [24000, 1678, 2000],
  'words': [24000, 1774, 2000],
}
DIGEST = 'cc2ae4bd5b6ad7cc'


def test_the_text_is_the_one_that_ledgers_name():
  packed = prose.PATH.read_bytes()
  assert hashlib.sha256(packed).hexdigest() == prose.SHA256
  assert prose.SHA256 == '983b5d5a5549ec597380a50e30f7ad41f1f10c9f40d41683019614dfee03a743'
  assert len(packed) < 8 * 2**20
  table = pydoc.statistics(prose.documents())
  counts = {split: table['all', split]['words'] for split in ('train', 'validation', 'test')}
  assert counts == {'train': 981_861, 'validation': 43_311, 'test': 56_520}
  assert {library for library, _ in table} - {'all'} == set(make.SOURCES)


def test_its_tasks_have_the_same_examples_whatever_is_installed(monkeypatch):
  monkeypatch.setattr(pydoc, 'entries', lambda cache=None: pytest.fail('read the libraries'))
  pydoc_tasks._splits.cache_clear()
  counts = {
    name: [len(tasks.load(f'prose/{name}', split).a) for split in pydoc_tasks.SPLITS]
    for name in pydoc_tasks.TASKS
  }
  assert counts == COUNTS
  examples = tasks.load('prose/order', 'validation')
  digest = hashlib.sha256('\n'.join(examples.a).encode() + examples.label.tobytes()).hexdigest()
  assert digest[:16] == DIGEST
  assert tasks.get('prose/order').name == 'prose/order'
  assert tasks.fingerprint('prose/order') == tasks.fingerprint('prose/words')


@pytest.mark.parametrize('name', pydoc_tasks.TASKS)
def test_its_tasks_are_balanced_and_no_example_is_in_two_splits(name):
  task = tasks.get(f'prose/{name}')
  parts = [tasks.load(f'prose/{name}', split) for split in pydoc_tasks.SPLITS]
  for part in parts:
    assert part.label.dtype == np.int32 and (part.b is not None) == task.pair
    assert len(set(np.bincount(part.label, minlength=len(task.classes)))) == 1
    assert max(len(text.split()) for text in part.a) <= 32
  rows = [set(zip(part.a, part.b or part.a, strict=True)) for part in parts]
  assert not rows[0] & rows[1] and not rows[0] & rows[2] and not rows[1] & rows[2]


@pytest.mark.parametrize('name', ['order', 'words'])
def test_texts_that_were_changed_are_not_in_the_prose(name):
  documents = [d for d in prose.documents() if pydoc.split_of(d.name) == 'validation']
  text = '\n'.join(' '.join(p.split()) for d in documents for p in d.text.split('\n'))
  examples = tasks.load(f'prose/{name}', 'validation')
  assert all((a in text) == bool(y) for a, y in zip(examples.a, examples.label, strict=True))


def test_it_is_a_source_like_others(tmp_path):
  lines = list(corpus.lines('prose'))
  assert len(lines) > 50_000 and lines == [
    line
    for document in prose.documents()
    if pydoc.split_of(document.name) == 'train'
    for line in document.text.split('\n')
  ]
  tokenizer = wordpiece.train(lines[:300], 300)
  held = corpus.load('prose', 'validation', tokenizer, cache=tmp_path)
  assert len(held.documents) - 1 > 150
  assert corpus.fingerprint('prose*3') == corpus.fingerprint('prose') != corpus.fingerprint('pydoc')


def test_a_damaged_or_missing_file_is_named(monkeypatch, tmp_path):
  prose.entries.cache_clear()
  path = tmp_path / 'prose.json.xz'
  monkeypatch.setattr(prose, 'PATH', path)
  with pytest.raises(FileNotFoundError, match='prose.json.xz is missing: install prunejax again'):
    prose.entries()
  path.write_bytes(lzma.compress(b'[]'))
  with pytest.raises(ValueError, match='prose.json.xz is damaged'):
    prose.entries()
  with pytest.raises(ValueError, match="data.pydoc='mine': expected installed or packaged"):
    prose.chosen('mine')


def test_pip_installs_the_text_and_its_licences():
  declared = tomllib.loads((ROOT / 'pyproject.toml').read_text())['tool']['setuptools']
  folder = prose.PATH.parent
  for path in (prose.PATH, folder / 'LICENSES.txt'):
    name = path.relative_to(ROOT / 'prunejax').as_posix()
    patterns = declared['package-data']['prunejax']
    assert any(fnmatch.fnmatch(name, pattern) for pattern in patterns), name
  assert (folder / '__init__.py').exists()  # the folder is a package, which setuptools finds


def test_every_library_has_its_licence():
  text = (prose.PATH.parent / 'LICENSES.txt').read_text()
  for library, (kind, _) in make.SOURCES.items():
    name = 'Python (standard library)' if library == 'stdlib' else library
    assert f'  {name} ' in text and kind in text, library
  assert 'Apache License' in text and 'PYTHON SOFTWARE FOUNDATION LICENSE' in text
  assert set(make.SOURCES) <= set(pydoc.LIBRARIES)
