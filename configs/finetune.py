r"""Fine-tuning on one labelled task.

  python -m prunejax train --config=configs/finetune.py:nano --workdir=runs/order \
      --config.data.task=pydoc/order
  python -m prunejax train --config=configs/finetune.py:nano --workdir=runs/p50-order \
      --config.data.task=pydoc/order --config.init=runs/p50/model --config.hold_zeros=true

The second keeps a pruned model pruned. `:base` has the settings of BERT-Base (Devlin et al. 2019),
with GLUE by TFDS or local files.
"""

from configs import base


def get_config(arg='nano'):
  c = base.get_config()
  if arg in ('', 'nano'):
    c.init = 'nano'
    c.model.update(dropout=0.0, initializer='fan_in')
    c.data.update(task='pydoc/order', seq_len=32, examples=4000)
    c.optimizer.update(learning_rate=1e-3, b2=0.98)
    c.update(steps=400, batch_size=32)
    c.eval.batch_size = 256
  elif arg == 'base':
    c.init = 'bert-base-uncased'
    c.data.update(task='tfds/glue/sst2', seq_len=128)
    c.optimizer.update(learning_rate=2e-5)
    c.update(steps=6300, batch_size=32)
  else:
    raise ValueError(f'configs/finetune.py:{arg}: expected "nano" or "base"')
  return c
