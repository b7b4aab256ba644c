import math

import pytest
import torch
from scipy.integrate import quad
from torch import Tensor

from persona.active import (
    choose_question,
    expected_information,
    log_odds_variance,
    mutual_information,
    prediction_gain,
    predictive_entropy,
    simulated_information,
)
from persona.errors import DataError, ShapeError
from persona.profiles import HierarchicalBayes, LatentProfile
from persona.profiles.amortised import AmortisedProfile, HeadName
from persona.types import Posterior, ReplyPairs


def pairs(rows: int, count: int, size: int, *, scale: float = 1.0, seed: int = 0) -> ReplyPairs:
    rng = torch.Generator().manual_seed(seed)
    one, other = (scale * torch.randn(rows, count, size, generator=rng) for _ in range(2))
    return ReplyPairs(one, other, torch.ones(rows, count, dtype=torch.bool))


def profile(size: int = 4) -> LatentProfile:
    made = LatentProfile(size, size, seed=1)
    with torch.no_grad():
        made.head.copy_(torch.eye(size))
    return made.requires_grad_(False)


class Kinds:
    """Two kinds of user who like the only feature, or its opposite: a belief over kinds, by Bayes' rule."""

    latent_dim = 1

    def lift(self, features: Tensor) -> Tensor:
        return features

    def encode(self, pairs: ReplyPairs) -> Posterior:
        odds = (pairs.difference[..., 0] * pairs.mask).sum(1, keepdim=True) * torch.tensor([1.0, -1.0])
        signed = pairs.difference[..., :1] * torch.tensor([1.0, -1.0])
        weights = (torch.nn.functional.logsigmoid(signed) * pairs.mask[..., None]).sum(1).softmax(1)
        return Posterior(torch.tanh(odds[:, :1]), torch.ones(len(odds), 1, 1), weights)

    def predict(self, posterior: Posterior, asked: ReplyPairs) -> Tensor:
        assert posterior.weights is not None
        up = torch.sigmoid(asked.difference[..., 0])
        return posterior.weights[:, :1] * up + posterior.weights[:, 1:] * (1 - up)


@pytest.mark.parametrize(
    ("mean", "variance"), [(0.0, 0.01), (0.0, 4.0), (1.5, 1.0), (-3.0, 25.0), (0.0, 100.0), (8.0, 2.0)]
)
def test_information_is_the_integral(mean: float, variance: float) -> None:
    def density(x: float) -> float:
        return math.exp(-((x - mean) ** 2) / (2 * variance)) / math.sqrt(2 * math.pi * variance)

    def entropy(p: float) -> float:
        return -p * math.log(p) - (1 - p) * math.log1p(-p) if 1e-15 < p < 1 - 1e-15 else 0.0

    def sigmoid(x: float) -> float:
        return 1 / (1 + math.exp(-x))

    reach, options = 10 * math.sqrt(variance), {"limit": 400, "points": [0.0]}
    ends = min(mean - reach, -1.0), max(mean + reach, 1.0)
    chance = quad(lambda x: density(x) * sigmoid(x), *ends, **options)[0]
    noise = quad(lambda x: density(x) * entropy(sigmoid(x)), *ends, **options)[0]
    got = mutual_information(torch.tensor([mean]), torch.tensor([variance])).item()
    assert got == pytest.approx(entropy(chance) - noise, abs=2e-4)


def test_a_certain_belief_can_learn_nothing_and_a_wide_one_a_whole_bit() -> None:
    got = mutual_information(torch.zeros(2), torch.tensor([0.0, 1e6]))
    assert got.tolist() == pytest.approx([0.0, math.log(2)], abs=5e-3)


def test_alike_replies_are_uncertain_but_not_worth_a_question() -> None:
    """The first pair is nearly one reply twice; the second is what the belief is unsure of, leaning one way."""
    difference = torch.tensor([[[0.01, 0.0], [0.0, 4.0]]])
    asked = ReplyPairs.of_differences(difference, torch.ones(1, 2, dtype=torch.bool))
    belief = Posterior(torch.tensor([[0.0, 0.5]]), torch.eye(2)[None])
    made = profile(2)
    assert choose_question(made, belief, asked, predictive_entropy).item() == 0
    assert choose_question(made, belief, asked).item() == 1
    assert choose_question(made, belief, asked, log_odds_variance).item() == 1


def test_a_foregone_answer_is_wide_but_not_worth_a_question() -> None:
    difference = torch.tensor([[[3.0, 0.0], [0.0, 2.0]]])
    asked = ReplyPairs.of_differences(difference, torch.ones(1, 2, dtype=torch.bool))
    belief = Posterior(torch.tensor([[6.0, 0.0]]), torch.eye(2)[None])
    assert choose_question(profile(2), belief, asked, log_odds_variance).item() == 0
    assert choose_question(profile(2), belief, asked, expected_information).item() == 1


def test_simulated_answers_agree_with_the_closed_form() -> None:
    made, context = profile(), pairs(6, 5, 4, scale=0.7)
    candidates = pairs(6, 30, 4, scale=0.7, seed=1)
    belief = made.encode(context)
    exact = expected_information(made, belief, candidates)
    tried = simulated_information(context)(made, belief, candidates)
    assert torch.corrcoef(torch.stack([exact.flatten(), tried.flatten()]))[0, 1] > 0.98
    torch.testing.assert_close(exact, tried, atol=0.05, rtol=0.2)


