import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from recsys.features import FeatureTable
from recsys.models.calibration import Calibration, calibrated_logits, fit_calibration
from recsys.models.ordinal import LevelTree, nested_ordinal_loss, thresholds_from_counts
from recsys.models.pairs import Targets, encode_users, pair_parts, rows_of
from recsys.models.towers import ORDER_MARGIN, Rows, Towers, TowerSizes
from recsys.types import levels_in
from tests.helpers.slow_gnolr import (
    draw_histories,
    draw_model,
    draw_table,
    slow_bend,
    slow_features,
    slow_statistics,
)

CPU = torch.device("cpu")
USERS, ITEMS = 5, 20
# What training never moves by gradient, or what fixes the order of thresholds.
GIVEN = {"first_thresholds", "gaps_raw", "gamma_raw"}


def draw_towers(
    sizes: TowerSizes,
    seed: int,
    *,
    weights: float = 0.0,
    gamma: float | None = None,
    learn_thresholds: bool = False,
    counts: Tensor | None = None,
) -> Towers:
    """Towers as they start, or with all their weights drawn anew at a scale."""
    rng, tree = torch.Generator().manual_seed(seed), LevelTree(sizes.parents)
    rows = 1000.0 / torch.arange(1, sizes.levels + 2).square() if counts is None else counts
    thresholds = thresholds_from_counts(rows, tree)
    rates = torch.sigmoid(-thresholds)
    towers = Towers(sizes, thresholds, rates, rng, gamma=gamma, learn_thresholds=learn_thresholds)
    with torch.no_grad():
        for name, weight in towers.named_parameters():
            if weights and name not in GIVEN:
                weight.copy_(weights * torch.randn(weight.shape, generator=rng))
    return towers


def every_part(towers: Towers, seed: int) -> Tensor:
    """Parts of every user's step to every item, from drawn histories, statistics and features. Shape (B * I, 3, K)."""
    sizes = towers.sizes
    histories = draw_histories(USERS, ITEMS, sizes.levels, seed)
    rows = rows_of(draw_table(ITEMS, sizes.item_sparse, sizes.item_dense, seed), CPU)
    users = rows_of(draw_table(USERS, sizes.user_sparse, sizes.user_dense, seed + 1), CPU)
    items = towers.items(None, rows)
    side = encode_users(towers, histories, histories.indices.astype(np.int64), items, users)
    owner, item = np.divmod(np.arange(USERS * ITEMS), ITEMS)
    targets = Targets(*map(torch.from_numpy, (owner, item, levels_in(histories, owner, item))))
    rng = torch.Generator().manual_seed(seed)
    counts = torch.randint(0, 1000, (ITEMS, sizes.levels + 1), generator=rng).float()
    biases = towers.item_biases(targets.item, counts[targets.item], rows, targets.item)
    return pair_parts(towers, side, items, biases, targets, extra_ignored=2.0)


def below_parents(logits: Tensor, parents: tuple[int, ...]) -> bool:
    return all(
        bool((logits[:, place] < logits[:, parent - 1]).all())
        for place, parent in enumerate(parents)
        if parent
    )


@st.composite
def any_towers(draw: st.DrawFn) -> Towers:
    """Any tree of up to five levels, base rates of any rarity, any form, and weights from small to absurd."""
    depth = draw(st.integers(1, 5))
    parents = tuple(draw(st.integers(0, place)) for place in range(depth))
    if draw(st.booleans()):
        parents = tuple(range(depth))
    structure = draw(st.sampled_from(["gnolr", "v0", "nolr"]))
    counts = torch.tensor(draw(st.lists(st.integers(0, 10**6), min_size=depth + 1, max_size=depth + 1)))
    hidden, history = draw(st.sampled_from([0, 4])), draw(st.booleans())
    biases = structure != "v0" and draw(st.booleans())
    return draw_towers(
        TowerSizes(ITEMS, parents, structure, 4, 3, hidden, 3, 2, 2, 1, history, biases),
        draw(st.integers(0, 1000)),
        weights=draw(st.sampled_from([0.1, 1.0, 10.0, 30.0])),
        gamma=draw(st.none() | st.floats(0.01, 100.0)),
        learn_thresholds=draw(st.booleans()),
        counts=counts,
    )


def check_order_and_gradients(towers: Towers, seed: int) -> None:
    """Logits below their parents' for every pair; loss and gradients finite, nested or not."""
    logits = every_part(towers, seed).sum(1) @ towers.mixing.T - towers.thresholds
    assert below_parents(logits, towers.sizes.parents)
    rng = torch.Generator().manual_seed(seed)
    levels = torch.randint(0, towers.sizes.levels + 1, (len(logits),), generator=rng)
    for nested in (True, False):
        towers.zero_grad()
        loss = nested_ordinal_loss(logits, levels, towers.tree, nested=nested)
        loss.sum().backward(retain_graph=True)
        assert bool(torch.isfinite(loss).all())
        for name, weight in towers.named_parameters():
            assert weight.grad is None or bool(torch.isfinite(weight.grad).all()), name


