"""`prune`: prune a decoder without training, block by block."""

import argparse

from prunejax.cli import options

SUMMARY = 'Prune a decoder without training, block by block, in the memory of one block.'
EPILOG = (
  'A command that is killed goes on at the block it was in when it is run again. '
  'Example: prune MODEL --criterion=sparsegpt() --sparsity=0.5 --structure=n_m(2,4) '
  '--calibration=TEXT --out=FOLDER'
)
TAKES_CONFIG = False


def add_arguments(parser: argparse.ArgumentParser):
  """Adds the arguments of the verb to its parser."""
  parser.add_argument(
    'where',
    metavar='MODEL',
    help='a Hugging Face folder, a GGUF file, an installed package that carries one, or a RUN',
  )
  parser.add_argument('--out', required=True, metavar='FOLDER', help='the folder to write')
  parser.add_argument(
    '--criterion',
    default='',
    metavar='SPEC',
    help='how much a weight matters (default: sparsegpt())',
  )
  parser.add_argument(
    '--sparsity', type=float, metavar='S', help='the fraction removed (default: 0.5)'
  )
  parser.add_argument(
    '--structure', default='', metavar='SPEC', help='such as n_m(2, 4); default: unstructured()'
  )
  parser.add_argument(
    '--allocation',
    default='',
    metavar='SPEC',
    help='who pays inside a block; default: per_output() for wanda, otherwise uniform()',
  )
  parser.add_argument(
    '--shares', default='', metavar='SPEC', help='owl() prunes blocks with many outliers less'
  )
  parser.add_argument(
    '--where', dest='kernels', default='', metavar='REGEX', help='paths of kernels (default: all)'
  )
  parser.add_argument(
    '--calibration', default='', metavar='TEXT', help='a folder or file of text; not for magnitude'
  )
  parser.add_argument(
    '--encoding', default='utf-8', metavar='NAME', help='of the text (default: utf-8)'
  )
  parser.add_argument(
    '--segments', type=int, default=128, metavar='N', help='segments of the text (default: 128)'
  )
  parser.add_argument(
    '--length', type=int, metavar='N', help='tokens of a segment (default: 2048, at most all)'
  )
  parser.add_argument('--seed', type=int, default=0, metavar='N', help='of the draw of segments')
  parser.add_argument(
    '--batch', type=int, default=8, metavar='N', help='segments of a batch, a power of two'
  )
  parser.add_argument(
    '--devices', type=int, metavar='N', help='devices that share each batch (default: one)'
  )
  parser.add_argument(
    '--recover', default='', metavar='SPEC', help='reconstruct() trains each block after pruning'
  )
  parser.add_argument(
    '--smaller',
    default='',
    metavar='SPEC',
    help='a smaller model instead: drop_blocks(4), ffn_width(1024) or kv_groups(2)',
  )
  parser.add_argument(
    '--dtype', default='float32', metavar='NAME', help='of the file: float32, bfloat16 or float16'
  )


def run(args: argparse.Namespace, overrides: dict[str, str]):
  """Prunes the model and writes it to --out.

  Raises:
    ValueError, OSError: a wrong argument; a model or a text that cannot be read or do not fit;
      --out is there already.
    FloatingPointError: a score or a new weight is not finite.
  """
  del overrides
  options.check_model(args.where)
  from prunejax.oneshot import command

  command.prune(
    args.where,
    args.out,
    criterion=args.criterion,
    sparsity=args.sparsity,
    structure=args.structure,
    allocation=args.allocation,
    shares=args.shares,
    kernels=args.kernels,
    calibration=args.calibration,
    encoding=args.encoding,
    segments=args.segments,
    length=args.length,
    seed=args.seed,
    batch=args.batch,
    devices=args.devices,
    recover=args.recover,
    smaller=args.smaller,
    dtype=args.dtype,
  )
