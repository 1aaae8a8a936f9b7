"""python -m prunejax {train, sweep, reproduce, report, export, bench}: parse, then call."""

import argparse
import importlib
import os
import pathlib
import sys

from prunejax.train import preemption

# What a person can mend ends in one line; anything else is a defect and keeps its traceback.
MENDABLE = (
  ValueError,
  FileNotFoundError,
  FileExistsError,
  PermissionError,
  OSError,
  FloatingPointError,
)
TRAIN = (
  'flax',
  'transformers',
  'tokenizers',
  'safetensors',
  'orbax.checkpoint',
  'ml_collections',
  'grain',
  'scipy',
  'tensorboardX',
  'matplotlib',
)
ROOT = pathlib.Path(__file__).resolve().parent.parent


def parser():
  top = argparse.ArgumentParser(
    prog='python -m prunejax', description='Weight pruning research in JAX.'
  )
  top.error = _refuse
  verbs = top.add_subparsers(
    dest='verb', required=True, metavar='{train,sweep,reproduce,report,export,bench}'
  )

  def verb(name, text, folder=True):
    sub = verbs.add_parser(name, help=text, description=text, allow_abbrev=False)
    sub.error = _refuse
    if folder:
      sub.add_argument('--workdir', help='folder of everything the command writes')
    return sub

  def joined(sub):
    sub.add_argument(
      '--distributed',
      nargs='?',
      const='auto',
      default='',
      metavar='HOST:PORT,INDEX,COUNT',
      help='one of several processes that train as one; without a value the cluster says which',
    )

  def shared(sub):
    sub.add_argument(
      '--worker',
      type=int,
      metavar='I',
      help='which of several workers on one grid this one is, from 0',
    )
    sub.add_argument(
      '--workers', type=int, metavar='N', help='how many there are; a Slurm array says both'
    )

  for name, text in (
    ('train', 'Train one run.'),
    ('sweep', 'Run every cell of a config that has sweep(), once each.'),
  ):
    sub = verb(name, text)
    sub.add_argument(
      '--config', required=True, metavar='FILE.py[:ARG]', help='a file with get_config(arg)'
    )
    joined(sub)
    if name == 'sweep':
      shared(sub)
      _one_by_one(sub)
    sub.epilog = (
      'Any key: --config.key=value, such as --config.prune.weights.schedule="cubic(0.9, end=1000)".'
    )
  sub = verb('reproduce', "Reproduce a paper's tables and figures.")
  sub.add_argument('paper', help='a folder of experiments/, such as gordon2020')
  joined(sub)
  shared(sub)
  sub.add_argument('--preset', default='quick', help='size of the reproduction (default: quick)')
  sub.add_argument(
    '--dry-run', action='store_true', help='print cells, steps, parameters, memory and FLOPs only'
  )
  sub.add_argument(
    '--from-scratch', action='store_true', help='train the small model again, not the packaged one'
  )
  sub.add_argument(
    '--tasks', type=_listed(str), help="tasks instead of the preset's, such as glue/cola,glue/rte"
  )
  sub.add_argument(
    '--sparsities', type=_listed(float), help="sparsities instead of the preset's, such as 0.5,0.9"
  )
  sub.add_argument(
    '--seeds', type=_listed(int), help="seeds instead of the preset's, such as 0,1,2"
  )
  sub.add_argument(
    '--rates', type=_listed(float), help='learning rates of fine-tuning, such as 2e-5,5e-5'
  )
  sub.add_argument(
    '--arms', type=_listed(str), metavar='FAMILIES', help='families of arms, such as paper,controls'
  )
  sub.add_argument('--scale', type=float, help='multiplies every number of steps, such as 0.1')
  sub.add_argument(
    '--reuse', default='', metavar='DIR', help='take cells that this other work directory has run'
  )
  _one_by_one(sub)
  sub.epilog = 'Any key of its runs: --config.key=value, such as --config.data.root=FOLDER.'
  sub = verb(
    'report',
    'Draw the report of a work directory or of a ledger file again, or lay two side by side.',
  )
  sub.add_argument(
    'where', nargs='*', metavar='A [B]', help='one or two work directories or .jsonl ledgers'
  )
  sub.add_argument(
    '--ledger', metavar='FILE.jsonl', help='a ledger file, all that is needed; with --out'
  )
  sub.add_argument(
    '--out', metavar='FOLDER', help="the folder to write (default: the run's own; for two runs/A-B)"
  )
  sub = verb('export', 'Write the model of a run, or of a Hugging Face folder, in another form.')
  sub.add_argument(
    'where',
    nargs='?',
    metavar='RUN',
    help='a work directory (as --workdir) or a Hugging Face folder',
  )
  sub.add_argument('--out', required=True, help='the folder or file to write')
  sub.add_argument(
    '--to', default='hf', help='hf, shrunk (folders), sparse, deep-compression or onnx (files)'
  )
  sub.add_argument(
    '--dtype', default='float32', help='float32, bfloat16 or float16; of sparse also int8'
  )
  text = 'Measure how fast this machine prunes and trains, or what a pruned RUN is worth; print a table, write JSON.'
  sub = verb('bench', text, folder=False)
  sub.add_argument(
    'where',
    nargs='?',
    metavar='RUN',
    help='a work directory or a Hugging Face folder: bytes, latency',
  )
  sub.add_argument(
    '--batches', type=_listed(int), help='with RUN: examples at a time (default: 1,8)'
  )
  sub.add_argument(
    '--length', type=int, help='with RUN: tokens an example (default: the longest of the model)'
  )
  sub.add_argument('--rounds', type=int, help='with RUN: how often each is timed (default: 25)')
  sub.add_argument('--only', type=_listed(str), metavar='A,B', help='some benches instead of all')
  sub.add_argument('--size', default='base', help='small, base (BERT-Base, the default) or large')
  sub.add_argument('--times', type=int, help='how often the bench `kill` kills')
  sub.add_argument(
    '--out',
    metavar='FILE.json',
    help='the file to write (default: runs/bench/<machine>-<size>.json)',
  )
  sub.add_argument(
    '--compare',
    nargs='+',
    metavar='FILE.json',
    help='only lay the tables of these files side by side',
  )
  return top


