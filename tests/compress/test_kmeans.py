"""Shared weights: k-means against every partition, its initialisation, gradients of centroids."""

import itertools

import jax
import numpy as np
import pytest
from sklearn import cluster

from prunejax.compress import kmeans
from prunejax.pruning.links import codebook


def best(values, k):
  """The smallest within-cluster sum of squares over all partitions of the sorted values."""
  ranked = np.sort(values)
  cuts = itertools.combinations(range(1, len(ranked)), k - 1)
  return min(sum(((p - p.mean()) ** 2).sum() for p in np.split(ranked, list(cut))) for cut in cuts)


@pytest.mark.parametrize('init', kmeans.INITS)
def test_a_fixed_point_no_better_than_the_best_cut(init):
  rng = np.random.default_rng(0)
  for k in (1, 2, 3, 4):
    values = rng.normal(size=12).astype(np.float32)
    costs, least = [], best(np.float64(values), k)
    for seed in range(200 if init == 'forgy' else 1):
      centroids, codes = kmeans.fit(values, k, init, seed=seed)
      assert (
        centroids.dtype == np.float32
        and centroids.shape == (k,)
        and (np.diff(centroids) >= 0).all()
      )
      np.testing.assert_array_equal(codes, np.abs(values[:, None] - centroids).argmin(1))
      for c in set(codes.tolist()):
        np.testing.assert_allclose(
          centroids[c], values[codes == c].mean(dtype=np.float64), rtol=1e-6
        )
      costs.append(kmeans.cost(values, centroids, codes))
      assert costs[-1] >= least * (1 - 1e-5)
    if init == 'forgy':  # with enough initialisations, Lloyd finds the optimum
      np.testing.assert_allclose(min(costs), least, rtol=1e-5)


@pytest.mark.parametrize('init', ['linear', 'density'])
def test_the_same_clusters_as_scikit_learn_from_the_same_start(init):
  values = np.random.default_rng(1).normal(size=3000)
  start = (
    np.linspace(values.min(), values.max(), 16)
    if init == 'linear'
    else np.sort(values)[((np.arange(16) + 0.5) / 16 * 3000).astype(int)]
  )
  theirs = cluster.KMeans(16, init=start[:, None], n_init=1, tol=0, max_iter=300).fit(
    values[:, None]
  )
  centroids, codes = kmeans.fit(values, 16, init)
  np.testing.assert_allclose(centroids, np.sort(theirs.cluster_centers_.ravel()), rtol=1e-5)
  np.testing.assert_allclose(kmeans.cost(values, centroids, codes), theirs.inertia_, rtol=1e-6)


def test_few_no_and_wrong_values():
  centroids, codes = kmeans.fit([2.0, -1.0, 2.0], 8)
  np.testing.assert_array_equal(centroids[codes], np.float32([2, -1, 2]))
  centroids, codes = kmeans.fit([], 4)
  assert centroids.shape == (4,) and codes.shape == (0,)
  assert kmeans.fit(np.arange(500.0), 300)[1].dtype == np.uint16
  for wrong, message in (
    (dict(k=0), 'k=0'),
    (dict(k=2.0), 'k=2.0'),
    (dict(k=2, init='random'), "init='random'.*linear"),
  ):
    with pytest.raises(ValueError, match=message):
      kmeans.fit([1.0, 2.0], **wrong)
  with pytest.raises(ValueError, match='1 of 2 values are not finite'):
    kmeans.fit([1.0, np.nan], 2)


def test_the_rate_of_the_paper():
  assert kmeans.rate(16, 4) == pytest.approx(3.2)  # section 3's example: 4 x 4 weights, 4 shared


def test_the_gradient_of_a_centroid_is_the_sum_over_its_cluster():
  rng = np.random.default_rng(2)
  weights = np.where(rng.random((6, 5)) < 0.5, rng.normal(size=(6, 5)), 0).astype(np.float32)
  centroids, codes = kmeans.fit(weights[weights != 0], 3)
  codes = {'w': codebook.codes_of(weights, codes)}
  slope = rng.normal(size=(6, 5)).astype(np.float32)
  loss = lambda books: (codebook.share(books, codes)['w'] * slope).sum()
  grad = jax.grad(loss)({'w': centroids})['w']
  wanted = [slope[(codes['w'] == c)].sum(dtype=np.float64) for c in range(3)]
  np.testing.assert_allclose(grad, wanted, rtol=1e-5)
  view = np.asarray(codebook.share({'w': centroids}, codes)['w'])
  assert ((view == 0) == (weights == 0)).all() and len(np.unique(view[weights != 0])) == 3
