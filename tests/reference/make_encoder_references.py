"""Makes the reference files of tests/models/test_encoders.py with PyTorch, from random weights.

  pip install torch==2.13.0 transformers safetensors numpy tokenizers
  python tests/reference/make_encoder_references.py

Writes roberta/, modernbert/ and xlnet/ beside itself; the tests need neither PyTorch nor this
script. Each holds the folder of a model for pre-training, `classification/` with the same encoder,
and logits.npz: inputs and float32 outputs, without dropout.
"""

import pathlib

import numpy as np
import torch
import transformers

HERE = pathlib.Path(__file__).parent
LENGTH, BATCH, PREDICTIONS, MEMORY = 12, 4, 3, 5
# All widths differ, so that a transposed kernel does not fit.
ROBERTA = {
  'vocab_size': 61,
  'hidden_size': 24,
  'num_hidden_layers': 2,
  'num_attention_heads': 3,
  'intermediate_size': 40,
  'max_position_embeddings': 18,
  'type_vocab_size': 1,
  'layer_norm_eps': 1e-5,
  'pad_token_id': 1,
}
MODERN = {
  'vocab_size': 61,
  'hidden_size': 24,
  'num_hidden_layers': 4,
  'num_attention_heads': 3,
  'intermediate_size': 40,
  'max_position_embeddings': 18,
  'local_attention': 4,
  **{f'{name}_token_id': i for i, name in enumerate(('bos', 'pad', 'eos', 'cls', 'sep'))},
}
XLNET = {
  'vocab_size': 61,
  'd_model': 24,
  'n_layer': 2,
  'n_head': 3,
  'd_inner': 40,
  'mem_len': MEMORY,
}


def randomise(model, generator):
  """Draws large weights: with the usual deviation of 0.02, a wrong model would look right."""
  with torch.no_grad():
    for name, weight in model.named_parameters():
      centre = 1.0 if 'norm' in name.lower() and name.endswith('weight') else 0.0
      weight.copy_(centre + 0.25 * torch.randn(weight.shape, generator=generator))


def pair(generator, size, masked, classified, body):
  """Two models with the same encoder."""
  model = masked(size).eval()
  randomise(model, generator)
  classes = type(size)(**{**size.to_diff_dict(), 'num_labels': 3})
  classes._attn_implementation = 'eager'
  classifier = classified(classes).eval()
  randomise(classifier, generator)
  getattr(classifier, body).load_state_dict(getattr(model, body).state_dict(), strict=False)
  return model, classifier


def write(name, model, classifier, arrays):
  """Writes the folder of one family."""
  folder = HERE / name
  model.save_pretrained(folder)
  classifier.save_pretrained(folder / 'classification')
  for extra in folder.rglob('generation_config.json'):
    extra.unlink()
  plain = {
    k: v.detach().numpy() if isinstance(v, torch.Tensor) else np.asarray(v)
    for k, v in arrays.items()
  }
  np.savez_compressed(folder / 'logits.npz', **plain)
  print(name, {k: v.shape for k, v in plain.items()})


def encoder(name, size, masked, classified, body, pad):
  """RoBERTa or ModernBERT: rows padded on the right."""
  generator = torch.Generator().manual_seed(20190726)
  size._attn_implementation = 'eager'
  model, classifier = pair(generator, size, masked, classified, body)
  ids = torch.randint(5, size.vocab_size, (BATCH, LENGTH), generator=generator)
  valid = torch.arange(LENGTH)[None] < torch.tensor([LENGTH, 7, 1, 10])[:, None]
  ids = torch.where(valid, ids, pad)
  batch = {'input_ids': ids, 'attention_mask': valid.long()}
  with torch.no_grad():
    sequence = getattr(model, body)(**batch).last_hidden_state
    arrays = {
      'input_ids': ids.int(),
      'valid': valid,
      'sequence': sequence,
      'mlm': model(**batch).logits,
      'classifier': classifier(**batch).logits,
    }
  write(name, model, classifier, arrays)


