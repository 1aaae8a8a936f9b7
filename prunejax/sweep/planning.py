"""Which runs go together: what may start when, and how many members of one program memory holds."""

import math


def stages(parents, kinds, teachers={}):  # noqa: B006 (read only)
  """When each run may start: {key: 0, 1, ...}.

  A run starts one stage after its parent. One that nobody waits for is put off to the last stage in which runs of its
  kind start, so that they are one program together.

  Args:
    parents: {key: key of the run it starts from, or None}; a parent that is no key is done already.
    teachers: {key: key of a run whose model it learns from}, likewise; any other value says nothing.
    kinds: {key: what runs that may share a program have in common}.
  """
  at = {}

  def depth(key):
    if key not in at:
      before = [of for of in (parents[key], teachers.get(key)) if of in parents]
      at[key] = max((depth(of) + 1 for of in before), default=0)
    return at[key]

  for key in parents:
    depth(key)
  awaited, last = {*parents.values(), *teachers.values()}, {}
  for key, stage in at.items():
    last[kinds[key]] = max(stage, last.get(kinds[key], 0))
  return {key: stage if key in awaited else last[kinds[key]] for key, stage in at.items()}


def fit(count, unit, build, held, limit, *, most=0, least=0):
  """How many members a program gets, and the program: `count` of them in as few waves of one width as fit.

  Args:
    count: members in all.
    unit: members come in multiples of it (the devices on the mesh axis of members).
    build: width -> compiled program.
    held: compiled program -> bytes it holds on one device.
    limit: bytes it may hold. A program of `unit` members is given whatever it holds: there is no smaller one.
    most: members a program may have, 0: any number.
    least: bytes that `unit` members take at least (their state); spares compiling what cannot fit.

  Returns:
    (width, compiled program). ceil(count / width) waves run it; the last may leave places empty.
  """
  waves = math.ceil(count / max(most // unit * unit, unit)) if most else 1
  waves = max(waves, math.ceil(count / (unit * max(limit // least, 1)))) if least else waves
  while True:
    width = math.ceil(count / waves / unit) * unit
    program = build(width)
    taken = held(program)
    if taken <= limit or width == unit:
      return width, program
    # What one more member takes is at most the mean: as many as that allows, and at least one wave more.
    fits = max(int(limit / (taken / width)) // unit * unit, unit)
    waves = max(math.ceil(count / fits), waves + 1)
    while math.ceil(count / waves / unit) * unit == width:
      waves += 1
