"""The values that a pruning method is made of: a criterion, an allocation and a structure.

`prune_transform` is the product of a criterion, a schedule (see `schedules`), an allocation and a
structure. A criterion sees pytrees shaped like `params`, with `optax.MaskedNode` where nothing is
pruned. Everything after the criterion sees flat dicts {path: array}.
"""

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax

from prunejax.pruning.selection import Scores


class Layerwise(NamedTuple):
  """A criterion of single kernels w [in, out], which reads sums over the rows that go into each.

  Whoever has the calibration in batches, as `prunejax.oneshot` has, adds up the statistics of the
  batches. Kernels that read the same rows share them.

  Attributes:
    statistics: `statistics(rows [rows, in]) -> float32 array`.
    ready: `ready(statistics) -> array`, from which the others are made.
    score: `score(ready, w) -> scores`, shaped like w.
    compensate: `compensate(ready, w, mask) -> changes` of the surviving weights, or None.
    sweep: `sweep(ready, w, kept, structure, rows) -> (mask, w)`, which chooses a mask while it
      moves the weights, or None. `rows` inputs at a time are ranked, among the units of which
      `kept` stay: int32, with an entry for each such slab on axis 0.
    sweep_rows: the inputs that `sweep` ranks together where the structure does not say.
    within_output: True if the paper compares scores within an output only.
  """

  statistics: Callable[[jax.Array], jax.Array]
  ready: Callable[[jax.Array], jax.Array]
  score: Callable[[jax.Array, jax.Array], jax.Array]
  compensate: Callable[[jax.Array, jax.Array, jax.Array], jax.Array] | None = None
  sweep: Callable[..., tuple[jax.Array, jax.Array]] | None = None
  sweep_rows: int = 0
  within_output: bool = False


class Criterion(NamedTuple):
  """SCORE: how much does each weight matter? Higher scores are kept.

  All functions take keyword arguments: `grad` (or None), `step` (int32), `masks` (the masks so far,
  shaped like params, True = kept), `sparsity` (what the schedule asks at this step) and `due`
  (bool: do masks move at this step?). They also take `stacked`, the paths of leaves that hold one
  layer in each slice of axis 0, where there are such leaves, and every other extra argument of
  `tx.update`. So each function ends with `**_`.

  Extra arguments that are costly to make are functions. They are called only inside the branch in
  which masks move:

  - `value_fn(params) -> scalar`, the loss (optax's own name);
  - `examples = (n, loss(params, i) -> scalar)`, the loss of example i alone;
  - `outputs = (n, f(params, i) -> [outputs])`, the outputs of example i, where the loss is half a
    mean squared error;
  - `activations(params) -> {path: [rows, in]}`, what went into each kernel [in, out].

  They take `params` as the criterion sees them; `prune_transform` fills in the leaves that it does
  not prune.

  Attributes:
    init: `init(params) -> state`.
    update: `update(state, params, **arguments) -> state`, called at every step.
    score: `score(state, params, **arguments) -> scores`, called only when masks move.
    compensate: `compensate(state, params, masks, **arguments) -> changes`, called when masks have
      just moved: what is added to each surviving weight to make up for the removed ones (Optimal
      Brain Surgeon and its heirs), a tree shaped like params.
    prepare: `prepare(state, params, **arguments) -> ready`, called once when masks move. `score`
      and `compensate` then get `ready` in the place of the state: costly work that serves both.
    needs: the extra arguments that the criterion cannot do without: names out of `grad`,
      `value_fn`, `examples`, `outputs`, `activations`. `prune_transform` checks them.
    single_weights: True if the scores rank single weights and have no mean over a unit; the
      structure must then be `unstructured()`.
    dense_gradient: True if the criterion reads the gradient of pruned weights, which the view
      `masks.apply` cuts off.
    revives: True if the criterion itself says which pruned weights come back, as `regrow` does.
      Weights that were pruned before the link started then rank as it says, not below all others.
    reads_axes: the name of the criterion, for errors, if it reads leaves as matrices
      [..., in, out]: `prune_transform` then hands it leaves in that shape. '' if no axis has a
      meaning.
    layerwise: the functions of a single kernel that the criterion is made of, where it is.
  """

  init: Callable[[Any], Any]
  update: Callable[..., Any]
  score: Callable[..., Any]
  compensate: Callable[..., Any] | None = None
  prepare: Callable[..., Any] | None = None
  needs: frozenset[str] = frozenset()
  single_weights: bool = False
  dense_gradient: bool = False
  revives: bool = False
  reads_axes: str = ''
  layerwise: Layerwise | None = None


