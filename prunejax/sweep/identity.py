"""What names the cells of a grid, and whether what they read is still what it was.

In a work directory of version 0.1 the settings alone name a cell. In a new one, the content of what
its run reads counts too: text, labelled files, the model of `init`. Both kinds of rows say what was
read, and a grid does not go on with anything else.
"""

import collections
import re
from typing import NamedTuple

from ml_collections import config_dict

from prunejax import files
from prunejax.data import content, corpus, prose, pydoc
from prunejax.report import ledger
from prunejax.train import configs, inputs, recipe

CONTENT = {'data.identity': 'content'}
PACKAGED = {'data.pydoc': 'packaged'}
MISSING = 'missing'


def of_folder(folder, reuse='') -> dict:
  """Returns the overrides that a work directory asks for: {} where settings alone name its cells.

  Args:
    folder: the work directory, which need not exist.
    reuse: another work directory, whose cells a new one takes over.
  """
  for where in filter(None, (folder, reuse)):
    rows = ledger.read(files.path(where) / 'ledger.jsonl')
    settings = [row.get('config') or row.get('settings') for row in rows]
    if settings := [one for one in settings if isinstance(one, dict)]:
      return dict(CONTENT) if any(map(_by_content, settings)) else {}
  return dict(CONTENT)


def _by_content(settings):
  return settings.get('data.identity') == 'content' or 'reads' in settings


def reads(config, known: dict | None = None) -> dict[str, str]:
  """Returns `inputs.reads`, where what does not exist is 'missing': a plan needs no data.

  Args:
    config: a ConfigDict with the keys of configs/base.py.
    known: what is read for other configs of a grid, {what names it: digests}, which grows. None
      looks at the files in any case.
  """
  known = {} if known is None else known
  names = ('corpus', 'task', 'root', 'cache', 'encoding', 'vocab', 'pydoc')
  files_read = [config.data.get(name, '') for name in names]
  others = [name if not name.startswith('cell:') else '' for name in _models(config)]
  key = (*files_read, *others, bool(config.init))
  if key not in known:
    try:
      data = recipe.data_of(config.data)
      known[key] = inputs.reads(data, config.init, config.distill.teacher)
    except (FileNotFoundError, ImportError):
      known[key] = {'text': MISSING}
  return known[key]


def check_there(cells, known: dict | None = None):
  """Reads what is missing, so that the first cell is not run where a later one cannot be.

  Args:
    cells: `grid.Cell`s.
    known: as in `reads`.

  Raises:
    FileNotFoundError, ImportError: what a cell reads is not there; as its run would raise.
  """
  for cell in cells:
    if reads(cell.config, known).get('text') == MISSING:
      inputs.reads(recipe.data_of(cell.config.data), cell.config.init, cell.config.distill.teacher)


def _models(config):
  return config.init, config.distill.teacher


def check(cells: dict, left, rows: list, folder, known: dict | None = None) -> list[str]:
  """Compares what the rows of a ledger have read with what the cells of a grid read now.

  Args:
    cells: {key: `grid.Cell`}.
    left: keys of the cells that will run.
    rows: of the ledger.
    folder: the work directory, for the message.
    known: as in `reads`.

  Returns:
    A line about rows whose text cannot be had again, where no cell that is left depends on it.

  Raises:
    ValueError: a row has read something else under the same name.
  """
  now, refused, told, known = {}, {}, set(), {} if known is None else known
  for cell in cells.values():
    for name, digest in _named(configs.flat(cell.config), reads(cell.config, known)).items():
      now[name] = digest, cell.config.data
  for row in rows:
    config = row.get('config')
    if row.get('failed') or not isinstance(config, dict) or 'data.corpus' not in config:
      continue
    for name, digest in _named(config, {'text': row.get('text'), **row.get('reads', {})}).items():
      today, data = now.get(name, (MISSING, None))
      if today == MISSING or not digest or digest == today:
        continue
      if 'reads' not in row and (name[0] == 'init' or digest == text_01(data)):
        continue
      if 'reads' in row and (left or not _of_libraries(name)):
        refused.setdefault(name, []).append(row['cell'])
      else:
        told.add(row['cell'])
  for name, read in refused.items():
    raise ValueError(
      f'the work directory {str(folder)!r} holds {len(read)} cells that read other content of'
      f' {"=".join(name)} than is there now: the files, or the libraries that pydoc comes from,'
      ' have changed, or data.root is another; nothing was written: take another --workdir, or'
      ' bring back what was there'
    )
  if not told:
    return []
  return [
    f'{len(told)} of the done have read another text than is there now: the libraries that pydoc'
    ' comes from, or the files below data.root, have changed'
  ]


