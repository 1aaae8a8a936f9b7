"""Loads config files, `get_config(arg)` of a Python file, and sets `--config.key=value`.

`recipe.resolve` checks a config and turns it into plain values.
"""

import functools
import importlib.util
import pathlib
import re
import sys

from ml_collections import config_dict

from prunejax.train import model_sizes, specs


def load(path, root):
  """Loads a config.

  Args:
    path: 'FILE.py' or 'FILE.py:ARG', below the current folder or `root`.
    root: the folder of `configs/`.

  Returns:
    The ConfigDict, and the module of the file.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: the file has no get_config, or does not accept ARG.
  """
  name, _, arg = str(path).partition(':')
  file = pathlib.Path(name)
  file = file if file.exists() else root / name
  if file.is_file() and file.suffix != '.py':
    raise ValueError(f'--config={name}: expected a Python file, FILE.py or FILE.py:ARG')
  if not file.is_file():
    near = specs.suggest(name, [f'configs/{p.name}' for p in (root / 'configs').glob('*.py')])
    raise FileNotFoundError(f'--config={name}: no such file{near}{_without_checkout(root)}')
  sys.path.insert(0, str(root))  # so that a config can say `from configs import base`
  spec = importlib.util.spec_from_file_location(file.stem, file)
  module = importlib.util.module_from_spec(spec)
  try:
    spec.loader.exec_module(module)
  except ModuleNotFoundError as error:
    if error.name not in ('configs', 'experiments') or not (why := _without_checkout(root)):
      raise
    raise ValueError(f'--config={name} imports {error.name}{why}') from None
  if not hasattr(module, 'get_config'):
    raise ValueError(f'--config={name} has no get_config(arg)')
  return module.get_config(arg), module


def _without_checkout(root):
  """What to do where the package is installed without its configs; '' in a checkout."""
  if (root / 'configs' / 'base.py').is_file():
    return ''
  return (
    ': the installed package has no configs/ and no experiments/, which need a checkout; clone the'
    " repository and run python -m pip install -e '.[train]' there"
  )


# Keys declared after the first ledgers were written, and the value that held before. At that value
# a key does not count for the hash of a run. A star stands for every group.
LATER = {
  'model.kind': 'bert',
  'model.attention_dropout': -1.0,
  'model.attention': 'einsum',
  'model.remat': 'none',
  'model.scan_layers': False,
  'mesh.axes': 'auto',
  'model.num_key_value_heads': 0,
  'optimizer.l1': 0.0,
  'optimizer.l2': 0.0,
  'optimizer.rewind': '',
  'optimizer.rewind_to': 0,
  'optimizer.fresh_moments': False,
  'data.pairs': 'first',
  'data.encoding': 'utf-8',
  'continue_from': '',
  'data.pydoc': 'installed',
  'data.identity': 'settings',
  'data.buckets': (),
  'data.memory': 0,
  'prune.*.layout': '',
  'low_rank.layout': '',
}
PAIRED = ('bert', 'xlnet')  # families whose pre-training has second segments
# Groups of such keys, and the key that is empty if the group does nothing.
OFF = {'prox': 'penalty', 'low_rank': 'schedule', 'distill': 'teacher'}


def override(config, changes: dict):
  """Sets keys of a config in place, and returns it.

  Args:
    config: a ConfigDict.
    changes: {dotted key: value}. Values are converted to the type of the default.

  Raises:
    ValueError: an unknown key (the nearest is suggested), or a value of another type.
  """
  for key, value in changes.items():
    *groups, last = key.split('.')
    node = config
    for i, name in enumerate(groups):
      node = _child(node, name, '.'.join(groups[: i + 1]), config)
    if not isinstance(node, config_dict.ConfigDict) or last not in node:
      raise ValueError(
        f'unknown config key {key!r}{specs.suggest(key, flat(config))}; every key is in'
        ' configs/base.py'
      )
    if isinstance(node[last], config_dict.ConfigDict):
      raise ValueError(f'config key {key!r} is a group of {", ".join(node[last])}: set one of them')
    node[last] = convert(value, node[last], key)
  return config


