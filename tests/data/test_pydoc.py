"""The embedded corpus: prose is prose, nothing leaks, the cache survives damage, tasks are fair."""

import collections
import os
import re

import numpy as np
import pytest

from prunejax.data import pydoc, pydoc_prose, pydoc_tasks, tasks

NUMPY_STYLE = """Return the sum of the elements of `a` along an axis.

    The result is a new array, unless :func:`~numpy.add` was told otherwise [1]_.
    See :ref:`the guide <guide-label>` and **read** it.

    Parameters
    ----------
    a : array_like
        The array whose elements are to be added.
    out : {None, ndarray}, optional
        short

    Returns
    -------
    total : ndarray
        An array with the given axis removed.

    See Also
    --------
    mean : Compute the mean of the elements in an array.

    Notes
    -----
    Empty slices are given the value of zero::

        this is a literal block and it is not the prose.

    .. code-block:: python

        The code is never a sentence of the text.

    .. note:: The sign of a zero is not kept by the sum.

    =====  =====
    The    table is not a part of the text.
    =====  =====

    Examples
    --------
    Ask for the sum of the first axis.

    >>> np.sum([0.5, 1.5])
    The output is of the doctest.

    References
    ----------
    .. [1] This is the book that was cited in the text above.
    """
GOOGLE_STYLE = """Loads the weights from a file.

  Args:
    path: The file that holds the weights of the model, which is
      read from the disk at once.
    strict (bool): If True, an unknown name is an error.
    x: int.

  Returns:
    The weights as they are in the file.

  Raises:
    ValueError: If the file is not there.

  ```python
  The fence is a wall that hides the code.
  ```

  Licensed under the Apache License, which is a matter of the law.
  """
SPHINX_STYLE = """Sends the message to the server.

    :param message: The text that is sent to the server.
    :type message: str
    :raises OSError: if it fails
    :return: The answer that is sent back by the server.

    * The first item is a sentence of its own, which goes
      on in the next line.
    * x = 3
    - Visit https://example.org for the rest of the story.

    |----|----|
    """
CASES = {
  'numpy': (
    NUMPY_STYLE,
    [
      'Return the sum of the elements of a along an axis.',
      'The result is a new array, unless add was told otherwise. See the guide and read it.',
      'The array whose elements are to be added.',
      'An array with the given axis removed.',
      'The sign of a zero is not kept by the sum.',
      'Ask for the sum of the first axis.',
    ],
  ),
  'google': (
    GOOGLE_STYLE,
    [
      'Loads the weights from a file.',
      'The file that holds the weights of the model, which is read from the disk at once.',
      'If True, an unknown name is an error.',
      'The weights as they are in the file.',
      'If the file is not there.',
    ],
  ),
  'sphinx': (
    SPHINX_STYLE,
    [
      'Sends the message to the server.',
      'The text that is sent to the server.',
      'The answer that is sent back by the server.',
      'The first item is a sentence of its own, which goes on in the next line.',
    ],
  ),
  'empty': ('', []),
  'code': ('x = f(a, b)\ny[i] = {0: 1}', []),
  'art': ('+-----+\n| the |\n+-----+', []),
}


# Reading all installed libraries takes ten seconds. `test_prose.py` has these laws for the text of
# the package.
whole = pytest.mark.slow


@pytest.fixture(scope='module')
def cache(tmp_path_factory):
  folder = tmp_path_factory.mktemp('pydoc')
  pydoc.documents(folder)
  return folder


@pytest.fixture(scope='module')
def corpus(cache):
  return pydoc.documents(cache)


@pytest.fixture
def small(monkeypatch):
  monkeypatch.setattr(pydoc, 'LIBRARIES', {'optax': 'optax', 'absl': 'absl-py'})


@pytest.mark.parametrize('name', CASES)
def test_prose_of_each_docstring_style(name):
  doc, expected = CASES[name]
  assert pydoc_prose.paragraphs(doc) == expected


def test_sentences_keep_abbreviations_whole():
  text = 'Use it, e.g. The one above. It works (see Fig. A for more). Done!'
  assert pydoc_prose.sentences(text) == [
    'Use it, e.g. The one above.',
    'It works (see Fig. A for more).',
    'Done!',
  ]


@pytest.mark.parametrize(
  'text',
  [
    'the start is not a capital.',
    'There is no end to the sentence',
    'Too short.',
    'A naïve word is in the text.',
    'Set the value of x = y in the call.',
    'The f(x), g(y) and h(z), k(w) of p_q are used.',
    'Go to https://example.org for the rest.',
    'Purple heavy ideas rapidly dream sideways.',
  ],
)
def test_non_sentences_are_dropped(text):
  assert not pydoc_prose.is_sentence(text)


@whole
def test_corpus_is_large_and_is_prose(corpus):
  text = '\n'.join(d.text for d in corpus)
  assert len(text) > 3_000_000 and text.isascii()
  assert not re.search(r'>>>|```|``|https?://|::|:\w+:`|__|[{}\\|]|copyright', text, re.I)
  assert {'stdlib', 'numpy', 'jax', 'scipy', 'flax', 'optax'} <= {d.library for d in corpus}
  assert 'numpy.linalg' in {d.name for d in corpus} or any(
    d.name.startswith('numpy.linalg') for d in corpus
  )
  words = collections.Counter(re.findall('[a-z]+', text.lower()))
  assert words.most_common(1)[0][0] == 'the'


