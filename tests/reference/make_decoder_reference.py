"""Makes tests/reference/decoders with PyTorch, from random weights: every kind and every switch.

  pip install torch transformers safetensors numpy tokenizers
  python tests/reference/make_decoder_reference.py

For each case it writes a folder with the model as PyTorch saves it and `logits.npz` with inputs and
float32 outputs. The tests need neither PyTorch nor this script.
"""

import json
import pathlib
import shutil

import numpy as np
import torch
import transformers

HERE = pathlib.Path(__file__).parent / 'decoders'
LENGTH, BATCH = 10, 3
# All widths differ, so that a transposed kernel does not fit.
LLAMA = {
  'vocab_size': 40,
  'hidden_size': 24,
  'intermediate_size': 28,
  'num_hidden_layers': 2,
  'num_attention_heads': 6,
  'num_key_value_heads': 2,
  'max_position_embeddings': 32,
  'pad_token_id': 39,
  'rope_parameters': {'rope_type': 'default', 'rope_theta': 100.0},
}
OPT = {
  'vocab_size': 40,
  'hidden_size': 24,
  'ffn_dim': 28,
  'num_hidden_layers': 2,
  'num_attention_heads': 3,
  'max_position_embeddings': 32,
  'word_embed_proj_dim': 24,
  'pad_token_id': 39,
}
SCALED = {
  'rope_type': 'llama3',
  'rope_theta': 100.0,
  'factor': 4.0,
  'low_freq_factor': 1.0,
  'high_freq_factor': 4.0,
  'original_max_position_embeddings': 16,
}
# {case: (class of the config, class of the model, differences)}
CASES = {
  'llama': ('Llama', 'LlamaForCausalLM', {**LLAMA}),
  'llama-tied': ('Llama', 'LlamaForCausalLM', {**LLAMA, 'tie_word_embeddings': True}),
  'llama-biases': (
    'Llama',
    'LlamaForCausalLM',
    {**LLAMA, 'attention_bias': True, 'mlp_bias': True},
  ),
  'llama-head-dim': ('Llama', 'LlamaForCausalLM', {**LLAMA, 'head_dim': 10}),
  'llama-one-group': ('Llama', 'LlamaForCausalLM', {**LLAMA, 'num_key_value_heads': 1}),
  'llama-ungrouped': ('Llama', 'LlamaForCausalLM', {**LLAMA, 'num_key_value_heads': 6}),
  'llama-rope-llama3': (
    'Llama',
    'LlamaForCausalLM',
    {**LLAMA, 'head_dim': 16, 'rope_parameters': SCALED},
  ),
  'llama-classifier': ('Llama', 'LlamaForSequenceClassification', {**LLAMA, 'num_labels': 3}),
  'mistral': ('Mistral', 'MistralForCausalLM', {**LLAMA, 'sliding_window': 4}),
  'mistral-whole': ('Mistral', 'MistralForCausalLM', {**LLAMA, 'sliding_window': None}),
  'qwen2': ('Qwen2', 'Qwen2ForCausalLM', {**LLAMA, 'tie_word_embeddings': True}),
  'qwen2-windows': (
    'Qwen2',
    'Qwen2ForCausalLM',
    {**LLAMA, 'use_sliding_window': True, 'sliding_window': 4, 'max_window_layers': 1},
  ),
  'qwen3': ('Qwen3', 'Qwen3ForCausalLM', {**LLAMA, 'head_dim': 10, 'tie_word_embeddings': True}),
  'qwen3-biases': ('Qwen3', 'Qwen3ForCausalLM', {**LLAMA, 'head_dim': 10, 'attention_bias': True}),
  'opt': ('OPT', 'OPTForCausalLM', {**OPT}),
  'opt-no-biases': ('OPT', 'OPTForCausalLM', {**OPT, 'enable_bias': False}),
  'opt-post-norm-projected': (
    'OPT',
    'OPTForCausalLM',
    {**OPT, 'do_layer_norm_before': False, 'word_embed_proj_dim': 16},
  ),
  'opt-classifier': ('OPT', 'OPTForSequenceClassification', {**OPT, 'num_labels': 3}),
}
HALF = 'llama-tied'  # is stored in bfloat16
SHARDED = 'llama'  # is stored in several files


def randomise(model, generator):
  """Draws large weights: with a deviation of 0.02, a wrong model would look right."""
  with torch.no_grad():
    for name, weight in model.named_parameters():
      centre = 1.0 if 'norm' in name and name.endswith('weight') else 0.0
      weight.copy_(centre + 0.25 * torch.randn(weight.shape, generator=generator))


def inputs(generator):
  """Draws full and padded rows. No text holds the id of padding."""
  ids = torch.randint(0, LLAMA['pad_token_id'], (BATCH, LENGTH), generator=generator)
  valid = torch.arange(LENGTH)[None] < torch.tensor([LENGTH, 6, 1])[:, None]
  return torch.where(valid, ids, LLAMA['pad_token_id']), valid


def main():
  shutil.rmtree(HERE, ignore_errors=True)
  for number, (case, (config, model, fields)) in enumerate(CASES.items()):
    generator = torch.Generator().manual_seed(20231000 + number)
    size = getattr(transformers, f'{config}Config')(**fields, attn_implementation='eager')
    model = getattr(transformers, model)(size).eval()
    randomise(model, generator)
    if case == HALF:  # weights alone: the frequencies of the rotation stay float32
      with torch.no_grad():
        for weight in model.parameters():
          weight.copy_(weight.bfloat16())
    ids, valid = inputs(generator)
    batch = {'input_ids': ids, 'attention_mask': valid.long()}
    with torch.no_grad():
      out = model(**batch, output_hidden_states=True)
    # Inputs of the layers; the last hidden state has gone through the last norm.
    hidden = torch.stack(out.hidden_states[: size.num_hidden_layers])
    stored = {'input_ids': ids.int(), 'valid': valid, 'hidden': hidden, 'logits': out.logits}
    if case == HALF:
      model = model.bfloat16()
    folder = HERE / case
    model.save_pretrained(folder, max_shard_size='10KB' if case == SHARDED else '5GB')
    (folder / 'generation_config.json').unlink(missing_ok=True)
    np.savez_compressed(folder / 'logits.npz', **{k: v.numpy() for k, v in stored.items()})
    print(f'{case}: {tuple(out.logits.shape)}, largest {out.logits.abs().max():.3f}')
  counts = {'torch': torch.__version__, 'transformers': transformers.__version__}
  (HERE / 'counts.json').write_text(json.dumps(counts, indent=2) + '\n')


if __name__ == '__main__':
  main()
