r"""The small BERT in the package: 2 layers, width 128, 1,024 pieces, trained from nothing.

  python -m prunejax train --config=configs/nano.py --workdir=runs/nano --config.data.root=FOLDER
  python -m prunejax train --config=configs/nano.py:anneal --workdir=runs/nano64 \
      --config.data.root=FOLDER --config.init=runs/nano/model

FOLDER holds `wikipedia/`: WikiExtractor shards, packed or not. The first command reads sequences of
32 tokens; the second, shorter one reads sequences of 64, as BERT's own recipe did with 128 and 512.
Without Wikipedia add --config.data.corpus=pydoc. The steps, scores and curve of the packaged model
are in prunejax/models/nano/.
"""

from configs import base


def get_config(arg=''):
  if arg not in ('', 'anneal'):
    raise ValueError(f'configs/nano.py:{arg}: expected no argument, or "anneal"')
  c = base.get_config()
  c.model.update(
    hidden_size=128,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=512,
    max_position_embeddings=64,
    dropout=0.0,
    initializer='fan_in',
  )
  # Forty per cent of the tokens are predicted: a small model learns more from each step.
  c.data.update(
    corpus='wikipedia+pydoc*3',
    vocab_size=1024,
    seq_len=32,
    predict=0.4,
    max_predictions=12,
    pairs='first',
  )
  c.optimizer.update(learning_rate=1e-3, warmup=0.01, b2=0.98)
  c.update(steps=30_000, batch_size=64)
  c.eval.update(every=2000, batches=40, batch_size=128)
  c.checkpoint.every = 1000
  c.log.every = 200
  if arg == 'anneal':
    c.data.update(seq_len=64, max_predictions=24)
    c.optimizer.update(learning_rate=5e-4, warmup=0.02)
    c.update(steps=4_000, batch_size=32)
  return c
