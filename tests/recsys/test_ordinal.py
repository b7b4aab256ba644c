import math

import numpy as np
import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid

from recsys.errors import OrdinalError, ShapeError
from recsys.models.ordinal import (
    LEAST_GAP,
    LevelTree,
    log_sigmoid_difference,
    nested_ordinal_loss,
    smoothed_logits,
    thresholds_from_counts,
)
from tests.helpers.slow_gnolr import slow_loss, slow_way

Parents = tuple[int, ...]
# A branch, two roots, a branch below a branch.
TREES: list[Parents] = [(0, 1, 1), (0, 0, 2), (0, 1, 1, 3, 3), (0, 0, 0)]


def draw_logits(rows: int, parents: Parents, seed: int, *, least_gap: float = 0.05) -> torch.Tensor:
    """Logits that lie below their parents', in float64."""
    rng = torch.Generator().manual_seed(seed)
    gaps = least_gap + 2 * torch.rand(rows, len(parents), generator=rng, dtype=torch.float64)
    first = 3 * torch.randn(rows, len(parents), generator=rng, dtype=torch.float64)
    columns: list[torch.Tensor] = []
    for place, parent in enumerate(parents):
        columns.append(first[:, place] if parent == 0 else columns[parent - 1] - gaps[:, place])
    return torch.stack(columns, dim=1)


@pytest.mark.parametrize("nested", [True, False])
@pytest.mark.parametrize("parents", [*(tuple(range(depth)) for depth in (1, 2, 3, 4, 6)), *TREES])
def test_loss_equals_the_written_out_readings(parents: Parents, nested: bool) -> None:
    logits = draw_logits(60, parents, seed=len(parents))
    levels = torch.arange(60) % (len(parents) + 1)
    expected = [
        slow_loss(z, level, parents, nested=nested)
        for z, level in zip(logits.tolist(), levels.tolist(), strict=True)
    ]
    found = nested_ordinal_loss(logits, levels, LevelTree(parents), nested=nested)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-9)


def test_without_a_tree_levels_are_a_chain() -> None:
    logits, levels = draw_logits(30, (0, 1, 2), seed=1), torch.arange(30) % 4
    expected = nested_ordinal_loss(logits, levels, LevelTree.chain(3))
    assert torch.equal(nested_ordinal_loss(logits, levels), expected)


def test_one_level_is_binary_cross_entropy() -> None:
    logits, levels = draw_logits(50, (0,), seed=0), torch.arange(50) % 2
    expected = binary_cross_entropy_with_logits(logits[:, 0], levels.double(), reduction="none")
    for nested in (True, False):
        torch.testing.assert_close(nested_ordinal_loss(logits, levels, nested=nested), expected)


def test_two_levels_are_the_sum_of_the_papers_two_losses() -> None:
    logits = torch.tensor([[0.3, -1.1]], dtype=torch.float64).repeat(3, 1)
    first, second = logits[0].sigmoid().tolist()
    expected = [
        -math.log(1 - first) - math.log(1 - first),
        -math.log(first) - math.log(first - second),
        -math.log(first) - math.log(second),
    ]
    np.testing.assert_allclose(nested_ordinal_loss(logits, torch.arange(3)).numpy(), expected, rtol=1e-12)


def test_unnested_loss_is_the_likelihood_of_ordinal_regression() -> None:
    logits, levels = draw_logits(40, (0, 1, 2), seed=2), torch.arange(40) % 4
    reach = torch.cat([torch.ones(40, 1), logits.sigmoid(), torch.zeros(40, 1)], dim=1)
    rows = torch.arange(40)
    expected = -torch.log(reach[rows, levels] - reach[rows, levels + 1])
    torch.testing.assert_close(nested_ordinal_loss(logits, levels, nested=False), expected)


def test_parallel_branches_are_the_sum_of_click_liking_and_hating() -> None:
    click, like, hate = 0.6, 0.25, 0.1
    logits = torch.logit(torch.tensor([[click, like, hate]], dtype=torch.float64)).repeat(4, 1)
    expected = [
        -math.log(1 - click) - math.log(1 - click) - math.log(1 - click),
        -math.log(click) - math.log(click - like) - math.log(click - hate),
        -math.log(click) - math.log(like) - math.log(click - hate),
        -math.log(click) - math.log(click - like) - math.log(hate),
    ]
    found = nested_ordinal_loss(logits, torch.arange(4), LevelTree((0, 1, 1)))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize("nested", [True, False])
