"""`report`: tables and figures of a ledger, drawn again, or of two ledgers side by side."""

import argparse

from prunejax.cli import options, papers

SUMMARY = 'Redraw the report of a work directory or ledger, or compare two of them.'
EPILOG = None
TAKES_CONFIG = False


def add_arguments(parser: argparse.ArgumentParser):
  """Adds the arguments of the verb to its parser."""
  options.add_workdir(parser)
  parser.add_argument(
    'where', nargs='*', metavar='A [B]', help='one or two work directories or .jsonl ledgers'
  )
  parser.add_argument(
    '--ledger', metavar='FILE.jsonl', help='a ledger file, which is all that is needed; with --out'
  )
  parser.add_argument(
    '--out',
    metavar='FOLDER',
    help="the folder to write (default: the run's own; for two, runs/A-B)",
  )


def run(args: argparse.Namespace, overrides: dict[str, str]):
  """Writes the report of one work directory or ledger, or the comparison of two.

  Raises:
    ValueError, OSError: no source or more than two; two of different papers; a damaged ledger.
  """
  del overrides
  sources = [source for source in (args.workdir, args.ledger, *args.where) if source]
  if len(sources) not in (1, 2):
    raise ValueError(
      f'report needs one or two work directories or .jsonl ledgers, got {len(sources)}'
    )
  if len(sources) == 2:
    _compare(*sources, args.out)
  elif sources[0].endswith('.jsonl'):
    _redraw_ledger(sources[0], args.out)
  else:
    _redraw_folder(sources[0], args.out)


def _compare(first, second, out):
  from prunejax import files
  from prunejax.report import compare

  papers_of = [_paper_of(compare.read(source), source) for source in (first, second)]
  if papers_of[0] != papers_of[1]:
    raise ValueError(
      f'{first!r} is of {papers_of[0]!r} and {second!r} of {papers_of[1]!r}: nothing to compare'
    )
  names = [files.path(source).name.removesuffix('.jsonl') for source in (first, second)]
  papers.load(papers_of[0]).compare(first, second, out or f'runs/{names[0]}-{names[1]}')


def _redraw_ledger(source, out):
  from prunejax.report import compare

  if not out:
    raise ValueError(f'report of the ledger {source!r} needs --out=FOLDER')
  papers.load(_paper_of(compare.read(source), source)).redraw(compare.find(source), out)


def _redraw_folder(source, out):
  from prunejax import files
  from prunejax.report import compare

  if not files.exists(files.path(source) / 'grid.json') and files.exists(
    files.path(source) / 'ledger.jsonl'
  ):  # the folder of a report, which holds a copy of its ledger
    _redraw_ledger(source, out or source)
    return
  if 'sweep' in compare.owner_of(source):
    from prunejax.sweep import summary

    summary.write(source, out)
    return
  study = papers.load(compare.experiment_of(source))
  if out:
    study.redraw(compare.find(source), out, work=source)
  else:
    study.write_report(files.path(source))


def _paper_of(rows, source):
  """The paper that the rows of a ledger name."""
  names = sorted({str(row.get('experiment')) for row in rows})
  if names == ['None']:
    raise ValueError(f'{source!r}: its rows name no experiment')
  return names[0]
