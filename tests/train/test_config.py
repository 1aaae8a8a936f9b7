"""Config files, overrides and spec strings."""

import ast
import itertools
import pathlib
import re
import sys
import time

import jax.numpy as jnp
import pytest
from ml_collections import config_dict

import prunejax
from configs import base
from prunejax.pruning import allocations, criteria, schedules, structures
from prunejax.sweep import grid
from prunejax.train import configs, families, optimizer, program, recipe, specs

ROOT = pathlib.Path(__file__).resolve().parents[2]
KEYS = configs.flat(base.get_config())
OTHER = {
  bool: lambda v: not v,
  int: lambda v: v + 3,
  float: lambda v: v + 0.25,
  str: lambda v: v + 'x',
  tuple: lambda v: (*v, 1),
}
WRONG = {
  bool: ['yes', '1', 1],
  int: ['1.5', 'many', True],
  float: ['half', '', True],
  str: [3, None],
  tuple: ['3', '('],
}
FILES = {
  'structured': ('', 'nano', 'base'),
  'base': ('',),
  'nano': ('', 'anneal'),
  'pretrain': ('', 'nano', 'base'),
  'finetune': ('', 'nano', 'base'),
  'sparsity': ('',),
  'gpt2': ('', 'nano', 'nano-finetune', 'base', 'base-finetune'),
  'llama': ('', 'nano', 'nano-finetune', 'continue', 'finetune'),
  'methods': ('', 'rigl', 'movement'),
  'tasks': ('',),
  'small': ('',),
  'margins': ('',),
  'margins_minilm': ('',),
  'xlnet': ('', 'nano', 'nano-finetune', 'base', 'base-finetune'),
  'encoders': ('', 'roberta', 'modernbert'),
  'minilm': ('', 'heads', 'pretrain', 'finetune'),
}


def one(key, value):
  return configs.flat(configs.override(base.get_config(), {key: value}))


@pytest.mark.parametrize('key', KEYS)
def test_every_key_can_be_set_from_text_and_from_a_value(key):
  want = OTHER[type(KEYS[key])](KEYS[key])
  for given in (want, str(want)):
    assert one(key, given) == {**KEYS, key: want}
    assert type(one(key, given)[key]) is type(KEYS[key])


@pytest.mark.parametrize('key', KEYS)
def test_every_key_refuses_another_type(key):
  # The name of a set of rules is a word, which the recipe checks.
  for value in WRONG[type(KEYS[key])] if key != 'mesh.rules' else (3, True):
    with pytest.raises(ValueError) as error:
      one(key, value)
    assert (
      str(error.value).startswith(f'{key}=')
      and str(value) in str(error.value)
      and 'expected' in str(error.value)
    )


@pytest.mark.parametrize(
  'key, text, value',
  [
    ('optimizer.learning_rate', '1', 1.0),
    ('optimizer.learning_rate', '1e-4', 1e-4),
    ('steps', '1e3', 1000),
    ('hold_zeros', 'TRUE', True),
    ('hold_zeros', 'false', False),
    ('mesh.data', '-1', -1),
    ('init', '', ''),
    ('init', '7', '7'),
    ('mesh.rules', "[('.*/kernel', (None, 'model'))]", (('.*/kernel', (None, 'model')),)),
    ('mesh.rules', '()', ()),
  ],
)
def test_text_becomes_the_type_of_the_default(key, text, value):
  got = one(key, text)[key]
  assert got == value and type(got) is type(value)


@pytest.mark.parametrize(
  'key, named, near',
  [
    ('stpes', 'stpes', 'steps'),
    ('optimizer.learning_rat', 'optimizer.learning_rat', 'optimizer.learning_rate'),
    ('optimiser.b1', 'optimiser', 'optimizer'),
    ('prune.weight.schedule', 'prune.weight', 'prune.weights'),
    ('prune.weights.scedule', 'prune.weights.scedule', 'prune.weights.schedule'),
  ],
)
def test_a_misspelt_key_brings_up_the_right_one(key, named, near):
  with pytest.raises(ValueError) as error:
    one(key, '1')
  for words in (f'{named!r} (did you mean {near!r}?)', 'configs/base.py'):
    assert words in str(error.value)


@pytest.mark.parametrize('key', ['optimizer', 'prune.weights', 'steps.more', 'zzz', ''])
def test_a_group_and_a_stranger_are_refused(key):
  with pytest.raises(ValueError, match='group|unknown config key'):
    one(key, '1')


