import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from persona.data.comparisons import ComparisonTable
from persona.data.synthetic import Size, draw_tied
from persona.errors import ShapeError
from persona.objectives.ties import davidson_loss, rao_kupper_loss, rated_loss
from persona.profiles.pooled import bradley_terry_weights

MARGIN = torch.tensor([-3.0, -0.4, 0.0, 0.7, 5.0], dtype=torch.float64)
STRICT = torch.zeros(5, dtype=torch.bool)


class TestRaoKupper:
    def test_matches_the_odds_written_out(self) -> None:
        k = 3.0
        worth = MARGIN.exp()
        strict = rao_kupper_loss(MARGIN, STRICT, torch.tensor(math.log(k)).double())
        tied = rao_kupper_loss(MARGIN, ~STRICT, torch.tensor(math.log(k)).double())
        torch.testing.assert_close(strict.neg().exp(), worth / (worth + k), rtol=1e-6, atol=0)
        torch.testing.assert_close(
            tied.neg().exp(), (k * k - 1) * worth / ((worth + k) * (1 + k * worth)), rtol=1e-6, atol=0
        )

    def test_the_three_outcomes_have_probability_one(self) -> None:
        width = torch.tensor(0.8, dtype=torch.float64)
        total = sum(
            rao_kupper_loss(margin, tie, width).neg().exp()
            for margin, tie in ((MARGIN, STRICT), (-MARGIN, STRICT), (MARGIN, ~STRICT))
        )
        torch.testing.assert_close(total, torch.ones_like(MARGIN))

    def test_without_width_it_is_bradley_terry(self) -> None:
        loss = rao_kupper_loss(MARGIN, STRICT, torch.zeros(()).double())
        torch.testing.assert_close(loss, -logsigmoid(MARGIN))
        assert rao_kupper_loss(MARGIN, ~STRICT, torch.zeros(()).double()).isinf().all()

    def test_gradients_are_those_of_finite_differences(self) -> None:
        tie = torch.tensor([True, False, True, False, True])
        width = torch.tensor([0.5, 1.0, 2.0, 0.1, 0.3], dtype=torch.float64, requires_grad=True)
        margin = MARGIN.clone().requires_grad_()
        assert torch.autograd.gradcheck(lambda m, w: rao_kupper_loss(m, tie, w), (margin, width))

    def test_without_ties_a_width_of_zero_has_a_finite_gradient(self) -> None:
        width = torch.zeros((), dtype=torch.float64, requires_grad=True)
        rao_kupper_loss(MARGIN, STRICT, width).sum().backward()
        assert width.grad is not None
        assert float(width.grad) == pytest.approx(float(torch.sigmoid(-MARGIN).sum()))

    def test_extreme_margins_and_widths_stay_finite(self) -> None:
        far = torch.tensor([-500.0, 500.0])
        for tie in (False, True):
            assert rao_kupper_loss(far, torch.full((2,), tie), torch.tensor(100.0)).isfinite().all()

    def test_shapes_are_checked(self) -> None:
        with pytest.raises(ShapeError, match=r"got \(2,\) and \(\) for \(5,\)"):
            rao_kupper_loss(MARGIN, STRICT[:2], torch.ones(()))
        with pytest.raises(ShapeError, match=r"`log_ties` must broadcast to it; got \(5,\) and \(3,\)"):
            davidson_loss(MARGIN, STRICT, torch.ones(3))


class TestDavidson:
    def test_the_three_outcomes_have_probability_one(self) -> None:
        level = torch.tensor(-0.3, dtype=torch.float64)
        total = sum(
            davidson_loss(margin, tie, level).neg().exp()
            for margin, tie in ((MARGIN, STRICT), (-MARGIN, STRICT), (MARGIN, ~STRICT))
        )
        torch.testing.assert_close(total, torch.ones_like(MARGIN))

    def test_strict_choices_follow_bradley_terry(self) -> None:
        level = torch.tensor(0.7, dtype=torch.float64)
        odds = davidson_loss(-MARGIN, STRICT, level) - davidson_loss(MARGIN, STRICT, level)
        torch.testing.assert_close(odds, MARGIN)
        none = davidson_loss(MARGIN, STRICT, torch.tensor(-80.0).double())
        torch.testing.assert_close(none, -logsigmoid(MARGIN))

    def test_gradients_are_those_of_finite_differences(self) -> None:
        tie = torch.tensor([True, False, True, False, True])
        level = torch.tensor(0.2, dtype=torch.float64, requires_grad=True)
        margin = MARGIN.clone().requires_grad_()
        assert torch.autograd.gradcheck(lambda m, v: davidson_loss(m, tie, v), (margin, level))