def same_text(row: dict, config, known: dict | None = None) -> bool:
  """Returns whether a row read the text that a cell reads now; a row without 'text' counts as such.

  Args:
    row: of a ledger.
    config: of the cell, a ConfigDict.
    known: as in `reads`.
  """
  text = row.get('text')
  if not text or text == reads(config, known)['text']:
    return True
  return 'reads' not in row and text == text_01(config.data)


def of_ledger(rows: list) -> str:
  """Returns a line that says whether the text of a ledger is the text that is here today.

  Args:
    rows: of the ledger.
  """
  counts, today = collections.Counter(), {}
  for row in rows:
    counts[_is_own(row, today)] += 1
  words = {
    True: 'read the text that is here today',
    False: 'read another text than is here today, so their numbers cannot be made again here',
    None: 'do not say which text they read, or read one below data.root',
  }
  parts = [f'{counts[answer]} {told}' for answer, told in words.items() if counts[answer]]
  return f'of {len(rows)} cells {"; ".join(parts)}'


class _Text(NamedTuple):
  """What `inputs.text_of` reads of a `recipe.Data`."""

  corpus: str
  task: str
  encoding: str
  root: str = ''
  cache: str = ''


def _is_own(row, today):
  """True, False, or None where it cannot be told. `today` collects {data: digests}."""
  if text := row.get('reads', {}).get('pydoc'):  # a measurement
    if 'pydoc' not in today:
      both = ('installed', 'packaged')
      today['pydoc'] = {content.of(prose.fingerprint(name)) for name in both}
    return text in today['pydoc']
  config, text = row.get('config'), row.get('text')
  if not text or not isinstance(config, dict) or 'data.corpus' not in config:
    return None
  names = ('corpus', 'task', 'encoding', 'pydoc')
  data = {name: config.get(f'data.{name}', configs.LATER.get(f'data.{name}')) for name in names}
  key = tuple(data.values())
  if key not in today:
    data = config_dict.ConfigDict({**data, 'root': '', 'cache': ''})
    corpus_name, task = configs.text_names(data.corpus, data.task, data.pydoc)
    read = _Text(corpus_name, task, data.encoding)
    try:
      today[key] = {inputs.text_of(read), text_01(data)} - {''}
    except (FileNotFoundError, ValueError):
      today[key] = None  # the text lies below a data.root that the row does not name
  return None if today[key] is None else text in today[key]


def text_01(data) -> str:
  """Returns what version 0.1 put into a row as 'text': the versions of the libraries of pydoc.

  Args:
    data: the group `data` of a config.

  Returns:
    12 hex digits; '' for GLUE and TFDS.
  """
  if data.task:
    return pydoc.signature()[:12] if data.task.startswith('pydoc/') else ''
  names = [source.name for source in corpus.sources(data.corpus)]
  local = '+'.join(name for name in names if not name.startswith('tfds:'))
  try:
    return corpus.key(local, data.root or None, data.cache or None)[-12:] if local else ''
  except FileNotFoundError:
    return ''


def _named(config, read):
  """{(key, value): digest} of what is read, by the names that a flat config gives it."""
  text = configs.text_names(
    config['data.corpus'], config['data.task'], config.get('data.pydoc', 'installed')
  )
  main = ('data.task', text[1]) if text[1] else ('data.corpus', text[0])
  named = {main: read.get('text')}
  for key in ('init', 'data.vocab', 'distill.teacher', 'data.corpus'):
    if key in read:
      named[key, config.get(key, '')] = read[key]
  return named


def _of_libraries(name):
  """Whether a name means docstrings of installed libraries alone."""
  return name[0].startswith('data.') and re.fullmatch(r'pydoc([/@*][^+]*)?', name[1]) is not None
