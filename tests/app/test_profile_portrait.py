import math

import numpy as np
import torch

from app.profile_portrait import draw_portrait, next_questions
from app.profile_wishes import (
    belief_odds,
    build_lens,
    central_wishes,
    draw_users,
    no_pairs,
    read_wishes,
    reward_scales,
)
from persona.profiles.hierarchical_bayes import HierarchicalBayes
from persona.profiles.latent import LatentProfile
from persona.types import Posterior, ReplyPairs

FEATURES = 5


def pairs(rows: int, count: int, seed: int) -> ReplyPairs:
    generator = torch.Generator().manual_seed(seed)
    chosen, rejected = torch.randn(2, rows, count, FEATURES, generator=generator)
    return ReplyPairs(chosen, rejected, torch.ones(rows, count, dtype=torch.bool))


def profile() -> LatentProfile:
    made = LatentProfile(FEATURES, 3, seed=1)
    with torch.no_grad():
        made.head.mul_(15.0)
        made.pooled.copy_(torch.linspace(-1, 1, FEATURES))
    return made


def test_wishes_of_a_linear_reward_are_the_exact_gaussian() -> None:
    made, rng = profile(), np.random.default_rng(0)
    features = torch.from_numpy(rng.normal(size=(60, FEATURES))).float()
    attributes = rng.normal(size=(60, 2))
    rows = np.arange(60).reshape(30, 2)
    lens = build_lens(made, features, attributes, rows)
    posterior = made.encode(pairs(2, 6, seed=2))
    found = read_wishes(made, posterior, lens, seed=0)
    # Coefficients are solve . difference . head^T . z: linear, so mean and covariance carry over.
    difference = (features[rows[:, 0]] - features[rows[:, 1]]).double()
    to_attributes = lens.solve @ difference @ made.head.detach().double().T
    for row in range(2):
        mean = to_attributes @ posterior.mean[row].detach().double()
        spread = to_attributes @ posterior.covariance[row].detach().double() @ to_attributes.T
        assert np.allclose(found.mean[row], mean.numpy(), atol=2e-3)
        assert np.allclose(found.std[row], spread.diagonal().sqrt().numpy(), rtol=2e-2, atol=2e-3)
    assert np.allclose(central_wishes(made, posterior, lens), found.mean, atol=2e-3)


def test_the_average_user_wants_nothing_more_than_the_average_user() -> None:
    made, rng = profile(), np.random.default_rng(0)
    features = torch.from_numpy(rng.normal(size=(40, FEATURES))).float()
    lens = build_lens(made, features, rng.normal(size=(40, 2)), np.arange(40).reshape(20, 2))
    found = read_wishes(made, made.encode(no_pairs(features)), lens, seed=0)
    assert np.allclose(found.mean, 0.0, atol=1e-4)
    assert np.allclose(found.probability_of_more(), 0.5, atol=1e-4)


def test_a_user_is_as_loud_as_their_log_odds_spread() -> None:
    made = profile()
    features = torch.randn(40, FEATURES, generator=torch.Generator().manual_seed(3))
    lens = build_lens(made, features, np.eye(40)[:, :2], np.arange(40).reshape(20, 2))
    posterior = made.encode(pairs(70, 4, seed=4))  # more users than are asked at once
    certain = posterior._replace(covariance=1e-9 * torch.eye(3).expand(70, -1, -1))
    weights = (made.pooled + certain.mean @ made.head).detach()
    odds = weights @ (features[0::2] - features[1::2]).T
    assert np.allclose(reward_scales(made, certain, lens), odds.std(1).numpy(), rtol=1e-3)
    assert reward_scales(made, Posterior(*(part[:0] for part in certain[:2])), lens).shape == (0,)


def test_draws_have_the_moments_of_the_belief_and_kinds_in_proportion() -> None:
    covariance = torch.tensor([[[2.0, 0.5], [0.5, 1.0]]])
    belief = Posterior(torch.tensor([[1.0, -2.0]]), covariance, torch.tensor([[0.25, 0.75]]))
    drawn = draw_users(belief, 0, seed=0, draws=256)
    assert torch.allclose(drawn.mean.mean(0), belief.mean[0], atol=1e-5)
    assert torch.allclose(torch.cov(drawn.mean.T, correction=0), covariance[0], atol=1e-4)
    assert drawn.weights is not None and drawn.weights.sum(0).tolist() == [64.0, 192.0]
    assert float(drawn.covariance.abs().max()) < 1e-6