class Structure(NamedTuple):
  """TOGETHER: which weights are kept or removed as one unit?

  Attributes:
    pool: `pool({path: scores}) -> {unit name: unit scores}`.
    expand: `expand({unit name: units kept}, {path: scores}) -> {path: mask}`.
    cost: the fraction of a unit's weights that are removed with the unit: 1, or (m - n) / m for
      n:m.
    single: True if every weight is a unit. Its scores are then read again and again, not stored.
    members: `members({path: shape}) -> {unit name: (paths, shape)}`, for units that lie in several
      leaves: the leaves of each unit name, and the shape that its weights have as one matrix with a
      column for each unit. Without it, unit names are paths.
    reads_axes: the name of the structure, for errors, if it reads leaves as matrices: it then gets
      them as [window.., in, out], one layer at a time. '' if no axis has a meaning.
    inputs: the neighbouring inputs of one output that a unit spans, where every unit lies so: 1 for
      single weights, m for n:m. 0 for other units.
  """

  pool: Callable[[dict[str, jax.Array]], dict[str, jax.Array]]
  expand: Callable[[dict[str, jax.Array], dict[str, jax.Array]], dict[str, jax.Array]]
  cost: float = 1.0
  single: bool = False
  members: Callable[[dict[str, tuple]], dict[str, tuple]] | None = None
  reads_axes: str = ''
  inputs: int = 0


class Part(NamedTuple):
  """A leaf, or one slice of a leaf that stacks layers on axis 0.

  Attributes:
    name: the unit name.
    layer: the slice of axis 0, or None for a whole leaf.
    size: the number of units.
    shape: the shape of the weights.
  """

  name: str
  layer: int | None
  size: int
  shape: tuple[int, ...]


class Units(NamedTuple):
  """What an allocation shares out.

  Attributes:
    scores: {unit name: unit scores}.
    read: the same scores as a `selection.Scores`, which reads them without storing them.
    shapes: {unit name: shape of the weights}.
    cost: the structure's cost.
    stacked: the names whose slices along axis 0 are layers of their own.
    layouts: {unit name: `kernel_layout.Layout` of the unit scores}.
  """

  scores: dict[str, jax.Array]
  read: Scores
  shapes: dict[str, tuple[int, ...]]
  cost: float = 1.0
  stacked: frozenset[str] = frozenset()
  layouts: Mapping[str, Any] = MappingProxyType({})

  def parts(self) -> list[Part]:
    """Returns the leaves and slices that are layers of their own, in order."""
    parts = []
    for name, score in self.scores.items():
      shape = tuple(self.shapes[name])
      if name in self.stacked:
        layers = range(score.shape[0])
        parts += [Part(name, i, math.prod(score.shape[1:]), shape[1:]) for i in layers]
      else:
        parts.append(Part(name, None, score.size, shape))
    return parts

  def counts(self, values: jax.Array) -> dict[tuple[str, ...], jax.Array]:
    """Turns a vector over `parts()` into the counts of an allocation whose parts compete alone."""
    counts: dict[tuple[str, ...], jax.Array] = {}
    row = 0
    for name, score in self.scores.items():
      if name in self.stacked:
        layers = score.shape[0]
        count = values[row : row + layers].reshape((layers,) + (1,) * (score.ndim - 1))
      else:
        layers, count = 1, values[row]
      counts[name,] = count
      row += layers
    return counts


class Allocation(NamedTuple):
  """WHO PAYS: how many units does each leaf keep?

  Attributes:
    allocate: `allocate(units, sparsity) -> counts or masks`, with `sparsity` a float32 scalar that
      may be traced. Counts are {names: number of units kept}: the leaves of a tuple of names share
      one threshold, and a name by itself stands for a leaf that competes alone. For one name the
      number may be an int32 array that broadcasts against the leaf's scores, with length 1 on the
      axes along which units compete: [1, out] cuts every output by itself. Masks are {unit name:
      bool units kept}, for a rule that ranks nothing. A count below 0 says that the rule has no
      answer, because a number that is known only at run time is out of range.
    with_memory: `with_memory(criterion) -> (criterion, allocation)`, for a rule that depends on its
      own earlier decisions: the returned criterion keeps them in its state. `prune_transform` uses
      the returned pair in the place of the given one.
    reads_sparsity: False if the value of the schedule is no sparsity to this rule, as for
      `above(1.0, relative=True)`; it may then be any number.
    by_shape: True if the counts depend on shapes and on the sparsity alone, not on scores.
  """

  allocate: Callable[[Units, jax.Array], dict]
  with_memory: Callable[[Criterion], tuple[Criterion, 'Allocation']] | None = None
  reads_sparsity: bool = True
  by_shape: bool = False
