"""Presets: the grid of Gordon, Duh & Andrews 2020 at several sizes."""

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from ml_collections import config_dict

from configs import finetune, gpt2, minilm, pretrain
from configs import xlnet as xlnet_configs

TENTHS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


class Preset(NamedTuple):
  """One size of the grid.

  pretrain, tune: configs of a pre-training and of a fine-tuning run; a cell overrides what sets it
    apart.
  sparsities: of the pruned arms; the dense arm has 0.
  ramp: steps over which the sparsity rises, `cubic(s, end=ramp)`.
  tasks: {task: fine-tuning steps}.
  deleted, after: fine-tuning steps of these arms as a multiple of those of the task: a number, or
    {lowest sparsity: number}.
  before: the same multiple for the dense model that 'after' prunes. With 1 and no `burn_in` that is
    the model of the arm 'dense'.
  rates: learning rates of fine-tuning; the best on the dev set counts, as in the paper.
  rates_of: {task: learning rates} of the tasks that have others.
  burn_in: steps of dense pre-training before the arms 'random' and 'after'. With 0 these arms start
    where 'pruned' starts.
  fresh: whether to fine-tune a model that was never pre-trained.
  cost: what the preset takes, in words.
  rate: learning rate of fine-tuning in the arms beside the paper's four.
  families: families of arms, see `plan.FAMILIES`.
  extra_sparsities: sparsities of the arms beside the paper's four.
  epochs: of dense fine-tuning in the family 'epochs', besides 0.
  epochs_sparsity: the sparsity at which the family 'epochs' prunes.
  shares: of the corpus, in the family 'corpus'.
  born, born_rate: steps and learning rate of the model that is born of each share.
  examples: {task: number of training examples} of the tasks that are read whole.
  scale: the factor by which --scale multiplied all steps.
  teacher: config of the model that the first cell trains, for the others to start from: from
    nothing, or from its own `init`. None where the `init` of `pretrain` and `tune` says what they
    start from.
  some: {arm: sparsities} of the arms that have fewer than `sparsities`.
  by_sparsity: run all of a seed at one sparsity before the next, dense first, in the order of
    `sparsities`, so that a ledger says something before it is whole.
  born_each: whether each seed starts from a model of its own, which is trained from nothing for
    `born` steps at `born_rate`.
  """

  pretrain: config_dict.ConfigDict
  tune: config_dict.ConfigDict
  sparsities: tuple
  ramp: int
  tasks: dict
  deleted: float | dict
  after: float | dict
  rates: tuple
  seeds: tuple
  burn_in: int
  fresh: bool
  cost: str
  rate: float = 1e-3
  families: tuple = ('paper',)
  extra_sparsities: tuple = (0.6,)
  epochs: tuple = (1, 3, 6, 12)
  epochs_sparsity: float = 0.6
  shares: tuple = (0.001, 0.01, 0.1, 1.0)
  born: int = 3000
  born_rate: float = 1e-3
  examples: Mapping = MappingProxyType({})
  teacher: config_dict.ConfigDict | None = None
  before: float = 1
  scale: float = 1
  born_each: bool = False
  some: Mapping = MappingProxyType({})
  by_sparsity: bool = False
  rates_of: Mapping = MappingProxyType({})


def multiple(multiples, s: float) -> float:
  """The multiple at the sparsity `s`, of a preset's `deleted` or `after`."""
  if not isinstance(multiples, Mapping):
    return multiples
  return multiples[max(start for start in multiples if start <= s)]


def quick() -> Preset:
  """A quick look: the packaged model, the embedded corpus, two tasks, two seeds."""
  first, second = pretrain.get_config('nano'), finetune.get_config('nano')
  for config in (first, second):
    config.log.update(every=40, tensorboard=False)
  first.update(steps=120, batch_size=32)
  first.checkpoint.every = 60
  second.log.who_pays = False
  # A cell lasts seconds, so a killed cell starts again.
  second.checkpoint.every = 0
  second.data.examples = 2000
  second.batch_size = 16
  return Preset(
    first,
    second,
    sparsities=(0.3, 0.5, 0.7, 0.9),
    ramp=60,
    tasks={'pydoc/order': 160, 'pydoc/words': 160},
    deleted=1,
    after=0.5,
    rates=(1e-3,),
    seeds=(0, 1),
    burn_in=0,
    fresh=True,
    cost='under 10 minutes on two CPU cores',
  )


def smoke() -> Preset:
  """A test of every part of `quick` in a minute; it says nothing about the paper."""
  preset = quick()
  preset.pretrain.update(steps=12)
  preset.pretrain.eval.batches = 2
  preset.tune.data.update(seq_len=16, examples=200)
  return preset._replace(
    sparsities=(0.5,),
    ramp=6,
    tasks={'pydoc/order': 6},
    seeds=(0,),
    cost='a minute on two CPU cores',
    born=12,
    extra_sparsities=(0.5,),
    shares=(0.1, 1.0),
  )


