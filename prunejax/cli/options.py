"""Arguments that several verbs share."""

import argparse
import importlib.metadata
import os
import pathlib
import shlex
import sys
from collections.abc import Callable

ROOT = (
  pathlib.Path(__file__).resolve().parents[2]
)  # of the checkout, with configs/ and experiments/
ANY_KEY = 'Any config key: --config.key=value, such as'


def add_workdir(parser: argparse.ArgumentParser):
  """Adds --workdir."""
  parser.add_argument('--workdir', metavar='FOLDER', help='folder of everything the command writes')


def add_distributed(parser: argparse.ArgumentParser):
  """Adds --distributed."""
  parser.add_argument(
    '--distributed',
    nargs='?',
    const='auto',
    default='',
    metavar='HOST:PORT,INDEX,COUNT',
    help='train as one of several processes; without a value, take the three from the cluster',
  )


def add_workers(parser: argparse.ArgumentParser):
  """Adds --worker and --workers."""
  parser.add_argument(
    '--worker', type=int, metavar='I', help='index of this worker on the grid, from 0'
  )
  parser.add_argument(
    '--workers',
    type=int,
    metavar='N',
    help='number of workers on the grid; a Slurm array gives both',
  )


def add_one_by_one(parser: argparse.ArgumentParser):
  """Adds --one-by-one."""
  parser.add_argument(
    '--one-by-one',
    action='store_true',
    help='run each cell by itself; by default, cells that differ only in numbers share one program',
  )


def add_dry_run(parser: argparse.ArgumentParser):
  """Adds --dry-run, and --topology and --out, which belong to it."""
  parser.add_argument(
    '--dry-run',
    action='store_true',
    help='print cells, steps, parameters, memory and FLOPs; run nothing',
  )
  parser.add_argument(
    '--topology',
    type=list_of(str),
    metavar='A,B',
    help=(
      'with --dry-run: compile every program for a TPU slice that need not be here (v5e:4x4,'
      ' v5p:2x2x2, v6e:2x4, ...; needs the extra tpu), or for the cpu or gpu of this machine, and'
      ' print memory, collectives, FLOPs, the least time of a step and chip-hours'
    ),
  )
  parser.add_argument(
    '--out', metavar='FILE.md', help='with --topology: write the tables to this file too'
  )


def check_dry_run(args: argparse.Namespace):
  """Checks the options of `add_dry_run`, before jax is imported.

  Raises:
    ValueError: one of them lacks another; a file that is none of Markdown; an unknown topology, or
      libtpu is missing.
  """
  from prunejax.topology import slices

  if args.topology and not args.dry_run:
    raise ValueError(f'--topology={",".join(args.topology)} needs --dry-run')
  if args.out and not args.topology:
    raise ValueError(f'--out={args.out} needs --dry-run --topology=..., whose tables it holds')
  if args.out:
    from prunejax import files

    files.check_ending(args.out, '.md')
  for name in args.topology or ():
    slices.check(name)


def said(words: list[str] | None = None) -> str:
  """The command as it was given, for the head of a file."""
  return shlex.join(['python', '-m', 'prunejax', *(sys.argv[1:] if words is None else words)])


def list_of(kind: type) -> Callable[[str], list]:
  """An argparse type: words joined by commas, each converted to `kind` (str, int or float)."""

  def read(text):
    try:
      return [kind(word) for word in text.split(',')]
    except ValueError:
      expected = {int: 'whole numbers', float: 'numbers'}[kind]
      raise argparse.ArgumentTypeError(f'{text!r}: expected {expected} joined by commas') from None

  return read


def workdir(args: argparse.Namespace) -> str:
  """The work directory.

  Raises:
    ValueError: the command does not name one.
  """
  if not args.workdir:
    raise ValueError(f'{args.verb} needs --workdir=FOLDER')
  return args.workdir


def check_init(init: str):
  """Refuses a model that is not there, before Flax and transformers are imported.

  Args:
    init: the config key; '' and 'nano' are always there, and 'minilm' where its package is.

  Raises:
    FileNotFoundError: there is no such folder or file.
  """
  from prunejax import files
  from prunejax.train import minilm

  if init == 'minilm':
    minilm.folder()
  elif init not in ('', 'nano') and not files.exists(files.path(init)) and not is_package(init):
    raise FileNotFoundError(
      f"init={init!r} is no folder: expected '' for a fresh model, 'nano', 'minilm', or a folder"
      ' with config.json, model.safetensors and the vocabulary as Hugging Face has them'
    )


def check_model(where: str):
  """Refuses a model that is not there, as `check_init` does.

  Args:
    where: a work directory, a Hugging Face folder or a file.

  Raises:
    FileNotFoundError: there is no such folder or file.
  """
  from prunejax import files

  if not files.exists(files.path(where)) and not is_package(where):
    raise FileNotFoundError(
      f'{where!r} holds no run: expected the --workdir of a train command, or a Hugging Face folder'
    )


def is_package(name: str) -> bool:
  """Returns whether a Python package of a name is installed; it may carry a model."""
  try:
    importlib.metadata.distribution(name)
  except (importlib.metadata.PackageNotFoundError, ValueError):
    return False
  return True


def worker(args: argparse.Namespace) -> tuple[int, int]:
  """(index of this worker, number of workers), from the command or the cluster.

  Raises:
    ValueError: only one of the two is known, or the index is out of range.
  """
  from prunejax.sweep import workers

  joined = bool(args.distributed or os.environ.get('JAX_COORDINATOR_ADDRESS'))
  return workers.place(args.worker, args.workers, joined=joined)
