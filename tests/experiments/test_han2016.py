"""Deep Compression: the real command on few steps, and the verdicts on planted ledgers."""

import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest
import tiny_runs

from experiments.han2016 import claims, own_widths, paper, study, training
from experiments.han2016.own_widths import BITS
from prunejax.compress import deep_compression, kmeans
from prunejax.models import lenet
from prunejax.report import drawing


@pytest.mark.slow
def test_smoke_by_the_real_command(tmp_path):
  env = {**os.environ, 'JAX_PLATFORMS': 'cpu'}
  command = [
    sys.executable,
    '-m',
    'prunejax',
    'reproduce',
    'han2016',
    '--preset=smoke',
    f'--workdir={tmp_path / "w"}',
  ]
  ran = subprocess.run(
    command, cwd=tiny_runs.ROOT, env=env, capture_output=True, text=True, check=False
  )
  assert ran.returncode == 0, ran.stderr[-2000:]
  rows = [json.loads(line) for line in (tmp_path / 'w' / 'ledger.jsonl').read_text().splitlines()]
  assert len(rows) == 7 and not any(row.get('failed') for row in rows)
  by = {(row['scale'], row['bits'], row['init']): row['metrics'] for row in rows}
  whole = by[1.0, 'paper', 'linear']
  assert whole['kept'] == pytest.approx([0.08, 0.09, 0.26], abs=1e-3)
  assert (
    whole['bytes'] < whole['bytes_fixed'] < by[1.0, 0, 'linear']['bytes'] < whole['bytes_dense'] / 8
  )
  assert by[0.0, 0, 'linear']['kept'] == [1, 1, 1]
  assert by[0.0, 2, 'linear']['layer_bytes_fixed'][0] > 2 * 235_200 / 8
  for name in ('report.md', 'curves.png', 'inits.png', 'layers.png'):
    assert list((tmp_path / 'w').rglob(name)), name
  assert 'LeNet-300-100, layer by layer' in (tmp_path / 'w' / 'report.md').read_text()


def test_wrong_roots_and_keys(tmp_path):
  with pytest.raises(FileNotFoundError, match='no folder .*mnist'):
    study.reproduce('smoke', tmp_path, overrides={'data.root': str(tmp_path)})
  with pytest.raises(ValueError, match='--config.data.rot: .*did you mean'):
    study.reproduce('smoke', tmp_path, overrides={'data.rot': ''})


def test_the_nets_have_caffes_sizes():
  for net, size in (('lenet-300-100', 266_610), ('lenet-5', 431_080)):
    params = jax.eval_shape(lambda net=net: lenet.init(jax.random.key(0), net))
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == size
    shape = jax.eval_shape(lenet.apply, params, jax.ShapeDtypeStruct((3, 28, 28), 'float32')).shape
    assert shape == (3, 10) and set(params) == set(paper.KEPT[net]) == set(paper.BITS[net]) == set(
      paper.CODED[net]
    )
  with pytest.raises(ValueError, match="no net 'lenet'; known: lenet-300-100, lenet-5"):
    lenet.init(jax.random.key(0), 'lenet')


def test_a_convolution_is_the_sum_over_its_filter():
  rng = np.random.default_rng(0)
  layer = {
    'kernel': rng.normal(size=(50, 3)).astype(np.float32),
    'bias': rng.normal(size=3).astype(np.float32),
  }
  x = rng.normal(size=(1, 6, 7, 2)).astype(np.float32)
  wanted = [
    [x[0, i : i + 5, j : j + 5].ravel() @ layer['kernel'] + layer['bias'] for j in range(3)]
    for i in range(2)
  ]
  np.testing.assert_allclose(lenet._convolve(layer, x)[0], wanted, rtol=1e-4, atol=1e-5)


def test_a_cut_keeps_the_greatest():
  kernel = np.float32([[3, -1], [-4, 2]])
  out = training.cut({'fc1/kernel': kernel, 'fc1/bias': np.ones(2)}, {'fc1': 0.5})
  np.testing.assert_array_equal(out['fc1/kernel'], [[3, 0], [-4, 0]])


