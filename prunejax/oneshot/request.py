"""What the command `prune` is asked for: the options, checked before a model is read."""

import functools
import types
from collections.abc import Callable
from typing import Any, NamedTuple

from prunejax.oneshot import depth, width
from prunejax.oneshot.reconstruction import Reconstruction, reconstruct
from prunejax.oneshot.shares import Owl, can_remove, owl
from prunejax.pruning import allocations, criteria, paths, structures
from prunejax.pruning.types import Allocation, Criterion, Structure
from prunejax.train import specs

DTYPES = ('float32', 'bfloat16', 'float16')


class Request(NamedTuple):
  """What a model is pruned by.

  Attributes:
    criterion: SCORE.
    structure: TOGETHER.
    allocation: WHO PAYS; None for the default of the criterion.
    shares: what each block pays; None where all pay the same.
    recover: what each block is trained by after it was pruned; None: nothing.
    sparsity: the fraction of the kernels that is removed.
    kernels: a regex of the kernels to prune.
    drop: (model, params, tokens, say=) -> the blocks to drop, for a model with fewer; or None.
    narrow: size of a model -> `width.Narrowing`, for a model with smaller ones; or None.
    reads_text: whether a calibration text is read.
    said: the options as text, which tell one command from another.
    decided: names of those that `smaller` decides, of which the record says nothing.
  """

  criterion: Criterion
  structure: Structure
  allocation: Allocation | None
  shares: Owl | None
  recover: Reconstruction | None
  sparsity: float
  kernels: str
  drop: Callable | None
  narrow: Callable | None
  reads_text: bool
  said: dict[str, str]
  decided: frozenset[str]


def checked(
  *,
  criterion: str,
  sparsity: float | None,
  structure: str,
  allocation: str,
  shares: str,
  kernels: str,
  calibration: str,
  recover: str,
  smaller: str,
  dtype: str,
  numbers: dict[str, int | None],
) -> Request:
  """Reads the options of `command.prune`, whose docstring says what each one means.

  Args:
    criterion: a spec string, or ''.
    sparsity: the fraction that is removed, or None.
    structure: a spec string, or ''.
    allocation: a spec string, or ''.
    shares: a spec string, or ''.
    kernels: a regex, or ''.
    calibration: where the text is, or ''.
    recover: a spec string, or ''.
    smaller: a spec string, or ''.
    dtype: of the weights that are written.
    numbers: 'segments', 'length' (or None), 'seed' and 'batch'.

  Raises:
    ValueError: a wrong option, or two that do not go together.
  """
  smaller_by = specs.parse(smaller, SMALLER, '--smaller') if smaller else None
  drops = smaller_by is not None and smaller_by.name == 'drop_blocks'
  decided = {
    'sparsity': sparsity,
    'structure': structure,
    'allocation': allocation,
    'shares': shares,
    'where': kernels,
    **({'criterion': criterion, 'recover': recover} if drops else {}),
  }
  decided = decided if smaller_by is not None else {}
  _refuse_decided(smaller, decided)
  said = {
    'smaller': smaller,
    'criterion': criterion or 'sparsegpt()',
    'structure': structure or 'unstructured()',
    'allocation': allocation,
    'shares': shares,
    'where': kernels or '.*',
    'recover': recover,
  }
  make = smaller_by and smaller_by()
  request = Request(
    criterion=specs.parse(said['criterion'], criteria, '--criterion')(),
    structure=specs.parse(said['structure'], structures, '--structure')(),
    allocation=specs.parse(allocation, allocations, '--allocation')() if allocation else None,
    shares=_made(shares, owl, '--shares'),
    recover=_made(recover, reconstruct, '--recover'),
    sparsity=0.5 if sparsity is None else sparsity,
    kernels=said['where'],
    drop=make if drops else None,
    narrow=None if drops else make,
    reads_text=False,
    said={'smaller': smaller} if drops else said,
    decided=frozenset(decided),
  )
  if dtype not in DTYPES:
    raise ValueError(f'--dtype={dtype!r}: expected one of {list(DTYPES)}')
  by_perplexity = drops and smaller_by.arguments['by'] == 'perplexity'
  _check_numbers(numbers, shortest=2 if by_perplexity else 1)  # which needs a token to foresee
  paths.compiled(request.kernels, '--where')
  most = request.structure.cost
  if not 0 <= request.sparsity <= most or request.sparsity == 1:
    raise ValueError(
      f'--sparsity={request.sparsity} is outside of what {said["structure"]} can remove,'
      f' {can_remove(request.structure)}; it is the fraction removed, so 50 % is 0.5'
    )
  readers = {
    'smaller': (smaller, drops),
    'criterion': (said['criterion'], request.criterion.needs and not drops),
    'recover': (recover, request.recover),
    'shares': (shares, request.shares),
  }
  reading = [f'--{name}={text}' for name, (text, reads) in readers.items() if reads]
  if reading and not calibration:
    raise ValueError(f'{reading[0]} reads activations: give --calibration=TEXT')
  return request._replace(reads_text=bool(reading))


def drop_blocks(count: int, by: str = 'angle') -> Callable:
  """Drops whole blocks: by 'angle', see `depth.by_angle`, or by 'perplexity'."""
  if by not in ('angle', 'perplexity'):
    raise ValueError(f"drop_blocks: by={by!r}: expected 'angle' or 'perplexity'")
  return functools.partial(
    {'angle': depth.by_angle, 'perplexity': depth.by_perplexity}[by], count=count
  )


SMALLER = types.SimpleNamespace(
  __all__=['drop_blocks', 'ffn_width', 'kv_groups'],
  drop_blocks=drop_blocks,
  ffn_width=lambda neurons: functools.partial(width.ffn_width, neurons=neurons),
  kv_groups=lambda groups: functools.partial(width.kv_groups, groups=groups),
)


def _refuse_decided(smaller, decided):
  """Refuses options that say what `smaller` decides itself."""
  for name, value in decided.items():
    if value not in ('', None):
      raise ValueError(f'--{name}={value} has no meaning with --smaller={smaller}: leave it out')


def _made(text: str, factory: Callable, key: str) -> Any:
  """What a spec of the one factory that an option takes makes; None for an empty text."""
  if not text:
    return None
  named = types.SimpleNamespace(__all__=[factory.__name__], **{factory.__name__: factory})
  return specs.parse(text, named, key)()


def _check_numbers(numbers, shortest):
  least = {'segments': 1, 'length': shortest, 'seed': 0, 'batch': 1}
  for name, value in numbers.items():
    if value is not None and value < least[name]:
      raise ValueError(f'--{name}={value}: expected at least {least[name]}')
  if numbers['batch'] & (numbers['batch'] - 1):
    raise ValueError(f'--batch={numbers["batch"]}: expected a power of two, as 8 is')
