r"""What MiniLM's pre-training is worth to GLUE tasks: its weights against fresh ones, three seeds.

  python -m prunejax sweep --config=configs/margins_minilm.py --workdir=runs/margins-minilm \
      --config.data.root=FOLDER --one-by-one

FOLDER holds `glue/`; configs/minilm.py says where MiniLM comes from. All tasks of a seed come
before the next seed. The preset `minilm` of gordon2020 takes tasks with a clear margin.
"""

from configs import minilm


def get_config(arg=''):
  if arg:
    raise ValueError(f'configs/margins_minilm.py:{arg}: expected no argument')
  c = minilm.get_config('finetune')
  c.keep_model = False
  return c


def sweep():
  for seed in range(3):
    for task in ('sst2', 'mrpc', 'stsb', 'cola', 'rte'):
      for pretrained in (True, False):
        yield {'data.task': f'glue/{task}', 'pretrained': pretrained, 'seed': seed}
