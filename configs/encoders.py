r"""Encoders after BERT: RoBERTa and ModernBERT, pre-trained from nothing or continued.

  python -m prunejax train --config=configs/encoders.py:roberta --workdir=runs/roberta
  python -m prunejax train --config=configs/encoders.py:modernbert --workdir=runs/modernbert
  python -m prunejax train --config=configs/encoders.py:roberta --workdir=runs/roberta-p50 \
      --config.init=FOLDER --config.data.corpus=wikipedia --config.data.root=ROOT \
      --config.prune.weights.schedule='cubic(0.5, end=2000)'

A fresh model is as large as the packaged BERT, with a byte-level vocabulary of 1,024 pieces, on the
embedded corpus. FOLDER is a Hugging Face folder of the same family. For a task add
--config.data.task=glue/sst2 and the like. `prune.weights.where` names the matrices of each family.
"""

from configs import base
from prunejax.models import modernbert, roberta

FAMILIES = {'roberta': roberta, 'modernbert': modernbert}


def get_config(arg='roberta'):
  arg = arg or 'roberta'
  if arg not in FAMILIES:
    raise ValueError(f'configs/encoders.py:{arg}: expected one of {", ".join(FAMILIES)}')
  c = base.get_config()
  c.model.update(
    kind=arg,
    hidden_size=128,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=512 if arg == 'roberta' else 320,  # of three matrices instead of two
    max_position_embeddings=66,
    dropout=0.0,
    initializer='fan_in',
  )
  c.prune.weights.where = FAMILIES[arg].PRUNABLE
  c.data.update(vocab_size=1024, seq_len=32, predict=0.4, max_predictions=12)
  c.optimizer.update(learning_rate=1e-3, warmup=0.02, b2=0.98)
  c.update(steps=4000, batch_size=64)
  c.eval.update(every=1000, batches=16, batch_size=128)
  c.checkpoint.every = 500
  return c
