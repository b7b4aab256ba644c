import math

import numpy as np
import pytest
import torch
from torch import Tensor

from recsys.errors import RecsysError, ShapeError
from recsys.objectives import ListObjective, irpo_loss, listwise_loss, single_pair_loss

FORMS: list[ListObjective] = [irpo_loss, listwise_loss, single_pair_loss]


def lists(seed: int = 0, rows: int = 6, n: int = 7) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Scores, reference, grades 0..3 and shuffled positions."""
    rng = np.random.default_rng(seed)
    scores, reference = (torch.from_numpy(rng.normal(size=(rows, n)) * 3) for _ in range(2))
    grades = torch.from_numpy(rng.integers(0, 4, size=(rows, n)))
    positions = torch.from_numpy(rng.permuted(np.tile(np.arange(1, n + 1), (rows, 1)), axis=1))
    return scores, reference, grades, positions


def slow_irpo(
    scores: Tensor, reference: Tensor, grades: Tensor, positions: Tensor, beta: float
) -> list[float]:
    """The paper's form, item by item: a sigmoid of minus the log of a sum over all others."""
    found = []
    for row in range(len(scores)):
        s = [beta * (float(p) - float(r)) for p, r in zip(scores[row], reference[row], strict=True)]
        total = 0.0
        for i in range(len(s)):
            others = sum(math.exp(s[j] - s[i]) for j in range(len(s)) if j != i)
            before_all = 1 / (1 + math.exp(math.log(others)))
            weight = (2 ** int(grades[row, i]) - 1) / math.log2(1 + int(positions[row, i]))
            total -= weight * math.log(before_all)
        found.append(total)
    return found


def test_three_items_by_hand() -> None:
    scores, reference = torch.tensor([[1.0, 3.0, 0.0]]), torch.tensor([[0.0, 1.0, 1.0]])
    s = [0.5 * 1, 0.5 * 2, 0.5 * -1]
    total = math.exp(s[0]) + math.exp(s[1]) + math.exp(s[2])
    grades = torch.tensor([[2, 0, 1]])
    expected = 3 / math.log2(2) * -math.log(math.exp(s[0]) / total)
    expected += 1 / math.log2(4) * -math.log(math.exp(s[2]) / total)
    assert irpo_loss(scores, reference, grades, beta=0.5).item() == pytest.approx(expected)
    flat = -math.log(math.exp(s[0]) / total) - math.log(math.exp(s[2]) / total)
    assert listwise_loss(scores, reference, grades, beta=0.5).item() == pytest.approx(flat)
    pair = math.log(1 + math.exp(-(s[0] - s[1])))
    assert single_pair_loss(scores, reference, grades, beta=0.5).item() == pytest.approx(pair)


@pytest.mark.parametrize("seed", range(5))
def test_the_softmax_equals_the_sigmoid_over_all_others(seed: int) -> None:
    scores, reference, grades, positions = lists(seed)
    found = irpo_loss(scores, reference, grades, positions, beta=0.7)
    assert found.tolist() == pytest.approx(slow_irpo(scores, reference, grades, positions, 0.7), rel=1e-10)


def test_one_grade_in_place_one_is_the_unweighted_form() -> None:
    scores, reference, grades, _ = lists()
    binary = (grades > 1).long()
    first = torch.ones_like(binary)
    torch.testing.assert_close(
        irpo_loss(scores, reference, binary, first, beta=0.3),
        listwise_loss(scores, reference, binary, beta=0.3),
    )


def test_on_two_items_every_form_is_the_logistic_loss() -> None:
    scores, reference, _, _ = lists(n=2)
    grades = torch.tensor([[1, 0]]).expand(6, 2)
    expected = torch.log1p(torch.exp(-0.4 * ((scores - reference)[:, 0] - (scores - reference)[:, 1])))
    for form in FORMS:  # the relevant item is in place 1, which discounts by log2(2) = 1
        torch.testing.assert_close(form(scores, reference, grades, beta=0.4), expected)


def test_the_pair_is_the_best_against_the_worst_and_places_settle_ties() -> None:
    scores = torch.tensor([[1.0, 2.0, 4.0, 8.0, 16.0]])
    grades, zero = torch.tensor([[2, 0, 2, 1, 0]]), torch.zeros(1, 5)

    def expected(best: float, worst: float) -> float:
        return math.log1p(math.exp(-(best - worst) / 10))

    in_order = single_pair_loss(scores, zero, grades, beta=0.1)
    assert in_order.item() == pytest.approx(expected(1, 2))
    backwards = torch.tensor([[5, 4, 3, 2, 1]])
    assert single_pair_loss(scores, zero, grades, backwards, beta=0.1).item() == pytest.approx(
        expected(4, 16)
    )