@pytest.mark.parametrize("place", [100.0, -100.0, 0.0])
@pytest.mark.parametrize("gap", [2e-5, 0.02, 1.0, 100.0])
def test_loss_and_gradient_stay_finite_where_subtraction_would_not(
    place: float, gap: float, nested: bool
) -> None:
    for parents in ((0, 1), (0, 1, 1)):
        row = [place] + [place - gap] * (len(parents) - 1)
        logits = torch.tensor([row] * (len(parents) + 1), requires_grad=True)
        levels = torch.arange(len(parents) + 1)
        loss = nested_ordinal_loss(logits, levels, LevelTree(parents), nested=nested)
        (gradient,) = torch.autograd.grad(loss.sum(), logits)
        assert bool(torch.isfinite(loss).all()) and bool(torch.isfinite(gradient).all())


def test_losses_far_out_keep_their_closed_form() -> None:
    found = nested_ordinal_loss(torch.tensor([[-100.0, -101.0], [101.0, 100.0]]), torch.tensor([1, 1]))
    # log(P_1 - P_2) = z_1 + log(1 - 1/e) far left, and -z_2 + log(1 - 1/e) far right.
    apart = math.log(1 - math.exp(-1))
    torch.testing.assert_close(found, torch.tensor([200.0 - apart, 100.0 - apart]))


def test_shallow_levels_give_deeper_logits_no_gradient() -> None:
    logits = draw_logits(1, (0, 1, 2, 3), seed=0).requires_grad_()
    nested_ordinal_loss(logits, torch.tensor([1])).backward()
    assert logits.grad is not None
    # Level 1 is told from level 2 by z_2, but nothing distinguishes z_3 and z_4.
    assert (logits.grad[0] != 0).tolist() == [True, True, False, False]


def test_log_difference_equals_high_precision() -> None:
    upper = torch.tensor([2.0, 0.7, -3.0, 5.0], dtype=torch.float64)
    lower = torch.tensor([1.0, 0.65, -3.5, -5.0], dtype=torch.float64)
    expected = torch.log(torch.sigmoid(upper) - torch.sigmoid(lower))
    torch.testing.assert_close(log_sigmoid_difference(upper, lower), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("logits", "levels", "error", "message"),
    [
        (torch.zeros(2), torch.zeros(2).long(), ShapeError, r"\(B, 2\) and \(B,\); got \(2,\) and \(2,\)"),
        (torch.zeros(2, 1), torch.zeros(3).long(), ShapeError, r"got \(2, 1\) and \(3,\)"),
        (torch.zeros(2, 1), torch.tensor([2, -1]), OrdinalError, r"lie in 0\.\.1; got \[2, -1\]"),
        (
            torch.tensor([[1.0, 0.0], [1.0, 1.0]]),
            torch.tensor([0, 0]),
            OrdinalError,
            r"\[1\.0, 1\.0\] in row 1",
        ),
    ],
)
def test_rows_that_do_not_fit_are_refused(
    logits: torch.Tensor, levels: torch.Tensor, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        nested_ordinal_loss(logits, levels)


def test_siblings_may_cross_but_no_level_its_parent() -> None:
    tree = LevelTree((0, 1, 1))
    for row in ([1.0, 0.0, 0.5], [1.0, 0.5, 0.0], [1.0, 0.5, 0.5]):
        assert bool(torch.isfinite(nested_ordinal_loss(torch.tensor([row]), torch.tensor([1]), tree)).all())
    with pytest.raises(OrdinalError, match=r"got \[0\.0, -1\.0, 0\.5\] in row 0"):
        nested_ordinal_loss(torch.tensor([[0.0, -1.0, 0.5]]), torch.tensor([1]), tree)


@pytest.mark.parametrize("parents", [(0,), (0, 1, 2, 3), *TREES])
def test_tables_of_a_tree_equal_brute_force(parents: Parents) -> None:
    tree, levels = LevelTree(parents), range(1, len(parents) + 1)
    assert tree.levels == len(parents)
    assert tree.is_chain == (parents == tuple(range(len(parents))))
    paths = [[float(step in slow_way(parents, level)) for step in levels] for level in levels]
    assert tree.paths.tolist() == paths
    assert tree.reached.tolist() == [[0.0] * len(parents), *paths]
    assert tree.roots.tolist() == [parent == 0 for parent in parents]
    assert tree.leaves.tolist() == [level not in parents for level in levels]
    # Differences from parents undo sums along the way.
    assert torch.equal(tree.edges @ tree.paths, torch.eye(len(parents)))


@pytest.mark.parametrize("parents", [(0,), (0, 1, 2, 3), *TREES])
def test_terms_name_the_last_step_taken_or_the_first_missed(parents: Parents) -> None:
    count = len(parents)
    for aim in range(1, count + 1):
        for level in range(count + 1):
            missed = [step for step in slow_way(parents, aim) if step not in slow_way(parents, level)]
            expected = count + missed[0] - 1 if missed else aim - 1
            assert int(LevelTree(parents).terms[aim - 1, level]) == expected


@pytest.mark.parametrize("nested", [True, False])
@pytest.mark.parametrize("parents", [(0,), (0, 1, 2, 3), *TREES])
def test_ignored_readings_give_the_loss_of_an_ignored_row(parents: Parents, nested: bool) -> None:
    logits, tree = draw_logits(5, parents, seed=4), LevelTree(parents)
    weights = tree.ignored_readings(nested=nested).double()
    found = -(logsigmoid(-logits) @ weights)
    expected = nested_ordinal_loss(logits, torch.zeros(5).long(), tree, nested=nested)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("parents", [(), (1,), (0, 2), (0, -1)])
def test_parents_that_come_later_are_refused(parents: Parents) -> None:
    with pytest.raises(OrdinalError, match=r"an earlier level for each level 1\.\.C; got \["):
        LevelTree(parents)


def test_thresholds_are_minus_the_logit_of_the_base_rates() -> None:
    counts = torch.tensor([799.5, 149.5, 39.5, 9.5])  # 800, 150, 40, 10 after half a row each
    expected = [math.log(800 / 200), math.log(950 / 50), math.log(990 / 10)]
    np.testing.assert_allclose(thresholds_from_counts(counts).numpy(), expected, rtol=1e-6)


def test_thresholds_of_branches_count_all_that_pass_through() -> None:
    counts = torch.tensor([799.5, 149.5, 39.5, 9.5])
    expected = [math.log(800 / 200), math.log(960 / 40), math.log(990 / 10)]
    found = thresholds_from_counts(counts, LevelTree((0, 1, 1)))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6)


