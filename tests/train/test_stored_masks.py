"""Fine-tuning of a folder with masks.safetensors holds the masks, not the zeros."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_runs

import prunejax
from prunejax.models import bert
from prunejax.models.hf import bert as bert_hf
from prunejax.models.hf import folder as hf_folder
from prunejax.models.hf import stored_masks
from prunejax.pruning.paths import matches, named_leaves
from prunejax.train import program


def test_masks_come_back_as_they_were_written(tmp_path):
  rng = np.random.default_rng(0)
  masks = {'a/kernel': rng.random((5, 7)) > 0.5, 'b/kernel': np.arange(9) % 4 != 0}
  (tmp_path / stored_masks.NAME).write_bytes(
    stored_masks.encode({**masks, 'whole': np.ones((3, 3), bool)})
  )
  read = stored_masks.read(tmp_path)
  assert read.keys() == masks.keys()
  for name, mask in masks.items():
    np.testing.assert_array_equal(read[name], mask)
  (tmp_path / stored_masks.NAME).write_bytes(b'no masks')
  with pytest.raises(hf_folder.CheckpointError, match='damaged or no file of masks'):
    stored_masks.read(tmp_path)
  assert stored_masks.read(tmp_path / 'nowhere') is None


def test_a_leaf_without_a_stored_mask_is_held_nowhere_stacked_or_not():
  whole, part = np.ones((2, 3), bool), np.arange(6).reshape(2, 3) > 1
  params = {'head': {'kernel': np.zeros((2, 3))}, 'enc': {'layers': {'k': np.zeros((2, 2, 3))}}}
  params = jax.tree.map(lambda x: x + (x.ndim == 3) * (np.arange(3) > 0), params)
  params['head']['kernel'][0] = 1
  state = prunejax.hold_zeros().init(jax.tree.map(jnp.float32, params))
  held = program.held(state, {'enc/layer_1/k': part})
  np.testing.assert_array_equal(held.prune_mask['head']['kernel'], whole)
  np.testing.assert_array_equal(held.prune_mask['enc']['layers']['k'], [whole, part])
  with pytest.raises(ValueError, match=r"of 'enc/layer_0/k' has shape \(3, 3\), the leaf \(2, 3\)"):
    program.held(state, {'enc/layer_0/k': np.ones((3, 3), bool)})


@pytest.mark.slow
def test_a_survivor_that_is_zero_is_trained_and_a_pruned_weight_is_not(tmp_path):
  parent = tiny_runs.finished('at 0.8', prune__weights__schedule='cubic(0.8, end=6)').folder
  shutil.copytree(parent / 'model', tmp_path / 'pruned')
  chosen = matches(bert.PRUNABLE)
  leaves = named_leaves(bert_hf.load(tmp_path / 'pruned', heads=())[0])
  masks = {name: np.array(leaf) != 0 for name, leaf in leaves.items() if chosen(name, leaf)}
  zeros = {name: tuple(np.argwhere(~mask)[0]) for name, mask in masks.items()}
  for name, at in zeros.items():
    masks[name][at] = True  # a survivor whose weight is 0
  (tmp_path / 'pruned' / stored_masks.NAME).write_bytes(stored_masks.encode(masks))
  config = tiny_runs.config(init=str(tmp_path / 'pruned'), hold_zeros=True, pruned=False, steps=6)
  tiny_runs.train(config, tmp_path / 'run')
  after = named_leaves(bert_hf.load(tmp_path / 'run' / 'model', heads=())[0])
  for name, mask in masks.items():
    assert not np.asarray(after[name])[~mask].any()
  assert sum(np.asarray(after[name])[at] != 0 for name, at in zeros.items()) > len(zeros) / 2