def xlnet():
  """XLNet: rows padded on the left; two streams with an order, and memories."""
  generator = torch.Generator().manual_seed(20190619)
  size = transformers.XLNetConfig(**XLNET)
  model, classifier = pair(
    generator,
    size,
    transformers.XLNetLMHeadModel,
    transformers.XLNetForSequenceClassification,
    'transformer',
  )
  ids = torch.randint(8, size.vocab_size, (BATCH, LENGTH), generator=generator)
  lengths = torch.tensor([LENGTH, 7, 3, 10])
  valid = torch.arange(LENGTH)[None] >= LENGTH - lengths[:, None]
  ids = torch.where(valid, ids, 5)
  segments = torch.where(valid, (torch.arange(LENGTH) >= 6).long()[None], 3)
  segments[:, -1] = 2
  order = torch.stack([torch.randperm(LENGTH, generator=generator) for _ in range(BATCH)])
  permuted = (order[:, :, None] <= order[:, None, :]).float()
  positions = torch.stack([torch.tensor([9, 10, 11])] * BATCH)
  mapping = torch.nn.functional.one_hot(positions, LENGTH).float()
  batch = {'input_ids': ids, 'attention_mask': valid.float(), 'token_type_ids': segments}
  before = torch.randint(8, size.vocab_size, (BATCH, MEMORY), generator=generator)
  with torch.no_grad():
    plain = model.transformer(**batch, use_mems=False)
    given = {**batch, 'perm_mask': permuted, 'target_mapping': mapping}
    two = model(**given, use_mems=False)
    content = model.transformer(**given, use_mems=False, output_hidden_states=True)
    memories = model.transformer(
      input_ids=before, token_type_ids=torch.zeros_like(before), use_mems=True
    ).mems
    remembered = model(**given, mems=memories, use_mems=True)
    arrays = {
      'input_ids': ids.int(),
      'valid': valid,
      'segment_ids': segments.int(),
      'permuted': permuted.bool(),
      'positions': positions.int(),
      'memory_ids': before.int(),
      'sequence': plain.last_hidden_state,
      'lm': model(**batch, use_mems=False).logits,
      'query': content.last_hidden_state,
      'two_streams': two.logits,
      'memories': torch.stack(memories).transpose(1, 2),
      'remembered': remembered.logits,
      'classifier': classifier(**batch, use_mems=False).logits,
    }
  write('xlnet', model, classifier, arrays)


def main():
  encoder(
    'roberta',
    transformers.RobertaConfig(**ROBERTA),
    transformers.RobertaForMaskedLM,
    transformers.RobertaForSequenceClassification,
    'roberta',
    ROBERTA['pad_token_id'],
  )
  encoder(
    'modernbert',
    transformers.ModernBertConfig(**MODERN),
    transformers.ModernBertForMaskedLM,
    transformers.ModernBertForSequenceClassification,
    'model',
    MODERN['pad_token_id'],
  )
  xlnet()
  spans()


def spans():
  """BERT with a span head, on the encoder of bert/."""
  generator = torch.Generator().manual_seed(20160616)
  size = transformers.BertConfig.from_pretrained(HERE / 'bert', attn_implementation='eager')
  model = transformers.BertForQuestionAnswering(size).eval()
  randomise(model, generator)
  ids = torch.randint(5, size.vocab_size, (BATCH, LENGTH), generator=generator)
  valid = torch.arange(LENGTH)[None] < torch.tensor([LENGTH, 7, 1, 10])[:, None]
  segments = (torch.arange(LENGTH) >= 4).long()[None] * valid.long()
  batch = {'input_ids': ids, 'attention_mask': valid.long(), 'token_type_ids': segments}
  with torch.no_grad():
    out = model(**batch)
  folder = HERE / 'bert' / 'spans'
  model.save_pretrained(folder)
  arrays = {'input_ids': ids.int(), 'valid': valid, 'segment_ids': segments.int()}
  arrays |= {'start': out.start_logits, 'end': out.end_logits}
  np.savez_compressed(folder / 'logits.npz', **{k: v.numpy() for k, v in arrays.items()})


if __name__ == '__main__':
  main()
