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


# Temporaries as a multiple of the weights of a chip, of which 1 is wanted.
MOST = {'rows': 1.75, 'both': 2.1}


@pytest.mark.parametrize('allocation', ['uniform', 'global_threshold'])
@pytest.mark.parametrize('way', ['rows', 'both'])
def test_a_mask_update_of_bert_base_sends_counts_alone(way, allocation):
  run = subprocess.run(
    [sys.executable, PROGRAM, way, '12', allocation], capture_output=True, text=True
  )
  assert run.returncode == 0, run.stderr[-4000:]
  found = json.loads(run.stdout.splitlines()[-1])
  # Counts of all 72 kernels together: no score and no weight, whose smallest part is 36,864.
  assert set(found['collectives']) == {'all-reduce'}
  assert len(found['collectives']) <= 12
  assert found['largest'] < 4096
  assert found['temporaries'] <= MOST[way] * found['weights']