@torch.no_grad()
def check_calibrated_order(towers: Towers, seed: int, skew: str) -> None:
    """Calibration on any levels is finite and keeps logits below their parents' for every pair."""
    parts = every_part(towers, seed)
    rng = torch.Generator().manual_seed(seed)
    levels = torch.randint(0, towers.sizes.levels + 1, (len(parts),), generator=rng)
    if skew != "even":
        levels = torch.full_like(levels, 0 if skew == "none" else towers.sizes.levels)
    gamma, ceilings = towers.gamma(), towers.ceilings()
    bias = (ceilings - gamma) / 2 if towers.sizes.biases else torch.zeros_like(gamma)
    start, most = Calibration(torch.ones(3), towers.thresholds), torch.stack([gamma, bias, bias])
    with torch.enable_grad():
        fitted = fit_calibration(parts, levels, start, towers.tree, towers.mixing, most)
    assert bool(torch.isfinite(fitted.scales).all()) and bool(torch.isfinite(fitted.thresholds).all())
    assert below_parents(calibrated_logits(parts, fitted, towers.mixing), towers.sizes.parents)


SEEDS, SKEWS = st.integers(0, 1000), st.sampled_from(["even", "none", "all"])


@given(towers=any_towers(), seed=SEEDS)
@settings(max_examples=15, deadline=None)
def test_any_towers_keep_the_order_and_every_gradient_finite(towers: Towers, seed: int) -> None:
    check_order_and_gradients(towers, seed)


@given(towers=any_towers(), seed=SEEDS, skew=SKEWS)
@settings(max_examples=10, deadline=None)
def test_any_towers_keep_the_order_when_calibrated(towers: Towers, seed: int, skew: str) -> None:
    check_calibrated_order(towers, seed, skew)


@pytest.mark.integration
@given(towers=any_towers(), seed=SEEDS, skew=SKEWS)
@settings(max_examples=200, deadline=None)
def test_many_more_towers_keep_the_order(towers: Towers, seed: int, skew: str) -> None:
    check_order_and_gradients(towers, seed)
    check_calibrated_order(towers, seed, skew)


@pytest.mark.parametrize("bias", [-1e6, 1e6])
def test_an_absurd_first_bias_keeps_the_order(bias: float) -> None:
    counts = torch.tensor([1000.0, 0.0, 500.0])
    towers = draw_towers(TowerSizes(ITEMS, (0, 1)), 0, gamma=1e-3, counts=counts)
    with torch.no_grad():
        towers.item_bias[:, 0] = bias
        towers.item_bias[:, 1] = 10.0  # as far up as its ceiling lets it
        assert below_parents(every_part(towers, 0).sum(1) @ towers.mixing.T - towers.thresholds, (0, 1))


@pytest.mark.parametrize("parents", [(0, 1, 2), (0, 1, 1), (0, 0, 2)])
def test_towers_hold_the_thresholds_that_they_were_given(parents: tuple[int, ...]) -> None:
    counts = torch.tensor([900.0, 80.0, 15.0, 5.0])
    towers = draw_towers(TowerSizes(ITEMS, parents), 0, counts=counts)
    torch.testing.assert_close(towers.thresholds, thresholds_from_counts(counts, LevelTree(parents)))
    assert not towers.first_thresholds.requires_grad and not towers.gaps_raw.requires_grad


def test_learned_thresholds_stay_in_order_wherever_they_are_moved() -> None:
    towers = draw_towers(TowerSizes(ITEMS, (0, 1, 1, 2)), 0, learn_thresholds=True)
    assert towers.first_thresholds.requires_grad and towers.gaps_raw.requires_grad
    for move in (-9.0, 9.0):
        with torch.no_grad():
            towers.gaps_raw.add_(move)
            towers.first_thresholds.add_(move)
        found = towers.thresholds
        assert bool((found[[1, 2, 3]] > found[[0, 0, 1]]).all())


@pytest.mark.parametrize(
    ("structure", "expected"),
    [
        ("gnolr", [[1.0, 0.0, 0.0], [1.0, 1.0, 0.0], [1.0, 0.0, 1.0]]),
        ("v0", [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]),
        ("nolr", [[1.0], [1.0], [1.0]]),
    ],
)
def test_structures_say_which_steps_make_a_logit(structure: str, expected: list[list[float]]) -> None:
    sizes = TowerSizes(ITEMS, (0, 1, 1), structure)
    assert draw_towers(sizes, 0).mixing.tolist() == expected
    assert sizes.blocks == len(expected[0]) and sizes.levels == 3


