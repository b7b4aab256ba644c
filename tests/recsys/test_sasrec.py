from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scipy.sparse import csr_array

from recsys.errors import InteractionError, OrdinalError, RecsysError
from recsys.models.sasrec import SasRec, SasRecNet, SasRecSizes, latest_events
from recsys.recipes.sasrec import SasRecConfig, last_event_ndcg, next_event_losses, train
from recsys.types import Histories

SIZES = SasRecSizes(items=30, width=8, heads=2, blocks=2, length=7)
SMALL = SasRecConfig(
    levels=3, relevant_level=1, width=8, length=7, epochs=2, batch_users=2, validation_users=0.4
)


def net_of(sizes: SasRecSizes = SIZES) -> SasRecNet:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return SasRecNet(sizes).eval()


def times_of(histories: Histories, seed: int = 0) -> Histories:
    moments = np.random.default_rng(seed).permutation(histories.nnz) + 1.0
    return csr_array((moments, histories.indices.copy(), histories.indptr.copy()), shape=histories.shape)


def cycles(n_users: int, seed: int, *, items: int = 12, length: int = 6) -> tuple[Histories, Histories]:
    """Users who walk through the items in a circle, from a random start; and when they took each."""
    start = np.random.default_rng(seed).integers(items, size=n_users)
    walked = (start[:, None] + np.arange(length)) % items
    places = (np.repeat(np.arange(n_users), length), walked.ravel())
    taken = csr_array((np.full(n_users * length, 2, dtype=np.float32), places), shape=(n_users, items))
    when = csr_array((np.tile(np.arange(1.0, length + 1), n_users), places), shape=(n_users, items))
    return taken, when


def test_a_later_event_does_not_change_earlier_states() -> None:
    net = net_of()
    before = net(torch.tensor([[30, 4, 9, 2, 7]]))
    after = net(torch.tensor([[30, 4, 9, 2, 11]]))
    assert torch.equal(before[:, :4], after[:, :4])
    assert not torch.allclose(before[:, 4], after[:, 4])


def test_an_earlier_event_changes_later_states() -> None:
    net = net_of()
    found, other = (net(torch.tensor([[first, 9, 2]]))[:, -1] for first in (4, 5))
    assert not torch.allclose(found, other)


def test_padding_changes_nothing_and_stays_finite() -> None:
    net = net_of()
    short, long = net(torch.tensor([[4, 9, 2]])), net(torch.tensor([[30, 30, 30, 4, 9, 2]]))
    np.testing.assert_allclose(long[:, 3:].detach().numpy(), short.detach().numpy(), atol=1e-5)
    only_padding = net(torch.full((2, 5), 30))
    assert bool(only_padding.isfinite().all())


def test_gradients_are_finite_and_leave_padding_alone() -> None:
    net = net_of().train()
    next_event_losses(net, torch.tensor([[30, 30, 4, 9], [3, 1, 2, 0]])).mean().backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in net.parameters())
    assert net.items.weight.grad is not None and bool((net.items.weight.grad[30] == 0).all())


def test_the_loss_is_the_cross_entropy_of_each_next_event_over_all_items() -> None:
    net = net_of()
    found = next_event_losses(net, torch.tensor([[30, 30, 4, 9], [3, 1, 2, 0]]))
    expected = []
    for known, place, following in [([4], 0, 9), *(([3, 1, 2], n, (1, 2, 0)[n]) for n in range(3))]:
        scores = net(torch.tensor([known]))[0, place] @ net.items.weight[:30].T
        expected.append((scores.logsumexp(0) - scores[following]).item())
    np.testing.assert_allclose(found.detach().numpy(), expected, rtol=1e-5)


def test_validation_asks_for_the_last_event_and_offers_no_earlier_one() -> None:
    net = net_of()
    sequences = torch.tensor([[30, 5, 6, 8], [1, 2, 3, 4], [9, 8, 7, 20]])
    expected = []
    for row in sequences.tolist():
        known = [item for item in row[:-1] if item != 30]
        scores = net.item_scores(net(torch.tensor([known]))[0, -1]).detach().numpy()
        scores[known] = -np.inf
        place = 1 + int((scores > scores[row[-1]]).sum())
        expected.append(1 / np.log2(place + 1) if place <= 10 else 0.0)
    assert last_event_ndcg(net, sequences, batch_users=2) == pytest.approx(np.mean(expected))


def test_events_come_by_time_then_item_cut_to_the_latest() -> None:
    histories = csr_array(np.array([[2, 1, 3, 2, 0], [0, 0, 0, 0, 0], [0, 2, 0, 0, 2]], dtype=np.float32))
    when = csr_array(np.array([[50.0, 60, 20, 20, 0], [0, 0, 0, 0, 0], [0, 9, 0, 0, 8]]))
    found = latest_events(histories, when, length=9, relevant_level=1)
    assert found.tolist() == [[2, 3, 0], [5, 5, 5], [5, 4, 1]]
    assert latest_events(histories, when, length=2, relevant_level=1).tolist() == [[3, 0], [5, 5], [4, 1]]
    assert latest_events(histories, when, length=9, relevant_level=2).tolist() == [[2], [5], [5]]


def test_scores_are_those_of_the_last_state_and_the_cold_get_the_fallback(
    small_histories: Histories,
) -> None:
    net, when = net_of(), times_of(small_histories)
    model = SasRec(net, torch.arange(30.0), levels=3, relevant_level=1)
    found = model.search(small_histories, 30, exclude_seen=False, times=when)
    events = latest_events(small_histories[[1]], when[[1]], length=7, relevant_level=1)
    expected = net.item_scores(net(torch.from_numpy(events))[0, -1]).detach().numpy()
    np.testing.assert_allclose(found.scores[1], np.sort(expected)[::-1], rtol=1e-5, atol=1e-6)
    assert found.items[5].tolist() == list(range(29, -1, -1))


