"""A process that compiles program after program stays below what Linux lets it map."""

import gc
import pathlib

import jax
import jax.numpy as jnp
import pytest
import tiny_runs

from prunejax.train import loop, memory_maps, program, recipe


def maps():
  return len(pathlib.Path('/proc/self/maps').read_text().splitlines())


def write(folder, **texts):
  for name, text in texts.items():
    (folder / name).write_text(text)
  return {name: folder / name for name in texts}


@pytest.mark.parametrize('lines, crowded', [(0, False), (50, False), (51, True), (100, True)])
def test_more_than_half_of_the_maps_is_crowded(lines, crowded, tmp_path, monkeypatch):
  files = write(tmp_path, MAPS='7f00-7f01 r-xp\n' * lines, MOST='100\n')
  for name, path in files.items():
    monkeypatch.setattr(memory_maps, name, path)
  assert memory_maps.share() == lines / 100
  assert memory_maps.crowded() == crowded


def test_a_system_that_does_not_say_is_never_crowded(tmp_path, monkeypatch):
  monkeypatch.setattr(memory_maps, 'MAPS', tmp_path / 'maps')
  assert not memory_maps.crowded()


def test_forgotten_programs_give_their_maps_back(monkeypatch):
  if not memory_maps.MAPS.exists():
    pytest.skip('only Linux says how many maps a process has')
  compiled = program.Compiled({}, {}, {})  # `empty()` is shared by all tests
  before = maps()
  for i in range(30):
    call = jax.jit(lambda x, i=i: jnp.sort(jnp.tanh(x) * i).cumsum())
    compiled.engines[i] = call.lower(jnp.zeros(64)).compile()
  held = maps() - before
  compiled.make_room()
  assert len(compiled.engines) == 30
  monkeypatch.setattr(memory_maps, 'crowded', lambda: True)
  compiled.make_room()
  gc.collect()
  assert held >= 60 and maps() - before < held / 2


def test_runs_that_forget_each_other_end_as_they_would(tmp_path, monkeypatch):
  train = lambda name, width, compiled: loop.train(
    recipe.resolve(tiny_runs.config(model__hidden_size=width)),
    tmp_path / f'{name}-{width}',
    compiled=compiled,
    say=lambda _: None,
  )
  roomy = [train('roomy', width, tiny_runs.COMPILED) for width in (8, 16)]
  assert len(tiny_runs.COMPILED.programs) >= 2
  monkeypatch.setattr(memory_maps, 'crowded', lambda: True)
  compiled = program.Compiled({}, {}, {})
  crowded = [train('crowded', width, compiled) for width in (8, 16)]
  assert [len(programs) for programs in compiled] == [1, 1, 1]
  for one, other in zip(roomy, crowded, strict=True):
    assert one['mask_hash'] == other['mask_hash'] and one['metrics'] == other['metrics']


def test_a_step_is_compiled_once_and_before_its_first_call(tmp_path, monkeypatch):
  """The arrays of the call would come on top of the memory that the compiler took."""
  compiled, counted, seen = program.Compiled({}, {}, {}), [], []
  jax.monitoring.register_event_duration_secs_listener(
    lambda event, seconds, **how: counted.append((event.split('/')[-1], how.get('fun_name')))
  )
  compiles = lambda: counted.count(('backend_compile_duration', 'jit(train_step)'))
  single = loop.single

  def watched(*given):
    engine = single(*given)

    def step(*given):
      seen.append(('before a call', compiles()))
      return engine.step(*given)

    return engine._replace(step=step)

  monkeypatch.setattr(loop, 'single', watched)
  for seed in (0, 1):
    run = recipe.resolve(tiny_runs.config(seed=seed))
    loop.train(run, tmp_path / str(seed), compiled=compiled, say=lambda _: None)
  assert compiles() == 1 and set(seen) == {('before a call', 1)}
