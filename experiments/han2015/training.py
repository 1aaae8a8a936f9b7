"""Train one cell: a dense network with a penalty, then cut, retrained, or scanned."""

import jax
import jax.numpy as jnp
import numpy as np

import prunejax
from experiments.han2015 import network
from experiments.han2016 import paper
from experiments.han2016 import training as lenets
from prunejax.models import lenet
from prunejax.pruning import sensitivity
from prunejax.pruning.paths import named_leaves
from prunejax.sweep import study

RETRAINED_AT = 0.5  # of the first rate; the paper has a tenth, in far more steps
NO_DROPOUT = (0.0, 0.0)
QUALITIES = tuple(round(0.1 * i, 1) for i in range(1, 31))  # of the scan


def measure(settings: dict, root: str, folder, say) -> dict:
  """Train the dense network of a cell, and measure what its arm does to it.

  Args:
    settings: of a cell of `study.plan`.
    root: folder that holds `mnist/`, or ''.
    folder: work directory; dense networks are kept there for other cells.
    say: prints a line of progress.

  Returns:
    Test accuracies of the dense, the cut and the retrained networks, and on the held-out images
    under '..._held_out'; lists have one number for each level.

  Raises:
    FloatingPointError: if a loss is not finite.
  """
  data = lenets.images(root, str(settings.get('reads')))
  bench = _Bench(settings, data, say)
  dense = _dense(settings, folder, bench)
  arm = {'one shot': _one_shot, 'threshold': _threshold, 'dropout': _dropout, 'scan': _scan}
  return bench.scores('dense', [dense], alone=True) | arm.get(settings['arm'], _levels)(
    settings, dense, bench
  )


class _Bench:
  """The images of a cell, and the calls of the compiled programs that every arm makes."""

  def __init__(self, settings, data, say):
    split = len(data.train_labels) - settings['held_out']
    images, labels = jnp.asarray(data.train_images), jnp.asarray(data.train_labels)
    self.train = images[:split], labels[:split]
    self.held_out = images[split:], labels[split:]
    self.test = jnp.asarray(data.test_images), jnp.asarray(data.test_labels)
    self.settings, self.say = settings, say

  def penalties(self, name=None, strength=None):
    """(L2, L1) of a penalty, by default that of the cell."""
    name = name or self.settings['penalty']
    strength = self.settings['strength'] if strength is None else strength
    return tuple(jnp.float32(strength * (name == kind)) for kind in ('l2', 'l1'))

  def fit(self, params, masks, *, seed, steps, rate, penalties, dropout):
    """The network after `network.train` on the training images."""
    return network.train(
      jax.random.key(seed),
      params,
      masks,
      *self.train,
      steps=steps,
      rate=jnp.float32(rate),
      penalties=penalties,
      dropout=tuple(map(jnp.float32, dropout)),
      batch=self.settings['batch'],
    )

  def retrained(self, params, cuts, *, penalties=None, dropout=NO_DROPOUT):
    """The network after rounds of a cut and of retraining, at half of the rate.

    Args:
      params: the dense network.
      cuts: {how: amounts, one a round}, see `network.cut`; rounds are equally long.
      penalties: of retraining, by default those of the cell.
      dropout: of retraining.
    """
    settings, [(how, amounts)] = self.settings, cuts.items()
    seed = 100 * (1 + settings['seed'])
    for count, amount in enumerate(amounts):
      params, masks = network.cut(params, _float32(amount), seed + count, how=how)
      params = self.fit(
        params,
        masks,
        seed=1000 + seed + count,
        steps=settings['retrain'] // len(amounts),
        rate=RETRAINED_AT * settings['rate'],
        penalties=penalties or self.penalties(),
        dropout=dropout,
      )
    return params

  def scores(self, name, networks, alone=False):
    """{name: test accuracies, name + '_held_out': held-out accuracies} of some networks.

    Raises:
      FloatingPointError: a loss is not finite.
    """
    out = {}
    for part, key in ((self.test, name), (self.held_out, f'{name}_held_out')):
      measured = [network.evaluate(params, *part) for params in networks]
      if not np.isfinite([float(loss) for loss, _ in measured]).all():
        raise FloatingPointError(f'the loss of a network ({name}) is not finite')
      values = [round(float(accuracy), 5) for _, accuracy in measured]
      out[key] = values[0] if alone else values
    return out