@whole
def test_no_paragraph_twice_and_none_in_two_splits(corpus):
  paragraphs = [
    (re.sub('[^a-z]+', ' ', p.lower()).strip(), pydoc.split_of(d.name))
    for d in corpus
    for p in d.text.split('\n')
  ]
  assert len({p for p, _ in paragraphs}) == len(paragraphs)


@whole
def test_split_is_fixed_and_about_nine_to_one(corpus):
  assert [pydoc.split_of(n) for n in ('numpy.linalg', 'os', 'jax.numpy')] == [
    'train',
    'train',
    'train',
  ]
  counts = collections.Counter(pydoc.split_of(d.name) for d in corpus)
  assert set(counts) == {'train', 'validation', 'test'}
  assert 0.85 < counts['train'] / len(corpus) < 0.95


@whole
def test_documents_of_a_split(cache, corpus):
  parts = [pydoc.documents(cache, split) for split in ('train', 'validation', 'test')]
  assert sorted(sum(parts, [])) == sorted(corpus)
  with pytest.raises(ValueError, match="split 'dev'.*'validation'"):
    pydoc.documents(cache, 'dev')


@whole
def test_statistics_add_up(corpus):
  table = pydoc.statistics(corpus)
  whole = table['all', 'all']
  assert whole['documents'] == len(corpus)
  assert whole['characters'] == sum(len(d.text) for d in corpus)
  assert whole['words'] == sum(table['all', s]['words'] for s in ('train', 'validation', 'test'))
  assert f'{whole["words"]:,}' in pydoc.format_statistics(table).splitlines()[-1]


def test_build_is_deterministic_and_order_is_fixed(small):
  first = pydoc.build()
  assert first == pydoc.build()
  assert [e.library for e in first] == sorted(
    (e.library for e in first), reverse=True
  )  # optax, then absl
  assert all(e.document.startswith(e.library) for e in first)


def test_sources_are_read_and_never_imported(tmp_path, monkeypatch):
  (tmp_path / 'bomb' / 'tests').mkdir(parents=True)
  (tmp_path / 'bomb' / '__init__.py').write_text(
    '"""The package that must not be imported by anyone."""\nraise SystemExit(1)\n'
  )
  (tmp_path / 'bomb' / 'broken.py').write_text(
    'def f(:\n  """The docstring is read though the file does not parse."""\n'
  )
  (tmp_path / 'bomb' / 'latin.py').write_bytes(
    b'"""The file is not in the right coding: \xe9."""\n'
  )
  (tmp_path / 'bomb' / 'tests' / 'test_it.py').write_text(
    '"""The tests are not a part of the corpus."""\n'
  )
  monkeypatch.syspath_prepend(tmp_path)
  assert [(e.document, e.summary, e.paragraphs) for e in pydoc.build(['bomb'])] == [
    ('bomb', True, ('The package that must not be imported by anyone.',)),
    ('bomb.broken', True, ('The docstring is read though the file does not parse.',)),
  ]


def test_cache_is_used_and_statistics_are_printed_once(small, tmp_path, monkeypatch, capsys):
  built = pydoc.entries(tmp_path)
  assert (
    pydoc.format_statistics(pydoc.statistics(pydoc.documents(tmp_path))) in capsys.readouterr().err
  )
  assert [p.name for p in tmp_path.iterdir()] == [f'pydoc-{pydoc.signature()}.json.gz']
  monkeypatch.setattr(pydoc, 'build', lambda: pytest.fail('built again'))
  assert pydoc.entries(tmp_path) == built
  assert capsys.readouterr().err == ''


