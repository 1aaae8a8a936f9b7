"""Which axes of a leaf are inputs and which are outputs.

Some criteria and structures read a leaf as matrices [..., in, out] and say so in their field
`reads_axes`; `per_output` reads `Units.layouts`. Models store kernels in other ways too: an
attention kernel of Flax is [in, heads, width], a weight of Equinox or PyTorch is [out, in]. A
`Layout` names the axes of one leaf. Such parts get the leaf as matrices, and their scores and masks
go back to the leaf's own shape. A leaf whose layout is not known is refused by name.
"""

import math
import re
from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from prunejax.pruning import placement
from prunejax.pruning.paths import compiled, named_leaves, with_leaves
from prunejax.pruning.types import Criterion, Structure

# The words of a layout, in the order that axes have in a matrix.
WORDS = ('each', 'window', 'in', 'out')
SAY = "say it with layout=, as in layout='out in ...' or layout={r'.*/query/kernel': 'in out out'}"

# PyTorch and Equinox call [out, in] so; GPT-2 of Hugging Face and hand-written models [in, out].
_WEIGHT = re.compile(r'(?:.*_)?weight(?:_.*)?')
# Keras stores these kernels as [.., out, in] and [.., in, multiplier].
_OTHER_CONVOLUTION = re.compile(r'.*(?:conv\d?d?_transpose|depthwise).*')
_CONVOLUTION = re.compile(r'(?:.*/)?[^/]*[cC]onv[^/]*/[^/]*')
_ATTENTION = re.compile(r'(|.*/)(query|key|value|out|attention_output)/kernel')

Layouts = Mapping[str, 'Layout']
Rows = tuple[tuple[re.Pattern | None, tuple[str, ...]], ...]


class Layout(NamedTuple):
  """The axes of a leaf.

  Attributes:
    axes: a word for each axis, or None if they are not known. 'in' and 'out' are inputs and
      outputs; several of one word count as one axis, in their order. 'window' is a position in the
      window of a convolution. 'each' counts matrices that have nothing to do with each other, such
      as layers.
    shape: the shape of the leaf.
  """

  axes: tuple[str, ...] | None
  shape: tuple[int, ...]


def parse(layout: str | Mapping[str, str]) -> Rows:
  """Reads the argument `layout` of a link.

  Args:
    layout: words, one for each axis, separated by spaces; '...' stands for any number of 'window'.
      They hold for every leaf that has two axes or more and is not called bias. Or {regex: words}:
      a leaf has the layout of the first regex that matches its whole path. '' says nothing.

  Returns:
    Pairs of a regex, or None for all leaves, and the words.

  Raises:
    ValueError: another word, or no such table.
  """
  if isinstance(layout, str):
    return ((None, _words(layout)),) if layout.strip() else ()
  try:
    table = dict(layout)
  except (TypeError, ValueError):
    raise ValueError(
      f'layout={layout!r}: expected words or a dict {{regex: words}}; {SAY}'
    ) from None
  return tuple((compiled(regex, 'layout'), _words(words)) for regex, words in table.items())


def layouts(
  tree,
  rows: Rows = (),
  stacked: Callable[[str], Any] = lambda name: False,
  pruned: Collection[str] | None = None,
  names: Mapping[str, str] = MappingProxyType({}),
) -> Layouts:
  """Finds the layout of every leaf of a tree.

  What `rows` do not say is known in these cases. A leaf with two axes is [in, out], unless it is
  called weight. A bias has outputs only. The query, key, value and out kernels of one attention
  module are [in, heads, width] and [heads, width, out]. A kernel whose last axes are those of the
  bias beside it has them as outputs. A leaf of a module that is called a convolution is
  [window.., in, out].

  Args:
    tree: the parameters, all of them: a layout can depend on the leaves beside a leaf.
    rows: see `parse`.
    stacked: whether a leaf holds one layer in each slice of axis 0. Rows then describe one layer.
    pruned: the leaves that words have to fit; None for all.
    names: {path: what the regexes of rows match instead of the path}.

  Returns:
    {path: Layout}.

  Raises:
    ValueError: a regex matches no leaf, or words do not fit a leaf.
  """
  shapes = {name: tuple(getattr(leaf, 'shape', ())) for name, leaf in named_leaves(tree).items()}
  layers = {name: bool(shape) and stacked(name) for name, shape in shapes.items()}
  inner = {name: shape[1:] if layers[name] else shape for name, shape in shapes.items()}
  called = [names.get(name, name) for name in shapes]
  for regex, _ in rows:
    if regex is not None and shapes and not any(map(regex.fullmatch, called)):
      raise ValueError(f'layout: {regex.pattern!r} matches none of the leaves {called[:6]}')
  out = {}
  for name, shape in inner.items():
    has_to_fit = pruned is None or name in pruned
    axes = _given(names.get(name, name), shape, rows, has_to_fit)
    axes = _known(name, inner) if axes is None else axes
    lead = ('each',) if layers[name] else ()
    out[name] = Layout(None if axes is None else (*lead, *axes), shapes[name])
  return out