def test_every_config_file_is_in_the_table():
  assert {p.stem for p in (ROOT / 'configs').glob('*.py')} - {'__init__'} == set(FILES)


@pytest.mark.parametrize('name, arg', [(name, arg) for name, args in FILES.items() for arg in args])
def test_every_config_loads_and_only_changes_declared_keys(name, arg):
  config, module = configs.load(f'configs/{name}.py' + (f':{arg}' if arg else ''), ROOT)
  # A group of leaves with a recipe of its own has the keys of prune.weights.
  flat = {
    re.sub(r'^prune\.\w+\.', 'prune.weights.', key): value
    for key, value in configs.flat(config).items()
  }
  assert flat.keys() == KEYS.keys()
  assert {k: type(v) for k, v in flat.items()} == {k: type(v) for k, v in KEYS.items()}
  recipe.resolve(config)
  assert name == 'base' or module.__doc__.count('python -m prunejax')
  with pytest.raises((AttributeError, KeyError)):
    config.typo = 1  # locked


@pytest.mark.parametrize('name', sorted(set(FILES) - {'base'}))
def test_an_argument_that_a_config_does_not_know_is_named(name):
  with pytest.raises(ValueError, match=f'configs/{name}.py:tiny: expected'):
    configs.load(f'configs/{name}.py:tiny', ROOT)


def test_every_key_of_base_has_a_comment():
  text = (ROOT / 'configs' / 'base.py').read_text()
  leaves = {k.split('.')[-1] for k in KEYS} - set(
    families.SIZE_KEYS
  )  # those have one comment in common
  key = re.compile(rf'\s+(c\.)?({"|".join(leaves)}) ?=(?! config_dict)')
  declared = [line for line in text.splitlines() if key.match(line)]
  assert len(declared) == len(KEYS) - len(families.SIZE_KEYS)
  assert [line for line in declared if '  # ' not in line] == []


def test_the_sweep_over_sparsity_has_nine_different_cells():
  config, module = configs.load('configs/sparsity.py', ROOT)
  cells = [
    configs.override(config.copy_and_resolve_references(), change) for change in module.sweep()
  ]
  assert len({grid.key(grid.Cell({}, cell)) for cell in cells}) == 9
  for cell in cells:
    recipe.resolve(cell)


def test_a_file_without_get_config_and_a_missing_one(tmp_path):
  (tmp_path / 'odd.py').write_text('x = 1\n')
  with pytest.raises(ValueError, match='odd.py has no get_config'):
    configs.load(tmp_path / 'odd.py', ROOT)
  with pytest.raises(
    FileNotFoundError, match="configs/pretrian.py: no such file .did you mean 'configs/pretrain.py'"
  ):
    configs.load('configs/pretrian.py', ROOT)
  with pytest.raises(FileNotFoundError, match='no such file'):
    configs.load(tmp_path, ROOT)


