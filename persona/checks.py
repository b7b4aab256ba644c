"""Contract checks that anyone can run on an implementation; each says which promise is broken."""

import torch
from torch import Tensor

from persona.errors import ContractError, DataError
from persona.profiles import Profile
from persona.types import Posterior, ReplyPairs


@torch.no_grad()
def check_profile(profile: Profile, pairs: ReplyPairs, *, tolerance: float = 1e-3) -> None:
    """Hold a profile to what every user of it relies on.

    The belief has the right shape and a positive definite covariance; it is the same at a second call, for
    another order of the pairs, for more padding (whatever the padding holds), and for a user alone or in a
    batch; without pairs its mean is zero and it is the same for all. Swapping the replies turns a prediction
    p into 1 - p, and the belief after a lone pair to the opposite side.

    Args:
        profile: What to check, on the device of `pairs`.
        pairs: Contexts of at least two users, at least one with two pairs: (B, P, D) and (B, P).
        tolerance: Largest difference that counts as rounding.

    Raises:
        ContractError: A promise is broken.
        DataError: The pairs are too few to tell.
    """
    if len(pairs.mask) < 2 or int(pairs.mask.sum(1).max()) < 2:
        raise DataError(
            "`pairs` must hold at least 2 users, one of them with at least 2 pairs; got "
            f"{pairs.mask.sum(1).tolist()[:3]} pairs. Pass more comparisons."
        )
    posterior = profile.encode(pairs)
    _check_shapes(profile, posterior, pairs)
    _same(profile.encode(pairs), posterior, 0.0, "a second call must give the same belief")
    _check_sets(profile, posterior, pairs, tolerance)
    _check_empty(profile, pairs, tolerance)
    _check_swap(profile, posterior, pairs, tolerance)


def _check_shapes(profile: Profile, posterior: Posterior, pairs: ReplyPairs) -> None:
    rows, size = len(pairs.mask), profile.latent_dim
    shapes = tuple(posterior.mean.shape), tuple(posterior.covariance.shape)
    if shapes != ((rows, size), (rows, size, size)):
        raise ContractError(
            f"The belief must have shapes {(rows, size)} and {(rows, size, size)}; got {shapes[0]} and "
            f"{shapes[1]}."
        )
    least = float(torch.linalg.eigvalsh(posterior.covariance).min()) if size else 1.0
    if not (least > 0 and posterior.mean.isfinite().all()):
        raise ContractError(
            "The belief must be finite with a positive definite covariance; got a least eigenvalue of "
            f"{least:.2g}."
        )


def _check_sets(profile: Profile, posterior: Posterior, pairs: ReplyPairs, tolerance: float) -> None:
    turned = ReplyPairs(*(part.flip(1) for part in pairs))
    _same(profile.encode(turned), posterior, tolerance, "the order of the pairs must not matter")
    filler = pairs.chosen.new_full((len(pairs.mask), 3, pairs.chosen.shape[2]), 7.0)
    nothing = torch.zeros_like(filler[..., 0], dtype=torch.bool)
    padded = ReplyPairs.join([pairs, ReplyPairs(filler, -filler, nothing)])
    _same(profile.encode(padded), posterior, tolerance, "padding must not matter")
    single = [profile.encode(ReplyPairs(*(part[[row]] for part in pairs))) for row in range(len(pairs.mask))]
    alone = Posterior(torch.cat([s.mean for s in single]), torch.cat([s.covariance for s in single]))
    _same(alone, posterior, tolerance, "a user alone must get the same belief as in a batch")


def _check_empty(profile: Profile, pairs: ReplyPairs, tolerance: float) -> None:
    masked = profile.encode(pairs._replace(mask=torch.zeros_like(pairs.mask)))
    empty = profile.encode(ReplyPairs(*(part[:, :0] for part in pairs)))
    if masked.mean.abs().sum() > tolerance:
        raise ContractError(
            "Without pairs the mean must be zero, the average user; got up to "
            f"{float(masked.mean.abs().max()):.2g}."
        )
    first = Posterior(
        masked.mean[:1].expand_as(masked.mean), masked.covariance[:1].expand_as(masked.covariance)
    )
    _same(masked, first, tolerance, "without pairs all users must have the same belief")
    _same(empty, masked, tolerance, "a context of width 0 must be an empty context")


def _check_swap(profile: Profile, posterior: Posterior, pairs: ReplyPairs, tolerance: float) -> None:
    forth = profile.predict(posterior, pairs)
    back = profile.predict(posterior, pairs.swapped)
    _near(forth + back, torch.ones_like(forth), tolerance, "swapped replies must turn p into 1 - p")
    if not profile.latent_dim:
        return
    lone = ReplyPairs(*(part[:, :1] for part in pairs))
    ahead = profile.encode(lone).mean
    behind = profile.encode(lone.swapped).mean
    # With an average user who has tastes, surprise decides how far a belief moves; the way is opposite all
    # the same.
    cosine = torch.nn.functional.cosine_similarity(ahead, behind)[ahead.norm(dim=1) > tolerance]
    _near(
        cosine, -torch.ones_like(cosine), tolerance, "a swapped lone pair must move the mean the opposite way"
    )


def _same(got: Posterior, wanted: Posterior, tolerance: float, claim: str) -> None:
    _near(got.mean, wanted.mean, tolerance, claim)
    _near(got.covariance, wanted.covariance, tolerance, claim)


def _near(got: Tensor, wanted: Tensor, tolerance: float, claim: str) -> None:
    difference = float((got - wanted).abs().max()) if got.numel() else 0.0
    if not difference <= tolerance:
        raise ContractError(f"A profile broke a promise: {claim}; they differ by {difference:.2g}.")
