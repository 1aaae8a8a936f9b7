"""Train steps that `test_tpu.py` compiles for TPU slices, and the file of what they take.

`python tests/topology/tpu_cases.py [NAME...]` compiles the cases that the file lacks, or those that
are named, and writes it. Look at what changes before you commit it.

A model has two layers here, or one scan would be all there is to see, and a step of twelve takes
six times as long to compile. Counts of collectives do not depend on the number of layers where the
compiler puts all of one kind together; BERT-Base itself is the last case.
"""

import json
import pathlib
import sys

from configs import gpt2, pretrain
from prunejax.topology import dry_run, programs
from prunejax.train import configs

FILE = pathlib.Path(__file__).parents[1] / 'reference' / 'tpu_programs.json'
WIDE = r'(attention/(query|key|value)|ffn/intermediate)/kernel'
BACK = r'(attention/output|ffn/output)/kernel'
# Rules by name: what lies on which axis. Moments and masks lie as their weights.
RULES = {
  'data': (),
  'fsdp': (
    (f'{WIDE}|{BACK}', ('data', None)),
    ('embeddings/word/embedding', (None, 'data')),
  ),
  'tensor': ((WIDE, (None, 'model')), (BACK, ('model', None))),
  'fsdp+tensor': (
    (WIDE, ('data', 'model')),
    (BACK, ('model', 'data')),
    ('embeddings/word/embedding', (None, 'data')),
  ),
}
SLICES = ('v5e:2x2', 'v5e:4x4', 'v5p:2x2x2')
HOSTS = {'v5e:2x2': 1, 'v5e:4x4': 4, 'v5p:2x2x2': 2}
WHOLE = 'bert-base on v5e:4x4, data, 12 layers'


def _config(model, layers=2):
  if model == 'packaged':
    return configs.override(pretrain.get_config('nano'), {'steps': 1000, 'batch_size': 64})
  config = pretrain.get_config('base') if model == 'bert-base' else gpt2.get_config('base')
  size = {} if model == 'bert-base' else {'data.vocab_size': 50257}
  fresh = {'init': '', 'model.num_hidden_layers': layers, 'model.dtype': 'bfloat16'}
  return configs.override(config, {**fresh, **size, 'batch_size': 256, 'data.seq_len': 128})


def _case(model, topology, rules, layers=2):
  config = _config(model, layers)
  config.prune.weights.schedule = 'cubic(0.9, end=500)'
  config.mesh.rules = RULES[rules]
  config.mesh.model = 2 if 'tensor' in rules else 1
  return topology, config


def cases():
  """{name: (topology, config)}."""
  every = {f'packaged on {on}, {how}': ('packaged', on, how) for on in SLICES for how in RULES}
  for model in ('bert-base', 'gpt2'):
    every |= {f'{model} on v5e:4x4, {how}': (model, 'v5e:4x4', how) for how in RULES}
    every |= {f'{model} on {on}, data': (model, on, 'data') for on in ('v5e:2x2', 'v5p:2x2x2')}
  found = {name: _case(*parts) for name, parts in every.items()}
  return found | {WHOLE: _case('bert-base', 'v5e:4x4', 'data', 12)}


def compiled(names, cache, say=print):
  """{name: answer of the worker} of cases, those of a slice together."""
  every, answers = cases(), {}
  for topology in SLICES:
    chosen = [name for name in names if every[name][0] == topology]
    if chosen:
      requests = [programs.of_run(every[name][1], name) for name in chosen]
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