def test_an_installed_package_says_that_configs_need_a_checkout(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  monkeypatch.delitem(sys.modules, 'configs')
  has_configs = lambda path: (pathlib.Path(path) / 'configs' / 'base.py').exists()
  monkeypatch.setattr(sys, 'path', [path for path in sys.path if not has_configs(path)])
  (tmp_path / 'mine.py').write_text('from configs import base\n')
  with pytest.raises(FileNotFoundError, match='configs/base.py: no such file.*need a checkout'):
    configs.load('configs/base.py', tmp_path / 'site-packages')
  with pytest.raises(ValueError, match='mine.py imports configs.*need a checkout'):
    configs.load(tmp_path / 'mine.py', tmp_path / 'site-packages')
  (tmp_path / 'mine.py').write_text('import nowhere_at_all\n')
  with pytest.raises(ModuleNotFoundError, match='nowhere_at_all'):  # its own defect stays
    configs.load(tmp_path / 'mine.py', tmp_path / 'site-packages')


def test_a_config_file_may_lie_anywhere(tmp_path):
  text = 'from configs import nano\ndef get_config(arg):\n  c = nano.get_config()\n'
  (tmp_path / 'mine.py').write_text(text + '  c.seed = int(arg)\n  return c\n')
  assert configs.load(f'{tmp_path}/mine.py:7', ROOT)[0].seed == 7


# Spec strings.


def test_a_spec_is_a_call_of_literals():
  spec = specs.parse('cubic(0.9, end=10_000)', schedules, 'k')
  assert (
    spec.name == 'cubic' and spec.arguments['sparsity'] == 0.9 and spec.arguments['end'] == 10_000
  )
  assert specs.parse('magnitude', criteria, 'k') == specs.parse('magnitude()', criteria, 'k')
  assert (
    len(
      {
        repr(specs.parse(text, criteria, 'k'))
        for text in ('random()', 'random(seed=0)', 'random(0)')
      }
    )
    == 1
  )
  table = specs.parse("by_class({'a': 0.5}, relative=True)", allocations, 'k')
  assert table.arguments == {'table': {'a': 0.5}, 'relative': True}


@pytest.mark.parametrize(
  'text, module, words',
  [
    ('cubik(0.9)', schedules, "did you mean 'cubic'"),
    ('cubic(', schedules, 'expected a call with literal arguments'),
    ('cubic(open("x"))', schedules, 'expected a call with literal arguments'),
    ('__import__("os").system("true")', schedules, 'expected a call with literal arguments'),
    ('cubic(0.9, ends=3)', schedules, 'cubic(sparsity, begin=0, end=None, initial=0.0)'),
    ('magnitude(3)', criteria, 'expected magnitude('),
    ('np()', structures, "no 'np'"),
    ("random('a')", criteria, "seed='a': expected a number"),
    ("cubic(0.5, end='a')", schedules, "end='a': expected a number or None"),
    ('wanda(3)', criteria, 'accumulate=3: expected True or False'),
    ('obs(3)', criteria, 'estimate=3: expected a text'),
    ('_ramp(1, 2, 3, 4, 5, 6)', schedules, "no '_ramp'"),
    ('3', schedules, 'expected a call'),
    ('', structures, 'expected a call'),
  ],
)
def test_any_other_text_is_refused_with_its_key(text, module, words):
  with pytest.raises(ValueError) as error:
    specs.parse(text, module, 'prune.weights.x')
  assert f'prune.weights.x={text!r}' in str(error.value) and words in str(error.value)


@pytest.mark.parametrize(
  'text',
  [
    'cubic(' + '9' * 10_000_000 + ')',
    'cubic(' + '-' * 3000 + '1)',
    'cubic(' + '(' * 1500 + ')' * 1500 + ')',
    'cubic(' * 600 + ')' * 600,
    'cubic(1e999)',
    'by_class({"a": 1e999})',
    'cubic(0.9,\0)',
  ],
)
def test_long_deep_and_infinite_specs_are_refused_in_one_short_line_at_once(text):
  began = time.perf_counter()
  for call in (
    lambda: specs.parse(text, (schedules, allocations), 'prune.weights.schedule'),
    lambda: configs.convert(text, 1, 'steps'),
  ):
    with pytest.raises(ValueError) as error:
      call()
    assert len(str(error.value)) < 400 and '\n' not in str(error.value)
    assert 'expected' in str(error.value)
  assert time.perf_counter() - began < 1


EXAMPLES = {
  'criterion': [
    'magnitude()',
    'random()',
    'random(seed=3)',
    'taylor()',
    'movement()',
    'movement(learning_rate=1e-2)',
    'soft_movement(0.1)',
    'snip()',
    'platon()',
    'deviations()',
    'gradient()',
    'noise()',
    'rigl(0.3, end=9)',
    'sparse_evolution()',
    'obd()',
    'obs()',
    'wanda()',
    'sparsegpt()',
    'block_fisher()',
  ],
  'schedule': [
    'cubic(0.9, end=10)',
    'linear(0.9, end=10)',
    'constant(0.5)',
    'one_shot(0.5)',
    'staircase(0.5, 0.8, 3, 2)',
    'iterative(0.8, 4, 3)',
    'cycle(0.8, 3, 0, 9)',
  ],
  'when': ['every(10)', 'every(10, begin=5)', 'until(99)'],
  'allocation': [
    'uniform()',
    "by_class({'.*': 0.5})",
    'global_threshold()',
    'class_distribution()',
    'erk()',
    'histogram(bins=256, decay=0.9)',
    'above(0.5)',
    "class_uniform(['.*'])",
    'per_output()',
  ],
  'structure': [
    'unstructured()',
    'n_m(2, 4)',
    'block(4, 4)',
    'rows()',
    'columns()',
    'heads(64)',
    'ffn()',
    "tied({'a/up': ('a', -1, 2)})",
  ],
}


@pytest.mark.parametrize(
  'name, text', [(name, text) for name, texts in EXAMPLES.items() for text in texts]
)
def test_every_method_can_be_named_in_a_config(name, text):
  group = {'schedule': 'constant(0.5)', name: text}
  config = configs.override(base.get_config(), {f'prune.weights.{k}': v for k, v in group.items()})
  resolved = recipe.resolve(config)
  optimizer.make(resolved)
  assert program.program_key(resolved)


def test_the_examples_cover_every_factory():
  used = {ast.parse(text).body[0].value.func.id for text in itertools.chain(*EXAMPLES.values())}
  for module in (criteria, allocations, structures, schedules):
    factories = set(specs.factories(module)) - {'regrow'}  # made of criteria, which no literal is
    assert factories <= used, factories - used


def test_a_group_of_its_own_can_be_added():
  config = base.get_config()
  with config.unlocked():
    config.prune.heads = base.prune_group(where='nsp/kernel', schedule='constant(0.5)')
  assert isinstance(config.prune.heads, config_dict.ConfigDict)
  assert [group.name for group in recipe.resolve(config).prune] == ['heads']
  assert one('prune.weights.where', 'a|b')['prune.weights.where'] == 'a|b'


TABLE = "{'.*/query/kernel': 'in out out'}"


@pytest.mark.parametrize('key', ['prune.weights.layout', 'low_rank.layout'])
def test_a_layout_is_words_or_the_text_of_a_table(key):
  group, leaf = key.rsplit('.', 1)[0], "{'c.*': '... in out', 'a/b': 'out in'}"

  def resolved(text):
    config = base.get_config()
    config.prune.weights.schedule = 'constant(0.5)' if 'prune' in key else ''
    config.low_rank.schedule = 'constant(0.5)' if 'prune' not in key else ''
    plan = recipe.resolve(configs.override(config, {key: text}))
    return (plan.prune[0] if 'prune' in key else plan.low_rank).layout

  assert resolved('') == '' and resolved('out in ...') == 'out in ...'
  assert resolved(TABLE) == {'.*/query/kernel': 'in out out'}
  assert resolved(leaf) == {'c.*': '... in out', 'a/b': 'out in'}
  for text, words in (
    ('in uot', "'uot' is no word"),
    ("{'a(': 'in out'}", 'not a regular expression'),
    ('{3', 'no expression'),
    ('{' + 4100 * ' ' + '}', 'at most 4096'),
    (4100 * 'x', 'at most 4096'),
    ("['in', 'out']", 'dictionary'),
  ):
    with pytest.raises(ValueError, match=words) as error:
      resolved(text)
    assert str(error.value).startswith(f'{group}.layout={text[:6]!r}'[:-1])
    assert len(str(error.value)) < 500


def test_a_layout_counts_for_the_hash_of_a_run_only_where_it_says_something():
  def changed(**changes):
    changes = {key.replace('__', '.'): value for key, value in changes.items()}
    return configs.override(base.get_config(), changes)

  plain, said = changed(), changed(prune__weights__layout='out in')
  assert not [key for key in configs.counted(plain) if key.endswith('layout')]
  assert configs.counted(said)['prune.weights.layout'] == 'out in'
  assert 'layout' not in configs.identity(plain)['prune']['weights']
  kept = configs.stored(configs.identity(plain))
  assert kept.prune.weights.layout == '' == kept.low_rank.get('layout', '')
  assert configs.stored(configs.identity(said)).prune.weights.layout == 'out in'


def test_a_layout_reaches_the_links_of_a_run():
  config = base.get_config()
  config.prune.weights.update(schedule='constant(0.5)', structure='n_m(2, 4)', where='.*')
  params = {'a': {'weight': jnp.ones((8, 8))}}
  with pytest.raises(ValueError, match=r"prune.weights: n_m\(2, 4\): which axes of 'a/weight'"):
    optimizer.make(recipe.resolve(config)).init(params)
  config.prune.weights.layout = 'out in'
  tx = optimizer.make(recipe.resolve(config))
  state = tx.init(params)
  _, state = tx.update(params, state, params, grad=params)
  kept = prunejax.get_masks(state, params)['a']['weight']
  assert kept.reshape(8, 2, 4).sum(-1).tolist() == [[2, 2]] * 8
