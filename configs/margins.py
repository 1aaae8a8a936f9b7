r"""What pre-training is worth to GLUE tasks: the packaged weights against fresh ones.

  python -m prunejax sweep --config=configs/margins.py --workdir=runs/margins \
      --config.data.root=FOLDER

FOLDER holds `glue/`. A task that pre-training does not help cannot show what pruning deletes, so it
has no place in a grid. There are three seeds, and five more for SST-2, the one task that three
seeds left open.
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
