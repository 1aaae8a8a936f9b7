"""`evaluate`: perplexity of a text, or scores on a labelled task."""

import argparse

from prunejax.cli import options

SUMMARY = 'Measure the perplexity of a model on a text, or its scores on a labelled task.'
EPILOG = 'Run the same command again to continue one that was killed.'
TAKES_CONFIG = False


def add_arguments(parser: argparse.ArgumentParser):
  """Adds the arguments of the verb to its parser."""
  parser.add_argument(
    'where',
    metavar='MODEL',
    help='a Hugging Face folder, a GGUF file, an installed package that carries one, or a RUN',
  )
  parser.add_argument(
    '--on',
    required=True,
    metavar='WHAT',
    help='wikitext:FILE (wiki.test.raw), text:FOLDER (any text), glue/TASK (its dev set), or'
    ' lm-eval/TASK,TASK (tasks of the harness; extra lm-eval)',
  )
  parser.add_argument(
    '--window',
    type=int,
    metavar='N',
    help='tokens of a window (default: 2048), or of an example (those of the RUN, or 128); at most'
    ' the positions of the model',
  )
  parser.add_argument(
    '--stride', type=int, metavar='N', help='tokens from one window to the next (default: a window)'
  )
  parser.add_argument('--windows', type=int, metavar='N', help='read the first N windows alone')
  parser.add_argument(
    '--out', default='', metavar='FILE.jsonl', help='keep what was measured, a window a line'
  )
  parser.add_argument(
    '--data',
    default='',
    metavar='FOLDER',
    help='the folder that holds glue/, or the tasks of the harness as YAML files',
  )
  parser.add_argument(
    '--dtype', default='float32', metavar='NAME', help='of the computation: float32 or bfloat16'
  )


def run(args: argparse.Namespace, overrides: dict[str, str]):
  """Evaluates, and prints what was measured.

  Raises:
    ValueError, OSError: a wrong argument; a model or a text that cannot be read.
  """
  del overrides
  options.check_model(args.where)
  from prunejax.evaluation import run as evaluation

  evaluation.evaluate(
    args.where,
    args.on,
    window=args.window,
    stride=args.stride,
    most=args.windows,
    out=args.out,
    data=args.data,
    dtype=args.dtype,
  )