def ledger(lost=0.0, rate=41.0, gap=1.0, seeds=3, dense=0.99):
  """Rows in which deep compression loses `lost` points, and linear starts gain `gap`."""
  rows, add = [], lambda **row: rows.append(row)
  for seed in range(seeds):
    noise = 1e-4 * seed
    base = {
      'accuracy_dense': dense,
      'bytes_dense': 1_000_000,
      'kept_in_all': 0.08,
      'accuracy_cut': 0.6,
    }
    for net in claims.NAMES:
      add(
        net=net,
        seed=seed,
        scale=1.0,
        bits='paper',
        init='linear',
        metrics={
          **base,
          'accuracy_pruned': dense + noise,
          'accuracy': dense - lost / 100 + noise,
          'rate': rate + noise,
          'bytes': 1_000_000 / rate,
          'bytes_fixed': 1_300_000 / rate,
        },
      )
    for scale, bits, init, accuracy, size in (
      (1.0, 0, 'linear', dense, 100_000),
      (0.25, 0, 'linear', 0.9, 30_000),
      (0.0, 2, 'linear', 0.85, 60_000),
      (1.0, 2, 'linear', 0.97, 20_000),
      (1.0, 2, 'forgy', 0.97 - gap / 100, 20_000),
      (1.0, 2, 'density', 0.97 - gap / 100, 20_000),
    ):
      add(
        net='lenet-300-100',
        seed=seed,
        scale=scale,
        bits=bits,
        init=init,
        metrics={**base, 'accuracy_pruned': accuracy, 'accuracy': accuracy + noise, 'bytes': size},
      )
  return rows


def test_verdicts():
  word = lambda rows: {
    v.name.removeprefix('lenet-300-100_'): v.verdict for v in claims.claims(rows)
  }
  good = word(ledger())
  assert set(good.values()) == {'reproduced'}
  assert word(ledger(lost=1.0))['file'] == word(ledger(rate=30.0))['file'] == 'not reproduced'
  assert word(ledger(gap=-1.0))['linear_beats_forgy'] == 'not reproduced'
  short = word(
    ledger(lost=1.0, dense=0.975)
  )  # claims are not judged where the dense net is worse than the paper's
  assert short['file'] == short['huffman'] == short['lenet-5_file'] == 'undecided'
  assert set(word(ledger(seeds=1)).values()) == {'undecided'}
  assert set(word([]).values()) == {'undecided'}


@pytest.mark.parametrize(
  ('gaps', 'word'),
  [
    ({2: 1.0, 4: 0.5}, 'reproduced'),
    ({2: 1.0, 3: -1.0, 4: 0.5}, 'reproduced'),  # The paper leaves 3 bits out.
    ({2: 1.0, 4: -0.5}, 'not reproduced'),  # The mean over widths is above zero.
  ],
)
def test_linear_starts_are_judged_at_every_width(gaps, word):
  shift = lambda row, bits, gap: {
    **row,
    'bits': bits,
    'metrics': {
      **row['metrics'],
      'accuracy': 0.97 - (0 if row['init'] == 'linear' else gap / 100) + 1e-4 * row['seed'] ** 2,
    },
  }
  pairs = [row for row in ledger() if row['bits'] == 2 and row['scale'] == 1.0]
  rows = [shift(row, bits, gap) for bits, gap in gaps.items() for row in pairs]
  said = {v.name: v.verdict for v in claims.claims(rows)}
  assert said['linear_beats_forgy'] == said['linear_beats_density'] == word


def test_equal_seeds_have_bars_of_no_length():
  middle, reach = drawing.ranges([[0.1] * 3, [1.0, 3.0]])
  assert middle[0] > 0.1 and middle[1] == 2  # the mean of three 0.1 is a last bit above
  assert [bar[0] for bar in reach] == [middle[0] - 0.1, 0] and [bar[1] for bar in reach] == [1, 1]


def test_own_fractions_are_those_of_one_loss():
  """Two layers of 8 and 4 weights; a layer's loss is the sum of what it loses, times its weight."""
  flat = {
    'fc1/kernel': np.arange(1.0, 9).reshape(2, 4),
    'fc2/kernel': np.arange(1.0, 5).reshape(2, 2),
  }
  price = {'fc1/kernel': 1.0, 'fc2/kernel': 100.0}

  def loss(changed):
    return sum(price[k] * float(flat[k].sum() - changed[k].sum()) for k in flat)

  chosen = own_widths.fractions(flat, {'fc1': 0.5, 'fc2': 0.5}, loss)
  kept = sum(chosen[layer] * flat[f'{layer}/kernel'].size for layer in chosen)
  assert kept <= 6 and chosen['fc1'] < 0.5 < chosen['fc2']
  # No lower level keeps as few weights: the cheap layer gives all it can before the dear one.
  assert chosen['fc2'] == 1.0