def test_simulated_answers_are_exact_for_a_belief_over_kinds() -> None:
    made, context = Kinds(), pairs(3, 2, 1, scale=0.5)
    candidates = pairs(3, 7, 1, seed=1)
    belief = made.encode(context)
    assert belief.weights is not None
    up = torch.sigmoid(candidates.difference[..., 0])
    chance = made.predict(belief, candidates)

    def entropy(p: Tensor) -> Tensor:
        return -(p * p.log() + (1 - p) * (1 - p).log())

    expected = entropy(chance) - entropy(up)  # either kind decides equally surely
    got = simulated_information(context)(made, belief, candidates)
    torch.testing.assert_close(got, expected, atol=1e-6, rtol=1e-4)


def test_blocks_of_simulated_answers_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    made, context, candidates = profile(), pairs(3, 2, 4), pairs(3, 7, 4, seed=1)
    whole = simulated_information(context)(made, made.encode(context), candidates)
    monkeypatch.setattr("persona.active.ENTRIES_PER_BLOCK", 100)
    torch.testing.assert_close(simulated_information(context)(made, made.encode(context), candidates), whole)


def test_users_of_a_batch_are_asked_what_they_would_be_asked_alone() -> None:
    made, context, candidates = profile(), pairs(5, 3, 4), pairs(5, 9, 4, seed=1)
    belief = made.encode(context)
    together = choose_question(made, belief, candidates)
    for row in range(5):
        own = Posterior(belief.mean[[row]], belief.covariance[[row]])
        alone = choose_question(made, own, ReplyPairs(*(part[[row]] for part in candidates)))
        assert alone.item() == together[row].item()


def test_prediction_gain_is_the_fall_of_variance_after_a_gaussian_answer() -> None:
    """Each pair in turn is observed with the precision of its slope; what is left is counted pair by pair."""
    made, candidates = profile(), pairs(3, 6, 4, seed=1)
    belief = made.encode(pairs(3, 4, 4))
    got = prediction_gain(made, belief, candidates)
    mean, variance = made.log_odds(belief, candidates)
    noise = torch.randn(20_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    chance = torch.sigmoid(mean[..., None] + variance.sqrt()[..., None] * torch.cat([noise, -noise]))
    slope = (chance * (1 - chance)).mean(-1)
    for row in range(3):
        for asked in range(6):
            seen = candidates.difference[row, asked]
            precision = torch.linalg.inv(belief.covariance[row]) + slope[row, asked] * torch.outer(seen, seen)
            after = Posterior(belief.mean[[row]], torch.linalg.inv(precision)[None].float())
            alone = ReplyPairs(*(part[[row]] for part in candidates))
            fall = (variance[[row]] - made.log_odds(after, alone)[1]) @ slope[row].float()
            assert got[row, asked].item() == pytest.approx(fall.item(), rel=0.03)


@pytest.mark.parametrize("head", ["bilinear", "film"])
def test_joint_log_odds_hold_the_single_ones(head: HeadName) -> None:
    for made in (profile(), AmortisedProfile(4, 3, head=head, hidden=8).requires_grad_(False)):
        belief, asked = made.encode(pairs(2, 3, 4)), pairs(2, 6, 4, seed=1)
        mean, covariance = made.joint_log_odds(belief, asked)
        alone = made.log_odds(belief, asked)
        torch.testing.assert_close(mean, alone[0])
        torch.testing.assert_close(covariance.diagonal(dim1=1, dim2=2), alone[1], atol=1e-5, rtol=1e-4)
        assert torch.linalg.eigvalsh(covariance).min() > -1e-4


def test_masked_candidates_are_never_asked() -> None:
    made, candidates = profile(), pairs(2, 3, 4)
    belief = made.encode(pairs(2, 0, 4))
    scores = expected_information(made, belief, candidates)
    mask = candidates.mask.scatter(1, scores.argmax(1, keepdim=True), False)
    expected = scores.masked_fill(~mask, -1.0).argmax(1)
    assert torch.equal(choose_question(made, belief, candidates._replace(mask=mask)), expected)


def test_a_nonlinear_head_can_be_asked_too() -> None:
    made = AmortisedProfile(4, 3, head="film", hidden=8).requires_grad_(False)
    candidates = pairs(2, 6, 4, seed=1)
    scores = expected_information(made, made.encode(pairs(2, 0, 4)), candidates)
    assert scores.shape == (2, 6)
    assert (scores > 0).all()


def test_what_a_rule_cannot_do_is_named() -> None:
    model = HierarchicalBayes(torch.zeros(4), torch.eye(4))
    context, candidates = pairs(2, 1, 4), pairs(2, 3, 4, seed=1)
    belief = Kinds().encode(pairs(2, 1, 1))
    with pytest.raises(DataError, match=r"needs a profile with `log_odds`; got Kinds"):
        choose_question(Kinds(), belief, pairs(2, 3, 1))
    with pytest.raises(DataError, match=r"needs a profile with `joint_log_odds`; got Kinds"):
        choose_question(Kinds(), belief, pairs(2, 3, 1), prediction_gain)
    with pytest.raises(DataError, match=r"none for the users in rows \[1\]"):
        mask = torch.tensor([[True, False, False], [False, False, False]])
        choose_question(model, model.encode(context), candidates._replace(mask=mask))
    with pytest.raises(ShapeError, match=r"one row for each belief \(2\); got 1"):
        simulated_information(pairs(1, 1, 4))(model, model.encode(context), candidates)
