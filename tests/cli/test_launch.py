"""The scripts of launch/, run with stand-ins for the programs of a cluster."""

import os
import pathlib
import re
import shlex
import subprocess
import sys

import pytest
import tiny_runs

from prunejax import __main__ as command
from prunejax.sweep import workers
from prunejax.train import preemption

LAUNCH = tiny_runs.ROOT / 'launch'
FAKE = """#!/bin/bash
printf '%s\\n' "$0" "$@" ---- >> "$LOG"
[ "$(basename "$0")" = srun ] && exit "$STATUS"
exit 0
"""


def run(script, argv, tmp_path, status=0, **environment):
  """(exit status, [[program, argument, ...] of each call of a cluster program])."""
  for name in ('srun', 'scontrol', 'xpk'):
    (tmp_path / name).write_text(FAKE)
    (tmp_path / name).chmod(0o755)
  log = tmp_path / 'calls'
  log.write_text('')
  path = f'{tmp_path}:{os.environ["PATH"]}'
  environment = {
    **os.environ,
    **environment,
    'PATH': path,
    'LOG': str(log),
    'STATUS': str(status),
  }
  done = subprocess.run(
    ['bash', str(LAUNCH / script), *argv],
    env=environment,
    cwd=tmp_path,
    capture_output=True,
    text=True,
  )
  calls = [call.strip().split('\n') for call in log.read_text().split('----\n') if call.strip()]
  return done, [[pathlib.Path(name).name, *rest] for name, *rest in calls]


def parsed(words):
  """The arguments of a command, as the command line parses them."""
  args, rest = command.parser().parse_known_args(words)
  assert all(re.fullmatch(r'--config\.[\w.]+=.*', word) for word in rest), rest
  return args


@pytest.mark.parametrize('script', sorted(p.name for p in LAUNCH.glob('*.sh')))
def test_scripts_are_bash_and_can_be_run(script):
  subprocess.run(['bash', '-n', str(LAUNCH / script)], check=True)
  assert os.access(LAUNCH / script, os.X_OK)
  bare = {'PATH': os.environ['PATH']}
  done = subprocess.run(['bash', str(LAUNCH / script)], capture_output=True, text=True, env=bare)
  assert (
    done.returncode and len(done.stderr.splitlines()) == 1 and ':' in done.stderr
  )  # the message names what is missing


@pytest.mark.parametrize('status, requeued', [(0, False), (2, False), (preemption.RESTART, True)])
def test_a_slurm_task_that_was_preempted_is_queued_again(tmp_path, status, requeued):
  argv = ['sweep', '--config=configs/sparsity.py', '--workdir=runs/sweep']
  slurm = {'SLURM_ARRAY_JOB_ID': '71', 'SLURM_ARRAY_TASK_ID': '3', 'SLURM_ARRAY_TASK_COUNT': '4'}
  done, calls = run('slurm_array.sh', argv, tmp_path, status, **slurm)
  assert done.returncode == status
  assert calls[0] == ['srun', 'python', '-m', 'prunejax', *argv]
  assert calls[1:] == ([['scontrol', 'requeue', '71_3']] if requeued else [])
  args = parsed(calls[0][4:])
  assert workers.place(args.worker, args.workers, joined=bool(args.distributed), environ=slurm) == (
    3,
    4,
  )


def test_slurm_signals_the_run_in_time_and_keeps_its_output():
  asked = re.findall(r'^#SBATCH --(\S+)', (LAUNCH / 'slurm_array.sh').read_text(), re.MULTILINE)
  assert {'requeue', 'signal=TERM@120', 'open-mode=append'} <= set(asked)


PLACE = dict(
  CLUSTER='c', PROJECT='p', ZONE='us-east5-b', NAME='p60', WORKDIR='gs://bucket/runs/p60'
)


