"""Arguments that several verbs share."""

import argparse
import os
import pathlib
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
  elif init not in ('', 'nano') and not files.exists(files.path(init)):
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

  if not files.exists(files.path(where)):
    raise FileNotFoundError(
      f'{where!r} holds no run: expected the --workdir of a train command, or a Hugging Face folder'
    )


def worker(args: argparse.Namespace) -> tuple[int, int]:
  """(index of this worker, number of workers), from the command or the cluster.

  Raises:
    ValueError: only one of the two is known, or the index is out of range.
  """
  from prunejax.sweep import workers

  joined = bool(args.distributed or os.environ.get('JAX_COORDINATOR_ADDRESS'))
  return workers.place(args.worker, args.workers, joined=joined)
