"""A dry run from the command line to its table, on the console and as a file of Markdown."""

import json
from collections.abc import Callable, Sequence
from os import PathLike

import jax

from prunejax import files
from prunejax.report import tables
from prunejax.sweep import grid
from prunejax.topology import dry_run, programs, slices, table
from prunejax.train import console
from prunejax.train.recipe import Recipe


def of_cells(
  cells: list[grid.Cell],
  title: str,
  topologies: Sequence[str],
  *,
  one_by_one: bool = False,
  out: PathLike | str = '',
  command: str = '',
  say: Callable[[str], None] = console.say,
) -> str:
  """Compiles the programs of a grid and returns the tables as text.

  Args:
    cells: of the grid.
    title: names the grid.
    topologies: names that `slices.check` takes.
    one_by_one: every cell runs by itself.
    out: a file of Markdown to write, with the figures as JSON beside it; '' for none.
    command: what made the file, for its first line.
    say: prints a line.

  Returns:
    The tables; where there are no cells, a line that says so, and no file is written.

  Raises:
    ValueError: `out` is no name of a file of Markdown; an unknown topology, no libtpu, a cell that
      is no run of the train loop, or a mesh that fits no program to the slice.
  """
  if any(isinstance(cell.config, dict) for cell in cells):
    raise ValueError(
      f'--topology: the cells of {title} are measurements with programs of their own, not runs of'
      ' the train loop: leave it out'
    )
  plan_on_cpu(topologies)
  return of_requests(
    programs.of_cells(cells, one_by_one), title, topologies, out=out, command=command, say=say
  )


def of_run(recipe: Recipe, title: str, topologies: Sequence[str], **options) -> str:
  """Compiles the program of one run; the other arguments are those of `of_cells`."""
  plan_on_cpu(topologies)
  return of_requests([programs.of_run(recipe, title)], title, topologies, **options)


def plan_on_cpu(topologies: Sequence[str]):
  """Checks the topologies. A plan needs no accelerator, and the workers may want it.

  Raises:
    ValueError: an unknown topology, or no libtpu.
  """
  for name in topologies:
    slices.check(name)
  jax.config.update('jax_platforms', 'cpu')


def of_requests(
  requests: Sequence[programs.Request],
  title: str,
  topologies: Sequence[str],
  *,
  out: PathLike | str = '',
  command: str = '',
  say: Callable[[str], None] = console.say,
) -> str:
  """Compiles programs and returns the tables as text; the arguments are those of `of_cells`."""
  if out:
    files.check_ending(out, '.md')
  if not requests:
    return f'{title}: no cells, so there is nothing to compile'
  finished, kept = [], {}
  for name in topologies:
    answers = dry_run.compile_all(requests, name, say=say)
    if all(answer.get('wrong_input') for answer in answers):
      raise ValueError(f'--topology={name}: {answers[0]["reason"]}')
    finished.append(table.make(requests, answers, f'{title} on {name}'))
    kept[name] = [
      {
        'program': request.title,
        **answer,
        **({} if answer['reason'] else {'figures': table.figures(request, answer)}),
      }
      for request, answer in zip(requests, answers, strict=True)
    ]
    if out:
      _write(out, finished, kept, title, command)
  text = '\n'.join(map(tables.text, finished))
  return text + (f'\nwritten: {out}' if out else '')


def _write(out, finished, kept, title, command):
  path = files.path(out)
  head = [f'# {title}, compiled where no accelerator is', '']
  head += ['Made by', '', '```', command, '```', ''] if command else []
  files.write(path, '\n'.join([*head, *map(tables.markdown, finished)]))
  files.write(path.with_suffix('.json'), json.dumps(kept, indent=1) + '\n')