def test_the_same_seed_gives_the_same_bits_and_leaves_torch_s_generator_alone(
    small_histories: Histories,
) -> None:
    when = times_of(small_histories)
    state = torch.random.get_rng_state()
    first, again, other = (train(small_histories, seed=s, config=SMALL, times=when) for s in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), state)
    pairs = zip(first.net.parameters(), again.net.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert not torch.equal(first.net.items.weight, other.net.items.weight)


def test_training_keeps_the_epoch_with_the_best_validation() -> None:
    taken, when = cycles(40, 0)
    rows: list[dict[str, float | str]] = []
    config = SMALL.model_copy(update={"epochs": 9, "patience": 3, "learning_rate": 0.1})
    model = train(taken, seed=0, config=config, times=when, report=rows.append)
    validation = np.random.default_rng(0).permutation(40)[:16]
    sequences = latest_events(taken, when, length=8, relevant_level=1)[validation]
    found = last_event_ndcg(model.net, torch.from_numpy(sequences), batch_users=2)
    curve = [float(row["ndcg@10"]) for row in rows]
    assert found == pytest.approx(max(curve)) and curve[-1] < max(curve)


def test_without_validation_it_trains_for_all_epochs(small_histories: Histories) -> None:
    rows: list[dict[str, float | str]] = []
    config = SMALL.model_copy(update={"epochs": 4, "validation_users": 0.0, "patience": 1})
    train(small_histories, seed=0, config=config, times=times_of(small_histories), report=rows.append)
    assert [row["epoch"] for row in rows] == [0, 1, 2, 3]
    assert all("ndcg@10" not in row for row in rows)


def test_bfloat16_trains_near_to_float32(small_histories: Histories) -> None:
    when = times_of(small_histories)
    losses = []
    for bf16 in (False, True):
        rows: list[dict[str, float | str]] = []
        config = SMALL.model_copy(update={"bf16": bf16, "epochs": 1, "validation_users": 0.0})
        train(small_histories, seed=0, config=config, times=when, report=rows.append)
        losses.append(float(rows[0]["train_loss"]))
    assert losses[1] == pytest.approx(losses[0], rel=0.02) and losses[0] != losses[1]


def test_a_saved_model_answers_the_same(small_histories: Histories, tmp_path: Path) -> None:
    when = times_of(small_histories)
    model = train(small_histories, seed=1, config=SMALL, times=when)
    model.save(tmp_path)
    found = SasRec.load(tmp_path).search(small_histories, 8, times=when)
    expected = model.search(small_histories, 8, times=when)
    assert np.array_equal(found.items, expected.items) and np.array_equal(found.scores, expected.scores)


def test_what_cannot_be_trained_on_is_refused(small_histories: Histories) -> None:
    with pytest.raises(
        InteractionError, match=f"each of the {small_histories.nnz} entries.*SASRec.*got None"
    ):
        train(small_histories, seed=0, config=SMALL)
    with pytest.raises(OrdinalError, match=r"levels 0\.\.2; got 3"):
        train(small_histories, seed=0, config=SMALL.model_copy(update={"levels": 2}))
    with pytest.raises(InteractionError, match=r"two events or more; got 0 of 6, 0 kept"):
        single = csr_array(np.eye(6, 30, dtype=np.float32) * 2)
        train(single, seed=0, config=SMALL, times=times_of(single))
    with pytest.raises(
        RecsysError, match=r"loss must stay finite; got nan in epoch \d at `learning_rate` 1e\+20"
    ):
        wild = SMALL.model_copy(update={"learning_rate": 1e20, "epochs": 3})
        train(small_histories, seed=0, config=wild, times=times_of(small_histories))
    model = SasRec(net_of(), torch.zeros(30), levels=2, relevant_level=1)
    with pytest.raises(OrdinalError, match=r"levels 0\.\.2; got 3"):
        model.search(small_histories, 5, times=times_of(small_histories))
    with pytest.raises(InteractionError, match="got None"):
        SasRec(net_of(), torch.zeros(30), levels=3, relevant_level=1).search(small_histories, 5)


def test_configs_that_do_not_fit_together_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"multiple of `heads` \(3\); got 64"):
        SasRecConfig(heads=3)
    with pytest.raises(ValidationError, match=r"at most `levels` \(1\); got 2"):
        SasRecConfig(levels=1)


@pytest.mark.integration
def test_it_learns_what_follows_what_for_strangers_too() -> None:
    taken, when = cycles(240, 0)
    config = SasRecConfig(
        levels=1, relevant_level=1, width=16, length=6, epochs=25, learning_rate=0.01, dropout=0.1
    )
    model = train(taken, seed=0, config=config, times=when)
    strangers, theirs = cycles(50, 1)
    last = latest_events(strangers, theirs, length=6, relevant_level=1)[:, -1]
    assert (model.search(strangers, 1, times=theirs).items[:, 0] == (last + 1) % 12).mean() > 0.95


@pytest.mark.gpu
def test_bfloat16_on_a_gpu_learns_as_float32_on_the_cpu() -> None:
    taken, when = cycles(240, 0)
    config = SasRecConfig(levels=1, relevant_level=1, width=16, length=6, epochs=25, learning_rate=0.01)
    strangers, theirs = cycles(50, 1)
    expected = train(taken, seed=0, config=config, times=when).search(strangers, 1, times=theirs)
    half = config.model_copy(update={"bf16": True})
    found = train(taken, seed=0, config=half, times=when, device="cuda").search(strangers, 1, times=theirs)
    assert (found.items == expected.items).mean() > 0.95
