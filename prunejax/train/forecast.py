"""Reports, before training, what the end of each schedule will take from each leaf."""

import json

import jax

import prunejax
from prunejax import files
from prunejax.pruning import who_pays
from prunejax.train import distributed, layers, optimizer


def report(run, program, params, batch) -> str:
  """Returns the tables of all pruning groups; writes each to who_pays_<group>.json of the run.

  Args:
    run: a `loop.Run`.
    program: its `program.Program`.
    params: the weights of step 0.
    batch: the first batch, on the devices; criteria may look at it.
  """
  recipe, texts = run.recipe, []
  rng = jax.random.key(recipe.seed)
  gradient = lambda: program.gradient(params, batch, rng)
  observed = lambda: program.observe(lambda p: p, batch, rng)
  for group in recipe.prune:
    needs = sorted(group.criterion().needs - {'grad'})
    if needs and jax.process_count() > 1:
      # Each process holds a part of the batch, which would have to be compiled into the program.
      texts.append(
        f'prune.{group.name}: who pays is not known before masks first move: it needs'
        f' {", ".join(needs)}'
      )
      continue
    start = optimizer.start_of(recipe, group, run.source.pruned)
    start |= {'stacked': layers.names(recipe.model)}
    rows = group_rows(group, params, recipe.steps, gradient, observed, program.plans, **start)
    texts.append(who_pays.format_report(rows))
    if distributed.first():
      files.write(
        run.folder / f'who_pays_{group.name}.json', json.dumps(who_pays.to_dict(rows), indent=1)
      )
  return '\n'.join(texts)


def group_rows(group, params, step, gradient, observed=dict, plans=None, **start):
  """Rows of `prunejax.who_pays` for what the schedule of a group asks at `step`.

  Args:
    group: a `recipe.Group`.
    params: the weights.
    step: a step number.
    gradient: () -> gradient, called only if the criterion needs more than the weights.
    observed: () -> the other extra arguments of an update, called likewise.
    plans: of a `program.Program`: runs of one program that look at their weights alone share what
      is compiled.
    **start: what is pruned already, see `optimizer.start_of`, and the names of stacked layers.

  Raises:
    ValueError: the criterion does not fit the leaves.
  """
  criterion, asked = group.criterion(), float(group.schedule()(step))
  parts = (params, criterion, asked, group.allocation(), group.structure(), group.where)
  if not criterion.needs and plans is not None:
    key = group.name, repr(sorted(group.criterion.arguments.items())), repr(start)
    if key not in plans:
      how = criterion, *parts[3:]
      plans[key] = who_pays.planned(params, *how, layout=group.layout, **start)
    return who_pays.payers(plans[key], params, asked, masks=start.get('masks'))
  if not criterion.needs:
    return prunejax.who_pays(*parts, layout=group.layout, **start)
  return prunejax.who_pays(*parts, grad=gradient(), layout=group.layout, **start, **observed())