def convert(value, default, key: str):
  """Converts a value to the type of a default.

  Args:
    value: a string from the command line, or a Python value.
    default: the default of the key.
    key: for messages.

  Raises:
    ValueError: the value is no such value.
  """
  want = type(default)
  if key == 'mesh.rules':  # a name, or pairs
    want = str if value in model_sizes.RULES else tuple
  if isinstance(value, str) and want is not str:
    try:
      value = (
        {'true': True, 'false': False}[value.lower()] if want is bool else specs.literal(value)
      )
    except (ValueError, KeyError):
      raise ValueError(
        f'{key}={specs.shown(value)}: expected {_kind(want)}, such as {default!r}'
      ) from None
  if want is float and type(value) is int:
    value = float(value)
  if want is int and type(value) is float and value.is_integer():
    value = int(value)
  if want is tuple and isinstance(value, list):
    value = tuple(value)
  if type(value) is not want:
    raise ValueError(f'{key}={value!r}: expected {_kind(want)}, such as {default!r}')
  return value


def flat(config, prefix: str = '') -> dict:
  """Returns every dotted key and its value."""
  out = {}
  for name, value in config.items():
    nested = isinstance(value, config_dict.ConfigDict)
    out.update(flat(value, f'{prefix}{name}.') if nested else {f'{prefix}{name}': value})
  return out


def identity(config) -> dict:
  """Returns the plain dict that a work directory is claimed by.

  How a grid is divided into programs changes no run, so 'population' is left out.
  """
  ignored = {'population', *_off(config)}
  plain = {name: value for name, value in config.to_dict().items() if name not in ignored}
  for key, value in _later(plain).items():
    *groups, last = key.split('.')
    node = functools.reduce(lambda parent, name: parent.get(name, {}), groups, plain)
    if node.get(last) == value or last in node and _unread(key, config):
      del node[last]
  return plain


def stored(plain: dict):
  """Returns the ConfigDict of a work directory's config.json.

  The keys of LATER and OFF that `identity` leaves out are put back.
  """
  config = config_dict.ConfigDict({**{group: {key: ''} for group, key in OFF.items()}, **plain})
  for key, value in _later(config).items():
    *groups, last = key.split('.')
    node = functools.reduce(lambda parent, name: parent[name], groups, config)
    if last not in node:
      node[last] = value
  return config


def counted(config) -> dict:
  """Returns {dotted key: value} of the keys that count for the hash of a run."""
  off = tuple(f'{group}.' for group in _off(config))
  on = {key: value for key, value in flat(config).items() if not key.startswith(off)}
  later = _later(config)
  return {k: v for k, v in on.items() if k not in later or v != later[k] and not _unread(k, config)}


def _later(config) -> dict:
  """LATER with the groups of a config in the place of a star."""
  out = {}
  for key, value in LATER.items():
    group, star, last = key.partition('.*.')
    names = [f'{group}.{name}.{last}' for name in config.get(group, {})] if star else [key]
    out |= dict.fromkeys(names, value)
  return out


def _unread(key, config):
  """Whether a run ignores a key of LATER."""
  if key == 'data.pydoc':
    names = config.data.corpus, config.data.task
    return text_names(*names, config.data.pydoc) == names
  return key == 'data.pairs' and bool(
    config.data.task or config.model.get('kind', 'bert') not in PAIRED
  )


def text_names(corpus: str, task: str, pydoc: str) -> tuple[str, str]:
  """Returns the corpus and the task that a run reads.

  Args:
    corpus: `data.corpus`.
    task: `data.task`.
    pydoc: `data.pydoc`; 'packaged' puts the packaged text, 'prose', in the place of 'pydoc'.
  """
  if pydoc == 'installed':
    return corpus, task
  corpus = re.sub(r'(^|\+)(\s*)pydoc(?=\s*[@*+]|\s*$)', r'\1\2prose', corpus)
  return corpus, re.sub('^pydoc/', 'prose/', task)


def _off(config):
  return [group for group, key in OFF.items() if group in config and not config[group][key]]


def _child(node, name, path, config):
  if not isinstance(node, config_dict.ConfigDict) or name not in node:
    groups = sorted({k.rsplit('.', 1)[0] for k in flat(config) if '.' in k})
    raise ValueError(
      f'unknown config group {path!r}{specs.suggest(path, groups)}; every key is in configs/base.py'
    )
  return node[name]


def _kind(want):
  return {
    bool: 'true or false',
    int: 'a whole number',
    float: 'a number',
    str: 'text',
    tuple: 'a tuple',
  }[want]
