r"""XLNet, pre-trained from nothing or continued, and fine-tuned.

  python -m prunejax train --config=configs/xlnet.py:nano --workdir=runs/xlnet
  python -m prunejax train --config=configs/xlnet.py:nano --workdir=runs/xlnet-p50 \
      --config.init=runs/xlnet/model --config.steps=400 \
      --config.prune.weights.schedule='cubic(0.5, end=200)'
  python -m prunejax train --config=configs/xlnet.py:nano-finetune \
      --workdir=runs/xlnet-p50-order --config.init=runs/xlnet-p50/model --config.hold_zeros=true
  python -m prunejax train --config=configs/xlnet.py:base --workdir=runs/xlnet-base \
      --config.init=FOLDER

`:nano` is as large as the packaged BERT, with a Unigram vocabulary of 1,024 pieces, on the embedded
corpus. `:base` continues Hugging Face's `xlnet-base-cased` (FOLDER holds config.json,
model.safetensors, tokenizer.json) on Wikipedia by TFDS, and `:base-finetune` fine-tunes it. The
paper's lengths are --config.data.seq_len=512 --config.data.max_predictions=85
--config.data.memory=384.
"""

from configs import base
from prunejax.models.xlnet import PRUNABLE

ARGS = ('nano', 'nano-finetune', 'base', 'base-finetune')


def get_config(arg='nano'):
  arg = arg or 'nano'
  if arg not in ARGS:
    raise ValueError(f'configs/xlnet.py:{arg}: expected one of {", ".join(ARGS)}')
  size, _, stage = arg.partition('-')
  c = base.get_config()
  c.model.kind = 'xlnet'
  c.prune.weights.where = PRUNABLE
  (_nano if size == 'nano' else _base)(c, stage)
  return c


def _nano(c, stage):
  c.model.update(
    hidden_size=128,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=512,
    dropout=0.0,
    initializer='fan_in',
  )
  c.data.update(corpus='pydoc', vocab_size=1024, seq_len=32, max_predictions=10)
  c.optimizer.update(learning_rate=1e-3, warmup=0.02, b2=0.98)
  c.update(steps=4000, batch_size=64)
  c.eval.update(every=1000, batches=16, batch_size=128)
  c.checkpoint.every = 500
  if stage:
    c.data.update(task='pydoc/order', examples=4000)
    c.update(steps=400, batch_size=32)
    c.eval.update(every=0, batch_size=256)


def _base(c, stage):
  c.init = 'xlnet-base-cased'
  c.data.update(corpus='tfds:wikipedia/20230601.en', seq_len=128, max_predictions=21)
  c.optimizer.update(learning_rate=2e-5, warmup=0.0001)
  c.update(steps=95_000, batch_size=32)
  c.eval.update(batches=2000, batch_size=8)
  if stage:
    c.data.task = 'tfds/glue/sst2'
    c.optimizer.warmup = 0.1
    c.update(steps=6300)
    c.eval.update(batches=50, batch_size=64)