def test_sampled_rows_scale_the_odds_of_the_first_level() -> None:
    counts = torch.tensor([800, 200])
    plain = thresholds_from_counts(counts)
    mixed = thresholds_from_counts(counts, extra_ignored=3.0)
    # 800 level-0 rows become 3,800.
    assert math.isclose(float(mixed[0] - plain[0]), math.log(3800.5 / 800.5), rel_tol=1e-5)


@pytest.mark.parametrize("parents", [(0, 1, 2, 3), (0, 1, 1, 3), (0, 0, 2, 2)])
def test_thresholds_increase_even_for_levels_never_seen(parents: Parents) -> None:
    tree = LevelTree(parents)
    for counts in ([10**9, 10**9, 0, 0, 0], [0, 0, 0, 0, 10**9], [10**9, 0, 0, 0, 0], [0, 0, 0, 0, 0]):
        found = thresholds_from_counts(torch.tensor(counts), tree)
        assert bool(torch.isfinite(found).all())
        assert bool(((found @ tree.edges.T)[~tree.roots] >= 0.99 * LEAST_GAP).all())


@pytest.mark.parametrize("counts", [[5.0], [5.0, -1.0]])
def test_counts_that_are_none_are_refused(counts: list[float]) -> None:
    with pytest.raises(OrdinalError, match=r"two levels or more, none negative; got \[5\.0"):
        thresholds_from_counts(torch.tensor(counts))


def test_smoothed_logits_by_hand() -> None:
    rates = torch.tensor([0.2, 0.1])
    found = smoothed_logits(torch.tensor([[6.0, 3.0, 1.0]]), rates, 10.0, LevelTree.chain(2))
    # 4 + 2 of 20 rows reach level 1, 1 + 1 of 20 reach level 2.
    expected = torch.tensor([[math.log(6 / 14), math.log(2 / 18)]])
    torch.testing.assert_close(found, expected)
    branches = smoothed_logits(torch.tensor([[6.0, 3.0, 1.0]]), rates, 10.0, LevelTree((0, 0)))
    # 3 + 2 of 20 take the first branch, 1 + 1 the second.
    torch.testing.assert_close(branches, torch.tensor([[math.log(5 / 15), math.log(2 / 18)]]))


def test_smoothed_logits_without_rows_are_the_logs_own() -> None:
    rates = torch.tensor([0.3, 0.01])
    found = smoothed_logits(torch.zeros(2, 3), rates, 5.0, LevelTree.chain(2))
    torch.testing.assert_close(found, torch.logit(rates).expand(2, 2))