def default(shape) -> Layout:
  """Returns the layout of a leaf that nobody spoke of: [..., in, out], or a vector of outputs."""
  return Layout(_default_axes(len(shape)), tuple(shape))


def of_units(layout: Layout, structure: Structure, shape) -> Layout:
  """Returns the layout of the unit scores that a structure pools of a leaf.

  Args:
    layout: of the leaf, or of the first leaf of the unit.
    structure: any structure.
    shape: of the unit scores.
  """
  each = len(_each(layout)) if layout.axes is not None else 0
  if not structure.reads_axes:
    return layout if tuple(shape) == layout.shape else default(shape)
  return Layout(('each',) * each + _default_axes(len(shape) - each), tuple(shape))


def axes_of(layouts: Layouts, name: str, reader: str) -> tuple[str, ...]:
  """Returns the words of a leaf's axes.

  Args:
    layouts: see `layouts`.
    name: the path of the leaf.
    reader: what has to know, for the error.

  Raises:
    ValueError: they are not known.
  """
  axes, shape = layouts[name]
  if axes is None:
    raise ValueError(
      f'{reader}: which axes of {name!r}, whose shape is {shape}, are inputs and which are outputs'
      f' is not known: {SAY}'
    )
  return axes


def matrix_shape(layout: Layout) -> tuple[int, ...]:
  """Returns the shape [each.., window.., in, out] of a leaf; its own where nothing is known."""
  if layout.axes is None:
    return layout.shape
  sizes = {word: _sizes(layout, word) for word in WORDS}
  merged = [(math.prod(sizes[word]),) if sizes[word] else () for word in ('in', 'out')]
  return (*sizes['each'], *sizes['window'], *merged[0], *merged[1])


def to_matrix(array, layout: Layout):
  """Returns an array of a leaf's shape as [each.., window.., in, out]."""
  return _reshaped(jnp.transpose(array, _order(layout)), matrix_shape(layout))


def from_matrix(array, layout: Layout):
  """Returns what `to_matrix` made in the leaf's own shape."""
  order = _order(layout)
  array = _reshaped(array, tuple(layout.shape[axis] for axis in order))
  return jnp.transpose(array, [order.index(axis) for axis in range(len(order))])


