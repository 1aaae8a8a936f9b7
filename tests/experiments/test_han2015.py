"""Han et al. 2015: shares of the layers, cuts by hand, verdicts on planted ledgers, the command."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.han2015 import claims, network, report, study, training
from experiments.han2016 import paper
from prunejax import __main__ as command
from prunejax.models import lenet
from prunejax.report import ledger


def flat(tree):
  return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


@pytest.fixture(scope='module')
def small():
  """A network of two small layers."""
  rng = np.random.default_rng(0)
  shapes = {'fc1': (6, 5), 'fc2': (5, 4)}
  return {
    name: {
      'kernel': jnp.asarray(rng.normal(size=shape), jnp.float32) * (1 + 2 * (name == 'fc2')),
      'bias': jnp.ones(shape[1]),
    }
    for name, shape in shapes.items()
  }


@pytest.mark.parametrize('kept', [1.0, 0.5, 0.1, 0.01])
@pytest.mark.parametrize('net', claims.NAMES)
def test_shares_keep_the_fraction_and_the_proportions_of_the_paper(net, kept):
  parts = training.shares(net, kept)
  sizes = {k: max(1, side**2) * i * o for k, (side, i, o) in lenet.LAYERS[net].items()}
  total = sum(parts[layer] * sizes[layer] for layer in sizes) / sum(sizes.values())
  assert total == pytest.approx(kept, rel=1e-6)
  scales = [parts[k] / paper.KEPT[net][k] for k in parts if parts[k] < 1]
  assert np.ptp(scales) < 1e-9 if scales else kept == 1


def test_rounds_remove_the_same_share_of_what_is_left_and_end_at_the_shares():
  rounds = training.by_round('lenet-300-100', 0.05, 4)
  last = training.shares('lenet-300-100', 0.05)
  for layer, part in last.items():
    left = [1.0, *(1 - sparsities[layer] for sparsities in rounds)]
    np.testing.assert_allclose(np.divide(left[1:], left[:-1]), part**0.25, rtol=1e-4)


def test_cuts_by_layer_and_by_threshold_are_those_of_numpy(small):
  pruned, masks = network.cut(small, {'fc1': 0.5, 'fc2': 0.75}, how='by layer')
  for layer, removed in (('fc1', 15), ('fc2', 15)):
    kernel = np.asarray(small[layer]['kernel'])
    order = np.argsort(np.abs(kernel).ravel())[:removed]
    expected = kernel.copy().ravel()
    expected[order] = 0
    np.testing.assert_array_equal(pruned[layer]['kernel'], expected.reshape(kernel.shape))
    assert bool(jnp.all(masks[layer]['bias']))
  pruned, _ = network.cut(small, {'fc1/kernel': 0.7, 'fc2/kernel': 1.2}, how='threshold')
  for layer, quality in (('fc1', 0.7), ('fc2', 1.2)):
    kernel = np.asarray(small[layer]['kernel'])
    kept = np.abs(kernel) > quality * kernel.std()
    np.testing.assert_array_equal(pruned[layer]['kernel'], np.where(kept, kernel, 0))


def test_one_quality_is_one_multiple_of_the_deviations(small):
  pruned, _ = network.cut(small, 0.6, how='one quality')
  scores = {k: np.abs(v['kernel']) / np.std(np.asarray(v['kernel'])) for k, v in small.items()}
  kept = np.concatenate([scores[k][np.asarray(pruned[k]['kernel']) != 0] for k in scores])
  gone = np.concatenate([scores[k][np.asarray(pruned[k]['kernel']) == 0] for k in scores])
  assert len(kept) == 20 and kept.min() > gone.max()


def test_chances_favour_large_weights_and_are_no_order():
  weights = jnp.concatenate([jnp.full(500, 1.0), jnp.full(500, 3.0)])
  params = {'fc1': {'kernel': weights[:, None]}}
  counts = []
  for seed in range(8):
    pruned, _ = network.cut(params, {'fc1': 0.5}, seed, how='by chance')
    counts.append(int(jnp.sum(pruned['fc1']['kernel'][500:] != 0)))
    assert int(jnp.sum(pruned['fc1']['kernel'] != 0)) == 500
  # Solve (1 - e^-t) + (1 - e^-3t) = 1 for the fraction kept of the heavier half: e^-t = 0.682.
  assert np.mean(counts) / 500 == pytest.approx(1 - 0.6823**3, abs=0.03)
  assert len(set(counts)) > 1


def test_training_holds_zeros_and_dropout_is_scaled(small):
  params = lenet.init(jax.random.key(0), 'lenet-300-100')
  images, labels = jnp.ones((8, 28, 28)), jnp.zeros(8, jnp.int32)
  pruned, masks = network.cut(params, dict.fromkeys(params, 0.9), how='by layer')
  how = dict(steps=2, rate=1e-2, penalties=(1e-3, 0.0), dropout=(0.5, 0.0), batch=4)
  trained = network.train(jax.random.key(1), pruned, masks, images, labels, **how)
  gone = ~flat(masks).astype(bool)
  assert not flat(trained)[gone].any() and (flat(trained) != flat(pruned)).any()
  # Without dropout the logits are those of the model.
  plain = network.logits(params, images, (0.0, 0.0), jax.random.key(0))
  np.testing.assert_allclose(plain, lenet.apply(params, images), rtol=1e-5, atol=1e-6)


def test_evaluation_counts_every_image_once():
  params = lenet.init(jax.random.key(0), 'lenet-300-100')
  images = jax.random.normal(jax.random.key(1), (network.EVALUATED + 7, 28, 28))
  labels = jnp.argmax(lenet.apply(params, images), -1).at[:3].add(1) % 10
  loss, accuracy = network.evaluate(params, images, labels)
  scores = jax.nn.log_softmax(lenet.apply(params, images))
  expected = -np.take_along_axis(np.asarray(scores), np.asarray(labels)[:, None], 1).mean()
  assert float(loss) == pytest.approx(expected, rel=1e-4)
  assert float(accuracy) == pytest.approx(1 - 3 / len(images))


def planted(sign=1, seeds=3):
  """A ledger in which every claim of the paper holds, or with sign=-1 fails."""
  preset, rows = study.PRESETS['quick'], []
  levels = list(preset.levels)

  def add(seed, arm, penalty='l2', strength=1e-3, net='lenet-300-100', **metrics):
    labels = {'net': net, 'arm': arm, 'penalty': penalty, 'strength': strength, 'seed': seed}
    held_out = {f'{k}_held_out': v for k, v in metrics.items() if k in ('cut', 'retrained')}
    kept = {'levels': levels, 'kept': levels, 'dense': 0.98, 'digits': 'planted'}
    rows.append({**labels, 'digits': 'planted', 'metrics': {**kept, **metrics, **held_out}})

  for seed in range(seeds):
    noise = 1e-4 * seed
    curve = lambda base, noise=noise: [base + noise] * len(levels)
    lead = 0.05 * sign
    for penalty, strengths in preset.strengths.items():
      for strength in strengths:
        cut = [0.98 - 0.5 * (sign < 0) + noise if x >= 0.5 else 0.6 for x in preset.cuts]
        cut = [
          v + lead * (penalty == 'l1') * (x < 0.5) for v, x in zip(cut, preset.cuts, strict=True)
        ]
        after = curve(0.9 - lead * (penalty == 'l1'))
        add(seed, 'one shot', penalty, strength, cuts=list(preset.cuts), cut=cut, retrained=after)
    for strength in preset.strengths['l1']:
      add(seed, 'l1 then l2', 'l1', strength, retrained=curve(0.9 - lead))
    for arm in ('iterative', 'iterative, longer'):
      add(seed, arm, retrained=[0.98 - 0.2 * (sign < 0), *curve(0.9 + lead)[1:]])
    add(seed, 'one shot, longer', retrained=curve(0.9))
    add(seed, 'by chance', retrained=curve(0.9 - lead))
    columns = {f'{n}{k}': curve(0.5) for n in ('cut', 'once', 'again') for k in ('', '_kept')}
    add(seed, 'threshold', qualities=list(preset.qualities), **columns)
    drops = {'same': curve(0.9), 'adjusted': curve(0.9 + lead), 'none': curve(0.9)}
    add(seed, 'dropout', rates=[[0.1, 0.1]] * len(levels), **drops)
    removed, alone = list(preset.removed), [0.2] * len(preset.removed)
    names = ('scanned', 'one quality', 'one sparsity')
    scanned = {n: [0.9 + lead * (n == 'scanned') + noise] * 2 for n in names}
    scanned |= {f'{n} kept': [0.1, 0.05] for n in names}
    scanned |= {'qualities': [[1.0] * 3] * 2, 'layers kept': [[0.1] * 3] * 2}
    losses = {f'alone {k}': alone for k in lenet.LAYERS['lenet-300-100']}
    how = {'removed': removed, 'dense_loss': 0.1}
    add(seed, 'scan', tolerances=list(preset.tolerances), **scanned, **losses, **how)
    losses = {
      f'alone {k}': [0.3 + lead * (k == 'conv1') + noise] * len(removed)
      for k in lenet.LAYERS['lenet-5']
    }
    add(seed, 'scan', net='lenet-5', **losses, **how)
  return rows


def verdicts(rows):
  return {v.name: v.verdict for v in claims.claims(rows)}


def test_verdicts_say_what_was_planted():
  assert set(verdicts(planted()).values()) == {'reproduced'}
  opposite = verdicts(planted(-1))
  assert set(opposite.values()) == {'not reproduced'}, opposite
  assert set(verdicts(planted(seeds=1)).values()) == {'undecided'}
  assert set(verdicts([]).values()) == {'undecided'}


def test_of_two_strengths_the_better_on_held_out_images_is_judged():
  rows = planted()
  for row in rows:
    if row['arm'] == 'one shot' and row['strength'] == 1e-4:
      metrics = row['metrics']
      metrics['retrained'] = [v + 0.3 for v in metrics['retrained']]  # on test images alone
  assert verdicts(rows) == verdicts(planted())


def test_a_report_of_a_part_of_the_rows_can_be_drawn():
  rows = planted()
  assert len(report.tables(rows)) == 5 and set(report.figures(rows)) == set(report.CAPTIONS)
  for arm in dict.fromkeys(row['arm'] for row in rows):
    part = [row for row in rows if row['arm'] == arm]
    assert all(table.rows for table in report.tables(part)) and report.figures(part)


def test_what_is_no_mnist_is_refused_before_anything_is_written(tmp_path, capsys):
  args = ['reproduce', 'han2015', f'--workdir={tmp_path}/run', f'--config.data.root={tmp_path}']
  assert command.main(args) == 2
  assert 'mnist' in capsys.readouterr().err and not (tmp_path / 'run').exists()


@pytest.mark.slow
def test_smoke_by_the_real_command(tmp_path):
  args = ['reproduce', 'han2015', '--preset=smoke', f'--workdir={tmp_path}']
  assert command.main(args) == 0
  rows = ledger.read(tmp_path / 'ledger.jsonl')
  assert len(rows) == 11 and not any(row.get('failed') for row in rows)
  for row in rows:
    if 'kept' in row['metrics']:
      assert row['metrics']['kept'] == pytest.approx(row['metrics']['levels'], abs=1e-4)
  assert command.main([*args, '--dry-run']) == 0
  assert command.main(args) == 0 and ledger.read(tmp_path / 'ledger.jsonl') == rows
