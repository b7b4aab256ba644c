from pathlib import Path

import numpy as np
import pytest
import torch

from persona.checks import check_profile
from persona.data import context_pairs
from persona.errors import ContractError, DataError, ShapeError
from persona.objectives.elbo import standard_normal_kl
from persona.objectives.swap_guidance import swap_guidance_loss
from persona.profiles.amortised import AmortisedProfile, EncoderName, HeadName
from persona.profiles.laplace import logistic_posterior
from persona.profiles.set_encoders import ConcatEncoder
from persona.types import Posterior, ReplyPairs
from tests.helpers.preference_world import make_world

SIZE = 40


def contexts(k: int = 8) -> ReplyPairs:
    world = make_world(users=10, comparisons=8)
    return context_pairs(world.table, world.features, np.arange(10), k)


def stirred(encoder: EncoderName, head: HeadName, *, draws: int = 8) -> AmortisedProfile:
    """A profile as it could be after training: every weight away from its start."""
    profile = AmortisedProfile(SIZE, 4, encoder=encoder, head=head, hidden=16, draws=draws, seed=1)
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weights in profile.parameters():
            weights.add_(0.2 * torch.randn(weights.shape, generator=rng))
    return profile.requires_grad_(False)


@pytest.mark.parametrize("head", ["bilinear", "film", "concat"])
@pytest.mark.parametrize("encoder", ["deep_sets", "attention"])
def test_keeps_the_contract_of_profiles(encoder: EncoderName, head: HeadName) -> None:
    check_profile(stirred(encoder, head), contexts())


def test_published_encoder_breaks_one_promise_alone() -> None:
    with pytest.raises(ContractError, match="a swapped lone pair must move the mean the opposite way"):
        check_profile(stirred("concat", "concat", draws=0), contexts())


def test_swapping_all_choices_mirrors_the_belief() -> None:
    profile, pairs = stirred("attention", "bilinear"), contexts()
    mean, spread = profile.belief(pairs)
    opposite, same = profile.belief(pairs.swapped)
    torch.testing.assert_close(opposite, -mean)
    torch.testing.assert_close(same, spread)
    torch.testing.assert_close(
        swap_guidance_loss(mean, spread, opposite, same), torch.zeros(10), atol=1e-6, rtol=0
    )


@pytest.mark.parametrize("encoder", ["deep_sets", "attention", "concat"])
def test_without_pairs_the_belief_is_the_prior(encoder: EncoderName) -> None:
    posterior = stirred(encoder, "bilinear").encode(contexts(0))
    assert torch.equal(posterior.mean, torch.zeros(10, 4))
    assert torch.equal(posterior.covariance, torch.eye(4).expand(10, 4, 4))


def test_blocks_of_users_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    profile, pairs = stirred("attention", "bilinear"), contexts()
    whole = profile.encode(pairs)
    monkeypatch.setattr("persona.profiles.amortised.USERS_PER_BLOCK", 3)
    torch.testing.assert_close(profile.encode(pairs).mean, whole.mean)
    assert profile.encode(ReplyPairs(*(part[:0] for part in pairs))).covariance.shape == (0, 4, 4)


def test_more_pairs_never_make_deep_sets_less_sure() -> None:
    profile = stirred("deep_sets", "bilinear")
    spreads = torch.stack([profile.belief(contexts(k))[1] for k in range(9)])
    assert (spreads.diff(dim=0) <= 0).all()


def test_as_first_drawn_it_is_one_newton_step_with_a_diagonal_curvature() -> None:
    """For one latent, with little evidence, that is the posterior itself."""
    profile = AmortisedProfile(SIZE, 1, seed=3).requires_grad_(False)
    pairs = contexts()
    seen = 0.05 * pairs.difference @ profile.encoder.evidence.T  # type: ignore[operator]
    small = ReplyPairs.of_differences(0.05 * pairs.difference, pairs.mask)
    expected = logistic_posterior(seen, torch.zeros_like(seen[..., 0]), pairs.mask)
    got = profile.encode(small)
    torch.testing.assert_close(got.mean, expected.mean, atol=2e-4, rtol=1e-2)
    torch.testing.assert_close(got.covariance, expected.covariance, atol=2e-3, rtol=1e-2)


def test_one_pass_over_the_batch_is_the_loop_over_users_of_the_published_encoder() -> None:
    """Set aggregation written out for one user: softmax(QK / sqrt(d)) V, then the mean over the set."""
    encoder = ConcatEncoder(SIZE, 4, hidden=8, rng=torch.Generator().manual_seed(0)).requires_grad_(False)
    full = contexts()
    pairs = full.keep(torch.rand(full.mask.shape, generator=torch.Generator().manual_seed(2)) < 0.6)
    mean, spread = encoder(pairs)
    act = torch.nn.LeakyReLU(0.2)
    for row in range(10):
        kept = pairs.mask[row]
        both = torch.cat([pairs.chosen[row, kept], pairs.rejected[row, kept]], dim=1)
        tokens = encoder.token(act(encoder.outer(act(encoder.inner(both)))))
        looked = torch.softmax(encoder.query(tokens) @ encoder.key(tokens).T / 4**0.5, dim=1)
        pooled = (looked @ encoder.value(tokens)).mean(0)
        torch.testing.assert_close(mean[row], encoder.mean(pooled).clamp(-1, 1))
        torch.testing.assert_close(spread[row], encoder.log_variance(pooled).clamp(-1, 1))