def on_matrices(criterion: Criterion, layouts: Layouts) -> Criterion:
  """Makes a criterion of matrices into one of leaves of the given layouts.

  Args:
    criterion: any criterion. One that reads no axes comes back as it is.
    layouts: of the pruned leaves, see `layouts`.

  Raises:
    ValueError: when the criterion is initialised: a layout is not known.
  """
  if not criterion.reads_axes:
    return criterion

  def all_plain(params):
    return all([_plain(layouts, name, criterion.reads_axes) for name in named_leaves(params)])

  def moved(tree, move):
    leaves = named_leaves(tree)
    return with_leaves(tree, {name: move(leaf, layouts[name]) for name, leaf in leaves.items()})

  seen, back = (lambda tree: moved(tree, to_matrix)), (lambda tree: moved(tree, from_matrix))

  def given(arguments):
    out = dict(arguments)
    for name in ('grad', 'masks'):
      if out.get(name) is not None:
        out[name] = seen(out[name])
    for name in ('value_fn', 'activations'):
      if (f := out.get(name)) is not None:
        out[name] = lambda tree, *args, f=f, **kwargs: f(back(tree), *args, **kwargs)
    for name in ('examples', 'outputs'):
      if out.get(name) is not None:
        count, f = out[name]
        out[name] = count, lambda tree, i, f=f: f(back(tree), i)
    return out

  def init(params):
    return criterion.init(params if all_plain(params) else seen(params))

  def wrapped(fn, result=lambda x: x):
    def call(state, params, *masks, **arguments):
      if all_plain(params):
        return fn(state, params, *masks, **arguments)
      return result(fn(state, seen(params), *map(seen, masks), **given(arguments)))

    return call

  return criterion._replace(
    init=init,
    update=wrapped(criterion.update),
    score=wrapped(criterion.score, back),
    compensate=criterion.compensate and wrapped(criterion.compensate, back),
    prepare=criterion.prepare and wrapped(criterion.prepare),
  )


def of_matrices(structure: Structure, layouts: Layouts) -> Structure:
  """Makes a structure of matrices [window.., in, out] into one of leaves of the given layouts.

  Matrices that 'each' axes count have units of their own, which keep these axes in front.

  Args:
    structure: any structure. One that reads no axes comes back as it is.
    layouts: of the pruned leaves, see `layouts`.

  Raises:
    ValueError: when units are pooled: a layout is not known.
  """
  if not structure.reads_axes:
    return structure

  def inner_shapes(names):
    return {name: matrix_shape(layouts[name])[len(_each(layouts[name])) :] for name in names}

  def members(names):
    """{unit name: (paths, shape)} of all leaves; units of one leaf are called by its path."""
    names = list(names)
    for name in names:
      axes_of(layouts, name, structure.reads_axes)
    shapes = inner_shapes(names)
    units = {name: ((name,), shapes[name]) for name in names}
    if structure.members is not None:
      units = structure.members(shapes)
    out = {}
    for unit, (leaves, shape) in units.items():
      each = {_each(layouts[leaf]) for leaf in leaves}
      if len(each) > 1:
        raise ValueError(
          f'{structure.reads_axes}: the units {unit!r} lie in leaves of which only some are'
          f' stacked: {list(leaves)}'
        )
      out[unit] = leaves, (*each.pop(), *shape)
    return out

  def by_each(units):
    """[(each shape, unit names, paths)], units whose leaves count matrices alike together."""
    groups: dict = {}
    for unit, (leaves, _) in units.items():
      names, paths = groups.setdefault(_each(layouts[leaves[0]]), ([], []))
      names.append(unit)
      paths.extend(leaves)
    return [(each, names, paths) for each, (names, paths) in groups.items()]

  def mapped(fn, each):
    for _ in each:
      fn = jax.vmap(fn)
    return fn

  def seen(scores, paths):
    return {name: to_matrix(scores[name], layouts[name]) for name in paths}

  def pool(scores):
    units, pooled = members(scores), {}
    for each, _, paths in by_each(units):
      pooled |= mapped(structure.pool, each)(seen(scores, paths))
    return {unit: pooled[unit] for unit in units}

  def expand(kept, scores):
    masks = {}
    for each, names, paths in by_each(members(scores)):
      expanded = mapped(structure.expand, each)
      masks |= expanded({unit: kept[unit] for unit in names}, seen(scores, paths))
    return {name: from_matrix(masks[name], layouts[name]) for name in scores}

  return structure._replace(
    pool=pool, expand=expand, members=structure.members and (lambda shapes: members(shapes))
  )


def _default_axes(rank) -> tuple[str, ...]:
  return ('window',) * (rank - 2) + ('in', 'out') if rank > 1 else ('out',) * rank


def _words(text) -> tuple[str, ...]:
  words = tuple(text.split()) if isinstance(text, str) else ()
  wrong = [word for word in words if word not in (*WORDS, '...')]
  if not words or wrong or words.count('...') > 1:
    said = repr(wrong[0]) if wrong else repr(text)
    raise ValueError(
      f'layout: {said} is no word for an axis; accepted: in, out, each, window, and once ... for'
      f' any number of window; {SAY}'
    )
  return words