def _one_by_one(sub):
  text = 'each run by itself; else those that differ in numbers only are one program'
  sub.add_argument('--one-by-one', action='store_true', help=text)


def _refuse(message):
  raise ValueError(f'{message}; python -m prunejax --help tells more')


def main(argv=None):
  """Runs one command; returns the exit status: 0, 2 for what a person can mend, 75 for "start me again"."""
  try:
    args, rest = parser().parse_known_args(argv)
    _need_train()
    overrides = {}
    for word in rest:
      key, equals, value = word.partition('=')
      if (
        not key.startswith('--config.') or not equals or args.verb in ('report', 'export', 'bench')
      ):
        raise ValueError(f'unknown argument {word!r}; keys are set as --config.key=value')
      overrides[key.removeprefix('--config.')] = value
    with preemption.guard():
      _join(args)
      globals()[f'_{args.verb}'](args, overrides)
    return 0
  except preemption.Preempted as notice:
    print(f'prunejax: {notice}; the same command goes on from here', file=sys.stderr)
    return preemption.RESTART
  except KeyboardInterrupt:
    print('\nstopped; the same command goes on from here', file=sys.stderr)
    return 130
  except MENDABLE as error:
    if os.environ.get('PRUNEJAX_TRACEBACK'):
      raise
    print('prunejax:', ' '.join(str(error).split()), file=sys.stderr)
    return 2


def _need_train():
  """A missing extra is one line with the command that installs it."""
  os.environ.setdefault(
    'TRANSFORMERS_VERBOSITY', 'error'
  )  # it would advise everyone to install PyTorch
  for name in TRAIN:
    try:
      importlib.import_module(name)
    except ImportError as error:
      raise ValueError(
        f"{name} is not installed ({error}): python -m pip install -e '.[train]'"
      ) from error


def _join(args):
  """Several processes become one, where the command or the environment says so: before anything else of jax."""
  if 'distributed' in args:
    from prunejax.train import distributed

    distributed.start(args.distributed)


def _train(args, overrides):
  from prunejax.train import configs, distributed, loop

  config, _ = configs.load(args.config, ROOT)
  configs.override(config, overrides)
  result = loop.train(config, _workdir(args), title=pathlib.Path(args.config.split(':')[0]).stem)
  if distributed.first():
    print({k: round(v, 4) for k, v in result['metrics'].items()})


def _sweep(args, overrides):
  from prunejax.sweep import grid
  from prunejax.train import configs

  config, module = configs.load(args.config, ROOT)
  if not hasattr(module, 'sweep'):
    raise ValueError(
      f'{args.config} has no sweep(); a sweep is a function that yields flat dicts of overrides'
    )
  configs.override(config, overrides)
  how = {'worker': _worker(args), 'one_by_one': args.one_by_one}
  grid.sweep(config, list(module.sweep()), _workdir(args), name=module.__name__, **how)


