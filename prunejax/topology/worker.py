"""Compiles one program in a process of its own, and says what the compiler says of it.

  python -m prunejax.topology.worker ANSWER.json < REQUEST.pickle

A request is a pickled {'topology', 'request', 'cache'} of the process that started this one.
"""

import hashlib
import importlib
import json
import os
import pickle
import sys
import time
from collections.abc import Mapping

from prunejax.topology import slices

VERSION = 1  # of an answer; one of another version is made again
GIB = 2**30
FLAGS = ('XLA_FLAGS', 'LIBTPU_INIT_ARGS')  # of the environment; they change what is compiled


def main():
  """Reads a request from the standard input, and writes the answer to the file of the argument."""
  asked = pickle.load(sys.stdin.buffer)
  from prunejax import files

  answer = respond(**asked)
  files.write(files.path(sys.argv[1]), json.dumps(answer))


def respond(
  topology: str,
  request,
  cache: str,
  builder: str = 'prunejax.topology.programs',
  peaks: dict | None = None,
) -> dict:
  """Compiles a program.

  Args:
    topology: a name that `slices.check` has passed.
    request: what the builder takes, such as a `programs.Request`.
    cache: a folder of answers by the text of the program; '' for none.
    peaks: of a chip of this machine, where they are known already.
    builder: the module whose `step(request, devices)` returns a `programs.Step`.

  Returns:
    {'reason': ''} and what `analysis` returns, or {'reason': why it does not compile}, with
    'wrong_input' where the config is the reason; in both
    'chip', 'chips', 'hosts', 'devices' and 'seconds'.
  """
  from prunejax.sweep import planning, population, stacking

  began = time.perf_counter()
  on = slices.find(topology, peaks)
  answer = {'version': VERSION, 'topology': topology, 'chip': on.chip._asdict()}
  answer |= {'chips': len(on.devices), 'hosts': on.hosts, 'device': on.devices[0].device_kind}
  tried = {}
  try:
    step = importlib.import_module(builder).step(request, on.devices)

    def build(places):
      rounds = {stacking.MEMBERS: places // step.unit, stacking.STEPS: 1}
      tried[places] = _compiled(step.lower(places), topology, cache, on, rounds)
      return places

    held = lambda places: tried[places]['held']
    limit = step.limit or population.SHARE * on.chip.memory
    if step.count == 1:
      places = build(1)
    else:
      places, _ = planning.fit(
        step.count, step.unit, build, held, limit, most=step.most, least=step.least
      )
    found = tried[places]
    # The compiler of a TPU refuses what does not fit, and counts small buffers twice.
    if not found['reason'] and on.devices[0].platform != 'tpu' and held(places) > on.chip.memory:
      found = found | {'reason': _needs(held(places), on.chip)}
    answer |= found | {'places': places, 'mesh': step.mesh, 'widths': sorted(tried)}
  except ValueError as error:
    answer |= {'reason': ' '.join(str(error).split()), 'wrong_input': True}
  answer['seconds'] = round(time.perf_counter() - began, 1)
  return answer


def _compiled(lowered, topology, cache, on, rounds):
  """The analysis of a program, from the cache if one of this text is there."""
  import jax
  import jaxlib

  from prunejax import files
  from prunejax.sweep import resources

  text = lowered.as_text()
  versions = [VERSION, topology, jax.__version__, jaxlib.__version__, _libtpu()]
  versions += [on.devices[0].device_kind, *(os.environ.get(name, '') for name in FLAGS)]
  digest = hashlib.sha256(json.dumps([versions, text]).encode()).hexdigest()[:24]
  path = files.path(cache) / f'{digest}.json' if cache else None
  if path is not None and files.exists(path):
    try:
      return {**files.read_json(path), 'cached': True}
    except ValueError:
      pass  # a damaged file is made again
  began = time.perf_counter()
  try:
    compiled = lowered.compile()
  except jax.errors.JaxRuntimeError as error:
    refused = resources.too_large(error)
    if refused is None:
      reason = ' '.join(str(error).split())[:300]
      return {'reason': f'the compiler refuses it: {reason}', 'held': 0.0, 'program': digest}
    answer = {'reason': _needs(refused.bytes, on.chip), 'held': min(refused.bytes, 1e18)}
  else:
    answer = {'reason': '', **analysis(compiled, rounds)}
  answer |= {'program': digest, 'compile_seconds': round(time.perf_counter() - began, 1)}
  if path is not None:
    files.write(path, json.dumps(answer))
  return answer


def _needs(held, chip):
  """The reason why a program does not compile that takes so many bytes of a chip."""
  needs = f'{held / GIB:.2f} GiB' if held < float('inf') else 'more memory than there is'
  return f'needs {needs} of a chip with {chip.memory / GIB:.4g} GiB'


def analysis(compiled, rounds: Mapping[str, int] = {}) -> dict:
  """Returns what a compiled program says of itself, as plain JSON values of one chip.

  Args:
    compiled: a `jax.stages.Compiled`.
    rounds: as in `hlo.Module`.

  Returns:
    'arguments', 'outputs', 'shared' (outputs in the place of arguments), 'temporaries' and 'code'
    in bytes; 'held', what it takes while it runs; 'step' and 'mask_step', `hlo.Cost`s as dicts.
  """
  from prunejax.sweep import resources
  from prunejax.topology import hlo

  memory = compiled.memory_analysis()
  plain, moving = hlo.cost(hlo.parse(compiled.as_text())._replace(rounds=rounds))
  as_dict = lambda cost: {
    **cost._asdict(),
    'collectives': {kind: list(value) for kind, value in cost.collectives.items()},
    'opaque': sorted(cost.opaque),
  }
  return {
    'arguments': memory.argument_size_in_bytes,
    'outputs': memory.output_size_in_bytes,
    'shared': memory.alias_size_in_bytes,
    'temporaries': memory.temp_size_in_bytes,
    'code': memory.generated_code_size_in_bytes,
    'held': resources.held(compiled),
    'step': as_dict(plain),
    'mask_step': as_dict(moving),
  }


def _libtpu():
  import importlib.metadata

  try:
    return importlib.metadata.version('libtpu')
  except importlib.metadata.PackageNotFoundError:
    return ''


if __name__ == '__main__':
  main()