def test_ceilings_are_the_gaps_to_parents_or_shares_of_them() -> None:
    a, b, c = draw_towers(TowerSizes(ITEMS, (0, 1, 2)), 0).thresholds.tolist()
    kept = 1 - ORDER_MARGIN
    chain = draw_towers(TowerSizes(ITEMS, (0, 1, 2)), 0).ceilings()
    torch.testing.assert_close(chain, torch.tensor([math.inf, kept * (b - a), kept * (c - b)]))
    single = draw_towers(TowerSizes(ITEMS, (0, 1, 2), "nolr"), 0).ceilings()
    assert single.tolist() == [math.inf]
    # Without adding, neighbours share each gap, so a middle level takes half of the smaller of its two.
    apart = draw_towers(TowerSizes(ITEMS, (0, 1, 2), "v0", biases=False), 0).ceilings()
    half = kept / 2 * np.array([b - a, min(b - a, c - b), c - b])
    np.testing.assert_allclose(apart.numpy(), half, rtol=1e-5)


@pytest.mark.parametrize("gamma", [0.1, 2.0, 1e4])
def test_steps_stay_below_their_ceilings_however_large_gamma_and_biases(gamma: float) -> None:
    sizes = TowerSizes(ITEMS, (0, 1, 2), width=3, item_sparse=3, item_dense=2, user_sparse=2, user_dense=1)
    for seed in range(3):
        towers = draw_towers(sizes, seed, weights=20.0, gamma=gamma)
        steps = every_part(towers, seed).sum(1)
        room = 1e-6 * gamma + 1e-5
        assert bool((steps <= towers.ceilings() + room).all())


def test_a_fixed_gamma_is_kept_or_cut_to_its_ceiling() -> None:
    plain = TowerSizes(ITEMS, (0, 1, 2), biases=False)
    small = draw_towers(plain, 0, gamma=0.3)
    torch.testing.assert_close(small.gamma(), torch.full((3,), 0.3))
    assert not small.gamma_raw.requires_grad and draw_towers(plain, 0).gamma_raw.requires_grad
    large = draw_towers(plain, 0, gamma=50.0)
    torch.testing.assert_close(large.gamma(), torch.minimum(torch.tensor(50.0), large.ceilings()))
    # With biases, gamma stays and the biases give way.
    kept = draw_towers(TowerSizes(ITEMS, (0, 1, 2)), 0, gamma=50.0)
    torch.testing.assert_close(kept.gamma(), torch.full((3,), 50.0))


@pytest.mark.parametrize("structure", ["gnolr", "nolr"])
@pytest.mark.parametrize("parents", [(0, 1, 2), (0, 1, 1)])
def test_statistics_and_biases_equal_loops(structure: str, parents: tuple[int, ...]) -> None:
    model = draw_model(parents, structure)
    towers, counts = model.towers, torch.tensor([[3.0, 1.0, 0.0, 2.0], [0.0, 0.0, 0.0, 0.0]])
    table, raw = model.known.item_features, []
    for place, row in enumerate(counts.tolist()):
        apart = slow_statistics(towers, row, 5.0)
        np.testing.assert_allclose(towers.statistics(counts, 5.0)[place].numpy(), apart, rtol=1e-4, atol=1e-5)
        said = slow_features(table, 7 + place, towers.item_sparse_bias, towers.item_dense_bias)
        own = towers.item_bias[7 + place].numpy()
        raw.append(np.array(apart) @ towers.item_statistics.numpy() + said + own)
    places = torch.tensor([7, 8])
    found = towers.item_biases(places, counts, rows_of(table, CPU), places)
    expected = np.stack([slow_bend(towers, value) for value in raw])
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4, atol=1e-5)
    aligned = towers.item_biases(places, counts, rows_of(table.take(places.numpy()), CPU))
    torch.testing.assert_close(aligned, found)


def test_nobody_known_has_the_statistics_of_the_log() -> None:
    towers = draw_towers(TowerSizes(ITEMS, (0, 1, 2)), 0)
    torch.testing.assert_close(
        towers.statistics(torch.zeros(2, 4), 5.0), torch.zeros(2, 4), atol=1e-6, rtol=0
    )


