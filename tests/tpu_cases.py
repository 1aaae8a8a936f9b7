"""Train steps that `topology/test_tpu.py` compiles for TPU slices, and the file of what they take.

`python tests/tpu_cases.py [NAME...]` compiles the cases that the file lacks, or those that
are named, and writes it. Look at what changes before you commit it.

BERT-Base and GPT-2 scan over their layers, so that a deep model compiles as fast as a shallow one.
The packaged model has two layers and does not.
"""

import json
import pathlib
import sys

from configs import gpt2, pretrain
from prunejax.topology import dry_run, programs
from prunejax.train import configs, recipe

FILE = pathlib.Path(__file__).parent / 'reference' / 'tpu_programs.json'
# Sets of rules by name, see configs/base.py; 'data' has none.
RULES = {'data': (), 'fsdp': 'fsdp', 'tensor': 'tensor', 'fsdp+tensor': 'fsdp+tensor'}
SLICES = ('v5e:2x2', 'v5e:4x4', 'v5p:2x2x2')
# Compiled by `pytest -m tpu`: every slice, and each set of rules but `tensor` alone.
# The others take most of an hour of two cores: `pytest -m tpu_long`.
QUICK = (
  'packaged on v5e:2x2, data',
  'packaged on v5e:4x4, fsdp+tensor',
  'packaged on v5p:2x2x2, fsdp',
  'bert-base on v5e:4x4, data',
)
HOSTS = {'v5e:2x2': 1, 'v5e:4x4': 4, 'v5p:2x2x2': 2}


def _config(model, topology):
  if model == 'packaged':
    return configs.override(pretrain.get_config('nano'), {'steps': 1000, 'batch_size': 64})
  config = pretrain.get_config('base') if model == 'bert-base' else gpt2.get_config('base')
  size = {} if model == 'bert-base' else {'data.vocab_size': 50257}
  fresh = {'init': '', 'model.dtype': 'bfloat16', 'model.scan_layers': True}
  # GPT-2's vocabulary is odd, so that no axis divides its logits: 256 do not fit four chips of v5e.
  batch = 128 if topology == 'v5e:2x2' else 256
  return configs.override(config, {**fresh, **size, 'batch_size': batch, 'data.seq_len': 128})


def _case(model, topology, rules):
  config = _config(model, topology)
  config.prune.weights.schedule = 'cubic(0.9, end=500)'
  configs.override(config, {'mesh.rules': RULES[rules]})
  config.mesh.model = 2 if 'tensor' in rules else 1
  return topology, config


def cases():
  """{name: (topology, config)}."""
  models = ('packaged', 'bert-base', 'gpt2')
  every = {f'{m} on {on}, {how}': (m, on, how) for m in models for on in SLICES for how in RULES}
  return {name: _case(*parts) for name, parts in every.items()}


def compiled(names, cache, say=print):
  """{name: answer of the worker} of cases, those of a slice together."""
  every, answers = cases(), {}
  for topology in SLICES:
    chosen = [name for name in names if every[name][0] == topology]
    if chosen:
      requests = [programs.of_run(recipe.resolve(every[name][1]), name) for name in chosen]
      found = dry_run.compile_all(requests, topology, cache=cache, say=say)
      answers |= dict(zip(chosen, found, strict=True))
  return answers


def kept(answer):
  """What the file holds of an answer."""
  if answer['reason']:
    return {'reason': answer['reason']}
  sides = {
    name: {
      'collectives': answer[name]['collectives'],
      'gflop': round(sum(answer[name]['flops'].values()) / 1e9, 3),
      'gb_moved': round(answer[name]['bytes'] / 1e9, 3),
    }
    for name in ('step', 'mask_step')
  }
  memory = {name: answer[name] for name in ('arguments', 'temporaries')}
  return {'chips': answer['chips'], 'hosts': answer['hosts'], **memory, **sides}


def read():
  """{name: what is kept} of the file."""
  return json.loads(FILE.read_text()) if FILE.exists() else {}


if __name__ == '__main__':
  golden = read()
  for name in sys.argv[1:] or [name for name in cases() if name not in golden]:
    golden[name] = kept(compiled([name], str(dry_run.cache_dir()))[name])
    ordered = {key: golden[key] for key in cases() if key in golden}
    FILE.write_text(json.dumps(ordered, indent=1) + '\n')