class TestRated:
    def test_matches_a_loop_over_pairs(self) -> None:
        rng = torch.Generator().manual_seed(0)
        score = torch.randn(6, 4, generator=rng, dtype=torch.float64)
        rating = torch.randint(1, 6, (6, 4), generator=rng)
        mask = torch.rand(6, 4, generator=rng) < 0.8
        mask[0] = torch.tensor([True, False, False, False])
        width = torch.tensor(0.5, dtype=torch.float64)
        loss = rated_loss(score, rating.double(), mask, width)
        for row in range(6):
            total, count = 0.0, 0
            for i in range(4):
                for j in range(i):
                    if mask[row, i] and mask[row, j]:
                        worse, better = sorted((i, j), key=lambda n: float(rating[row, n]))
                        tie = rating[row, i] == rating[row, j]
                        margin = score[row, better] - score[row, worse]
                        total += float(rao_kupper_loss(margin, tie, width))
                        count += 1
            assert float(loss[row]) == pytest.approx(total / max(count, 1))

    def test_what_is_not_rated_is_not_read(self) -> None:
        score = torch.tensor([[0.0, 1.0, float("nan")]], requires_grad=True)
        rating = torch.tensor([[1.0, 2.0, float("nan")]])
        mask = torch.tensor([[True, True, False]])
        loss = rated_loss(score, rating, mask, torch.zeros(()))
        loss.sum().backward()
        assert float(loss.detach()) == pytest.approx(math.log1p(math.exp(-1.0)))
        assert score.grad is not None
        assert score.grad.isfinite().all()

    def test_close_ratings_tie(self) -> None:
        score, rating = torch.zeros(1, 2), torch.tensor([[1.0, 1.4]])
        tied = rated_loss(score, rating, torch.ones(1, 2).bool(), torch.tensor(math.log(5.0)), slack=0.5)
        assert float(tied) == pytest.approx(math.log(1.5))

    def test_shapes_are_checked(self) -> None:
        with pytest.raises(ShapeError, match=r"one shape \(B, N\); got \(1, 2\), \(1, 3\) and \(1, 2\)"):
            rated_loss(torch.zeros(1, 2), torch.zeros(1, 3), torch.zeros(1, 2).bool(), torch.zeros(()))


def held_out_nats(seed: int) -> tuple[float, float, float]:
    """Nats a held-out comparison of a pooled model: with ties, with ties dropped, and those of strict choices."""
    family = draw_tied(seed, Size(users=20, comparisons=40, prompts=400, dims=20), ties=0.3, common=1.0)
    train, test = family.table.select(np.arange(200)), family.table.select(np.arange(200, len(family.table)))

    def split(table: ComparisonTable) -> tuple[Tensor, Tensor]:
        sides = (torch.from_numpy(side) for side in (table.chosen, table.rejected))
        chosen, rejected = (family.features[side] for side in sides)
        return chosen - rejected, torch.from_numpy(table.is_tie)

    (seen, seen_tie), (asked, asked_tie) = split(train), split(test)
    weights, level = torch.zeros(20, requires_grad=True), torch.zeros((), requires_grad=True)
    optimiser = torch.optim.LBFGS([weights, level], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = rao_kupper_loss(seen @ weights, seen_tie, level.exp()).sum() + 0.5 * weights.square().sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    with torch.no_grad():
        ours = rao_kupper_loss(asked @ weights, asked_tie, level.exp())
        # Dropping ties leaves Bradley-Terry, and the share of ties as the best guess whether one comes.
        dropped = asked @ bradley_terry_weights(seen[~seen_tie], 1.0)
        share = seen_tie.float().mean()
        theirs = torch.where(asked_tie, -share.log(), -(1 - share).log() - logsigmoid(dropped))
        margin, strict = (asked @ weights)[~asked_tie], torch.zeros(int((~asked_tie).sum()), dtype=torch.bool)
        ahead, behind = (rao_kupper_loss(s * margin, strict, level.exp()) for s in (1.0, -1.0))
        gap = torch.nn.functional.softplus(ahead - behind) + logsigmoid(dropped[~asked_tie])
    return float(ours.mean()), float(theirs.mean()), float(gap.mean())


def test_learning_from_ties_beats_dropping_them() -> None:
    ours, theirs, _ = held_out_nats(0)
    assert ours < theirs - 0.05


@pytest.mark.statistical
def test_learning_from_ties_beats_dropping_them_over_seeds() -> None:
    results = np.array([held_out_nats(seed) for seed in range(20)])
    better = results[:, 1] - results[:, 0]
    assert (better > 0).all()
    assert better.mean() > 0.1
    # Even among strict choices alone, where both models only say who wins.
    assert results[:, 2].mean() + 2 * results[:, 2].std(ddof=1) / 20**0.5 < 0
