"""Which GLUE tasks is the packaged model worth anything to? Fine-tuned from its weights, and from fresh ones.

  python -m prunejax sweep --config=configs/margins.py --workdir=runs/margins --config.data.root=FOLDER

FOLDER holds `glue/`. A task on which pre-training does not help cannot show what pruning deletes, so it has no place in
a grid. Three seeds, and five more for SST-2: the one task at which three had left the question open.
"""

from configs import finetune


def get_config(arg=''):
  if arg:
    raise ValueError(f'configs/margins.py:{arg}: expected no argument')
  c = finetune.get_config('nano')
  c.data.update(task='glue/sst2', seq_len=64, examples=2000)
  c.update(steps=250, batch_size=16, keep_model=False)
  c.checkpoint.every = 0
  c.log.update(tensorboard=False, who_pays=False)
  return c


def sweep():
  for task in ('sst2', 'cola', 'mrpc', 'rte', 'stsb'):
    for pretrained in (True, False):
      for seed in range(8 if task == 'sst2' else 3):
        yield {'data.task': f'glue/{task}', 'pretrained': pretrained, 'seed': seed}
