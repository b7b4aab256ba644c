import sys

import pytest
import torch
from torch import Tensor

from persona.errors import ShapeError
from persona.profiles import LatentProfile, Profile
from persona.rewards.win_probability import win_probability
from persona.types import Posterior, ReplyPairs

WIDTH = 5


def profile() -> LatentProfile:
    made = LatentProfile(WIDTH, 3, seed=2)
    rng = torch.Generator().manual_seed(7)
    with torch.no_grad():
        made.pooled.copy_(torch.randn(WIDTH, generator=rng))
        made.head.copy_(torch.randn(3, WIDTH, generator=rng))
    return made.requires_grad_(False)


def belief(rows: int, *, scale: float = 1.0, spread: float = 0.5) -> Posterior:
    mean = scale * torch.randn(rows, 3, generator=torch.Generator().manual_seed(3))
    return Posterior(mean, (spread * torch.eye(3)).expand(rows, 3, 3))


def replies(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, WIDTH, generator=torch.Generator().manual_seed(seed))


def slow(which: Profile, posterior: Posterior, candidates: Tensor, reference: Tensor) -> Tensor:
    """Pair by pair, user by user."""
    wins = torch.zeros(candidates.shape[:2])
    for row in range(len(candidates)):
        own = Posterior(posterior.mean[[row]], posterior.covariance[[row]])
        for place in range(candidates.shape[1]):
            for other in reference:
                pair = ReplyPairs(
                    candidates[row, place][None, None], other[None, None], torch.ones(1, 1, dtype=torch.bool)
                )
                wins[row, place] += which.predict(own, pair)[0, 0] / len(reference)
    return wins


@pytest.mark.parametrize("numbers_per_block", [1, 200, 1 << 23])
def test_is_the_mean_over_references_whatever_the_blocks(
    numbers_per_block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules[win_probability.__module__], "NUMBERS_PER_BLOCK", numbers_per_block)
    candidates, reference = replies(4, 3), replies(7, seed=1)
    got = win_probability(profile(), belief(4), candidates, reference)
    torch.testing.assert_close(got, slow(profile(), belief(4), candidates, reference))


def test_own_references_of_each_user_are_read() -> None:
    candidates, reference = replies(4, 3), replies(4, 6, seed=1)
    got = win_probability(profile(), belief(4), candidates, reference)
    for row in range(4):
        own = slow(
            profile(), Posterior(*(p[[row]] for p in belief(4)[:2])), candidates[[row]], reference[row]
        )
        torch.testing.assert_close(got[[row]], own)


def test_without_a_reference_the_candidates_meet_one_another() -> None:
    candidates = replies(1, 3)
    others = [candidates[0, [b for b in range(3) if b != a]] for a in range(3)]
    expected = [slow(profile(), belief(1), candidates[:, [a]], others[a]) for a in range(3)]
    got = win_probability(profile(), belief(1), candidates)
    torch.testing.assert_close(got, torch.cat(expected, dim=1))
    assert got.sum().item() == pytest.approx(3 / 2)  # one point for each of three games


def test_a_reply_like_the_references_has_one_half() -> None:
    same = replies(1).expand(2, 3, WIDTH)
    torch.testing.assert_close(
        win_probability(profile(), belief(2), same, replies(1)), torch.full((2, 3), 0.5)
    )


def test_users_of_any_loudness_share_one_scale() -> None:
    candidates, reference = replies(1, 50).expand(40, 50, WIDTH), replies(200, seed=1)
    quiet, loud = belief(40, scale=3.0, spread=1e-6), belief(40, scale=300.0, spread=1e-6)
    rewards = [profile().reward(candidates[0], b.mean).std(1).mean() for b in (quiet, loud)]
    wins = [win_probability(profile(), b, candidates, reference) for b in (quiet, loud)]
    assert rewards[1] / rewards[0] > 50
    assert wins[1].std(1).mean() / wins[0].std(1).mean() < 1.5
    assert min(w.min() for w in wins) >= 0.0
    assert max(w.max() for w in wins) <= 1.0


def test_an_unsure_belief_is_drawn_to_one_half() -> None:
    candidates, reference = replies(3, 4), replies(1, seed=1)
    sure = win_probability(profile(), belief(3, spread=0.01), candidates, reference) - 0.5
    unsure = win_probability(profile(), belief(3, spread=10.0), candidates, reference) - 0.5
    assert (unsure.abs() < sure.abs()).all()
    assert (unsure.sign() == sure.sign()).all()


def test_shapes_that_do_not_fit_are_named() -> None:
    with pytest.raises(ShapeError, match=r"shape \(2, C, L\).*got \(3, 4, 5\) and \(6, 5\)"):
        win_probability(profile(), belief(2), replies(3, 4), replies(6))
    with pytest.raises(ShapeError, match=r"got \(2, 1, 5\) and no reference"):
        win_probability(profile(), belief(2), replies(2, 1))
    with pytest.raises(ShapeError, match=r"got \(2, 1, 5\) and \(0, 5\)"):
        win_probability(profile(), belief(2), replies(2, 1), replies(0))
    with pytest.raises(ShapeError, match=r"got \(2, 1, 5\) and \(3, 4, 5\)"):
        win_probability(profile(), belief(2), replies(2, 1), replies(3, 4))
