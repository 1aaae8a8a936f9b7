r"""Structured pruning: half of the attention heads and of the inner neurons, in pre-training.

  python -m prunejax train --config=configs/structured.py --workdir=runs/structured
  python -m prunejax export runs/structured --to=shrunk --out=runs/structured-small
  python -m prunejax bench runs/structured

`:nano` (the default) and `:base` are those of configs/pretrain.py. Heads and neurons are compared
over all layers.
"""

from configs import base, pretrain


def get_config(arg='nano'):
  if arg not in ('', 'nano', 'base'):
    raise ValueError(f'configs/structured.py:{arg}: expected "nano" or "base"')
  c = pretrain.get_config(arg)
  where = {
    'heads': r'encoder/layer_\d+/attention/((query|key|value)/(kernel|bias)|output/kernel)',
    'ffn': r'encoder/layer_\d+/ffn/(intermediate/(kernel|bias)|output/kernel)',
  }
  structure = {'heads': f'heads({64 if arg == "base" else 32})', 'ffn': 'ffn()'}
  with c.unlocked():
    del c.prune.weights
    for name in where:
      c.prune[name] = base.prune_group(
        where=where[name],
        structure=structure[name],
        schedule=f'cubic(0.5, end={c.steps // 2})',
        allocation='global_threshold()',
      )
  return c
