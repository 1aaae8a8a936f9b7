"""Translate with a trained model, greedily, and judge the translation by BLEU."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import sacrebleu
from tokenizers import Tokenizer

from experiments.translation import corpus
from experiments.translation.task import Task


@functools.partial(jax.jit, static_argnums=(0, 3))
def greedy(model: nn.Module, params: dict, source: jax.Array, length: int) -> jax.Array:
  """Take the most probable next word again and again.

  Args:
    model, params: see experiments/translation/training.py.
    source: int32 [batch, s].
    length: words to decode.

  Returns:
    Ids int32 [batch, length]; after </s> only <pad>.
  """
  apply = functools.partial(model.apply, {'params': params})
  memory, state = apply(source, method='encode')
  state = apply(memory, state, length, method='start')

  def step(carry, position):
    state, word, ended = carry
    state, scores = apply(state, word, position, memory, method='step')
    best = jnp.argmax(scores.at[:, : corpus.EOS].set(-jnp.inf), -1)
    word = jnp.where(ended, corpus.PAD, best)
    return (state, word, ended | (word == corpus.EOS)), word

  start = jnp.full(len(source), corpus.BOS), jnp.zeros(len(source), bool)
  _, words = jax.lax.scan(step, (state, *start), jnp.arange(length))
  return words.T


def translate(
  model: nn.Module,
  params: dict,
  tokenizer: Tokenizer,
  source: list[str],
  *,
  width: int,
  length: int,
  batch: int = 250,
) -> list[str]:
  """Translate each line greedily, in batches of one shape.

  Args:
    model, params: see `greedy`.
    tokenizer: of both languages.
    source: lines of words.
    width: pieces of a source line, </s> included; the rest of the line is cut off.
    length: most pieces of a translation.
    batch: lines in a batch.
  """
  ids = corpus.encode(tokenizer, source)
  rows = corpus.pad([line[: width - 1] + [corpus.EOS] for line in ids], width)
  translations = []
  for start in range(0, len(rows), batch):
    part = rows[start : start + batch]
    full = np.concatenate([part, np.zeros((batch - len(part), width), np.int32)])
    decoded = corpus.decode(tokenizer, greedy(model, params, full, length))
    translations += decoded[: len(part)]
  return translations


def bleu(hypotheses: list[str], references: list[str]) -> float:
  """Compute corpus BLEU, 0 to 100, on tokenised text (sacrebleu, tokenize='none')."""
  return sacrebleu.corpus_bleu(hypotheses, [list(references)], tokenize='none', force=True).score


def score(model: nn.Module, params: dict, task: Task) -> dict:
  """Translate the task's test sentences: {'bleu': 0 to 100, 'sentences': how many}."""
  width, length = task.bounds[-1]
  translations = translate(
    model, params, task.tokenizer, task.test.source, width=width, length=length
  )
  return {'bleu': bleu(translations, task.test.target), 'sentences': len(translations)}