def mini() -> Preset:
  """The paper at small scale: the packaged model, four tasks, every sparsity, every family of arms.

  Needs `--config.data.root=FOLDER` with Wikipedia text in FOLDER/wikipedia.
  """
  first, second = pretrain.get_config('nano'), finetune.get_config('nano')
  first.data.corpus = 'wikipedia+pydoc*3'
  for config in (first, second):
    config.log.update(every=100, tensorboard=False, who_pays=False)
  first.update(steps=600, batch_size=32)
  first.checkpoint.every = 200
  second.checkpoint.every = 0
  second.data.examples = 2000
  second.batch_size = 16
  return Preset(
    first,
    second,
    sparsities=TENTHS,
    ramp=200,
    tasks={'pydoc/order': 200, 'pydoc/words': 200, 'pydoc/order@500': 200, 'pydoc/words@500': 200},
    deleted=2,
    after=1,
    rates=(1e-3, 5e-4, 2e-3, 3e-4),
    seeds=(0, 1, 2),
    burn_in=0,
    fresh=True,
    cost='hours on two CPU cores',
    families=('paper', 'controls', 'switches', 'epochs'),
  )


def equal() -> Preset:
  """As `mini`, but every arm is fine-tuned for as many steps.

  In the paper and in `mini`, 'deleted' has more steps than 'pruned', and 'after' has those of two
  runs. Here half of the steps of 'after' are dense and half are pruned.
  """
  return mini()._replace(
    tasks={'pydoc/order': 400, 'pydoc/words': 400},
    deleted=1,
    before=0.5,
    after=0.5,
    rates=(1e-3,),
    families=('paper',),
    cost='hours on two CPU cores',
  )


def equal_born() -> Preset:
  """As `equal`, but each seed starts from a model of its own, so that the checkpoint varies too.

  Where all seeds share a checkpoint, a verdict is about that checkpoint.
  """
  return equal()._replace(
    sparsities=(0.4, 0.6, 0.7, 0.9),
    born=6000,
    born_rate=2e-3,
    born_each=True,
    cost='not measured: some five hours of two CPU cores',
  )


def corpus() -> Preset:
  """Prunability against the amount of pre-training data: models born of shares of Wikipedia.

  Every model is trained for as many steps, so the smallest share is read over a hundred times, the
  next over ten times, and the whole text less than once. Batches are small, since such a model
  needs many steps to do better than word frequencies. Needs `--config.data.root=FOLDER` as `mini`
  does.
  """
  preset = mini()
  preset.pretrain.data.corpus = 'wikipedia'
  preset.pretrain.update(steps=400, batch_size=16)
  return preset._replace(
    sparsities=(),
    ramp=150,
    tasks={'pydoc/order': 200},
    rates=(1e-3,),
    families=('corpus',),
    extra_sparsities=(0.3, 0.6, 0.8),
    shares=(0.0003, 0.003, 1.0),
    born=6000,
    born_rate=2e-3,
    cost='an hour and a half of a CPU core',
  )


def decoder() -> Preset:
  """The protocol of `quick` for a small GPT-2, which the first cell trains from nothing.

  Batches are small for the same reason as in `corpus`.
  """
  return _born_small(gpt2, 'half an hour of a CPU core')


def _born_small(family, cost):
  """The protocol of `quick` for the small model of another family, born in the first cell."""
  born, first, second = (
    family.get_config('nano'),
    family.get_config('nano'),
    family.get_config('nano-finetune'),
  )
  for config in (born, first, second):
    config.log.update(every=40, tensorboard=False)
  born.log.every = 200
  born.update(steps=6000, batch_size=16)
  born.optimizer.learning_rate = 2e-3
  born.eval.every = 1500
  first.optimizer.learning_rate = 5e-4
  first.update(steps=120, batch_size=32)
  first.eval.every = 0
  first.checkpoint.every = 60
  second.log.who_pays = False
  second.checkpoint.every = 0
  second.data.examples = 2000
  second.batch_size = 16
  return quick()._replace(pretrain=first, tune=second, teacher=born, cost=cost)


def xlnet() -> Preset:
  """The protocol of `decoder` for a small XLNet, with its permutation objective."""
  return _born_small(xlnet_configs, 'a quarter of an hour of a CPU core')


def xlnet_smoke() -> Preset:
  """A test of every part of `xlnet` in a minute."""
  return _one_of_each(xlnet())


def decoder_smoke() -> Preset:
  """A test of every part of `decoder` in a minute."""
  return _one_of_each(decoder())


