"""Distillation: the loss against float64, a pruned student, wrong teachers refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_runs

from prunejax.sweep import grid, planning
from prunejax.train import configs, objectives, optimizer, program, recipe

RNG = np.random.default_rng(0)


def log_softmax(x):
  x = np.float64(x) - np.max(x, -1, keepdims=True)
  return x - np.log(np.exp(x).sum(-1, keepdims=True))


def divergence(told, out, temperature):
  p, q = log_softmax(told / temperature), log_softmax(out / temperature)
  return (np.exp(p) * (p - q)).sum(-1)


class Fake:
  """A model that says what its parameters are."""

  def __init__(self, *heads):
    self.heads = heads

  def apply(self, variables, *batch, **how):
    return {head: variables['params'][head] for head in self.heads}


def draw(*shape):
  return RNG.normal(0, 2, shape).astype(np.float32)


def test_the_loss_of_pretraining_is_that_of_float64():
  params = {'mlm': draw(3, 4, 7), 'nsp': draw(3, 2)}
  weights = np.array([[1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 1, 1]], np.float32)
  batch = {
    'teacher_mlm': draw(3, 4, 7),
    'teacher_nsp': draw(3, 2),
    'weights': weights,
    'targets': RNG.integers(0, 7, (3, 4)),
    'is_random': RNG.integers(0, 2, 3),
    'input_ids': 0,
    'segment_ids': 0,
    'valid': 0,
    'positions': 0,
  }
  loss_fn, *_ = objectives.pretraining(Fake('mlm', 'nsp'), objectives.distillation(3.0, 0.7))
  hard_loss, *_ = objectives.pretraining(Fake('mlm', 'nsp'))
  both = jax.jit(lambda *args: (loss_fn(*args), hard_loss(*args)[0]))
  (loss, told), hard = both(params, batch, jax.random.key(0))
  mlm = (divergence(batch['teacher_mlm'], params['mlm'], 3) * weights).sum() / weights.sum()
  kl = mlm + divergence(batch['teacher_nsp'], params['nsp'], 3).mean()
  crossed = -np.take_along_axis(log_softmax(params['mlm']), batch['targets'][..., None], -1)[..., 0]
  by_hand = (crossed * weights).sum() / weights.sum()
  by_hand -= np.take_along_axis(log_softmax(params['nsp']), batch['is_random'][:, None], -1).mean()
  np.testing.assert_allclose(hard, by_hand, rtol=1e-5)
  np.testing.assert_allclose(told['teacher_kl'], kl, rtol=1e-5)
  np.testing.assert_allclose(loss, 0.7 * 9 * kl + 0.3 * by_hand, rtol=1e-5)


def test_classes_and_the_words_of_a_decoder_likewise_and_a_teacher_gets_no_gradient():
  for make, head, label in (
    (objectives.finetuning, 'classifier', 'label'),
    (objectives.causal, 'lm', 'targets'),
  ):
    shape = (5, 3) if head == 'classifier' else (5, 2, 3)
    out, told = draw(*shape), draw(*shape)
    answers = RNG.integers(0, 3, shape[:-1])
    batch = {label: answers, 'input_ids': 0, 'segment_ids': 0, 'valid': 0}
    loss_fn = make(Fake(head), soft=objectives.distillation(2.0, 0.25))[0]
    of = lambda told, out, f=loss_fn, b=batch, h=head: f(
      {h: out}, {**b, f'teacher_{h}': told}, jax.random.key(0)
    )[0]
    cross = -np.take_along_axis(log_softmax(out), answers[..., None], -1).mean()
    loss, slope = jax.jit(jax.value_and_grad(of))(jnp.asarray(told), out)
    np.testing.assert_allclose(
      loss, 0.25 * 4 * divergence(told, out, 2).mean() + 0.75 * cross, rtol=1e-5
    )
    assert not slope.any()


def taught(**changes):
  teacher = tiny_runs.finished('teacher').folder / 'model'
  said = {
    'distill.teacher': str(teacher),
    'distill.weight': 1.0,
    'init': str(teacher),
    'pretrained': False,
  }
  return configs.override(
    tiny_runs.config(), {**said, 'log.every': 3, 'checkpoint.every': 0, **changes}
  )


@pytest.mark.slow
def test_a_pruned_student_nears_its_teacher_and_saves_nothing_of_it(tmp_path):
  config = taught()
  result = tiny_runs.train(config, tmp_path / 'run', say=lambda line: None)
  told = [row['teacher_kl'] for row in tiny_runs.rows(tmp_path / 'run') if row['kind'] == 'train']
  assert told[-1] < 0.8 * told[0] and np.isfinite(told).all()
  assert 0.49 < result['sparsity'] < 0.51
  shapes = []
  for one in (config, tiny_runs.config(init=config.init, pretrained=False)):
    resolved = recipe.resolve(one)
    tx = optimizer.make(resolved)
    functions = program.build(resolved, *program.read_inputs(resolved), tx)
    shapes.append(program.abstract_state(resolved, functions, tx))
  assert jax.tree.structure(shapes[0]) == jax.tree.structure(shapes[1])


def test_what_is_another_program_and_what_waits_for_its_teacher():
  key = lambda config: program.program_key(recipe.resolve(config))
  assert (
    key(taught())
    == key(taught(**{'distill.teacher': 'nano'}))
    != key(taught(**{'distill.weight': 0.5}))
  )
  assert key(taught()) != key(tiny_runs.config())
  cell = lambda config: grid.key(grid.Cell({}, config))
  assert cell(taught()) != cell(taught(**{'distill.teacher': 'nano'}))
  at = planning.stages({'a': None, 'b': None, 'c': 'a'}, {'a': 1, 'b': 2, 'c': 3}, {'b': 'c'})
  assert at == {'a': 0, 'b': 2, 'c': 1}


@pytest.mark.parametrize(
  ('changes', 'words'),
  [
    ({'distill.teacher': 'nano'}, "distill.teacher='nano' has another vocabulary"),
    ({'distill.teacher': 'no/folder'}, "distill.teacher='no/folder' is no folder"),
    ({'distill.temperature': 0.0}, 'distill.temperature=0.0: expected a number above 0'),
    ({'distill.weight': 1.5}, 'distill.weight=1.5: expected a share'),
    ({'data.task': 'glue/cola'}, 'has no heads classifier'),
  ],
)
def test_a_wrong_teacher_is_refused_in_one_line_before_anything_is_written(
  changes, words, tmp_path
):
  with pytest.raises((ValueError, FileNotFoundError), match=words) as caught:
    tiny_runs.train(taught(**changes), tmp_path / 'run', say=lambda line: None)
  assert '\n' not in str(caught.value) and not (tmp_path / 'run').exists()
