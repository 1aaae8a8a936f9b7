"""Reports, before training, what the end of each schedule will take from each leaf."""

import json

import jax

import prunejax
from prunejax import files
from prunejax.pruning.who_pays import format_report, to_dict
from prunejax.train import distributed


def report(recipe, program, params, batch, folder, say):
  """Prints the table of each pruning group and writes it to `folder`/who_pays_<group>.json.

  Args:
    recipe: a `recipe.Recipe`.
    program: its `program.Program`.
    params: the weights of step 0.
    batch: the first batch, on the devices; criteria may look at it.
    folder: the work directory.
    say: prints a line.
  """
  rng = jax.random.key(recipe.seed)
  gradient = lambda: program.gradient(params, batch, rng)
  observed = lambda: program.observe(lambda p: p, batch, rng)
  for group in recipe.prune:
    needs = sorted(group.criterion().needs - {'grad'})
    if needs and jax.process_count() > 1:
      # Each process holds a part of the batch, which would have to be compiled into the program.
      say(
        f'prune.{group.name}: who pays is not known before masks first move: it needs'
        f' {", ".join(needs)}'
      )
      continue
    rows = group_rows(group, params, recipe.steps, gradient, observed)
    say(format_report(rows))
    if distributed.first():
      files.write(folder / f'who_pays_{group.name}.json', json.dumps(to_dict(rows), indent=1))


def group_rows(group, params, step, gradient, observed=dict):
  """Rows of `prunejax.who_pays` for what the schedule of a group asks at `step`.

  Args:
    group: a `recipe.Group`.
    params: the weights.
    step: a step number.
    gradient: () -> gradient, called only if the criterion needs more than the weights.
    observed: () -> the other extra arguments of an update, called likewise.

  Raises:
    ValueError: the criterion does not fit the leaves.
  """
  criterion, asked = group.criterion(), float(group.schedule()(step))
  parts = (params, criterion, asked, group.allocation(), group.structure(), group.where)
  if not criterion.needs:
    return prunejax.who_pays(*parts, layout=group.layout)
  return prunejax.who_pays(*parts, grad=gradient(), layout=group.layout, **observed())