@pytest.mark.parametrize("parents", [(0, 1, 2), (0, 1, 1)])
def test_fresh_item_biases_are_the_items_own_rates_above_the_logs(parents: tuple[int, ...]) -> None:
    towers = draw_towers(TowerSizes(ITEMS, parents), 0, gamma=1e-3)
    counts = torch.tensor([[500.0, 300.0, 100.0, 100.0]])
    blank = rows_of(FeatureTable.empty(1), CPU)
    found = towers.item_biases(torch.tensor([0]), counts, blank)
    wanted = towers.statistics(counts, towers.sizes.item_prior_rows)[:, :3]
    assert found[0, 0] == wanted[0, 0]  # nothing bends the first step
    assert bool((found <= wanted).all())


def test_user_cosines_are_unit_vectors_dotted() -> None:
    for hidden in (0, 4):
        towers = draw_towers(TowerSizes(ITEMS, (0, 1, 2), width=3, hidden=hidden), 0, weights=1.0)
        rng = torch.Generator().manual_seed(1)
        first = torch.randn(8, hidden or 9, generator=rng)
        units = torch.nn.functional.normalize(torch.randn(8, 3, 3, generator=rng), dim=2)
        expected = (towers.user_units(first) * units).sum(2)
        torch.testing.assert_close(towers.user_cosines(first, units), expected)
        norms = towers.user_units(first).norm(dim=2)
        torch.testing.assert_close(norms, torch.ones(8, 3))


def test_a_vector_without_length_has_no_direction_and_no_nan() -> None:
    towers = draw_towers(TowerSizes(ITEMS, (0, 1), width=3), 0)
    first = (-towers.user_shift.detach()).expand(2, -1).clone().requires_grad_()
    towers.user_cosines(first, torch.ones(2, 2, 3)).sum().backward()
    assert first.grad is not None and bool(torch.isfinite(first.grad).all())
    assert towers.user_units(first.detach()).tolist() == [[[0.0] * 3] * 2] * 2


def test_some_items_are_the_rows_of_all_items() -> None:
    model = draw_model(hidden=4)
    places = np.array([5, 0, 39])
    few = model.towers.items(torch.from_numpy(places), rows_of(model.known.item_features.take(places), CPU))
    every = model.towers.items(None, rows_of(model.known.item_features, CPU))
    torch.testing.assert_close(few.embedded, every.embedded[places])
    torch.testing.assert_close(few.unit, every.unit[places])


def test_an_item_without_a_row_of_its_own_is_what_its_features_say() -> None:
    model = draw_model()
    towers, table = model.towers, model.known.item_features
    with torch.no_grad():
        towers.item_id[[4, 9]] = 0.0
    twins = table.take(np.array([9] * 40))
    found = towers.items(torch.tensor([4, 9]), rows_of(twins.take(np.arange(2)), CPU))
    assert torch.equal(found.unit[0], found.unit[1])
    said = slow_features(table, 9, towers.item_sparse, towers.item_dense)
    np.testing.assert_allclose(found.embedded[0].numpy(), said, rtol=1e-5, atol=1e-6)


def test_features_times_weights_equal_dense_products() -> None:
    table, rng = draw_table(7, 5, 3, 0), torch.Generator().manual_seed(0)
    sparse, dense = torch.randn(5, 4, generator=rng), torch.randn(3, 4, generator=rng)
    expected = torch.from_numpy(table.sparse.toarray()) @ sparse + torch.from_numpy(table.dense) @ dense
    torch.testing.assert_close(rows_of(table, CPU).times(sparse, dense), expected)
    blank: Rows = rows_of(table.blank(2), CPU)
    assert blank.times(sparse, dense).tolist() == [[0.0] * 4] * 2


@pytest.mark.parametrize("hidden", [0, 4])
def test_every_weight_gets_a_gradient(hidden: int) -> None:
    sizes = TowerSizes(ITEMS, (0, 1, 2), "gnolr", 5, 6, hidden, 3, 2, 2, 1)
    towers = draw_towers(sizes, 0, weights=0.5, learn_thresholds=True)
    logits = every_part(towers, 0).sum(1) @ towers.mixing.T - towers.thresholds
    nested_ordinal_loss(logits, torch.arange(len(logits)) % 4, towers.tree).sum().backward()
    unused = {"item_out", "user_out"} if hidden == 0 else set()
    for name, weight in towers.named_parameters():
        assert name in unused or (weight.grad is not None and bool((weight.grad != 0).any())), name


@pytest.mark.parametrize("seed", [0, 1])
def test_the_same_generator_draws_the_same_weights(seed: int) -> None:
    sizes = TowerSizes(ITEMS, (0, 1, 2))
    first, second = draw_towers(sizes, seed).state_dict(), draw_towers(sizes, seed).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["item_id"], draw_towers(sizes, seed + 5).state_dict()["item_id"])