def _one_of_each(preset):
  """A preset with one cell of each kind, of a few steps."""
  preset.teacher.update(steps=12, batch_size=16)
  preset.teacher.eval.every = 0
  preset.pretrain.update(steps=12)
  return preset._replace(
    sparsities=(0.5,),
    ramp=6,
    tasks={'pydoc/order': 6},
    seeds=(0,),
    cost='a minute on two CPU cores',
  )


def minilm_glue() -> Preset:
  """The paper on GLUE with MiniLM-L6-H384, a BERT of 22.7 million weights.

  The first cell draws heads of pre-training for it and trains them together with it
  (configs/minilm.py). Every arm is fine-tuned for as many steps, as in `equal`. The sparsities that
  decide most come first. Needs `--config.data.root=FOLDER` with FOLDER/wikipedia and FOLDER/glue.

  Steps and labels were cut before seeds: pre-training has 128 steps of 1,024 tokens, and
  fine-tuning sees each of 2,000 labels once; those of MRPC twice, at half the rate, since a dense
  model learns too little of it in one pass.
  """
  heads, first, second = (minilm.get_config(arg) for arg in minilm.ARGS)
  first.init = second.init = ''
  first.steps = 128
  return Preset(
    first,
    second,
    sparsities=(0.7, 0.9, 0.5, 0.8, 0.6, 0.4),
    ramp=64,
    tasks={'glue/sst2': 63, 'glue/stsb': 63, 'glue/mrpc': 126},
    deleted=1,
    before=0.5,
    after=0.5,
    rates=(2e-4,),
    rates_of=MappingProxyType({'glue/mrpc': (1e-4,)}),
    seeds=(0, 1, 2),
    burn_in=0,
    fresh=True,
    cost='some five hours of two CPU cores',
    teacher=heads,
    some=MappingProxyType({'after': (0.5, 0.7, 0.9), 'random': (0.7,)}),
    by_sparsity=True,
  )


def minilm_smoke() -> Preset:
  """A test of every part of `minilm` in minutes."""
  preset = minilm_glue()
  for config in (preset.teacher, preset.pretrain):
    config.update(steps=4, batch_size=2)
    config.eval.update(every=0, batches=1, batch_size=2)
  preset.tune.update(batch_size=2)
  preset.tune.data.examples = 8
  return preset._replace(
    sparsities=(0.7, 0.5),
    ramp=2,
    tasks={'glue/mrpc': 4},
    seeds=(0,),
    some=MappingProxyType({'after': (0.7,), 'random': (0.7,)}),
    cost='minutes on two CPU cores',
  )


def base() -> Preset:
  """BERT-Base with a fifth of the paper's steps; weights come from `--config.init=FOLDER`."""
  preset = paper()
  preset.pretrain.update(steps=20_000)
  tasks = {name: min(steps, 12_000) for name, steps in preset.tasks.items()}
  return preset._replace(
    tasks=tasks,
    sparsities=(0.3, 0.5, 0.7, 0.9),
    rates=(3e-5,),
    seeds=(0, 1),
    deleted=2,
    burn_in=0,
    fresh=False,
    cost='not measured: needs an accelerator',
  )


def paper() -> Preset:
  """The paper's sizes: batch 32, sequence 128, 95k steps, ten sparsities, five tasks."""
  first, second = pretrain.get_config('base'), finetune.get_config('base')
  first.update(steps=95_000, batch_size=32)
  epochs = lambda examples: 3 * math.ceil(examples / 32)
  sizes = {
    'tfds/glue/mnli': 392_702,
    'tfds/glue/qqp': 363_846,
    'tfds/glue/qnli': 104_743,
    'tfds/glue/sst2': 67_349,
    'tfds/glue/cola': 8_551,
  }
  return Preset(
    first,
    second,
    sparsities=TENTHS,
    ramp=10_000,
    tasks={name: epochs(n) for name, n in sizes.items()},
    deleted={0: 13 / 3, 0.7: 5},
    after={0: 5 / 3, 0.8: 7 / 3},
    rates=(2e-5, 3e-5, 4e-5, 5e-5),
    seeds=(0,),
    burn_in=10_000,
    fresh=False,
    cost='not measured: needs accelerators',
    rate=5e-5,
    epochs=(1, 3, 6, 9, 12),
    examples=sizes,
  )


PRESETS = {
  'smoke': smoke,
  'quick': quick,
  'mini': mini,
  'equal': equal,
  'equal-born': equal_born,
  'corpus': corpus,
  'decoder-smoke': decoder_smoke,
  'decoder': decoder,
  'xlnet-smoke': xlnet_smoke,
  'xlnet': xlnet,
  'minilm-smoke': minilm_smoke,
  'minilm': minilm_glue,
  'base': base,
  'paper': paper,
}
