"""Families at equal bytes: sizes, forms of a kernel, and verdicts on planted ledgers."""

import jax
import numpy as np
import pytest

from experiments.families import claims, study, subjects, training
from prunejax.compress import sparse_file
from prunejax.models import convnets
from prunejax.pruning.links import low_rank
from prunejax.report import ledger


@pytest.mark.parametrize('form', convnets.FORMS)
def test_a_small_network_has_as_many_bytes_as_it_may(form):
  subject = subjects.load('vgg', '', 20, 10)
  whole = subjects.size(subject.dense(0).params)
  model = subject.smaller(form, whole // 8, 0)
  assert 0.9 * whole / 8 < len(sparse_file.encode(model.params)) <= whole / 8
  shape = jax.eval_shape(model.logits, model.params, subject.test.inputs).shape
  assert shape == (10, 10)
  assert subject.smaller(form, 400, 0) is None


def test_a_small_bert_is_the_first_layer_with_its_largest_parts():
  subject = subjects.load('bert', '', 20, 6)
  dense = subject.dense(0).params
  whole = subjects.size(dense)
  model = subject.smaller('full', whole // 3, 0)
  assert 0.98 * whole / 3 < subjects.size(model.params) <= whole / 3
  assert not any('layer_1' in name for name in model.params)
  assert jax.eval_shape(model.logits, model.params, subject.test.inputs).shape == (6, 2)
  name = 'encoder/layer_0/ffn/output/kernel'
  norms = np.abs(dense[name]).sum(1)
  kept = np.sort(np.argsort(-norms, kind='stable')[: len(model.params[name])])
  np.testing.assert_array_equal(model.params[name], dense[name][kept])
  assert subject.smaller('full', whole // 6, 0) is None


def test_all_heads_and_neurons_give_the_layer_itself():
  dense = subjects.load('bert', '', 20, 6).dense(0).params
  leaves = {k: v for k, v in dense.items() if 'layer_1' not in k}
  whole = subjects._narrower(leaves, 4, 512)
  assert all(np.array_equal(whole[name], leaf) for name, leaf in leaves.items())


def test_factors_multiply_to_the_nearest_matrix_of_their_rank():
  rng = np.random.default_rng(0)
  flat = {'conv2/kernel': rng.normal(size=(30, 20)).astype(np.float32), 'conv2/bias': np.ones(20)}
  chosen = training._chosen(flat, r'conv\d/kernel')
  factored = training._factored(flat, chosen, 0.75)
  rank = factored['conv2/kernel/left'].shape[1]
  assert rank == 150 // 50 and factored['conv2/kernel/right'].shape == (rank, 20)
  back = training._multiplied(factored, None)
  left, values, right = np.linalg.svd(flat['conv2/kernel'])
  wanted = (left[:, :rank] * values[:rank]) @ right[:rank]
  np.testing.assert_allclose(back['conv2/kernel'], wanted, atol=1e-5)
  assert back.keys() == flat.keys()
  assert training._factored(flat, chosen, 0.999)['conv2/kernel/left'].shape[1] == 1
  assert training._factored(flat, chosen, 0.0)['conv2/kernel'] is flat['conv2/kernel']
  ranks = {s: training._ranks(chosen, s)['conv2/kernel'][1] for s in (0.5, 0.75, 0.9)}
  assert ranks == {s: int(low_rank.rank_for((30, 20), s)) for s in ranks}


def test_shared_values_are_those_of_the_file():
  rng = np.random.default_rng(0)
  flat = {'fc1/kernel': rng.normal(size=(30, 20)).astype(np.float32), 'fc1/bias': np.ones(20)}
  chosen = training._chosen(flat, '.*/kernel')
  shared, books, codes = training._share(flat, chosen, 3)
  assert len(np.unique(shared['fc1/kernel'])) == 7 and len(books['fc1/kernel']) == 7
  params = {'fc1/bias': flat['fc1/bias'], 'fc1/kernel/centroids': books['fc1/kernel']}
  looked_up = training._looked_up(params, codes)
  np.testing.assert_array_equal(looked_up['fc1/kernel'], shared['fc1/kernel'])
  assert looked_up.keys() == flat.keys()
  read = training.deep_compression.decode(training._coded(shared, 3))
  np.testing.assert_array_equal(read['fc1/kernel'], shared['fc1/kernel'])


def test_wrong_input_is_refused_before_anything_is_written(tmp_path):
  with pytest.raises(FileNotFoundError, match='no folder .*mnist'):
    study.reproduce('smoke', tmp_path / 'w', overrides={'data.root': str(tmp_path)})
  with pytest.raises(ValueError, match='--config.data.rot: .*did you mean'):
    study.reproduce('smoke', tmp_path / 'w', overrides={'data.rot': ''})
  assert not (tmp_path / 'w').exists()


@pytest.mark.slow
def test_smoke_writes_files_within_their_bytes_and_resumes(tmp_path):
  said = []
  study.reproduce('smoke', tmp_path / 'w', say=said.append)
  rows = ledger.read(tmp_path / 'w' / 'ledger.jsonl')
  assert not any(row.get('failed') for row in rows)
  assert {row['family'] for row in rows if row['net'] == 'vgg'} == {'dense', *study.FAMILIES}
  for row in rows:
    metrics = row['metrics']
    assert metrics['bytes'] <= metrics['most'], row['family']
    if row['family'] not in ('dense', 'shared'):
      assert metrics['bytes'] > 0.9 * metrics['most'], row['family']
  lines = (tmp_path / 'w' / 'ledger.jsonl').read_text().splitlines()
  (tmp_path / 'w' / 'ledger.jsonl').write_text('\n'.join(lines[:-1]) + '\n')
  study.reproduce('smoke', tmp_path / 'w', say=said.append)
  assert any(f'{len(rows)} cells, {len(rows) - 1} done, 1 left' in line for line in said)
  again = ledger.read(tmp_path / 'w' / 'ledger.jsonl')
  assert again[-1]['metrics'] == rows[-1]['metrics']
  assert (tmp_path / 'w' / 'families.png').exists()


def planted(lead=0.02, seeds=3):
  """Rows in which pruned leads small by `lead` at two sizes, and shared has one size alone."""
  rows = []

  def add(family, share, seed, accuracy):
    metrics = {'accuracy': accuracy, 'bytes': 1000 * share, 'bytes_dense': 1000}
    rows.append({'net': 'vgg', 'family': family, 'share': share, 'seed': seed, 'metrics': metrics})

  for seed in range(seeds):
    noise = 1e-3 * seed
    add('dense', 1.0, seed, 0.99)
    for share in (0.25, 0.125):
      add('small', share, seed, 0.9 - noise)
      add('pruned', share, seed, 0.9 + lead)
    add('shared', 0.25, seed, 0.9 + 2 * lead + noise)
  return rows


def test_verdicts_of_planted_rows():
  words = lambda rows: {v.name: v.verdict for v in claims.claims(rows)}
  ahead = words(planted())
  assert ahead == {
    'vgg_pruned_beats_small': 'reproduced',
    'vgg_shared_beats_pruned': 'reproduced',
  }
  behind = words(planted(lead=-0.02))
  assert set(behind.values()) == {'not reproduced'}
  assert set(words(planted(seeds=1)).values()) == {'undecided'}
  assert words([]) == {}


def test_families_are_compared_at_the_bytes_that_both_have():
  diffs = claims.differences(planted(), 'vgg', 'shared', 'pruned')
  assert list(diffs) == [0.25]
  assert diffs[0.25] == pytest.approx({seed: 2 + 0.1 * seed for seed in range(3)})


@pytest.mark.parametrize('together', [True, False])
def test_a_cut_removes_the_smallest_weights(together):
  rng = np.random.default_rng(0)
  flat = {'a/kernel': rng.normal(size=(9, 10)), 'b/kernel': rng.normal(size=(3, 10)) / 10}
  subject = subjects.load('vgg', '', 20, 10)._replace(pruned='./kernel', together=together)
  out = training._cut(flat, subject, 0.5)
  removed = {name: int((leaf == 0).sum()) for name, leaf in out.items()}
  assert sum(removed.values()) == 60
  assert (removed['b/kernel'] == 15) is not together
  groups = [list(flat)] if together else [[name] for name in flat]
  for group in groups:
    before = np.concatenate([np.abs(flat[name]).ravel() for name in group])
    kept = np.concatenate([out[name].ravel() != 0 for name in group])
    assert before[kept].min() > before[~kept].max()
