"""`export`: a model in another form."""

import argparse

from prunejax.cli import options

SUMMARY = 'Write the model of a run, or of a Hugging Face folder, in another form.'
EPILOG = None
TAKES_CONFIG = False


def add_arguments(parser: argparse.ArgumentParser):
  """Adds the arguments of the verb to its parser."""
  options.add_workdir(parser)
  parser.add_argument(
    'where',
    nargs='?',
    metavar='RUN',
    help='a work directory (as --workdir), a Hugging Face folder, or a sparse file of a model',
  )
  parser.add_argument('--out', required=True, metavar='PATH', help='the folder or file to write')
  parser.add_argument(
    '--to',
    default='hf',
    metavar='FORM',
    help='hf or shrunk (folders), sparse, deep-compression or onnx (files); default: hf',
  )
  parser.add_argument(
    '--dtype',
    default='float32',
    metavar='NAME',
    help='float32, bfloat16 or float16; for sparse also int8',
  )
  parser.add_argument(
    '--max-shard-size',
    metavar='SIZE',
    help='of a folder: weights in a file at most, such as 5GB (default); above it, shards',
  )


def run(args: argparse.Namespace, overrides: dict[str, str]):
  """Writes the model to --out.

  Raises:
    ValueError, OSError: no run or two; an unknown form or dtype; --out exists already.
  """
  del overrides
  if args.where and args.workdir:
    raise ValueError(
      f'export got {args.where!r} and --workdir={args.workdir!r}: expected one of them'
    )
  source = args.where or args.workdir
  if not source:
    raise ValueError('export needs a RUN or --workdir=FOLDER')
  options.check_model(source)
  from prunejax.train import export

  export.export(source, args.out, args.dtype, args.to, args.max_shard_size)
