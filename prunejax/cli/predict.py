"""`predict`: what a fine-tuned run says of a test set."""

import argparse

from prunejax.cli import options

SUMMARY = 'Write the predictions of a fine-tuned run for the test sets of its task.'
EPILOG = None
TAKES_CONFIG = False


def add_arguments(parser: argparse.ArgumentParser):
  """Adds the arguments of the verb to its parser."""
  parser.add_argument('where', metavar='RUN', help='a work directory of a train command on a task')
  parser.add_argument('--out', required=True, metavar='FOLDER', help='the folder to write')
  parser.add_argument(
    '--data', default='', metavar='FOLDER', help="the folder of the data (default: the run's)"
  )


def run(args: argparse.Namespace, overrides: dict[str, str]):
  """Writes the predictions to --out, for GLUE in the format of a submission.

  Raises:
    ValueError, OSError: no run on such a task; a missing test set; --out holds such files already.
  """
  del overrides
  options.check_model(args.where)
  from prunejax.train import predict

  predict.predict(args.where, args.out, args.data)