@pytest.mark.parametrize("head", ["bilinear", "film", "concat"])
def test_log_odds_are_differences_of_rewards(head: HeadName) -> None:
    profile = stirred("attention", head, draws=0)
    pairs = contexts()
    posterior = profile.encode(pairs)
    odds, variance = profile.log_odds(posterior, pairs)
    first, second = (profile.reward(side, posterior.mean) for side in pairs[:2])
    torch.testing.assert_close(odds, first - second, atol=1e-4, rtol=1e-4)
    assert (variance > 0).all() == (head == "bilinear")  # no points, so no spread of a nonlinear head


def test_concat_head_is_a_network_of_reply_and_latent_side_by_side() -> None:
    head = stirred("concat", "concat").head
    features = torch.randn(2, 3, SIZE, generator=torch.Generator().manual_seed(0))
    z = torch.randn(2, 4, generator=torch.Generator().manual_seed(1))
    act = torch.nn.LeakyReLU(0.2)
    joined = torch.cat([features, z[:, None].expand(-1, 3, -1)], dim=-1)
    expected = head.outer(act(head.middle(act(head.inner(joined)))))[..., 0]  # type: ignore[operator]
    torch.testing.assert_close(head.personal(features, z), expected)
    assert not head.base(features).any()


def test_film_leaves_the_average_user_unbent() -> None:
    head = stirred("attention", "film").head
    features = torch.randn(2, 3, SIZE, generator=torch.Generator().manual_seed(0))
    plain = head.outer(torch.tanh(head.inner(features)))[..., 0]  # type: ignore[operator]
    torch.testing.assert_close(head.personal(features, torch.zeros(2, 4)), plain)


def test_points_average_a_nonlinear_head_over_the_belief() -> None:
    profile, pairs = stirred("attention", "film", draws=800), contexts(2)
    posterior = profile.encode(pairs)
    noise = torch.randn(800, 10, 4, generator=torch.Generator().manual_seed(0))
    drawn = posterior.mean + noise * posterior.covariance.diagonal(dim1=1, dim2=2).sqrt()
    odds = torch.stack([profile.reward(pairs.chosen, z) - profile.reward(pairs.rejected, z) for z in drawn])
    torch.testing.assert_close(profile.predict(posterior, pairs), odds.sigmoid().mean(0), atol=0.06, rtol=0)
    torch.testing.assert_close(profile.log_odds(posterior, pairs)[1], odds.var(0), atol=0.2, rtol=0.2)


def test_bilinear_head_sees_the_whole_belief() -> None:
    profile, pairs = stirred("attention", "bilinear"), contexts()
    sure = profile.encode(pairs)
    unsure = Posterior(sure.mean, 100.0 * sure.covariance)
    far = profile.predict(sure, pairs) - 0.5, profile.predict(unsure, pairs) - 0.5
    assert (far[1].abs() <= far[0].abs()).all()


def test_gradient_reaches_every_part() -> None:
    for head in ("bilinear", "film"):
        profile = stirred("attention", head).requires_grad_(True)
        pairs = contexts()
        loss = profile.predict(profile.encode(pairs), pairs).log().mean()
        (loss + standard_normal_kl(*profile.belief(pairs)).mean()).backward()
        for name, weights in profile.named_parameters():
            assert weights.grad is not None, name
            assert weights.grad.isfinite().all(), name
            assert (weights.grad != 0).any(), name


@pytest.mark.parametrize(
    ("encoder", "head"), [("attention", "film"), ("concat", "concat"), ("deep_sets", "bilinear")]
)
def test_saved_profile_is_the_same_to_the_bit(encoder: EncoderName, head: HeadName, tmp_path: Path) -> None:
    profile, pairs = stirred(encoder, head), contexts()
    profile.save(tmp_path)
    again = AmortisedProfile.load(tmp_path).requires_grad_(False)
    posterior = profile.encode(pairs)
    assert torch.equal(again.encode(pairs).mean, posterior.mean)
    assert torch.equal(again.predict(posterior, pairs), profile.predict(posterior, pairs))
    assert not again.training


def test_a_profile_of_other_sizes_than_described_is_refused(tmp_path: Path) -> None:
    AmortisedProfile(7, 3).save(tmp_path)
    path = tmp_path / "amortised_profile.json"
    path.write_text(path.read_text().replace('"latent_dim": 3', '"latent_dim": 4'))
    with pytest.raises(DataError, match="a profile of 7 features and 4 latents"):
        AmortisedProfile.load(tmp_path)


def test_weights_come_from_the_seed_alone() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one, other = (AmortisedProfile(7, 3, head="film", seed=5).state_dict() for _ in range(2))
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert torch.equal(torch.get_rng_state(), before)


def test_wrong_sizes_are_named() -> None:
    with pytest.raises(ShapeError, match="got 0, 3, 64 and 16"):
        AmortisedProfile(0, 3)
    with pytest.raises(ShapeError, match="got 7, 3, 64 and 5"):
        AmortisedProfile(7, 3, draws=5)
    with pytest.raises(ShapeError, match=r"must have 7 columns.*got 40"):
        AmortisedProfile(7, 3).encode(contexts())
