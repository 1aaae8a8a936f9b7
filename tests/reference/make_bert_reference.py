"""Makes the reference files of tests/models/test_bert.py with PyTorch, from random weights.

  pip install torch==2.13.0 transformers safetensors numpy
  python tests/reference/make_bert_reference.py

Writes these beside itself; the tests need neither PyTorch nor this script:
  bert/                 BertForPreTraining
  bert/classification/  BertForSequenceClassification with the same encoder
  bert/logits.npz       inputs and float32 outputs, without dropout
"""

import json
import pathlib

import numpy as np
import torch
import transformers

HERE = pathlib.Path(__file__).parent / 'bert'
LENGTH, BATCH, PREDICTIONS = 12, 5, 4
# All widths differ, so that a transposed kernel does not fit.
SIZE = {
  'vocab_size': 61,
  'hidden_size': 24,
  'num_hidden_layers': 3,
  'num_attention_heads': 3,
  'intermediate_size': 40,
  'max_position_embeddings': 18,
  'hidden_act': 'gelu',
}


def randomise(model, generator):
  """Draws large weights: with BERT's own deviation of 0.02, a wrong model would look right."""
  with torch.no_grad():
    for name, weight in model.named_parameters():
      centre = 1.0 if name.endswith('LayerNorm.weight') else 0.0
      weight.copy_(centre + 0.25 * torch.randn(weight.shape, generator=generator))


def inputs(generator):
  """Draws rows that are full or padded, of one or two segments, one of three tokens."""
  ids = torch.randint(5, SIZE['vocab_size'], (BATCH, LENGTH), generator=generator)
  lengths = torch.tensor([LENGTH, 7, LENGTH, 9, 3])
  second = torch.tensor([5, 4, LENGTH, 2, 3])  # where segment 1 begins
  at = torch.arange(LENGTH)[None]
  valid = at < lengths[:, None]
  ids[:, 0] = 2
  ids = torch.where(valid, ids, 0)
  segments = ((at >= second[:, None]) & valid).long()
  picked = torch.stack([torch.randint(0, n, (PREDICTIONS,), generator=generator) for n in lengths])
  return ids, segments, valid, picked


def main():
  generator = torch.Generator().manual_seed(20200219)
  size = transformers.BertConfig(**SIZE, attn_implementation='eager')
  model = transformers.BertForPreTraining(size).eval()
  randomise(model, generator)
  classes = transformers.BertConfig(**SIZE, num_labels=3, attn_implementation='eager')
  classifier = transformers.BertForSequenceClassification(classes).eval()
  randomise(classifier, generator)
  classifier.bert.load_state_dict(model.bert.state_dict())

  ids, segments, valid, picked = inputs(generator)
  batch = {'input_ids': ids, 'token_type_ids': segments, 'attention_mask': valid.long()}
  with torch.no_grad():
    encoded = model.bert(**batch)
    heads = model(**batch)
    classified = classifier(**batch)
  gather = picked[..., None].expand(-1, -1, SIZE['vocab_size'])
  outputs = {
    'sequence': encoded.last_hidden_state,
    'pooled': encoded.pooler_output,
    'mlm': heads.prediction_logits,
    'mlm_picked': heads.prediction_logits.gather(1, gather),
    'nsp': heads.seq_relationship_logits,
    'classifier': classified.logits,
  }

  with torch.device('meta'):
    base = transformers.BertForPreTraining(transformers.BertConfig())
  counts = {
    'BertForPreTraining at BERT-Base': sum(p.numel() for p in base.parameters()),
    'BertModel at BERT-Base': sum(p.numel() for p in base.bert.parameters()),
    'torch': torch.__version__,
    'transformers': transformers.__version__,
  }

  model.save_pretrained(HERE)
  classifier.save_pretrained(HERE / 'classification')
  pieces = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]']
  pieces += [f'piece{i}' for i in range(SIZE['vocab_size'] - len(pieces))]
  (HERE / 'vocab.txt').write_text('\n'.join(pieces) + '\n', encoding='utf-8')
  (HERE / 'counts.json').write_text(json.dumps(counts, indent=2) + '\n')
  stored = {
    'input_ids': ids.int(),
    'segment_ids': segments.int(),
    'valid': valid,
    'positions': picked.int(),
    **outputs,
  }
  np.savez_compressed(HERE / 'logits.npz', **{k: v.numpy() for k, v in stored.items()})
  for name, value in outputs.items():
    print(f'{name}: {tuple(value.shape)}, largest {value.abs().max():.3f}')
  print(counts)


if __name__ == '__main__':
  main()