@pytest.mark.parametrize(
  'argv',
  [
    [
      'train',
      '--config=configs/pretrain.py',
      '--config.prune.weights.schedule=cubic(0.6, end=5000)',
    ],
    ['sweep', '--config=configs/sparsity.py', '--worker=1', '--workers=4'],
    ['reproduce', 'gordon2020', '--preset=base', '--tasks=glue/cola,glue/rte'],
  ],
)
def test_a_workload_of_xpk_runs_the_command_on_every_host(tmp_path, argv):
  done, [call] = run('xpk_tpu.sh', argv, tmp_path, **PLACE, SLICES='2')
  assert done.returncode == 0 and call[:3] == ['xpk', 'workload', 'create']
  flags = dict(word.removeprefix('--').split('=', 1) for word in call[3:])
  assert (
    flags['restart-on-exit-codes'] == str(preemption.RESTART) and int(flags['max-restarts']) > 0
  )
  assert (flags['cluster'], flags['workload'], flags['num-slices']) == ('c', 'p60', '2')
  install, _, runs = flags['command'].partition(' && exec python -m prunejax ')
  extras = re.search(r"'\.\[(.*)\]'", install)[1].split(',')
  declared = (tiny_runs.ROOT / 'pyproject.toml').read_text()
  assert all(re.search(rf'^{extra} = \[', declared, re.MULTILINE) for extra in extras)
  args = parsed(shlex.split(runs))
  assert (
    args.distributed == 'auto' and args.workdir == 'gs://bucket/runs/p60' and args.verb == argv[0]
  )
  assert shlex.split(runs)[: len(argv)] == argv  # quoted through two shells


def test_a_workload_of_xpk_copies_inputs_before_it_starts(tmp_path):
  inputs = tmp_path / 'bucket of mine' / 'inputs'
  (inputs / 'wikipedia').mkdir(parents=True)
  (inputs / 'wikipedia' / 'a.txt').write_text('text')
  argv = ['sweep', '--config=configs/sparsity.py', '--config.data.root=inputs']
  done, [call] = run('xpk_tpu.sh', argv, tmp_path, **PLACE, INPUTS=f'file://{inputs}')
  assert done.returncode == 0
  [asked] = [word.removeprefix('--command=') for word in call if word.startswith('--command=')]
  install, copy, starts = asked.split(' && ')
  assert install.startswith('python -m pip install ') and starts.startswith('exec python -m')
  path = f'{pathlib.Path(sys.executable).parent}:{os.environ["PATH"]}'
  for _ in range(2):  # a workload that starts again finds the folder
    subprocess.run(['bash', '-c', copy], cwd=tmp_path, env={**os.environ, 'PATH': path}, check=True)
  copied = {str(p.relative_to(tmp_path)) for p in (tmp_path / 'inputs').rglob('*')}
  assert copied == {'inputs/wikipedia', 'inputs/wikipedia/a.txt'}


FLAGS = """base-docker-image cluster command max-restarts num-slices project restart-on-exit-codes
script-dir spot termination-grace-period-seconds tpu-type workload zone""".split()


@pytest.mark.parametrize(
  'file', [LAUNCH / 'xpk_tpu.sh', tiny_runs.ROOT / 'docs' / 'cloud-tpu.md'], ids=lambda p: p.name
)
def test_flags_of_xpk_are_those_of_its_manual(file):
  """FLAGS are those of `cluster` and `workload` of xpk 1.16 that the commands use."""
  text = file.read_text().replace('\\\n', ' ')
  calls = re.findall(r'^ *xpk (?:workload|cluster) \w+(.*)', text, re.MULTILINE)
  assert calls
  for call in calls:
    flags = re.findall(r'(?<=\s)--([\w-]+)', call.split('--command')[0])
    assert set(flags) <= set(FLAGS) and {'cluster', 'project', 'zone'} <= set(flags), call


@pytest.mark.parametrize(
  'file',
  [LAUNCH / 'slurm_array.sh', LAUNCH / 'xpk_tpu.sh', tiny_runs.ROOT / 'docs' / 'cloud-tpu.md'],
)
def test_commands_in_comments_can_be_parsed(file):
  text = file.read_text().replace('\\\n', ' ').replace('#     ', ' ')
  shown = re.findall(r'launch/\w+\.sh +((?:train|sweep|reproduce) [^\n`;]*)', text)
  assert shown
  for line in shown:
    parsed(shlex.split(line.replace('$i', '0').replace('...', '')) + ['--workdir=x'])