class TwoKinds:
    """Two kinds of user: one prefers the reply with more of the first feature, the other the opposite."""

    latent_dim = 1

    def lift(self, features: torch.Tensor) -> torch.Tensor:
        return features

    def encode(self, given: ReplyPairs) -> Posterior:
        rows = len(given.mask)
        return Posterior(torch.zeros(rows, 1), torch.ones(rows, 1, 1), torch.full((rows, 2), 0.5))

    def predict(self, posterior: Posterior, asked: ReplyPairs) -> torch.Tensor:
        assert posterior.weights is not None
        first = (asked.difference[..., 0] > 0).float()
        return posterior.weights[:, :1] * first + posterior.weights[:, 1:] * (1 - first)


def test_a_question_that_settles_the_kind_is_worth_one_bit() -> None:
    kinds = TwoKinds()
    belief = kinds.encode(pairs(1, 1, seed=0))
    first, second = torch.tensor([[1.0], [0.0]]), torch.tensor([[0.0], [1.0]])
    found = next_questions(kinds, belief, first, second)
    assert [round(question.gain_bits, 6) for question in found] == [1.0, 1.0]
    assert [question.probability for question in found] == [0.5, 0.5]


def test_nothing_is_learned_from_a_question_whose_answer_is_pure_noise_or_known() -> None:
    made = HierarchicalBayes(torch.tensor([50.0, 0.0]), torch.diag(torch.tensor([1e-4, 1e-4])))
    belief = made.encode(no_pairs(torch.zeros(1, 2)))
    first = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    found = next_questions(made, belief, first, torch.zeros(2, 2))
    assert max(question.gain_bits for question in found) < 1e-6


def test_draws_give_about_what_the_exact_information_is() -> None:
    made = profile()
    first, second = torch.randn(2, 12, FEATURES, generator=torch.Generator().manual_seed(5))
    belief = made.encode(pairs(1, 3, seed=6))
    exact = {question.place: question.gain_bits for question in next_questions(made, belief, first, second)}
    plain = HierarchicalBayes(made.pooled.detach(), made.head.detach().T @ torch.eye(3, FEATURES))
    drawn = next_questions(plain, plain.encode(pairs(1, 3, seed=6)), first, second)
    assert all(abs(question.gain_bits - exact[question.place]) < 0.02 for question in drawn)


def test_influence_is_that_of_leaving_the_choice_out() -> None:
    made, context = profile(), pairs(1, 5, seed=3)
    features = torch.randn(40, FEATURES, generator=torch.Generator().manual_seed(4))
    attributes = np.random.default_rng(0).normal(size=(40, 2))
    lens = build_lens(made, features, attributes, np.arange(40).reshape(20, 2))
    portrait = draw_portrait(made, context, lens, ("brevity", "warmth"))
    assert sorted(telling.place for telling in portrait.tellings) == [0, 1, 2, 3, 4]
    telling = portrait.tellings[0]
    kept = [place for place in range(5) if place != telling.place]
    ask = ReplyPairs(lens.first[None], lens.second[None], torch.ones(1, 20, dtype=torch.bool))
    own = ReplyPairs(*(part[:, telling.place : telling.place + 1] for part in context))
    with torch.no_grad():
        without = made.encode(ReplyPairs(*(part[:, kept] for part in context)))
        change = made.predict(made.encode(context), ask) - made.predict(without, ask)
        expected = float(made.predict(without, own))
    assert math.isclose(telling.influence, float(change.abs().mean()), rel_tol=1e-3)
    assert math.isclose(telling.expected, expected, rel_tol=1e-3)
    assert portrait.doubt_left is not None and portrait.doubt_left < 1


class Saturating:
    """Log-odds tanh(z) times the difference of the first feature: linear near the average user, flat far away."""

    latent_dim = 1

    def lift(self, features: torch.Tensor) -> torch.Tensor:
        return features

    def encode(self, given: ReplyPairs) -> Posterior:
        return Posterior(torch.zeros(len(given.mask), 1), torch.ones(len(given.mask), 1, 1))

    def predict(self, posterior: Posterior, asked: ReplyPairs) -> torch.Tensor:
        return torch.sigmoid(torch.tanh(posterior.mean) * asked.difference[..., 0])


def test_doubt_is_carried_through_the_slope_at_the_belief() -> None:
    belief = Posterior(torch.tensor([[1.5]]), torch.tensor([[[4.0]]]))
    first, second = torch.tensor([[1.0], [-2.0]]), torch.zeros(2, 1)
    odds = belief_odds(Saturating(), belief, 0, first, second, seed=0)
    slope = 1.0 - math.tanh(1.5) ** 2
    assert torch.allclose(odds.mean, math.tanh(1.5) * torch.tensor([1.0, -2.0]).double(), atol=1e-5)
    assert torch.allclose(odds.variance.sqrt(), 2.0 * slope * torch.tensor([1.0, 2.0]).double(), rtol=2e-2)
