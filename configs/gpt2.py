r"""A decoder: GPT-2, pre-trained from nothing or continued, and fine-tuned.

  python -m prunejax train --config=configs/gpt2.py:nano --workdir=runs/gpt2
  python -m prunejax train --config=configs/gpt2.py:nano --workdir=runs/gpt2-p50 \
      --config.init=runs/gpt2/model --config.steps=400 \
      --config.prune.weights.schedule='cubic(0.5, end=200)'
  python -m prunejax train --config=configs/gpt2.py:nano-finetune --workdir=runs/gpt2-p50-order \
      --config.init=runs/gpt2-p50/model --config.hold_zeros=true
  python -m prunejax train --config=configs/gpt2.py:base --workdir=runs/gpt2-base \
      --config.init=FOLDER

`:nano` is as large as the packaged BERT, with a byte-level vocabulary of 1,024 pieces, on the
embedded corpus; for Wikipedia add --config.data.root=FOLDER --config.data.corpus=wikipedia. `:base`
continues Hugging Face's `gpt2` (124M; FOLDER holds config.json, model.safetensors, vocab.json,
merges.txt) on Wikipedia by TFDS, and `:base-finetune` fine-tunes it.
"""

from configs import base
from prunejax.models.gpt2 import PRUNABLE

ARGS = ('nano', 'nano-finetune', 'base', 'base-finetune')


def get_config(arg='nano'):
  arg = arg or 'nano'
  if arg not in ARGS:
    raise ValueError(f'configs/gpt2.py:{arg}: expected one of {", ".join(ARGS)}')
  size, _, stage = arg.partition('-')
  c = base.get_config()
  c.model.kind = 'gpt2'
  c.prune.weights.where = PRUNABLE
  (_nano if size == 'nano' else _base)(c, stage)
  return c


def _nano(c, stage):
  c.model.update(
    hidden_size=128,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=512,
    max_position_embeddings=64,
    dropout=0.0,
    initializer='fan_in',
  )
  c.data.update(corpus='pydoc', vocab_size=1024, seq_len=32)
  c.optimizer.update(learning_rate=1e-3, warmup=0.02, b2=0.98)
  c.update(steps=4000, batch_size=64)
  c.eval.update(every=1000, batches=16, batch_size=128)
  c.checkpoint.every = 500
  if stage:
    c.data.update(task='pydoc/order', examples=4000)
    c.update(steps=400, batch_size=32)
    c.eval.update(every=0, batch_size=256)


def _base(c, stage):
  c.init = 'gpt2'
  c.model.update(
    max_position_embeddings=1024
  )  # the folder of `init` decides; a dry run has no other source
  c.data.update(corpus='tfds:wikipedia/20230601.en', seq_len=128)
  c.optimizer.update(
    learning_rate=2e-5, warmup=0.0001
  )  # ten steps of 95,000, as configs/pretrain.py
  c.update(steps=95_000, batch_size=32)
  c.eval.update(batches=2000, batch_size=8)
  if stage:
    c.data.task = 'tfds/glue/sst2'
    c.optimizer.warmup = 0.1
    c.update(steps=6300)
    c.eval.update(batches=50, batch_size=64)
