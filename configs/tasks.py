"""What is the packaged model worth to each task that pydoc carries? Fine-tuned from its weights, and from fresh ones.

  python -m prunejax sweep --config=configs/tasks.py --workdir=runs/tasks

Eight cells a seed of 300 steps; the ledger of one run lies beside the model, prunejax/models/nano/tasks.jsonl.
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
