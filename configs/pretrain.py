r"""Continued pre-training of a BERT, the stage at which the paper prunes.

  python -m prunejax train --config=configs/pretrain.py:nano --workdir=runs/p50 \
      --config.prune.weights.schedule='cubic(0.5, end=200)'

`:nano` continues the packaged model on the embedded corpus, in half a minute on two CPU cores.
`:base` is BERT-Base on Wikipedia by TFDS, from Hugging Face weights: `--config.init=FOLDER`
(config.json, model.safetensors, vocab.txt).
"""

from configs import base


def get_config(arg='nano'):
  c = base.get_config()
  if arg in ('', 'nano'):
    c.init = 'nano'
    c.model.update(dropout=0.0, initializer='fan_in')
    c.data.update(corpus='pydoc', seq_len=32, predict=0.4, max_predictions=12, pairs='first')
    c.optimizer.update(learning_rate=5e-4, warmup=0.05, b2=0.98)
    c.update(steps=400, batch_size=64)
    c.eval.update(batches=16, batch_size=128)
    c.checkpoint.every = 200
  elif arg == 'base':
    c.init = 'bert-base-uncased'
    c.data.update(corpus='tfds:wikipedia/20230601.en', seq_len=128)
    c.optimizer.update(learning_rate=2e-5, warmup=0.0001)  # ten steps of 95,000
    c.update(steps=95_000, batch_size=32)
    c.eval.update(batches=2000, batch_size=8)
  else:
    raise ValueError(f'configs/pretrain.py:{arg}: expected "nano" or "base"')
  return c
