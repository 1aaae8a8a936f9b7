"""Pruning block by block: against a plain loop over the whole model, exact, resumed, on meshes."""

import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy_decoder
from flax import traverse_util
from tiny_decoder import SIZE, model_and_params, tokens

import prunejax
from prunejax import oneshot
from prunejax.observe import linen
from prunejax.oneshot import block_by_block, decoders, resume, shares, stream
from prunejax.pruning.paths import named_leaves

WHERE = r'encoder/layer_\d+/(attention/(query|key|value|output)|ffn/(intermediate|output))/kernel'
KERNELS = 6


def flat(tree):
  return {k: np.asarray(v) for k, v in traverse_util.flatten_dict(tree, sep='/').items()}


def in_turn(params, segments, criterion, prune_kernel):
  """Prunes each block on what the whole model puts into its kernels, the blocks before pruned."""
  model, leaves = model_and_params()[0], flat(params)
  ones = jnp.ones(segments.shape, bool)
  masks = {}
  for layer in range(SIZE.n_layer):
    record = linen.activations(model, segments, segments, ones)
    rows = record(traverse_util.unflatten_dict(leaves, sep='/'))
    for name in [n for n in rows if n.startswith(f'encoder/layer_{layer}/')]:
      of_one = criterion.layerwise
      ready = of_one.ready(of_one.statistics(rows[name]))
      masks[name], leaves[name] = prune_kernel(of_one, ready, jnp.asarray(leaves[name]))
  return masks, leaves