def shares(net: str, kept: float) -> dict:
  """Divide a fraction of all weights among the layers, in the proportions of the paper's table.

  Args:
    net: of `lenet.LAYERS`.
    kept: fraction of all weights, above 0 and at most 1.

  Returns:
    {layer: fraction that it keeps, at most 1}; together they keep `kept`.
  """
  layers = lenet.LAYERS[net]
  sizes = {
    k: max(1, side * side) * inputs * outputs for k, (side, inputs, outputs) in layers.items()
  }
  low, high = 0.0, 1 / min(paper.KEPT[net].values())
  for _ in range(60):
    scale = (low + high) / 2
    parts = {layer: min(1.0, scale * part) for layer, part in paper.KEPT[net].items()}
    total = sum(parts[layer] * sizes[layer] for layer in sizes) / sum(sizes.values())
    low, high = (scale, high) if total < kept else (low, scale)
  return parts


def by_round(net: str, kept: float, rounds: int) -> list[dict]:
  """List the sparsity of each layer, {layer: sparsity}, of rounds that end at `shares`."""
  schedules = {
    layer: prunejax.iterative(1 - part, rounds, 1) for layer, part in shares(net, kept).items()
  }
  return [{k: float(schedule(r)) for k, schedule in schedules.items()} for r in range(rounds)]


def _float32(amount):
  return jax.tree.map(jnp.float32, amount)


def _dense(settings, folder, bench):
  """The trained dense network, shared by the cells that need it."""
  names = ('net', 'digits', 'penalty', 'strength', 'seed', 'held_out', 'rate', 'batch', 'steps')
  dropout = settings.get('dropout', 0.0)
  made_of = {k: settings[k] for k in names} | {'reads': settings.get('reads'), 'dropout': dropout}
  first = lenet.init(jax.random.key(settings['seed']), settings['net'])

  def make():
    params = bench.fit(
      first,
      jax.tree.map(lambda w: jnp.ones(w.shape, bool), first),
      seed=settings['seed'],
      steps=settings['steps'],
      rate=settings['rate'],
      penalties=bench.penalties(),
      dropout=(dropout, dropout),
    )
    return named_leaves(jax.device_get(params))

  leaves = study.kept(folder, {'han2015': made_of}, make)
  return jax.tree.structure(first).unflatten([jnp.asarray(leaves[k]) for k in named_leaves(first)])


def _one_shot(settings, dense, bench):
  """Cut once to each fraction of `cuts`; and to each of `levels`, retrained."""
  amounts = [by_round(settings['net'], kept, 1)[0] for kept in settings['cuts']]
  cuts = [network.cut(dense, _float32(amount), how='by layer')[0] for amount in amounts]
  metrics = {'cuts': list(settings['cuts'])} | bench.scores('cut', cuts)
  return metrics | _levels(settings, dense, bench)


def _levels(settings, dense, bench):
  """Prune to each fraction of `levels` in the cell's rounds, and retrain."""
  how = 'by chance' if settings['arm'] == 'by chance' else 'by layer'
  penalties = bench.penalties('l2', settings['then']) if 'then' in settings else None
  networks = []
  for kept in settings['levels']:
    amounts = by_round(settings['net'], kept, settings.get('rounds', 1))
    networks.append(bench.retrained(dense, {how: amounts}, penalties=penalties))
    bench.say(f'{kept:g} of the weights kept: retrained')
  metrics = {'levels': list(settings['levels'])} | bench.scores('retrained', networks)
  return metrics | {'kept': [round(network.kept(params), 5) for params in networks]}