def _given(name, shape, rows, has_to_fit) -> tuple[str, ...] | None:
  """The words that rows give a leaf, one for each axis."""
  for regex, words in rows:
    if len(shape) < 2 and regex is None or regex is None and name.split('/')[-1] == 'bias':
      continue
    if regex is not None and not regex.fullmatch(name):
      continue
    missing = len(shape) - len(words) + ('...' in words)
    if missing < 0 or missing and '...' not in words:
      if not has_to_fit:
        return None
      raise ValueError(
        f'layout: {" ".join(words)!r} does not fit {name!r}, whose shape is {shape}: one word for'
        ' each axis is needed'
      )
    at = words.index('...') if '...' in words else len(words)
    return (*words[:at], *['window'] * missing, *words[at + 1 :])
  return None


def _known(name, shapes) -> tuple[str, ...] | None:
  """The words for a leaf of a library that is known, or None."""
  shape, last = shapes[name], name.split('/')[-1]
  rank = len(shape)
  if rank < 2 or last == 'bias':
    return ('out',) * rank
  if _WEIGHT.fullmatch(last):
    return None
  if rank == 2:
    return ('in', 'out')
  if rank == 3 and (role := _attention_role(name, shapes)):
    return ('in', 'in', 'out') if role == 'out' else ('in', 'out', 'out')
  if _OTHER_CONVOLUTION.fullmatch(name):
    return None
  if _CONVOLUTION.fullmatch(name):
    return ('window',) * (rank - 2) + ('in', 'out')
  bias = shapes.get(name[: -len(last)] + 'bias', ())
  if 2 <= len(bias) < rank and shape[-len(bias) :] == bias:
    return ('in',) * (rank - len(bias)) + ('out',) * len(bias)
  return None


def _attention_role(name, shapes) -> str:
  """'out' or 'in' for a kernel of an attention module with heads of their own, else ''.

  A scan over layers also makes three axes of two. Then the heads of query and out do not agree.
  """
  match = _ATTENTION.fullmatch(name)
  if not match:
    return ''
  module, role = match.groups()
  beside = lambda other: shapes.get(f'{module}{other}/kernel', ())
  outs = [beside('out') or beside('attention_output')]
  ins = [beside(other) for other in ('query', 'key', 'value')]
  if any(len(shape) != 3 for shape in ins + outs) or ins[2][1:] != outs[0][:2]:
    return ''
  if ins[0][1:] != ins[1][1:] or ins[0][1] != ins[2][1]:
    return ''
  return 'in' if role in ('query', 'key', 'value') else 'out'


def _sizes(layout, word):
  return tuple(n for axis, n in zip(layout.axes, layout.shape, strict=True) if axis == word)


def _each(layout):
  return _sizes(layout, 'each')


def _order(layout):
  """The axes in the order of a matrix."""
  return sorted(range(len(layout.axes)), key=lambda axis: WORDS.index(layout.axes[axis]))


def _plain(layouts, name, reader) -> bool:
  """Whether a leaf is [each.., window.., in, out] as it is."""
  axes_of(layouts, name, reader)
  layout = layouts[name]
  return _order(layout) == list(range(len(layout.axes))) and matrix_shape(layout) == layout.shape


def _reshaped(array, shape):
  """`array` in another shape. On Explicit axes the first of several merged axes keeps its own."""
  if array.shape == shape:
    return array
  sharding = jax.typeof(array).sharding
  if not placement.explicit_axes(sharding):
    return jnp.reshape(array, shape)
  spec: list[Any] = []
  ends = lambda sizes: [math.prod(sizes[:i]) for i in range(len(sizes))]
  lies = dict(zip(ends(array.shape), sharding.spec, strict=False))
  for begin, size in zip(ends(shape), shape, strict=True):
    spec.append(lies.get(begin) if size > 1 else None)
  return jnp.reshape(array, shape, out_sharding=PartitionSpec(*spec))