def wanda_half(of_one, ready, w):
  """Of each output the half with the higher scores stays; ties go to the lower input."""
  order = np.argsort(-np.asarray(of_one.score(ready, w)), axis=0, kind='stable')
  mask = np.zeros(w.shape, bool)
  np.put_along_axis(mask, order[: len(w) // 2], True, 0)
  return mask, np.where(mask, w, 0)


def sparsegpt_half(of_one, ready, w):
  kept = jnp.asarray([w.size // 2], jnp.int32)
  return of_one.sweep(ready, w, kept, prunejax.unstructured(), len(w))


def sparsegpt_two_of_four(of_one, ready, w):
  kept = jnp.zeros(len(w) // 4, jnp.int32)
  return of_one.sweep(ready, w, kept, prunejax.n_m(2, 4), 4)


CASES = {
  'wanda': (prunejax.wanda, None, wanda_half),
  'sparsegpt': (prunejax.sparsegpt, None, sparsegpt_half),
  'sparsegpt 2:4': (prunejax.sparsegpt, prunejax.n_m(2, 4), sparsegpt_two_of_four),
}


@pytest.mark.parametrize(
  'name', ['wanda', *(pytest.param(n, marks=pytest.mark.slow) for n in CASES if n != 'wanda')]
)
def test_every_block_is_calibrated_on_what_the_pruned_blocks_put_out(name):
  make, structure, by_hand = CASES[name]
  _, params = model_and_params()
  segments = tokens(6)
  got = oneshot.prune(
    decoders.of_size(SIZE), params, segments, criterion=make(), sparsity=0.5, structure=structure
  )
  masks, leaves = in_turn(params, segments, make(), by_hand)
  assert len(masks) == KERNELS * SIZE.n_layer
  for path, mask in flat(got.masks).items():
    if path in masks:
      # The rows are added in another order, so that two scores may change places at the border.
      assert np.mean(mask != np.asarray(masks[path])) < 0.01, path
    else:
      assert mask.all() and np.array_equal(flat(got.params)[path], flat(params)[path]), path
  dense, expected, pruned = (outputs(p) for p in (flat(params), leaves, flat(got.params)))
  assert np.linalg.norm(pruned - expected) < 0.05 * np.linalg.norm(dense - expected)


def outputs(leaves):
  model, segments = model_and_params()[0], tokens(2, seed=9)
  params = traverse_util.unflatten_dict(leaves, sep='/')
  return np.asarray(model.apply({'params': params}, segments, segments, segments >= 0)['lm'])


STRUCTURES = {
  'unstructured': (prunejax.unstructured(), 0.3),
  'n_m(2, 4)': (prunejax.n_m(2, 4), 0.5),
  'a part of n_m(2, 4)': (prunejax.n_m(2, 4), 0.3),
  'n_m(4, 8)': (prunejax.n_m(4, 8), 0.5),
  'block(4, 4)': (prunejax.block(4, 4), 0.25),
  'heads(8)': (prunejax.heads(8), 0.5),
}


# Every structure with every criterion; with one of them by default.
PAIRS = [
  pytest.param(criterion, structure, marks=() if i % 3 == j else pytest.mark.slow)
  for i, structure in enumerate(STRUCTURES)
  for j, criterion in enumerate(('sparsegpt', 'wanda', 'magnitude'))
]


@pytest.mark.parametrize('criterion, structure', PAIRS)
def test_counts_are_exact_and_pruned_weights_are_zero(criterion, structure):
  what, sparsity = STRUCTURES[structure]
  _, params = model_and_params()
  where = r'.*attention/.*kernel' if 'heads' in structure else '.*'
  got = oneshot.prune(
    decoders.of_size(SIZE),
    params,
    tokens(2),
    criterion=getattr(prunejax, criterion)(),
    sparsity=sparsity,
    structure=what,
    where=where,
  )
  masks, leaves = flat(got.masks), flat(got.params)
  in_units = what.inputs and what.inputs * what.cost  # weights that go with a unit
  for path, mask in masks.items():
    assert not leaves[path][~mask].any()
    if not path.endswith('kernel') or ('heads' in structure and 'attention' not in path):
      assert mask.all()
    elif criterion == 'wanda' and what.inputs:  # the same in every output
      removed = np.sum(~mask, 0)
      assert np.ptp(removed) <= (0 if what.single else in_units)
      assert abs(removed.mean() - sparsity * len(mask)) <= in_units / 2
    else:
      assert abs(np.sum(~mask) - sparsity * mask.size) <= in_units / 2, path
    if structure.startswith('n_m') and path.endswith('kernel'):
      m = what.inputs
      assert (mask.reshape(-1, m, mask.shape[1]).sum(1) == m // 2).all()
  assert sum(row['removed'] for row in got.rows) == sum(np.sum(~mask) for mask in masks.values())


@pytest.mark.parametrize(
  'criterion', [prunejax.magnitude(), prunejax.random()], ids=['magnitude', 'random']
)
def test_masks_of_weights_alone_are_those_of_prune_transform(criterion):
  _, params = model_and_params()
  round_to = lambda w: jnp.round(w * 8) / 8  # many ties, within leaves and between them
  params = jax.tree.map(round_to, params)
  link = prunejax.prune_transform(
    criterion,
    prunejax.constant(0.5),
    allocation=prunejax.global_threshold(),
    where=WHERE,
  )
  _, state = link.update(jax.tree.map(jnp.zeros_like, params), link.init(params), params)
  got = oneshot.prune(
    decoders.of_size(SIZE),
    params,
    tokens(1),
    criterion=criterion,
    sparsity=0.5,
    allocation=prunejax.global_threshold(),
  )
  expected = flat(prunejax.get_masks(state, params))
  for path, mask in flat(got.masks).items():
    np.testing.assert_array_equal(mask, expected[path])


def test_a_killed_pruning_goes_on_at_its_block_with_the_same_bits(tmp_path, monkeypatch):
  from prunejax.oneshot import block_by_block

  monkeypatch.setattr(block_by_block, 'SAVE_EVERY', 0.0)
  _, params = model_and_params()
  prune = lambda folder, say: oneshot.prune(
    decoders.of_size(SIZE),
    params,
    tokens(6),
    criterion=prunejax.sparsegpt(),
    sparsity=0.6,
    folder=folder,
    settings={'criterion': 'sparsegpt()'},
    say=say,
  )
  whole = prune(None, lambda line: None)
  lines = []

  def kill(line):
    lines.append(line)
    if line.startswith('block 2/'):
      raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    prune(tmp_path / 'state', kill)
  again = []
  resumed = prune(tmp_path / 'state', again.append)
  assert any('2 of 3 blocks are pruned already' in line for line in again)
  assert sum(line.startswith('block ') for line in again) == 1
  for a, b in zip(jax.tree.leaves(resumed.params), jax.tree.leaves(whole.params), strict=True):
    np.testing.assert_array_equal(a, b)
  assert prunejax.mask_hash(resumed.masks) == prunejax.mask_hash(whole.masks)
  # A damaged file costs its block and those after it, and is never read.
  broken = tmp_path / 'state' / 'block_00001.safetensors'
  data = bytearray(broken.read_bytes())
  data[-3] ^= 1
  broken.write_bytes(bytes(data))
  mended = prune(tmp_path / 'state', again.append)
  assert any('block_00001.safetensors is damaged' in line for line in again)
  assert prunejax.mask_hash(mended.masks) == prunejax.mask_hash(whole.masks)
  with pytest.raises(
    ValueError, match='unfinished pruning with other settings.*sparsity=0.6, now 0.7'
  ):
    oneshot.prune(
      decoders.of_size(SIZE),
      params,
      tokens(6),
      criterion=prunejax.sparsegpt(),
      sparsity=0.7,
      folder=tmp_path / 'state',
      settings={'criterion': 'sparsegpt()'},
    )


def test_all_blocks_of_a_kind_share_one_program_and_one_blocks_statistics_are_held():
  model, params = decoders.of_size(SIZE), model_and_params()[1]
  traced, held = [], []

  def block(weights, hidden):
    traced.append(1)
    return model.block[0](weights, hidden)

  before = {id(x) for x in jax.live_arrays()}

  def measure(line):
    if line.startswith('block'):
      held.append(sum(x.nbytes for x in jax.live_arrays() if id(x) not in before))

  segments = tokens(16)
  counts = []
  for layers in (2, SIZE.n_layer):
    part = model._replace(block=block, blocks=model.blocks[:layers])
    traced.clear()
    oneshot.prune(part, params, segments, criterion=prunejax.sparsegpt(), sparsity=0.5, say=measure)
    counts.append(len(traced))
  assert counts[0] == counts[1]  # more blocks, no more traces
  hidden = segments.size * SIZE.n_embd * 4
  inputs = (SIZE.n_embd, SIZE.n_embd, SIZE.n_embd, 4 * SIZE.n_embd)
  block_bytes = 4 * (3 * sum(n * n for n in inputs) + 3 * 12 * SIZE.n_embd**2)
  assert max(held) <= hidden + block_bytes
  # What all layers' activations would take, for comparison: the bound above is far below it.
  assert hidden + block_bytes < 4 * segments.size * SIZE.n_layer * sum(inputs)


def test_owl_prunes_blocks_with_outliers_less_and_keeps_the_mean():
  _, params = model_and_params()
  leaves = flat(params)
  loud = dict(leaves)
  loud['encoder/layer_1/attention/query/kernel'] = leaves[
    'encoder/layer_1/attention/query/kernel'
  ].copy()
  loud['encoder/layer_1/attention/query/kernel'][::7] *= 40
  got = oneshot.prune(
    decoders.of_size(SIZE),
    traverse_util.unflatten_dict(loud, sep='/'),
    tokens(4),
    criterion=prunejax.sparsegpt(),
    sparsity=0.6,
    shares_of_blocks=oneshot.owl(5.0, 0.1),
  )
  shares = [row['removed'] / row['weights'] for row in got.rows]
  assert shares[1] == min(shares) and max(shares) - min(shares) == pytest.approx(0.2, abs=0.01)
  assert np.mean(shares) == pytest.approx(0.6, abs=0.005)


MESH = """
import json, sys
sys.path[:0] = ['tests']
import jax, numpy as np, prunejax
from jax.sharding import Mesh
from prunejax import oneshot
from prunejax.oneshot import decoders
from tiny_decoder import SIZE, model_and_params, tokens
params = model_and_params()[1]
hashes = {}
for criterion in ('wanda', 'sparsegpt'):
  for devices in (0, 2, 8):
    mesh = Mesh(np.array(jax.devices()[:devices]), ('data',)) if devices else None
    how = dict(criterion=getattr(prunejax, criterion)(), sparsity=0.5, mesh=mesh)
    got = oneshot.prune(decoders.of_size(SIZE), params, tokens(12), **how)
    hashes[f'{criterion} {devices}'] = prunejax.mask_hash(got.masks)
print(json.dumps(hashes))
"""


@pytest.mark.slow
def test_masks_are_the_same_on_every_mesh(tmp_path):
  import os
  import pathlib

  flags = os.environ.get('XLA_FLAGS', '') + ' --xla_force_host_platform_device_count=8'
  done = subprocess.run(
    [sys.executable, '-c', MESH],
    capture_output=True,
    text=True,
    cwd=pathlib.Path(__file__).parents[2],
    env={**os.environ, 'XLA_FLAGS': flags, 'JAX_PLATFORMS': 'cpu'},
  )
  assert done.returncode == 0, done.stderr[-2000:]
  hashes = json.loads(done.stdout)
  for criterion in ('wanda', 'sparsegpt'):
    assert len({v for k, v in hashes.items() if k.startswith(criterion)}) == 1, hashes


WRONG = {
  'sparsity': ({'sparsity': 0.6, 'structure': prunejax.n_m(2, 4)}, 'sparsity=0.6 is outside of'),
  'n:m': ({'structure': prunejax.n_m(3, 7)}, r'7 does not divide the input axis'),
  'allocation': ({'allocation': prunejax.global_threshold()}, 'compares the scores of several'),
  'criterion': ({'criterion': prunejax.movement()}, 'this criterion needs grad'),
  'where': ({'where': 'embeddings/.*'}, "where='embeddings/.*' matches no kernel"),
  'batch': ({'batch': 6}, 'batch=6: expected a power of two'),
  'kind': ({'criterion': prunejax.wanda}, 'criterion=.*is a call missing'),
  'kind of structure': ({'structure': prunejax.n_m}, 'structure=.*is a call missing'),
  'everything': ({'sparsity': 1}, r'sparsity=1 is outside of .* \[0, 1\)'),
  'text': ({'sparsity': '0.5'}, "sparsity='0.5' is outside of"),
  'folder': ({'folder': 'runs/x'}, "folder='runs/x' needs settings="),
  'recover': ({'recover': 200}, 'recover=200: expected what reconstruct'),
  'shares': (
    {'structure': prunejax.n_m(2, 4), 'shares_of_blocks': oneshot.owl()},
    'prunes some blocks more than sparsity=0.5',
  ),
  'masks of another type': (
    {'masks': {'embeddings': {'word': {'embedding': np.ones((61, 32))}}}},
    r'float64 \(61, 32\): expected masks shaped like params, bool \(61, 32\)',
  ),
  'layout': ({'layout': {r'encoder/layer_9/.*': 'in out'}}, 'matches none of the leaves'),
}


@pytest.mark.parametrize('name', WRONG)
def test_wrong_arguments_are_refused_before_anything_is_computed(name):
  how, message = WRONG[name]
  lines = []
  given = {'criterion': prunejax.wanda(), 'sparsity': 0.5, **how, 'say': lines.append}
  with pytest.raises(ValueError, match=message):
    oneshot.prune(decoders.of_size(SIZE), model_and_params()[1], tokens(2), **given)
  assert not lines


@pytest.mark.parametrize('stacked', [False, True])
@pytest.mark.parametrize('criterion', ['magnitude', 'wanda', 'sparsegpt'])
def test_what_was_pruned_before_stays_pruned(criterion, stacked, tmp_path):
  model, params = toy_decoder.make(stacked=stacked)
  prune = lambda params, sparsity, **how: oneshot.prune(
    model,
    params,
    toy_decoder.SEGMENTS,
    criterion=getattr(prunejax, criterion)(),
    sparsity=sparsity,
    **how,
  )
  half = prune(params, 0.5)
  for sparsity in (0.25, 0.75):
    kept = {'folder': tmp_path / str(sparsity), 'settings': {'a': 1}}
    got = prune(half.params, sparsity, masks=half.masks, **kept)
    again = prune(half.params, sparsity, masks=half.masks, **kept)  # read from the folder
    for name, mask in named_leaves(got.masks).items():
      before = named_leaves(half.masks)[name]
      assert not (mask & ~before).any() and not named_leaves(got.params)[name][~mask].any()
      if not before.all():
        assert mask.mean() == min(0.5, 1 - sparsity)
      np.testing.assert_array_equal(mask, named_leaves(again.masks)[name])
    with pytest.raises(ValueError, match='other settings.*masks'):
      prune(half.params, sparsity, **kept)


@pytest.mark.parametrize('structure', ['unstructured', 'n_m'])
@pytest.mark.parametrize('criterion', ['random', 'sparsegpt', 'wanda'])
def test_what_was_pruned_before_counts_towards_the_sparsity(criterion, structure):
  model, params = toy_decoder.make()
  how = {'criterion': getattr(prunejax, criterion)()}
  if criterion == 'sparsegpt':  # several slabs, between which weights move
    how['criterion'] = prunejax.sparsegpt(block=4)
  n_m = structure == 'n_m'
  if n_m:  # two of each four are gone, so one more of them goes
    how['structure'] = prunejax.n_m(1, 4)
  before = jax.tree.map(lambda x: np.ones(x.shape, bool), params)
  for i in range(toy_decoder.BLOCKS):
    for name in ('up', 'down'):
      x = np.random.default_rng(i).random(params[f'block_{i}'][name].shape)
      order = x.reshape(-1, 4, x.shape[1]).argsort(1).argsort(1)
      before[f'block_{i}'][name] = (order < 2).reshape(x.shape)  # whatever their weights are
  got = oneshot.prune(model, params, toy_decoder.SEGMENTS, sparsity=0.75, masks=before, **how)
  for name, mask in named_leaves(got.masks).items():
    if not named_leaves(before)[name].all():
      assert not (mask & ~named_leaves(before)[name]).any()
      assert mask.mean() == 0.25, name
      assert not n_m or (mask.reshape(-1, 4, mask.shape[1]).sum(1) == 1).all()


@pytest.mark.parametrize('dtype', [np.float32, jnp.bfloat16])
@pytest.mark.parametrize('stacked', [False, True])
def test_recovery_leaves_alone_what_was_pruned_before(stacked, dtype):
  model, params = toy_decoder.make(stacked=stacked)
  params = jax.tree.map(lambda x: np.asarray(x, dtype), params)
  how = {'criterion': prunejax.magnitude(), 'sparsity': 0.5}
  first = oneshot.prune(model, params, toy_decoder.SEGMENTS, where='.*/up', **how)
  got = oneshot.prune(
    model,
    first.params,
    toy_decoder.SEGMENTS,
    where='.*/down',
    masks=first.masks,
    recover=oneshot.reconstruct(5),
    **how,
  )
  moved = False
  for name, mask in named_leaves(got.masks).items():
    leaf = np.asarray(named_leaves(got.params)[name])
    assert leaf.dtype == dtype and not leaf[~mask].any()
    assert mask.mean() == (0.5 if 'block' in name else 1)
    moved |= name.endswith('up') and (leaf != named_leaves(first.params)[name]).any()
  assert moved  # the survivors of what was pruned before are trained


def test_a_slab_that_has_lost_more_than_its_share_leaves_the_others_more():
  model, params = toy_decoder.make()
  before = jax.tree.map(lambda x: np.ones(x.shape, bool), params)
  for i in range(toy_decoder.BLOCKS):
    before[f'block_{i}']['down'][:4] = False  # the whole first of four slabs
  got = oneshot.prune(
    model,
    params,
    toy_decoder.SEGMENTS,
    criterion=prunejax.sparsegpt(block=4),
    sparsity=0.5,
    masks=before,
  )
  for name, mask in named_leaves(got.masks).items():
    if 'block' in name:
      assert mask.mean() == 0.5, name
      assert not (mask & ~named_leaves(before)[name]).any()


@pytest.mark.parametrize('shape', [(5,), (4, 1, 3)])
def test_counts_of_slabs_stay_within_what_is_left_and_keep_their_sum(shape):
  rng = np.random.default_rng(0)
  for _ in range(200):
    most = rng.integers(0, 30, shape)
    kept, left = rng.integers(0, most + 1), rng.integers(0, most + 1)
    got = shares.within(kept, left)
    assert (got >= np.minimum(kept, left)).all() and (got <= left).all()
    np.testing.assert_array_equal(got.sum(0), np.minimum(kept.sum(0), left.sum(0)))


def test_blocks_that_report_wrongly_are_refused_by_name():
  model, params = toy_decoder.make()
  prune = lambda model: oneshot.prune(
    model, params, toy_decoder.SEGMENTS, criterion=prunejax.wanda(), sparsity=0.5
  )
  with pytest.raises(ValueError, match=r'block_0 returns .*: expected \(hidden, inputs\)'):
    prune(model._replace(block=lambda weights, hidden: model.block(weights, hidden)[0]))

  def swapped(weights, hidden):
    hidden, inputs = model.block(weights, hidden)
    return hidden, {'up': inputs['down'], 'down': inputs['up']}

  with pytest.raises(ValueError, match='of width (8|16), and the kernel has (8|16) inputs'):
    prune(model._replace(block=swapped))


def test_shares_of_blocks_stay_within_what_a_structure_can_remove():
  outliers, sizes = np.array([0.0, 0.1, 0.2]), np.ones(3)
  of = lambda most: shares.by_outliers(oneshot.owl(5.0, 0.1), outliers, sizes, 0.5, most)
  np.testing.assert_allclose(of(1.0), [0.6, 0.5, 0.4])
  with pytest.raises(ValueError, match=r'from 0.400 to 0.600, outside of \[0, 0.5\]'):
    of(0.5)
  # A block that is left whole says nothing about the others, and has no range to keep.
  whole = np.array([0.0, 1.0, 1.0, 1.0])
  got = shares.by_outliers(oneshot.owl(5.0, 0.1), np.array([0, 0.5, 0.6, 0.7]), whole, 0.9)
  np.testing.assert_allclose(got[1:], [1.0, 0.9, 0.8])


def test_erk_divides_the_share_of_a_block_among_its_kernels():
  got = oneshot.prune(
    decoders.of_size(SIZE),
    model_and_params()[1],
    tokens(2),
    criterion=prunejax.wanda(),
    sparsity=0.5,
    allocation=prunejax.erk(),
    shares_of_blocks=oneshot.owl(2.0, 0.1),
  )
  removed, weights = ([row[key] for row in got.rows] for key in ('removed', 'weights'))
  assert abs(sum(removed) - sum(weights) / 2) <= KERNELS * len(got.rows)
  assert len(set(removed)) > 1


def test_segments_that_do_not_fit_are_refused_before_anything_is_computed():
  prune = lambda batches: oneshot.prune(
    decoders.of_size(SIZE), model_and_params()[1], batches, criterion=prunejax.wanda(), sparsity=0.5
  )
  for batches, message in (
    (None, 'give calibration segments'),
    ([], 'is empty'),
    ([tokens(2), tokens(2)[:, :4]], 'are not alike'),
    ((tokens(2), tokens(3)), r'have \[2, 3\] segments'),
    (np.int32(3), r'have \[0\] segments'),
  ):
    with pytest.raises(ValueError, match=message):
      prune(batches)


@pytest.mark.parametrize('criterion', [prunejax.wanda(), prunejax.sparsegpt()])
def test_a_block_that_is_left_whole_stays_as_it_was(criterion):
  _, params = model_and_params()
  where = r'encoder/layer_1/.*'
  got = oneshot.prune(
    decoders.of_size(SIZE), params, tokens(2), criterion=criterion, sparsity=0.5, where=where
  )
  assert [bool(row['removed']) for row in got.rows] == [False, True, False]
  before, after = flat(params), flat(got.params)
  for path, leaf in before.items():
    changed = path.startswith('encoder/layer_1/') and path.endswith('/kernel')
    assert (after[path] == leaf).all() != changed, path


def test_a_score_that_is_nan_is_an_error_of_a_criterion_of_weights_too():
  params = jax.tree.map(np.array, model_and_params()[1])
  params['encoder']['layer_1']['ffn']['output']['kernel'][0, 0] = np.nan
  with pytest.raises(FloatingPointError, match='encoder/layer_1/ffn/output/kernel'):
    oneshot.prune(
      decoders.of_size(SIZE), params, tokens(1), criterion=prunejax.magnitude(), sparsity=0.5
    )


def test_blocks_may_have_different_layouts():
  _, params = model_and_params()
  path = 'encoder/layer_1/ffn/output/kernel'
  plain = oneshot.prune(
    decoders.of_size(SIZE),
    params,
    tokens(1),
    criterion=prunejax.magnitude(),
    sparsity=0.5,
    allocation=prunejax.per_output(),
  )
  turned = oneshot.prune(
    decoders.of_size(SIZE),
    params,
    tokens(1),
    criterion=prunejax.magnitude(),
    sparsity=0.5,
    allocation=prunejax.per_output(),
    layout={path: 'out in'},
  )
  for name, mask in flat(plain.masks).items():
    axis = 1 if name == path else 0
    assert (flat(turned.masks)[name] == mask).all() == (name != path)
    if name.endswith('/kernel') and not mask.all():
      removed = np.sum(~flat(turned.masks)[name], axis=axis)
      assert (removed == removed[0]).all(), name


def test_arrays_of_half_precision_are_kept(tmp_path):
  rng = np.random.default_rng(0)
  arrays = {
    'a': jnp.asarray(rng.normal(size=(3, 5)), jnp.bfloat16),
    'b': np.arange(4, dtype=np.uint8),
  }
  progress = resume.opened(tmp_path, {}, print)
  progress = resume.with_block(tmp_path, progress, arrays, {'block': 'x'})
  read = resume.read_arrays(tmp_path, progress.blocks[0])
  assert read.keys() == arrays.keys() and read['a'].dtype == jnp.bfloat16
  assert all((np.asarray(read[name]) == np.asarray(arrays[name])).all() for name in arrays)


def test_a_plan_of_which_nothing_is_finished_gives_way(tmp_path):
  where = tmp_path / 'state'
  resume.opened(where, {'shares': 'owl(5, 0.4)'}, print)
  (where / 'outliers.json').write_text('{}')
  assert resume.opened(where, {'shares': 'owl(5, 0.1)'}, print) == resume.Progress()
  assert sorted(path.name for path in where.iterdir()) == ['plan.json']


def test_what_else_a_folder_of_progress_holds_stays(tmp_path):
  resume.opened(tmp_path, {'sparsity': 0.5}, print)
  (tmp_path / 'data').mkdir()
  (tmp_path / 'thesis.txt').write_text('mine')
  resume.opened(tmp_path, {'sparsity': 0.6}, print)
  names = sorted(path.name for path in tmp_path.iterdir())
  assert names == ['data', 'plan.json', 'thesis.txt']


def test_hidden_states_of_other_batches_are_computed_again(tmp_path, monkeypatch):
  """A mesh of more devices than segments asks for larger batches than one device."""
  monkeypatch.setattr(block_by_block, 'SAVE_EVERY', -1.0)
  model, params = toy_decoder.make()

  def kill(line):
    if line.startswith('block 2/'):
      raise KeyboardInterrupt

  prune = lambda say=print, **how: oneshot.prune(
    model,
    params,
    toy_decoder.SEGMENTS[:2],
    criterion=prunejax.wanda(),
    sparsity=0.5,
    folder=tmp_path / 'state',
    settings={'model': 'toy'},
    say=say,
    **how,
  )
  with pytest.raises(KeyboardInterrupt):
    prune(kill)
  assert list((tmp_path / 'state').glob('hidden_*'))
  padded = stream.Stream.__init__

  def of_four(self, *given):
    padded(self, *given)
    self.batch, self.parts = 4, [0]

  monkeypatch.setattr(stream.Stream, '__init__', of_four)
  got = prune()
  plain = oneshot.prune(
    model, params, toy_decoder.SEGMENTS[:2], criterion=prunejax.wanda(), sparsity=0.5
  )
  assert prunejax.mask_hash(got.masks) == prunejax.mask_hash(plain.masks)


def test_read_only_arrays_are_copied_even_in_place():
  params = jax.tree.map(np.array, model_and_params()[1])
  jax.tree.map(lambda x: x.setflags(write=False), params)
  got = oneshot.prune(
    decoders.of_size(SIZE),
    params,
    tokens(1),
    criterion=prunejax.magnitude(),
    sparsity=0.5,
    in_place=True,
  )
  assert sum(row['removed'] for row in got.rows) == sum(row['weights'] for row in got.rows) // 2


def test_progress_of_a_plan_is_named_by_checksums(tmp_path):
  lines = []
  start = resume.opened(tmp_path / 'a', {'x': 1}, lines.append)
  progress = resume.with_block(tmp_path / 'a', start, {'w': np.arange(3.0)}, {'block': 'b'})
  again = resume.opened(tmp_path / 'a', {'x': 1}, lines.append)
  assert again == progress and not lines
  np.testing.assert_array_equal(resume.read_arrays(tmp_path / 'a', again.blocks[0])['w'], [0, 1, 2])
