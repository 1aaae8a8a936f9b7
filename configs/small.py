r"""A small BERT (4 layers, width 256) with the published vocabulary, for `mini` on a GPU.

  python -m prunejax train --config=configs/small.py --workdir=runs/small \
      --config.data.root=FOLDER --config.data.vocab=FOLDER/bert-base-uncased/vocab.txt
  python -m prunejax reproduce gordon2020 --preset=mini --config.init=runs/small/model \
      --config.data.root=FOLDER

FOLDER holds `wikipedia/` (WikiExtractor shards) and `books/` (novels as plain text), packed or not.
The model has 11,169,596 parameters with its heads. 120,000 steps of 128 sequences of 64 tokens are
983 million tokens. On a CPU that is out of reach: twelve of its steps took a minute of CPU time
where `mini` was run, so all of them would take a week.
"""

from configs import base


def get_config(arg=''):
  if arg:
    raise ValueError(f'configs/small.py:{arg}: expected no argument')
  c = base.get_config()
  c.model.update(
    hidden_size=256,
    num_hidden_layers=4,
    num_attention_heads=4,
    intermediate_size=1024,
    max_position_embeddings=128,
    dropout=0.0,
    initializer='fan_in',
  )
  c.data.update(corpus='wikipedia+books', seq_len=64, predict=0.15, max_predictions=10)
  c.optimizer.update(learning_rate=1e-3, warmup=0.02, b2=0.98)
  c.update(steps=120_000, batch_size=128)
  c.eval.update(every=5000, batches=40, batch_size=128)
  c.checkpoint.every = 2500
  c.log.every = 500
  return c