def _threshold(settings, dense, bench):
  """Keep |w| > quality x deviation of its layer: cut, retrained, and cut again in each round."""
  metrics = {'qualities': list(settings['qualities'])}
  networks = {'cut': [], 'once': [], 'again': []}
  for quality in settings['qualities']:
    amount = {network.KERNELS: quality}
    networks['cut'].append(network.cut(dense, _float32(amount), how='threshold')[0])
    for name, rounds in (('once', 1), ('again', settings['rounds'])):
      networks[name].append(bench.retrained(dense, {'threshold': [amount] * rounds}))
    bench.say(f'quality {quality:g}: retrained')
  for name, some in networks.items():
    metrics |= bench.scores(name, some)
    metrics[f'{name}_kept'] = [round(network.kept(params), 5) for params in some]
  return metrics


def _dropout(settings, dense, bench):
  """Retrain with the dropout of training, with the adjusted dropout, and with none."""
  rate, networks, adjusted = settings['dropout'], {'same': [], 'adjusted': [], 'none': []}, []
  for kept in settings['levels']:
    amounts = by_round(settings['net'], kept, 1)
    pruned = network.cut(dense, _float32(amounts[0]), how='by layer')[0]
    rates = tuple(
      sensitivity.adjusted_dropout(
        rate, dense[layer]['kernel'].size, int(jnp.count_nonzero(pruned[layer]['kernel']))
      )
      for layer in ('fc1', 'fc2')
    )
    adjusted.append([round(value, 4) for value in rates])
    for name, dropout in (('same', (rate, rate)), ('adjusted', rates), ('none', NO_DROPOUT)):
      networks[name].append(bench.retrained(dense, {'by layer': amounts}, dropout=dropout))
    bench.say(f'{kept:g} of the weights kept: retrained with three rates of dropout')
  metrics = {'levels': list(settings['levels']), 'rates': adjusted}
  for name, some in networks.items():
    metrics |= bench.scores(name, some)
  return metrics


def _scan(settings, dense, bench):
  """The held-out loss with one layer pruned alone; then the thresholds that the scan chooses.

  For each tolerance the thresholds of the scan keep some fraction of all weights. One quality for
  all layers, and one sparsity for all layers, are pruned to that fraction and retrained as well.
  """
  loss = lambda params: network.evaluate(params, *bench.held_out)[0]
  removed, tolerances = settings['removed'], settings['tolerances']
  table = sensitivity.scan(dense, loss, removed, by='sparsity', where=network.KERNELS)
  dense_loss = float(loss(dense))
  metrics = {'removed': list(removed), 'dense_loss': round(dense_loss, 6)}
  for name, losses in table.items():
    metrics[f'alone {name.removesuffix(network.KERNEL)}'] = [round(v, 6) for v in losses]
  if not tolerances:
    return metrics
  by_quality = sensitivity.scan(dense, loss, QUALITIES, where=network.KERNELS)
  bench.say(f'{len(table)} layers scanned')
  chosen, networks = [], {'scanned': [], 'one quality': [], 'one sparsity': []}
  for tolerance in tolerances:
    qualities = sensitivity.tolerated(by_quality, QUALITIES, dense_loss, tolerance)
    chosen.append(list(qualities.values()))
    pruned = network.cut(dense, _float32(qualities), how='threshold')[0]
    sparsity = 1 - network.kept(pruned)
    networks['scanned'].append(bench.retrained(dense, {'threshold': [qualities]}))
    networks['one quality'].append(bench.retrained(dense, {'one quality': [sparsity]}))
    same = dict.fromkeys(dense, sparsity)
    networks['one sparsity'].append(bench.retrained(dense, {'by layer': [same]}))
    bench.say(f'a rise of {tolerance:g}: {1 - sparsity:.3f} of the weights kept, retrained')
  metrics |= {'tolerances': list(tolerances), 'qualities': chosen}
  for name, some in networks.items():
    metrics |= bench.scores(name, some)
    metrics[f'{name} kept'] = [round(network.kept(params), 5) for params in some]
  metrics['layers kept'] = [
    [round(network.kept({layer: params[layer]}), 4) for layer in dense]
    for params in networks['scanned']
  ]
  return metrics
