"""Link and train step of three models compiled for TPU slices: collectives and memory of a chip.

What is expected is in tests/reference/tpu_programs.json, which `tpu_cases.py` writes.
"""

import importlib.util
import math

import jax
import pytest
import tpu_cases

from prunejax.sweep import estimate
from prunejax.topology import chips
from prunejax.train import families, objectives, recipe

pytestmark = pytest.mark.skipif(
  importlib.util.find_spec('libtpu') is None,
  reason="libtpu is missing: pip install 'prunejax[tpu]'",
)
GOLDEN, CASES = tpu_cases.read(), tpu_cases.cases()


def each(part='', without=None):
  """Cases whose names have `part` and lack `without`.

  Those that compile soon are marked `tpu`, others `tpu_long`.
  """
  mark = lambda name: pytest.mark.tpu if name in tpu_cases.QUICK else pytest.mark.tpu_long
  names = [name for name in CASES if part in name and (without is None or without not in name)]
  marked = [pytest.param(name, marks=mark(name)) for name in names]
  return pytest.mark.parametrize('name', marked)


@pytest.fixture(scope='module')
def answers(request):
  """The chosen cases, compiled once, as many at a time as the machine has cores and memory for."""
  chosen = {item.callspec.params['name'] for item in request.session.items if _has_name(item)}
  return tpu_cases.compiled([name for name in CASES if name in chosen], '')


def _has_name(item):
  return 'name' in getattr(getattr(item, 'callspec', None), 'params', {})


@pytest.mark.tpu
def test_the_file_has_the_figures_of_each_case():
  assert set(GOLDEN) == set(CASES)


@each()
def test_collectives_and_memory(name, answers):
  answer, expected = answers[name], GOLDEN[name]
  assert answer['reason'] == ''
  found = tpu_cases.kept(answer)
  assert (found['chips'], found['hosts']) == (expected['chips'], expected['hosts'])
  assert found['arguments'] == expected['arguments']
  # Other versions of the compiler may fetch more ahead.
  assert found['temporaries'] <= 1.1 * expected['temporaries']
  for side in ('step', 'mask_step'):
    assert found[side]['gflop'] == pytest.approx(expected[side]['gflop'], rel=1e-3)
    ours, theirs = found[side]['collectives'], expected[side]['collectives']
    assert {kind: count for kind, (count, _) in ours.items()} == {
      kind: count for kind, (count, _) in theirs.items()
    }
    for kind, (_, moved) in ours.items():
      assert moved == pytest.approx(theirs[kind][1], rel=0.01)


@each()
def test_flops_are_those_of_the_model(name, answers):
  """Counted by hand: matrix products of a step, divided among the chips."""
  config = CASES[name][1]
  one = recipe.resolve(config)
  size = estimate.size_of(one)
  kind = families.of_size(size)
  shapes = estimate._shapes(size.to_json_string(use_diff=False), families.heads(kind, ''))
  predicted = kind.predictions(one.data)
  model = objectives.flops(size, shapes, one.data.seq_len, predicted) * one.batch_size
  found = sum(answers[name]['step']['flops'].values()) * answers[name]['chips']
  # Pooler and next-sentence head are not in the count by hand. Chips on the axis of the model
  # repeat the softmax, whose table is not divided.
  transform = _width(size) if size.model_type == 'bert' else 0
  repeated = 6 * predicted * (size.vocab_size + transform) * one.batch_size * _width(size)
  repeated *= (one.mesh.model - 1) if 'tensor' in name else 0
  assert model <= found <= 1.02 * model + repeated * 1.02


def _weights(config):
  """Bytes of each leaf in float32."""
  size = estimate.size_of(recipe.resolve(config))
  heads = families.heads(families.of_size(size), '')
  shapes = estimate._shapes(size.to_json_string(use_diff=False), heads)
  return [4 * math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes)]


def _width(size):
  return getattr(size, 'hidden_size', None) or size.n_embd


@each()
def test_it_fits(name, answers):
  answer = answers[name]
  assert answer['hosts'] == tpu_cases.HOSTS[answer['topology']]
  assert answer['held'] < chips.Chip(**answer['chip']).memory


@each(', data')
def test_data_parallel_training_adds_gradients_and_moves_nothing_else(name, answers):
  config, collectives = CASES[name][1], answers[name]['step']['collectives']
  assert set(collectives) == {'all-reduce'}
  # A scan adds the gradients of each layer by themselves, in as many parts as the compiler likes.
  assert collectives['all-reduce'][0] <= 4 or config.model.scan_layers
  # The gradients of a tied word table, as an input and as an output, are added by themselves.
  assert collectives['all-reduce'][1] <= sum(_weights(config)) + max(_weights(config)) + 2**16


# A tensor axis moves activations: layers that are divided by inputs add up their outputs.
@each(', fsdp', without='tensor')
def test_fully_sharded_training_moves_weights_and_not_activations(name, answers):
  config, collectives = CASES[name][1], answers[name]['step']['collectives']
  assert sum(moved for _, moved in collectives.values()) < 3 * sum(_weights(config))


@each()
def test_moving_masks_sends_counts_alone(name, answers):
  """No score and no weight crosses chips at a mask step that does not at the others."""
  plain, moving = (answers[name][side]['collectives'] for side in ('step', 'mask_step'))
  assert set(moving) - set(plain) <= {'all-reduce'}
  extra = {kind: moving[kind][1] - plain.get(kind, (0, 0))[1] for kind in moving}
  assert all(moved == 0 for kind, moved in extra.items() if kind != 'all-reduce')
  assert extra.get('all-reduce', 0) < 2**20