@pytest.mark.parametrize("form", FORMS)
def test_gradient_equals_finite_differences_and_spares_the_reference(form: ListObjective) -> None:
    scores, reference, grades, positions = lists()
    scores.requires_grad_(True)
    reference.requires_grad_(True)
    assert torch.autograd.gradcheck(
        lambda x: form(x, reference, grades, positions, beta=0.6), (scores,), check_undefined_grad=False
    )
    form(scores, reference, grades, positions, beta=0.6).sum().backward()
    assert reference.grad is None and scores.grad is not None
    torch.testing.assert_close(scores.grad.sum(1), torch.zeros(6, dtype=torch.float64))


@pytest.mark.parametrize("form", FORMS)
def test_a_shift_of_all_scores_of_a_list_changes_nothing(form: ListObjective) -> None:
    scores, reference, grades, positions = lists()
    shift = torch.arange(6.0)[:, None]
    torch.testing.assert_close(
        form(scores + shift, reference - 2 * shift, grades, positions, beta=0.6),
        form(scores, reference, grades, positions, beta=0.6),
    )


@pytest.mark.parametrize("form", FORMS)
def test_items_with_their_places_may_come_in_any_order(form: ListObjective) -> None:
    given = lists()
    order = torch.tensor([3, 1, 6, 0, 2, 5, 4])
    shuffled = [tensor[:, order] for tensor in given]
    torch.testing.assert_close(
        form(shuffled[0], shuffled[1], shuffled[2], shuffled[3], beta=0.6), form(*given, beta=0.6)
    )


@pytest.mark.parametrize("form", FORMS)
def test_padding_has_no_effect_and_gets_no_gradient(form: ListObjective) -> None:
    scores, reference, grades, positions = lists()
    junk = torch.full((6, 2), torch.nan, dtype=torch.float64)
    padded = torch.cat([scores, junk], 1).requires_grad_(True)
    mask = torch.arange(9).expand(6, 9) < 7
    found = form(
        padded,
        torch.cat([reference, junk], 1),
        torch.cat([grades, torch.full((6, 2), -5)], 1),
        torch.cat([positions, torch.zeros(6, 2, dtype=torch.long)], 1),
        beta=0.6,
        mask=mask,
    )
    torch.testing.assert_close(found, form(scores, reference, grades, positions, beta=0.6))
    found.sum().backward()
    assert padded.grad is not None and bool(torch.isfinite(padded.grad).all())
    assert bool((padded.grad[:, 7:] == 0).all())


@pytest.mark.parametrize("form", FORMS)
def test_lists_that_prefer_nothing_cost_nothing(form: ListObjective) -> None:
    scores = torch.tensor([[1.0, 2.0], [torch.nan, torch.nan]], requires_grad=True)
    mask = torch.tensor([[True, True], [False, False]])
    found = form(scores, torch.zeros(2, 2), torch.zeros(2, 2), beta=1.0, mask=mask)
    assert found.tolist() == [0, 0]
    found.sum().backward()
    assert scores.grad is not None and scores.grad.tolist() == [[0, 0], [0, 0]]


@pytest.mark.parametrize("form", FORMS)
def test_large_rewards_stay_finite(form: ListObjective) -> None:
    scores = torch.tensor([[-2000.0, 0.0]])
    assert form(scores, torch.zeros(1, 2), torch.tensor([[1, 0]]), beta=1.0).item() == 2000.0


@pytest.mark.parametrize("form", FORMS)
def test_arguments_that_do_not_fit_are_refused(form: ListObjective) -> None:
    zero = torch.zeros(2, 3)
    with pytest.raises(ShapeError, match=r"'scores': \(2, 3\), .*'relevance': \(2, 2\)"):
        form(zero, zero, torch.zeros(2, 2), beta=1.0)
    with pytest.raises(ShapeError, match=r"n at least 1; got .*\(2, 0\)"):
        form(zero[:, :0], zero[:, :0], zero[:, :0], beta=1.0)
    with pytest.raises(RecsysError, match="`beta` must be above 0; got 0"):
        form(zero, zero, zero, beta=0.0)
    with pytest.raises(RecsysError, match="`relevance` must be 0 or more; got -1"):
        form(zero, zero, zero - 1, beta=1.0)
    with pytest.raises(RecsysError, match=r"`positions` must be 1 or more; got 0"):
        form(zero, zero, zero, zero, beta=1.0)
