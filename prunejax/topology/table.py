"""The table of a dry run: what programs take on a chip, how fast they could be, what they cost."""

import math
from collections.abc import Sequence

from prunejax.report import rounding, tables
from prunejax.topology import chips, hlo, programs

GIB = 2**30
UNKNOWN = (
  'What a compiler does not know: the time to read and copy batches, to start and to save,'
  ' evaluation and compiling itself, stalls, and real clocks. Temporaries are those in main memory;'
  ' the holes between them count twice. A TPU core has 128 MiB of its own, where a small program'
  ' may keep all of its temporaries.'
)
HOW = (
  'The time of a step is a lower bound: the longest of FLOPs at the peak rate, bytes of main memory'
  ' at its bandwidth, and bytes between chips at the rate of all links; vector work is not counted,'
  ' such as the random bits of dropout.'
  ' Loops count as often as they run; the search for a threshold, whose length depends on the'
  f' data, counts as {hlo.ROUNDS} reads, as if no scores tied.'
)


def seconds(cost: dict, chip: chips.Chip) -> tuple[float, str]:
  """Returns the least time of a step on a chip, and what bounds it: FLOPs, memory or links.

  Args:
    cost: an `hlo.Cost` as a dict.
    chip: the peaks of the chip.
  """
  narrow = ('bf16', 'f16', 's8', 'f8e4m3fn', 'f8e5m2')
  flops = sum(
    value / (chip.flops if dtype in narrow else chip.flops_float32)
    for dtype, value in cost['flops'].items()
  )
  times = {
    'FLOPs': flops,
    'memory': cost['bytes'] / chip.bandwidth,
    'links': cost['sent'] / chip.links if chip.links else 0.0,
  }
  bound = max(times, key=times.get)
  return times[bound], bound


def figures(request: programs.Request, answer: dict) -> dict:
  """Returns the figures of a program that compiles.

  Args:
    request: the program.
    answer: of `worker.respond`.

  Returns:
    A dict: 'step' and 'mask_step' in seconds, 'bound', 'mean' seconds of a step of a whole run,
    'tokens' a second a chip, 'members' that a full wave trains, 'steps' of all waves, 'chip_hours'.
  """
  chip = chips.Chip(**answer['chip'])
  plain, bound = seconds(answer['step'], chip)
  moving = max(seconds(answer['mask_step'], chip)[0], plain)
  mean = plain + request.due * (moving - plain)
  members = min(answer['places'], len(request.streams))
  tokens = programs.tokens(request.recipe)
  steps = programs.steps(request, members)
  return {
    'step': plain,
    'mask_step': moving,
    'bound': bound,
    'mean': mean,
    'members': members,
    'tokens': tokens * members / mean / answer['chips'] if mean else math.inf,
    'steps': steps,
    'chip_hours': steps * mean * answer['chips'] / 3600,
  }


def make(requests: Sequence[programs.Request], answers: Sequence[dict], title: str) -> tables.Table:
  """Makes the table of a dry run.

  Args:
    requests: the programs.
    answers: of `dry_run.compile_all`, in the same order.
    title: of the table.
  """
  lines, hours = [], 0.0
  for request, answer in zip(requests, answers, strict=True):
    line = {'program': request.title, 'runs': programs.runs(request)}
    if answer['reason']:
      lines.append({**line, 'compiles': f'no: {answer["reason"]}'})
      continue
    numbers = figures(request, answer)
    hours += numbers['chip_hours']
    lines.append({**line, 'compiles': 'yes', **_cells(request, answer, numbers)})
  failed = sum(bool(answer['reason']) for answer in answers)
  lines.append(
    {
      'program': 'all',
      'runs': sum(map(programs.runs, requests)),
      'compiles': f'{len(answers) - failed} of {len(answers)}',
      'chip-hours': _number(hours) + (' without what does not compile' if failed else ''),
    }
  )
  return tables.records(title, lines, note(answers))


def note(answers: Sequence[dict]) -> str:
  """Returns what stands under the table: the peaks, how the figures come about, what is unknown."""
  known = next((answer for answer in answers if 'chip' in answer), None)
  opaque = sorted({name for a in answers for name in a.get('step', {}).get('opaque', ())})
  parts = []
  if known:
    chip = chips.Chip(**known['chip'])
    hosts = f' on {known["hosts"]} hosts' if known['hosts'] > 1 else ''
    parts.append(f'{known["chips"]} x {known["device"]}{hosts}. Peaks of {chips.words(chip)}.')
    if not chip.links and known['chips'] > 1:
      parts.append('The rate between these devices is not known and not counted.')
  parts.append(HOW)
  if opaque:
    parts.append(f'Of calls of the compiler only the bytes count: {", ".join(opaque)}.')
  return ' '.join([*parts, UNKNOWN])


def _cells(request, answer, numbers):
  """The columns of a program that compiles."""
  chip = chips.Chip(**answer['chip'])
  cost = answer['step']
  extra = (numbers['mask_step'] - numbers['step']) / numbers['step'] if numbers['step'] else 0.0
  mesh = ' x '.join(f'{name} {n}' for name, n in answer['mesh'].items() if n > 1) or 'one chip'
  members = f'{numbers["members"]} members, ' if len(request.streams) > 1 else ''
  if answer['places'] > numbers['members']:
    members = f'{numbers["members"]} members in {answer["places"]} places, '
  return {
    'on the mesh': members + mesh,
    'arguments, GiB': f'{answer["arguments"] / GIB:.2f}',
    'temporaries, GiB': f'{answer["temporaries"] / GIB:.2f}',
    'of the memory': f'{answer["held"] / chip.memory:.0%}',
    'collectives a step': _collectives(cost),
    'GFLOP': _number(sum(cost['flops'].values()) / 1e9),
    'GB moved': _number(cost['bytes'] / 1e9),
    'step, ms': f'{_number(1e3 * numbers["step"])} ({numbers["bound"]})',
    'tokens/s a chip': f'{numbers["tokens"]:,.0f}',
    'mask step': f'+{extra:.1%}, at {_share(request.due)} of steps' if request.due else '-',
    'chip-hours': _number(numbers['chip_hours']),
  }


def _share(share):
  return f'{share:.2%}' if share >= 1e-4 else f'{share:.1e}'


def _collectives(cost):
  """'3 all-reduce 0.11 GB', by kind."""
  return (
    ', '.join(
      f'{count:g} {kind} {_bytes(size)}'
      for kind, (count, size) in sorted(cost['collectives'].items())
    )
    or 'none'
  )


def _bytes(size):
  return rounding.scaled(size, ((1e9, 'GB'), (1e6, 'MB'), (1e3, 'kB'), (1, 'B')))


def _number(value):
  return rounding.short(value)