def test_own_bits_are_the_fewest_that_cost_nothing():
  rng = np.random.default_rng(0)
  kernels = {'fc1': rng.choice([-1.0, 1.0, 2.0], (20, 5)), 'fc2': rng.normal(size=(20, 5))}
  flat = {f'{layer}/kernel': kernel for layer, kernel in kernels.items()}
  error = lambda changed: sum(np.abs(changed[k] - flat[k]).mean() for k in flat)
  losses = own_widths.losses(flat, kernels, lambda changed: 1 - error(changed) / 10)
  shared = lambda width: kmeans.fit(kernels['fc2'], 2**width - 1)
  lost = {w: np.abs(shared(w)[0][shared(w)[1]] - kernels['fc2'].ravel()).mean() / 10 for w in BITS}
  assert losses['fc2'] == pytest.approx(lost, abs=1e-6)
  assert losses['fc1'][2] == pytest.approx(0)  # three values besides zero
  for slack in (0.001, 0.01):
    bits = own_widths.bits(losses, slack)
    assert bits == {'fc1': 2, 'fc2': min(w for w in BITS if lost[w] <= slack)}
  assert own_widths.bits({'fc1': dict.fromkeys(BITS, 0.5)}) == {'fc1': 8}


def test_fitted_bits_are_the_most_careful_that_fit():
  rng = np.random.default_rng(0)
  kernels = {'fc1': rng.normal(size=(40, 50)).astype(np.float32)}
  flat, losses = {'fc1/kernel': kernels['fc1']}, {'fc1': {w: 2.0**-w / 100 for w in BITS}}

  def size(width):
    tree = {'fc1/kernel': own_widths._shared(kernels['fc1'], width)}
    index = own_widths.index_bits(tree, {'fc1': width})
    return len(deep_compression.encode(tree, bits=width, index_bits=index))

  chosen = {
    width: own_widths.fitted_bits(flat, kernels, losses, size(width))['fc1'] for width in (8, 5, 3)
  }
  for width, bits in chosen.items():
    assert bits <= width and size(bits) <= size(width)
  assert chosen[8] == 8 and chosen[5] > chosen[3]
  assert own_widths.fitted_bits(flat, kernels, losses, 0)['fc1'] == 2  # what comes nearest


def test_own_index_bits_have_the_fewest_bytes():
  rng = np.random.default_rng(0)
  flat = {}
  for layer, kept in (('fc1', 0.5), ('fc2', 0.02)):
    kernel = rng.choice(np.float32([-1, 1, 2]), (200, 50))
    flat[f'{layer}/kernel'] = np.where(rng.random((200, 50)) < kept, kernel, np.float32(0))
  chosen = own_widths.index_bits(flat, {'fc1': 2, 'fc2': 2})
  size = lambda name, width: len(
    deep_compression.encode({name: flat[name]}, bits=2, index_bits=width)
  )
  for name, width in chosen.items():
    assert size(name, width) == min(size(name, w) for w in own_widths.INDEX_BITS)
  assert chosen['fc1/kernel'] < chosen['fc2/kernel']


@pytest.mark.parametrize(('bits', 'name'), [('own', 'to_the_end'), ('fitted', 'fitted')])
def test_to_the_end(bits, name):
  def rows(rate, lost=0.0, dense=0.99):
    own = []
    for row in ledger(rate=rate, lost=lost, dense=dense):
      if row['bits'] == 'paper':
        own.append({**row, 'bits': bits})
    return own

  word = lambda rows: {v.name: v.verdict for v in claims.claims(rows)}
  good = word(rows(41.0))
  assert good == {f'{net}_{name}': 'reproduced' for net in claims.NAMES}
  assert set(word(rows(30.0)).values()) == {'not reproduced'}
  assert set(word(rows(41.0, lost=1.0)).values()) == {'not reproduced'}
  assert set(word(rows(41.0, dense=0.97)).values()) == {'undecided'}
  both = word([*ledger(), *rows(41.0)])
  assert both[f'lenet-5_{name}'] == both['lenet-5_file'] == 'reproduced'
  assert f'lenet-5_{name}' not in word(ledger())
