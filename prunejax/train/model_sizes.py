"""Names of the model families and of the sizes of a fresh model, which need no model to be loaded.

A config is refused by them before Flax and transformers are imported.
"""

GROUPED = ('llama', 'mistral', 'qwen2', 'qwen3')  # several queries may share a key
KINDS = ('bert', 'gpt2', *GROUPED, 'opt', 'roberta', 'modernbert', 'xlnet')
REMAT = ('none', 'dots', 'full')  # the keys of layer_stack.REMAT
RULES = ('fsdp', 'tensor', 'fsdp+tensor')  # names of sets of rules for a mesh, see sharding.py
ATTENTION = ('einsum', 'dot_product')  # attention.KINDS
SIZE_KEYS = (
  'hidden_size',
  'num_hidden_layers',
  'num_attention_heads',
  'intermediate_size',
  'max_position_embeddings',
)
