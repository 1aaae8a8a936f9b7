"""What pre-training is worth to each pydoc task: the packaged weights against fresh ones.

  python -m prunejax sweep --config=configs/tasks.py --workdir=runs/tasks

Eight cells of 300 steps for each seed. The ledger of one run is prunejax/models/nano/tasks.jsonl.
"""

from configs import finetune


def get_config(arg=''):
  if arg:
    raise ValueError(f'configs/tasks.py:{arg}: expected no argument')
  c = finetune.get_config('nano')
  c.update(steps=300, batch_size=16, keep_model=False)
  c.checkpoint.every = 0
  return c


def sweep():
  for seed in (0, 1):
    for task, seq_len in (('order', 32), ('words', 32), ('library', 32), ('summary', 64)):
      for pretrained in (True, False):
        yield {
          'data.task': f'pydoc/{task}',
          'data.seq_len': seq_len,
          'pretrained': pretrained,
          'seed': seed,
        }
