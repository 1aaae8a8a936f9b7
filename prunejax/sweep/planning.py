"""Which runs go together: when each may start, and how many members of one program memory holds."""

import math
from collections.abc import Callable
from typing import Any


def stages(
  parents: dict[str, str | None], kinds: dict[str, str], teachers: dict[str, str] | None = None
) -> dict[str, int]:
  """Returns when each run may start: {key: 0, 1, ...}.

  A run starts one stage after its parent. A run that no other run waits for is put off to the last
  stage in which runs of its kind start, so that they are one program together.

  Args:
    parents: {key: key of the run it starts from, or None}. A parent that is no key is done already.
    kinds: {key: what runs that may share a program have in common}.
    teachers: {key: key of the run whose model it learns from}. Any other value means no teacher.
  """
  teachers = teachers or {}
  stage_of = {}

  def stage(key):
    if key not in stage_of:
      awaited = [other for other in (parents[key], teachers.get(key)) if other in parents]
      stage_of[key] = max((stage(other) + 1 for other in awaited), default=0)
    return stage_of[key]

  for key in parents:
    stage(key)
  awaited, last = {*parents.values(), *teachers.values()}, {}
  for key, number in stage_of.items():
    last[kinds[key]] = max(number, last.get(kinds[key], 0))
  return {key: number if key in awaited else last[kinds[key]] for key, number in stage_of.items()}


def fit(
  count: int,
  unit: int,
  build: Callable[[int], Any],
  held: Callable[[Any], float],
  limit: float,
  *,
  most: int = 0,
  least: int = 0,
) -> tuple[int, Any]:
  """Finds how many members a program gets: `count` of them in as few waves of one width as fit.

  Args:
    count: the number of members in all.
    unit: members come in multiples of it (the devices on the mesh axis of members).
    build: width -> compiled program.
    held: compiled program -> bytes it holds on one device, infinite for one that does not compile.
    limit: bytes it may hold. A program of `unit` members is accepted whatever it holds, because
      there is no smaller one.
    most: members a program may have; 0 for any number.
    least: bytes that `unit` members take at least (their state). Widths that cannot fit are then
      not compiled.

  Returns:
    The width and the compiled program. ceil(count / width) waves run it; the last one may leave
    places empty.
  """
  waves = math.ceil(count / max(most // unit * unit, unit)) if most else 1
  waves = max(waves, math.ceil(count / (unit * max(limit // least, 1)))) if least else waves
  while True:
    width = math.ceil(count / waves / unit) * unit
    program = build(width)
    taken = held(program)
    if taken <= limit or width == unit:
      return width, program
    # One more member takes at most the mean. Try as many as that allows, in at least one wave more.
    # What a compiler refuses without a number is tried at half of the width.
    most_that_fit = int(limit / (taken / width)) if math.isfinite(taken) else width // 2
    fits = max(most_that_fit // unit * unit, unit)
    waves = max(math.ceil(count / fits), waves + 1)
    while math.ceil(count / waves / unit) * unit == width:
      waves += 1
