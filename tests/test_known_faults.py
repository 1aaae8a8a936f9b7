"""Faults that libraries near to this one are known for, and that must not be here.

An importer that divides query weights by the square root of a head's width; a weight that is frozen
because it happens to be 0; layers that a restore drops without a word.
"""

import importlib
import json
import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import safetensors.numpy
from checkpoint_cases import flat

import prunejax
from prunejax.models.hf.folder import CheckpointError

REFERENCE = pathlib.Path(__file__).parent / 'reference'
ENCODERS = ('bert', 'gpt2', 'modernbert', 'roberta', 'xlnet')
DECODERS = ('llama', 'llama-head-dim', 'opt', 'qwen2', 'qwen3')
FOLDERS = [*ENCODERS, *(f'decoders/{name}' for name in DECODERS)]


def stored(folder):
  files = sorted(folder.glob('*.safetensors'))
  return {k: v for file in files for k, v in safetensors.numpy.load_file(file).items()}


def loader(name):
  family = name.split('/')[-1].split('-')[0]
  reader = 'llama' if family in ('mistral', 'qwen2', 'qwen3') else family
  return importlib.import_module(f'prunejax.models.hf.{reader}').load


# ---- query weights are divided by sqrt(d)


@pytest.mark.parametrize('name', FOLDERS)
def test_importers_scale_nothing(name):
  """Every number of every leaf stands in the file; a query divided by sqrt(d) would not."""
  numbers = np.unique(np.concatenate([v.ravel() for v in stored(REFERENCE / name).values()]))
  params = flat(loader(name)(REFERENCE / name)[0])
  queries = [path for path in params if 'query' in path and params[path].ndim > 1]
  assert queries
  for path, leaf in params.items():
    assert np.isin(leaf, numbers).all(), path
  for path in queries:
    width = params[path].shape[-1]
    assert not np.isin(params[path] / np.sqrt(np.float32(width)), numbers).all()


# ---- a weight that happens to be 0 is frozen


def steps(tx, params, state, updates):
  for update in updates:
    change, state = tx.update({'w': jnp.asarray(update)}, state, params, grad={'w': update})
    params = optax.apply_updates(params, change)
  return params, state


@pytest.mark.parametrize('structure', [prunejax.unstructured(), prunejax.n_m(2, 4)])
@pytest.mark.parametrize('criterion', [prunejax.magnitude(), prunejax.taylor(), prunejax.random()])
def test_a_weight_that_lands_on_zero_is_trained_on(criterion, structure):
  """Masks are fixed at step 0; then each kept weight is moved to exactly 0, and on from there."""
  link = prunejax.prune_transform(
    criterion,
    prunejax.one_shot(0.5),
    prunejax.every(1, until=0),
    structure=structure,
    where='w',
    layout='in out',
  )
  params = {'w': jax.random.normal(jax.random.key(0), (8, 4))}
  state = link.init(params)
  zero = np.zeros((8, 4), np.float32)
  params, state = steps(link, params, state, [zero])
  kept = np.asarray(prunejax.get_masks(state, params)['w'])
  assert kept.sum() == 16
  params, state = steps(link, params, state, [-np.asarray(params['w'])])
  assert not np.any(params['w'])
  params, state = steps(link, params, state, [zero + 0.25])
  np.testing.assert_array_equal(params['w'], np.where(kept, 0.25, 0))
  np.testing.assert_array_equal(prunejax.get_masks(state, params)['w'], kept)


def test_weights_that_start_at_zero_are_trained_unless_they_are_said_to_be_pruned():
  start = {'w': jnp.zeros((8, 4)).at[:4].set(1.0)}

  def trained(**kwargs):
    link = prunejax.prune_transform(
      prunejax.magnitude(), prunejax.constant(0.0), where='w', **kwargs
    )
    tx = optax.chain(optax.adam(0.1), link)
    params, _ = steps(tx, start, tx.init(start), [np.ones((8, 4), np.float32)] * 3)
    return np.count_nonzero(params['w'])

  assert trained() == 32
  assert trained(masks='zeros', hold=True) == 16


# ---- a restore drops layers


def rewritten(name, tmp_path, change):
  """A copy of a reference folder whose tensors `change` has changed."""
  folder = tmp_path / 'model'
  shutil.copytree(REFERENCE / name, folder, ignore=shutil.ignore_patterns('*.npz', 'class*'))
  tensors = change(stored(folder))
  for file in [*folder.glob('*.safetensors'), *folder.glob('*.index.json')]:
    file.unlink()
  safetensors.numpy.save_file(tensors, folder / 'model.safetensors')
  return folder


def in_layer(name, number):
  return f'.{number}.' in f'.{name}'


def deeper(folder, by):
  path = folder / 'config.json'
  config = json.loads(path.read_text())
  for key in ('n_layer', 'num_hidden_layers'):
    if key in config:
      config[key] += by
  for key in ('layer_types',):
    if config.get(key):
      config[key] = (config[key] * 2)[: len(config[key]) + by]
  path.write_text(json.dumps(config))


@pytest.mark.parametrize('name', FOLDERS)
def test_a_folder_without_one_of_its_layers_is_refused_by_name(name, tmp_path):
  def drop(tensors):
    return {k: v for k, v in tensors.items() if not in_layer(k, 1)}

  gone = [k for k in stored(REFERENCE / name) if in_layer(k, 1)]
  assert gone
  folder = rewritten(name, tmp_path, drop)
  with pytest.raises(CheckpointError) as caught:
    loader(name)(folder)
  assert any(tensor in str(caught.value) for tensor in gone)


@pytest.mark.parametrize('name', FOLDERS)
@pytest.mark.parametrize('by', [-1, 1])
def test_a_config_with_other_layers_than_the_file_is_refused(name, by, tmp_path):
  folder = rewritten(name, tmp_path, lambda tensors: tensors)
  deeper(folder, by)
  with pytest.raises(CheckpointError):
    loader(name)(folder)


def layers(count):
  return {f'layer_{i}': {'kernel': jnp.full((4, 4), 1.0 + i)} for i in range(count)}


@pytest.mark.parametrize('saved, asked', [(3, 2), (2, 3)])
def test_a_state_of_other_layers_is_refused_by_name(saved, asked):
  link = prunejax.prune_transform(prunejax.magnitude(), prunejax.constant(0.5))
  state, params = link.init(layers(saved)), layers(asked)
  with pytest.raises(ValueError, match='layer_2'):
    link.update(jax.tree.map(jnp.zeros_like, params), state, params)
  if saved > asked:
    with pytest.raises(ValueError, match='layer_2'):
      prunejax.get_masks(state, params)


@pytest.mark.parametrize('saved, asked', [(3, 2), (2, 3)])
def test_files_of_other_layers_are_refused_by_name(saved, asked, tmp_path):
  prunejax.save_sparse(tmp_path / 'a.safetensors', layers(saved))
  with pytest.raises(ValueError, match='layer_2'):
    prunejax.load_sparse(tmp_path / 'a.safetensors', like=layers(asked))
