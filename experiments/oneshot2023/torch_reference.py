"""SparseGPT and the perplexity of SmolLM2 in plain PyTorch, to compare seconds, memory and numbers.

It is written as such programs usually are: transformers' own model, hooks on the linear layers of a
block, a loop over columns. It imports nothing of prunejax, and runs in an environment with torch,
transformers and gguf.

  python experiments/oneshot2023/torch_reference.py MODEL.gguf TOKENS.npz --part=prune
  python experiments/oneshot2023/torch_reference.py MODEL.gguf TOKENS.npz --part=evaluate

TOKENS.npz holds 'segments' int [count, length] and 'windows' int [count, 2048], as
`side_by_side.py` writes them. The last line of the output is JSON.
"""

import argparse
import json
import math
import pathlib
import re
import time

import numpy as np
import torch
import transformers


def load(path: str):
  """The model in float32."""
  path = pathlib.Path(path)
  model = transformers.AutoModelForCausalLM.from_pretrained(
    path.parent, gguf_file=path.name, dtype=torch.float32
  )
  return model.eval()


@torch.no_grad()
def embedded(model, segments: torch.Tensor):
  """The hidden states in front of the first block, and what else a block is called with."""
  states, arguments = [], {}

  class Stop(Exception):
    pass

  def catch(module, args, kwargs):
    states.append(args[0] if args else kwargs.pop('hidden_states'))
    arguments.update(kwargs)
    raise Stop

  handle = model.model.layers[0].register_forward_pre_hook(catch, with_kwargs=True)
  for segment in segments:
    try:
      model(segment[None], use_cache=False)
    except Stop:
      pass
  handle.remove()
  return states, arguments


@torch.no_grad()
def sparsegpt(weight, hessian, sparsity: float, n: int = 0, m: int = 0, block: int = 128):
  """The sweep over the columns of a weight [out, in], which is changed in place."""
  columns = weight.shape[1]
  dead = torch.diag(hessian) == 0
  hessian[dead, dead] = 1
  weight[:, dead] = 0
  hessian += 0.01 * torch.mean(torch.diag(hessian)) * torch.eye(columns)
  inverse = torch.cholesky_inverse(torch.linalg.cholesky(hessian))
  upper = torch.linalg.cholesky(inverse, upper=True)
  for start in range(0, columns, block):
    stop = min(start + block, columns)
    part, errors = weight[:, start:stop].clone(), torch.zeros(len(weight), stop - start)
    swept, corner = torch.zeros_like(part), upper[start:stop, start:stop]
    if not m:
      scores = part**2 / torch.diag(corner) ** 2
      removed = round(scores.numel() * sparsity)
      mask = scores <= torch.sort(scores.flatten())[0][removed - 1]
    else:
      mask = torch.zeros_like(part, dtype=torch.bool)
    for i in range(stop - start):
      if m and i % m == 0:
        scores = part[:, i : i + m] ** 2 / torch.diag(corner)[i : i + m] ** 2
        mask.scatter_(1, i + torch.topk(scores, m - n, largest=False)[1], True)
      column = torch.where(mask[:, i], 0, part[:, i])
      swept[:, i] = column
      error = (part[:, i] - column) / corner[i, i]
      part[:, i:] -= torch.outer(error, corner[i, i:])
      errors[:, i] = error
    weight[:, start:stop] = swept
    weight[:, stop:] -= errors @ upper[start:stop, stop:]


@torch.no_grad()
def prune(model, segments: torch.Tensor, sparsity: float):
  """Prunes block by block, each calibrated on what the pruned blocks before it put out."""
  states, arguments = embedded(model, segments)
  for number, layer in enumerate(model.model.layers):
    linear = {k: v for k, v in layer.named_modules() if isinstance(v, torch.nn.Linear)}
    hessians = {k: torch.zeros(v.in_features, v.in_features) for k, v in linear.items()}

    def record(name, hessians=hessians):
      def hook(module, args, out):
        rows = args[0].reshape(-1, args[0].shape[-1])
        hessians[name] += rows.T @ rows

      return hook

    handles = [v.register_forward_hook(record(k)) for k, v in linear.items()]
    for state in states:
      _call(layer, state, arguments)
    for handle in handles:
      handle.remove()
    for name, module in linear.items():
      sparsegpt(module.weight.data, hessians[name], sparsity)
    states = [_call(layer, state, arguments) for state in states]
    print(f'block {number + 1}/{len(model.model.layers)}', flush=True)


def _call(layer, state, arguments):
  out = layer(state, **arguments)
  return out[0] if isinstance(out, tuple) else out


@torch.no_grad()
def perplexity(model, windows: torch.Tensor) -> tuple[float, list[float]]:
  """The exponential of the mean cross-entropy of the windows, and the seconds of each."""
  losses, seconds = [], []
  for window in windows:
    start = time.perf_counter()
    logits = model(window[None], use_cache=False).logits[0, :-1]
    losses.append(torch.nn.functional.cross_entropy(logits, window[1:]).item())
    seconds.append(time.perf_counter() - start)
  return math.exp(sum(losses) / len(losses)), seconds


def main():
  """Runs one part and prints what it took."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('model')
  parser.add_argument('tokens')
  parser.add_argument('--part', choices=('prune', 'evaluate', 'both'), default='both')
  parser.add_argument('--sparsity', type=float, default=0.5)
  parser.add_argument('--threads', type=int, default=0)
  args = parser.parse_args()
  if args.threads:
    torch.set_num_threads(args.threads)
  tokens = {k: torch.from_numpy(v.astype(np.int64)) for k, v in np.load(args.tokens).items()}
  model, out = load(args.model), {}
  if args.part in ('prune', 'both'):
    start = time.perf_counter()
    prune(model, tokens['segments'], args.sparsity)
    out['prune_seconds'] = time.perf_counter() - start
    kernels = [m.weight for m in model.model.layers.modules() if isinstance(m, torch.nn.Linear)]
    zeros, weights = (sum(int(f(w)) for w in kernels) for f in (lambda w: (w == 0).sum(), len_of))
    out['sparsity'] = zeros / weights
  if args.part in ('evaluate', 'both'):
    start = time.perf_counter()
    out['perplexity'], seconds = perplexity(model, tokens['windows'])
    out['evaluate_seconds'] = time.perf_counter() - start
    out['window_seconds'] = float(np.median(seconds[1:]))
    out['tokens_per_second'] = tokens['windows'].numel() / out['evaluate_seconds']
  out['peak_gib'] = peak_gib()
  print(json.dumps(out))


def peak_gib() -> float:
  """The most memory that this program has held. `ru_maxrss` would count what its parent held."""
  status = pathlib.Path('/proc/self/status').read_text()
  return int(re.search(r'VmHWM:\s*(\d+) kB', status)[1]) / 2**20


def len_of(weight) -> int:
  """The number of weights."""
  return weight.numel()


if __name__ == '__main__':
  main()