def _listed(kind):
  """A type of argparse: words joined by commas, each a `kind`."""

  def read(text):
    try:
      return [kind(word) for word in text.split(',')]
    except ValueError:
      what = {int: 'whole numbers', float: 'numbers'}[kind]
      raise argparse.ArgumentTypeError(f'{text!r}: expected {what} joined by commas') from None

  return read


def _reproduce(args, overrides):
  run = _experiment(args.paper)
  run.reproduce(
    args.preset,
    args.workdir,
    dry_run=args.dry_run,
    from_scratch=args.from_scratch,
    overrides=overrides,
    names=args.tasks,
    sparsities=args.sparsities,
    seeds=args.seeds,
    scale=args.scale,
    rates=args.rates,
    families=args.arms,
    worker=_worker(args),
    one_by_one=args.one_by_one,
    reuse=args.reuse,
  )


def _worker(args):
  from prunejax.sweep import workers

  joined = bool(args.distributed or os.environ.get('JAX_COORDINATOR_ADDRESS'))
  return workers.place(args.worker, args.workers, joined=joined)


def _report(args, overrides):
  from prunejax import files
  from prunejax.report import compare
  from prunejax.sweep import grid

  del overrides
  places = [place for place in (args.workdir, args.ledger, *args.where) if place]
  if len(places) > 2 or not places:
    raise ValueError(
      f'report needs one or two work directories or .jsonl ledgers, got {len(places)}'
    )
  if len(places) == 2:
    papers = [_paper_of(compare.read(place), place) for place in places]
    if papers[0] != papers[1]:
      raise ValueError(
        f'{places[0]!r} is of {papers[0]!r} and {places[1]!r} of {papers[1]!r}: nothing to compare'
      )
    names = [files.path(place).name.removesuffix('.jsonl') for place in places]
    _experiment(papers[0]).compare(*places, args.out or f'runs/{names[0]}-{names[1]}')
  elif places[0].endswith('.jsonl'):
    if not args.out:
      raise ValueError(f'report of the ledger {places[0]!r} needs --out=FOLDER')
    _experiment(_paper_of(compare.read(places[0]), places[0])).redraw(
      compare.find(places[0]), args.out
    )
  elif args.out:
    _experiment(grid.experiment_of(places[0])).redraw(
      compare.find(places[0]), args.out, work=places[0]
    )
  else:
    _experiment(grid.experiment_of(places[0])).write_report(files.path(places[0]))


def _paper_of(rows, place):
  names = sorted({str(row.get('experiment')) for row in rows})
  if names == ['None']:
    raise ValueError(f'{place!r}: its rows name no experiment')
  return names[0]


def _export(args, overrides):
  from prunejax.train import export

  del overrides
  if args.where and args.workdir:
    raise ValueError(
      f'export of {args.where!r} and of --workdir={args.workdir!r}: one of them at a time'
    )
  export.export(args.where or _workdir(args), args.out, args.dtype, args.to)


def _bench(args, overrides):
  del overrides
  if args.compare:
    from prunejax.bench import table

    print(table.compare(args.compare))
    return
  if args.where:
    from prunejax.bench import pruned

    given = [f'--{name}' for name in ('only', 'times') if getattr(args, name) is not None]
    if given:
      raise ValueError(f'bench of the run {args.where!r} takes no {", ".join(given)}')
    how = {'batches': args.batches, 'length': args.length, 'rounds': args.rounds, 'out': args.out}
    pruned.run(args.where, **{name: value for name, value in how.items() if value is not None})
    return
  from prunejax.bench import run

  for name in ('batches', 'length', 'rounds'):
    if getattr(args, name) is not None:
      raise ValueError(
        f'--{name} is for the bench of a run: python -m prunejax bench RUN --{name}=...'
      )
  run.run(args.only, args.size, times=args.times, out=args.out)


def _experiment(paper):
  from prunejax.train import specs

  sys.path.insert(0, str(ROOT))
  # TODO: look for study.py alone once gordon2020 has one.
  modules = {
    path.parent.name: path.stem
    for name in ('run.py', 'study.py')
    for path in (ROOT / 'experiments').glob(f'*/{name}')
  }
  known = sorted(modules)
  if paper not in known:
    raise ValueError(
      f'no experiment {paper!r}{specs.suggest(paper, known)}; known: {", ".join(known) or "none here"}'
    )
  return importlib.import_module(f'experiments.{paper}.{modules[paper]}')


def _workdir(args):
  if not args.workdir:
    raise ValueError(f'{args.verb} needs --workdir=FOLDER')
  return args.workdir


if __name__ == '__main__':
  sys.exit(main())
