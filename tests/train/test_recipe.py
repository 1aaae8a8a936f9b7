"""A config resolved into a recipe: plain values, every bad value one error with its key."""

import pytest
import tiny_runs
from ml_collections import config_dict

from configs import base
from prunejax.cli import command
from prunejax.train import configs, loop, recipe


def values(node):
  """Every value in a tree of tuples and dicts."""
  if isinstance(node, tuple | list):
    for child in node:
      yield from values(child)
  elif isinstance(node, dict):
    for child in node.values():
      yield from values(child)
  else:
    yield node


def test_behind_the_recipe_nothing_reads_the_config(tmp_path, monkeypatch):
  whole, resolve = tiny_runs.finished('pruned'), recipe.resolve

  def resolved_and_emptied(config):
    resolved = resolve(config)
    with config.unlocked():
      for key in list(config):
        del config[key]
    return resolved

  monkeypatch.setattr(recipe, 'resolve', resolved_and_emptied)
  config = tiny_runs.config()
  result = tiny_runs.train(config, tmp_path / 'run')
  assert not list(config) and tiny_runs.plain(result) == tiny_runs.plain(whole.result)


def test_a_config_in_the_place_of_a_recipe_is_refused(tmp_path):
  with pytest.raises(TypeError, match=r'recipe\.resolve\(config\).*got a ConfigDict'):
    loop.train(tiny_runs.config(), tmp_path / 'run')
  assert not (tmp_path / 'run').exists()


def test_the_train_command_resolves_its_config_once(tmp_path, monkeypatch):
  resolve, seen = recipe.resolve, []

  def counted(config):
    seen.append(config)
    return resolve(config)

  monkeypatch.setattr(recipe, 'resolve', counted)
  (tmp_path / 'tiny.py').write_text(
    'import tiny_runs\nget_config = lambda arg="": tiny_runs.config()\n'
  )
  argv = ['train', f'--config={tmp_path}/tiny.py', f'--workdir={tmp_path}/run']
  assert command.main(argv) == 0 and len(seen) == 1


def test_a_recipe_holds_no_config_and_changes_none():
  config = tiny_runs.config(optimizer__rewind='every(6, begin=6, until=6)')
  before = config.to_dict()
  resolved = recipe.resolve(config)
  assert not [value for value in values(resolved) if isinstance(value, config_dict.ConfigDict)]
  assert config.to_dict() == before
  assert [group.name for group in resolved.prune] == ['weights']
  assert resolved.optimizer.rounds == (6,) and resolved.optimizer.horizon == 12 - 6 - 2
  with pytest.raises(AttributeError):
    resolved.steps = 1


def test_a_group_without_a_schedule_prunes_nothing_and_is_checked():
  config = tiny_runs.config(False)
  assert recipe.resolve(config).prune == () and recipe.resolve(config).where
  config.prune.weights.structure = 'blocks(4, 4)'
  with pytest.raises(ValueError, match="prune.weights.structure='blocks"):
    recipe.resolve(config)


@pytest.mark.parametrize('key', recipe.RANGES)
def test_a_number_out_of_range_is_one_error_with_its_key(key):
  config = base.get_config()
  wrong = -2.0 if isinstance(configs.flat(config)[key], float) else -2  # -1 is a default of some
  with pytest.raises(ValueError) as error:
    recipe.resolve(configs.override(config, {key: wrong}))
  assert str(error.value) == f'{key}={wrong!r}: expected {recipe.RANGES[key][1]}'


@pytest.mark.parametrize('key', recipe.CHOICES)
def test_a_word_that_is_no_choice_is_one_error_with_its_key(key):
  with pytest.raises(ValueError) as error:
    recipe.resolve(configs.override(base.get_config(), {key: 'strange'}))
  assert str(error.value).startswith(f"{key}='strange'")
  assert str(error.value).endswith(f'expected one of {", ".join(recipe.CHOICES[key])}')