@pytest.mark.parametrize('damage', [b'', b'not gzip', None, b'\x1f\x8b\x08\x00'])
def test_damaged_cache_is_rebuilt_with_a_warning(damage, small, tmp_path):
  built = pydoc.entries(tmp_path)
  (path,) = tmp_path.iterdir()
  whole = path.read_bytes()
  path.write_bytes(whole[: len(whole) // 2] if damage is None else damage)
  with pytest.warns(UserWarning, match='damaged cache'):
    assert pydoc.entries(tmp_path) == built
  assert path.read_bytes() == whole


def test_cache_that_cannot_be_written_costs_a_warning(small, tmp_path):
  (tmp_path / 'file').write_text('a file where the folder should be')
  with pytest.warns(UserWarning, match='cannot write the cache'):
    assert pydoc.entries(tmp_path / 'file') == pydoc.build()


def test_failed_write_leaves_nothing_behind(small, tmp_path, monkeypatch):
  def full(*_):
    raise OSError(28, 'No space left on device')

  monkeypatch.setattr(os, 'replace', full)
  with pytest.warns(UserWarning, match='No space left'):
    assert pydoc.entries(tmp_path)
  assert not list(tmp_path.iterdir())


def test_signature_changes_with_versions_and_absence(monkeypatch):
  first = pydoc.signature()
  monkeypatch.setattr(
    pydoc, 'LIBRARIES', {**pydoc.LIBRARIES, 'nowhere_to_be_found': 'nowhere-to-be-found'}
  )
  assert pydoc.signature() != first


def test_environment_names_the_cache(monkeypatch, tmp_path):
  monkeypatch.setenv('PRUNEJAX_CACHE', str(tmp_path / 'here'))
  assert pydoc.default_cache() == tmp_path / 'here'


@pytest.mark.parametrize('name', pydoc_tasks.TASKS)
@whole
def test_task_is_balanced_large_enough_and_deterministic(name, cache):
  task = tasks.get(f'pydoc/{name}')
  train, held = (tasks.load(f'pydoc/{name}', s, cache=cache) for s in ('train', 'validation'))
  assert (
    len(train.a) >= 4000 and len(held.a) >= 900
  )  # libraries of other versions hold a little more or less
  for examples in (train, held):
    assert examples.label.dtype == np.int32 and len(examples.label) == len(examples.a)
    assert (examples.b is not None) == task.pair
    assert len(set(np.bincount(examples.label, minlength=len(task.classes)))) == 1
    assert max(len(t.split()) for t in examples.a) <= 32
  again = tasks.load(f'pydoc/{name}', 'validation', cache=cache)
  assert again.a == held.a and again.b == held.b and np.array_equal(again.label, held.label)


@pytest.mark.parametrize('name', pydoc_tasks.TASKS)
@whole
def test_no_example_is_in_two_splits(name, cache):
  parts = [tasks.load(f'pydoc/{name}', s, cache=cache) for s in pydoc_tasks.SPLITS]
  rows = [set(zip(p.a, p.b or p.a, strict=True)) for p in parts]
  assert not rows[0] & rows[1] and not rows[0] & rows[2] and not rows[1] & rows[2]


@whole
def test_library_texts_do_not_name_a_library(cache):
  examples = tasks.load('pydoc/library', 'validation', cache=cache)
  assert not [
    t for t in examples.a if re.search('numpy|scipy|jax|matplotlib|transformers|python', t, re.I)
  ]


@whole
def test_summary_has_both_sides_under_both_labels(cache):
  examples = tasks.load('pydoc/summary', 'validation', cache=cache)
  for side in (examples.a, examples.b):
    counts = collections.defaultdict(lambda: [0, 0])
    for text, label in zip(side, examples.label, strict=True):
      counts[text][label] += 1
    assert sum(abs(n - m) for n, m in counts.values()) <= 0.1 * len(side)


@whole
def test_order_swaps_three_pairs_of_plain_words(cache):
  own = {p for d in pydoc.documents(cache, 'validation') for p in d.text.split('\n')}
  text = '\n'.join(' '.join(p.split()) for p in own)
  examples = tasks.load('pydoc/order', 'validation', cache=cache)
  for a, label in zip(examples.a, examples.label, strict=True):
    assert 13 <= len(a.split()) <= 16
    assert (a in text) == bool(label)


def test_a_swap_exchanges_three_pairs():
  words = 'a b c d e f g h i j k l m n'.split()
  swapped = pydoc_tasks._swap(words, range(14), np.random.default_rng(0))
  assert sorted(swapped) == words and sum(x != y for x, y in zip(words, swapped, strict=True)) == 6


@whole
def test_words_replaces_five_plain_words_by_words_of_the_text(cache):
  text = '\n'.join(
    ' '.join(p.split()) for d in pydoc.documents(cache, 'validation') for p in d.text.split('\n')
  )
  examples = tasks.load('pydoc/words', 'validation', cache=cache)
  rows = {a: label for a, label in zip(examples.a, examples.label, strict=True)}
  assert all((a in text) == bool(label) for a, label in rows.items())
  # Replacements come from the same texts, so the frequency of a word must not tell the label.
  count = collections.Counter(text.lower().split())
  rarity = [
    np.mean(
      [np.log(count[w]) for a, y in rows.items() if y == label for w in a.split() if count[w]]
    )
    for label in (0, 1)
  ]
  assert abs(rarity[0] - rarity[1]) < 0.15, rarity


def test_an_unknown_task_names_the_nearest():
  with pytest.raises(ValueError, match="unknown task 'pydoc/ordr': did you mean 'pydoc/order'"):
    tasks.get('pydoc/ordr')


@whole
def test_task_errors_name_the_nearest(cache, monkeypatch):
  with pytest.raises(ValueError, match="no split 'dev'"):
    tasks.load('pydoc/order', 'dev', cache=cache)
  with pytest.raises(ValueError, match="unknown pydoc task 'libary': did you mean 'library'"):
    pydoc_tasks.load('libary', 'train', cache)
  monkeypatch.setattr(pydoc, 'entries', lambda cache: [])
  with pytest.raises(ValueError, match='too little text'):
    pydoc_tasks.load('order', 'train', cache / 'other')
