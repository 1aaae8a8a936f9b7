"""Makes the reference files of tests/models/test_gpt2.py with PyTorch, from random weights.

  pip install torch==2.13.0 transformers safetensors numpy tokenizers
  python tests/reference/make_gpt2_reference.py

Writes these beside itself; the tests need neither PyTorch nor this script:
  gpt2/                 GPT2LMHeadModel and a byte-level vocabulary trained on a few lines
  gpt2/classification/  GPT2ForSequenceClassification with the same decoder
  gpt2/tokens.json      some texts and the ids that PyTorch's tokenizer gives them
  gpt2/logits.npz       inputs and float32 outputs, without dropout
"""

import json
import pathlib

import numpy as np
import tokenizers
import torch
import transformers

HERE = pathlib.Path(__file__).parent / 'gpt2'
LENGTH, BATCH = 12, 5
# All widths differ, so that a transposed kernel does not fit.
SIZE = {
  'vocab_size': 281,
  'n_embd': 24,
  'n_layer': 3,
  'n_head': 3,
  'n_inner': 40,
  'n_positions': 18,
  'bos_token_id': 280,
  'eos_token_id': 280,
  'pad_token_id': 280,
}
LINES = [
  'the cat sat on the mat',
  'the hat that the cat had',
  'a mat and a hat, and 12 cats',
  'that is that.',
] * 5
TEXTS = [
  'the cat',
  ' the hat  that\n sat',
  "it's 12 o'clock, naïve 猫",
  '',
  'a<|endoftext|>the mat',
]


def randomise(model, generator):
  """Draws large weights: with GPT-2's own deviation of 0.02, a wrong model would look right."""
  with torch.no_grad():
    for name, weight in model.named_parameters():
      centre = 1.0 if '.ln_' in name and name.endswith('weight') else 0.0
      weight.copy_(centre + 0.25 * torch.randn(weight.shape, generator=generator))


def inputs(generator):
  """Draws full and padded rows, one of a single token. No text holds the id of padding."""
  ids = torch.randint(0, SIZE['vocab_size'] - 1, (BATCH, LENGTH), generator=generator)
  lengths = torch.tensor([LENGTH, 7, LENGTH, 9, 1])
  valid = torch.arange(LENGTH)[None] < lengths[:, None]
  return torch.where(valid, ids, SIZE['pad_token_id']), valid


def vocabulary():
  """Writes vocab.json, merges.txt and tokens.json."""
  model = tokenizers.ByteLevelBPETokenizer()
  model.train_from_iterator(LINES, SIZE['vocab_size'], 2, False, ['<|endoftext|>'])
  ids, merges = model.get_vocab(), json.loads(model.to_str())['model']['merges']
  # The special token comes last, as in the published vocabulary.
  pieces = sorted((p for p in ids if p != '<|endoftext|>'), key=ids.get) + ['<|endoftext|>']
  assert len(pieces) == SIZE['vocab_size'], len(pieces)
  (HERE / 'vocab.json').write_text(
    json.dumps({p: i for i, p in enumerate(pieces)}, ensure_ascii=False) + '\n'
  )
  (HERE / 'merges.txt').write_text('#version: 0.2\n' + ''.join(f'{a} {b}\n' for a, b in merges))
  theirs = transformers.GPT2TokenizerFast.from_pretrained(HERE)
  (HERE / 'tokens.json').write_text(json.dumps([[t, theirs(t)['input_ids']] for t in TEXTS]) + '\n')


def main():
  generator = torch.Generator().manual_seed(20190214)
  size = transformers.GPT2Config(**SIZE, attn_implementation='eager')
  model = transformers.GPT2LMHeadModel(size).eval()
  randomise(model, generator)
  classes = transformers.GPT2Config(**SIZE, num_labels=3, attn_implementation='eager')
  classifier = transformers.GPT2ForSequenceClassification(classes).eval()
  randomise(classifier, generator)
  classifier.transformer.load_state_dict(model.transformer.state_dict())

  ids, valid = inputs(generator)
  batch = {'input_ids': ids, 'attention_mask': valid.long()}
  with torch.no_grad():
    decoded = model.transformer(**batch, output_hidden_states=True)
    logits = model(**batch).logits
    classified = classifier(**batch).logits
  outputs = {
    'sequence': decoded.last_hidden_state,
    'hidden': torch.stack(decoded.hidden_states[:-1]),  # the last one is `sequence`
    'lm': logits,
    'classifier': classified,
  }

  with torch.device('meta'):
    base = transformers.GPT2LMHeadModel(transformers.GPT2Config())
  counts = {
    'GPT2LMHeadModel at 124M': sum(p.numel() for p in base.parameters()),
    'torch': torch.__version__,
    'transformers': transformers.__version__,
  }

  model.save_pretrained(HERE)
  classifier.save_pretrained(HERE / 'classification')
  vocabulary()
  (HERE / 'generation_config.json').unlink(missing_ok=True)
  (HERE / 'counts.json').write_text(json.dumps(counts, indent=2) + '\n')
  stored = {'input_ids': ids.int(), 'valid': valid, **outputs}
  np.savez_compressed(HERE / 'logits.npz', **{k: v.numpy() for k, v in stored.items()})
  for name, value in outputs.items():
    print(f'{name}: {tuple(value.shape)}, largest {value.abs().max():.3f}')
  print(counts)


if __name__ == '__main__':
  main()
