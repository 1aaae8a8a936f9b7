"""A mask update of BERT-Base compiled for 16 TPU chips: what crosses them, and what it stores."""

import importlib.util
import json
import pathlib
import subprocess
import sys

import pytest

pytestmark = [
  pytest.mark.tpu,
  pytest.mark.skipif(
    importlib.util.find_spec('libtpu') is None,
    reason="libtpu is missing: pip install 'prunejax[tpu]'",
  ),
]
PROGRAM = pathlib.Path(__file__).parent.parent / 'tpu_program.py'


@pytest.mark.parametrize('allocation', ['uniform', 'global_threshold'])
@pytest.mark.parametrize('way', ['rows', 'both'])
def test_a_mask_update_of_bert_base_sends_counts_alone(way, allocation, tmp_path):
  command = [sys.executable, PROGRAM, way, '12', allocation, tmp_path]
  run = subprocess.run(command, capture_output=True, text=True)
  assert run.returncode == 0, run.stderr[-4000:]
  found = json.loads(run.stdout.splitlines()[-1])
  # Counts of all 72 kernels together: no score and no weight, whose smallest part is 36,864.
  assert set(found['collectives']) == {'all-reduce'}
  assert len(found['collectives']) <= 12
  assert found['largest'] < 4096
  # No part of a leaf is copied in main memory. There are scalars, padded to 16 KiB each.
  assert 0 < found['largest_temporary'] <= 4096
  assert 0 < found['temporaries'] <= found['weights']
