"""When the rule of each claim was fixed: written from the history, read by every report.

`python tests/claim_rules.py` records each rule that is new or has changed, with the last commit
that changed it. Commit the rule first, then its record, then run its ledger. `--same` keeps commit
and date of rules that have changed: only for code that was rearranged, where
tests/experiments/test_ledgers_redrawn.py shows that no verdict changed by it.
"""

import functools
import json
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parent.parent
# Commits between these rearranged the code of the claims. Every ledger drew the same verdicts and
# numbers after each of them, so the rules are as old as they were before.
REARRANGED = 'c2669f9..0c5470c'


def papers() -> list[str]:
  """The experiments that judge claims."""
  places = (ROOT / 'experiments').iterdir()
  return sorted(p.name for p in places if (p / 'claims.py').exists() or (p / 'claims').is_dir())


def source(module: str, commit: str = '') -> str | None:
  """The text of a module of this checkout, or of a commit; None where there is none."""
  path = module.replace('.', '/')
  for name in (f'{path}.py', f'{path}/__init__.py'):
    text = _at(commit, name) if commit else (ROOT / name).exists() and (ROOT / name).read_text()
    if text:
      return text
  return None


def record(paper: str, same: bool = False) -> dict:
  """The rules of a paper as they are to be recorded: {pattern: {'code', 'commit', 'fixed'}}.

  Raises:
    SystemExit: a rule that has changed is not committed.
  """
  from prunejax.report import rule_dates

  module, path = f'experiments.{paper}.claims', file_of(paper)
  before, entries = rule_dates.read(path), {}
  for pattern, code in sorted(rule_dates.codes(module, source).items()):
    known = before.get(pattern)
    if known and (known['code'] == code or same):
      entries[pattern] = {**known, 'code': code}
    else:
      if _codes_at(module, 'HEAD').get(pattern) != code:
        raise SystemExit(f'{paper}: commit the rule of {pattern!r} first')
      commit, date = fixed_at(module, pattern)
      entries[pattern] = {'code': code, 'commit': commit, 'fixed': date}
  return entries


def file_of(paper: str) -> pathlib.Path:
  """The file of a paper's rules."""
  home = ROOT / 'experiments' / paper
  return (home / 'claims' if (home / 'claims').is_dir() else home) / 'rules.json'


def folders(module: str) -> list[str]:
  """The folders whose code the rules of a module rest on: a paper may judge by another's rules."""
  from prunejax.report import rule_dates

  read = []
  rule_dates.codes(module, lambda name: read.append(name) or source(name))
  return sorted({'/'.join(name.split('.')[:2]) for name in read})


def fixed_at(module: str, pattern: str) -> tuple[str, str]:
  """(commit, its date) of the first commit that had the rule of a claim as it is now."""
  lines = _git('log', '--no-merges', '--format=%h %aI', '--', *folders(module)).splitlines()
  rearranged = set(_git('log', '--format=%h', REARRANGED).split())
  history = []  # the newest first; branches stand between each other
  for line in lines:
    commit, date = line.split()
    code = _codes_at(module, commit).get(pattern)
    if code:
      history.append((commit, date, code))
  code, start = _codes_at(module, 'HEAD')[pattern], 0
  while True:
    first = max(i for i, (_, _, c) in enumerate(history) if c == code and i >= start)
    if history[first][0] not in rearranged or first + 1 == len(history):
      return history[first][:2]
    code, start = history[first + 1][2], first + 1


@functools.cache
def _codes_at(module, commit):
  from prunejax.report import rule_dates

  if not source(module, commit):
    return {}
  return rule_dates.codes(module, lambda name: source(name, commit))


@functools.cache
def _at(commit, path):
  answer = subprocess.run(
    ['git', 'show', f'{commit}:{path}'], cwd=ROOT, capture_output=True, text=True, check=False
  )
  return answer.stdout if answer.returncode == 0 else ''


def _git(*words):
  return subprocess.run(
    ['git', *words], cwd=ROOT, capture_output=True, text=True, check=True
  ).stdout


if __name__ == '__main__':
  sys.path.insert(0, str(ROOT))
  for name in papers():
    text = json.dumps(record(name, '--same' in sys.argv), indent=1, ensure_ascii=False)
    file_of(name).write_text(text + '\n')
