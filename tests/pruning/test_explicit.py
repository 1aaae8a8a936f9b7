"""Links that hold matrices compute on Explicit and on Auto meshes what one device computes."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

TESTS = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(TESTS))
from explicit_program import AXES, LINKS  # noqa: E402


@pytest.mark.slow
def test_every_link_on_every_mesh():
  environment = {
    **os.environ,
    'PYTHONPATH': f'{TESTS.parent}:{TESTS}',
    'JAX_PLATFORMS': 'cpu',
    'PJRT_NPROC': '16',
    'XLA_FLAGS': f'{os.environ.get("XLA_FLAGS", "")} --xla_force_host_platform_device_count=8',
  }
  done = subprocess.run(
    [sys.executable, str(TESTS / 'explicit_program.py')],
    env=environment,
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr[-3000:]
  rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{')]
  assert len(rows) == 2 * len(LINKS) * len(AXES)
  for row in rows:
    # Sums over what is divided are added in another order.
    assert row['off'] < 1e-4 and row['zeros'], row
    assert row['mesh'][0] == 'Auto' or not row['stray'], row
