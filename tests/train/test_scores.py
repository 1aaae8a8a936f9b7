"""Members scored at a time: their order, their seconds, and how soon an error ends them."""

import concurrent.futures
import threading
import types

import pytest

from prunejax.train import evaluate, loop, sharding


def engine(scored):
  return types.SimpleNamespace(scored=scored, member=lambda state, place: place, mesh=None)


def scores(monkeypatch, scored, score, count=5):
  """([(place, scores)], [places charged together])."""
  monkeypatch.setattr(
    evaluate, 'scores', lambda member, data, functions, layout: score(member, layout)
  )
  monkeypatch.setattr(sharding, 'put_whole', lambda batch, mesh: batch)
  runs = {place: types.SimpleNamespace(data=None) for place in range(count)}
  charged = []
  return list(loop._scores(engine(scored), None, None, runs, charged.append)), charged


@pytest.mark.parametrize('scored, charged', [(1, []), (2, [[0, 1], [2, 3]])])
def test_members_have_their_own_scores_and_share_their_seconds(monkeypatch, scored, charged):
  # The last one has no partner: its seconds are charged where it is written.
  got = scores(monkeypatch, scored, lambda place, layout: {'loss': place})
  assert got == ([(place, {'loss': place}) for place in range(5)], charged)


def test_two_at_a_time_are_scored_at_the_same_time(monkeypatch):
  both = threading.Barrier(2, timeout=60)
  scores(monkeypatch, 2, lambda place, layout: both.wait(), count=4)


@pytest.mark.parametrize('error', [OSError, KeyboardInterrupt])
def test_an_error_ends_the_partner_at_its_next_batch(monkeypatch, error):
  ended, begun = [], threading.Event()

  def score(place, layout):
    if place == 0:
      begun.wait(60)
      raise error('of place 0')
    begun.set()
    try:
      while True:
        layout({})
    except concurrent.futures.CancelledError:
      ended.append(place)
      raise

  with pytest.raises(error, match='of place 0'):
    scores(monkeypatch, 2, score)
  assert ended == [1]


def test_a_single_member_is_scored_in_the_thread_that_gets_signals(monkeypatch):
  seen = []
  scores(monkeypatch, 2, lambda place, layout: seen.append(threading.current_thread()), count=1)
  assert seen == [threading.main_thread()]
