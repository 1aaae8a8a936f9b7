"""Extra arguments of `tx.update` that a criterion may need, and how they reach it."""

import operator

import jax

from prunejax.pruning.paths import is_hole, named_leaves, path_name

# What each argument is, for the error that asks for it.
ARGUMENTS = {
  'grad': (
    'the raw gradient, a tree like params. Call tx.update(grads, opt_state, params, grad=grads).'
    " Inside optax.MultiSteps, and for Flax's TrainState, which cannot pass grad=, wrap the whole"
    ' chain in prunejax.gradient_from_updates(...) instead: it passes the gradient that comes in'
  ),
  'value_fn': 'value_fn(params) -> loss, the loss on the batch',
  'examples': 'examples=(n, loss(params, i)), the loss of each of n examples alone',
  'outputs': 'outputs=(n, f(params, i)), the outputs of each of n examples, a vector',
  'activations': (
    'activations(params) -> {path of a kernel: [rows, in]}, what went into each kernel'
  ),
}
PAIRS = ('examples', 'outputs')
FUNCTIONS = ('value_fn', 'activations', 'examples', 'outputs')


def check_needs(needs: frozenset[str], given: dict, origin: str):
  """Refuses an update that lacks an argument which its criterion needs.

  Args:
    needs: `Criterion.needs`.
    given: the extra arguments of `tx.update`, by name.
    origin: the name of the caller, for the error.

  Raises:
    ValueError: an argument is missing; the error says what to pass and where to get it.
  """
  for name in sorted(needs):
    if given.get(name) is None:
      source = '' if name == 'grad' else '; see prunejax.observe, and the manual for TrainState'
      raise ValueError(
        f'{origin}: the criterion needs {name}= in tx.update: {ARGUMENTS.get(name, name)}{source}'
      )
    if name in PAIRS and not _is_pair(given[name]):
      raise ValueError(
        f'{origin}: {name}={str(given[name])[:60]!r}: expected {ARGUMENTS[name]}; make it of a loss'
        f' and a batch with prunejax.observe.{name}(function, batch)'
      )


def _is_pair(value):
  if not (isinstance(value, tuple) and len(value) == 2):
    return False
  count, function = value
  try:
    return operator.index(count) > 0 and callable(function)
  except TypeError:
    return False


def traceable(extra: dict) -> dict:
  """Makes the functions of single examples say what to do where they index a numpy array.

  Args:
    extra: extra arguments by name.

  Returns:
    `extra`; its `examples` and `outputs` raise a ValueError where jax cannot convert the number of
    an example, which is traced.
  """
  pairs = {name: extra[name] for name in PAIRS if _is_pair(extra.get(name))}
  return {**extra, **{name: (n, _indexing(name, f)) for name, (n, f) in pairs.items()}}


def _indexing(name, function):
  def call(params, i):
    try:
      return function(params, i)
    except (jax.errors.TracerArrayConversionError, jax.errors.TracerIntegerConversionError):
      raise ValueError(
        f'{name}=: the function reads example i of a numpy array, and i is traced: index'
        f' jax.numpy.asarray(data), or use prunejax.observe.{name}(function, batch)'
      ) from None

  return call


def completed(extra: dict, chosen, params) -> dict:
  """Makes functions of all parameters into functions of the pruned ones.

  Args:
    extra: extra arguments by name; those in `FUNCTIONS` take all of `params`.
    chosen: params with `optax.MaskedNode` where the link does not prune.
    params: all parameters; leaves that are not chosen keep these values.

  Returns:
    `extra`, its functions taking trees like `chosen`.
  """
  extra = traceable(extra)
  if any(is_hole(leaf) for leaf in jax.tree.leaves(params, is_leaf=is_hole)):
    return {
      name: _refused(name, value) if name in FUNCTIONS else value for name, value in extra.items()
    }
  holes = [is_hole(leaf) for leaf in jax.tree.leaves(chosen, is_leaf=is_hole)]
  if not any(holes):
    return extra
  weights, treedef = jax.tree.flatten(params, is_leaf=is_hole)

  def whole(tree):
    given = iter(jax.tree.leaves(tree))
    return treedef.unflatten(
      [w if hole else next(given) for hole, w in zip(holes, weights, strict=True)]
    )

  out = dict(extra)
  for name in ('value_fn', 'activations'):
    if (f := extra.get(name)) is not None:
      out[name] = lambda tree, *args, f=f, **kwargs: f(whole(tree), *args, **kwargs)
  for name in ('examples', 'outputs'):
    if extra.get(name) is not None:
      count, f = extra[name]
      out[name] = count, lambda tree, i, f=f: f(whole(tree), i)
  return out


def aligned(grad, chosen):
  """Returns the leaves of `grad` that are chosen, in a tree like `chosen`, or None for None.

  Raises:
    ValueError: `grad` lacks a chosen leaf.
  """
  if grad is None:
    return None
  given = named_leaves(grad)
  leaves, treedef = jax.tree_util.tree_flatten_with_path(chosen)
  missing = [path_name(path) for path, _ in leaves if path_name(path) not in given]
  if missing:
    raise ValueError(
      f'grad= has no leaf {missing[0]!r}; it must be shaped like params (it has {list(given)[:6]})'
    )
  return treedef.unflatten([given[path_name(path)] for path, _ in leaves])


def _refused(name, value):
  """An argument that fails when called: this link sees only a part of the parameters."""

  def call(*args, **kwargs):
    raise ValueError(
      f'{name}= is a function of all parameters, and optax.masked or optax.partition hides some of'
      ' them from this link: do without it, and choose the leaves with where= of prune_transform'
    )

  if value is None:
    return None
  return (value[0], call) if isinstance(value, tuple) else call
