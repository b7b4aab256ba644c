from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from persona.checks import check_profile
from persona.errors import ContractError, DataError
from persona.profiles import HierarchicalBayes
from persona.types import Posterior, ReplyPairs


def good() -> HierarchicalBayes:
    return HierarchicalBayes(torch.tensor([0.5, -0.2]), torch.tensor([[1.0, 0.0], [0.4, 0.8]]))


def pairs() -> ReplyPairs:
    mask = torch.tensor([[True, True, True], [True, False, False]])
    features = torch.randn(2, 3, 2, 2, generator=torch.Generator().manual_seed(0)) * mask[..., None, None]
    return ReplyPairs(features[..., 0], features[..., 1], mask)


class Broken:
    """A good profile with one of its methods replaced."""

    latent_dim = 2

    def __init__(
        self,
        encode: Callable[[ReplyPairs], Posterior] | None = None,
        predict: Callable[[Posterior, ReplyPairs], Tensor] | None = None,
    ) -> None:
        self.encode = encode or good().encode
        self.predict = predict or good().predict

    def lift(self, features: Tensor) -> Tensor:
        return features


def shifted(by: Callable[[ReplyPairs], Tensor]) -> Callable[[ReplyPairs], Posterior]:
    def encode(pairs: ReplyPairs) -> Posterior:
        posterior = good().encode(pairs)
        return Posterior(posterior.mean + by(pairs), posterior.covariance)

    return encode


class Counter:
    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, pairs: ReplyPairs) -> Tensor:
        self.calls += 1
        return torch.full((len(pairs.mask), 1), float(self.calls))


def first_pair(pairs: ReplyPairs) -> Tensor:
    return pairs.difference[:, 0] if pairs.mask.shape[1] else torch.zeros(len(pairs.mask), 2)


def test_a_good_profile_passes() -> None:
    check_profile(good(), pairs())
    check_profile(Broken(), pairs())


def test_each_broken_promise_is_named() -> None:
    wrong_shape = Broken(lambda p: Posterior(torch.zeros(len(p.mask), 1), torch.ones(len(p.mask), 1, 1)))
    flat = Broken(lambda p: Posterior(torch.zeros(len(p.mask), 2), torch.zeros(len(p.mask), 2, 2)))
    cases = {
        r"must have shapes \(2, 2\) and \(2, 2, 2\); got \(2, 1\)": wrong_shape,
        "least eigenvalue of 0": flat,
        "a second call must give the same belief; they differ by 1": Broken(shifted(Counter())),
        "the order of the pairs must not matter": Broken(shifted(first_pair)),
        "padding must not matter": Broken(shifted(lambda p: p.difference.sum(1))),
        "a user alone must get the same belief": Broken(
            shifted(lambda p: torch.full((len(p.mask), 1), float(len(p.mask))))
        ),
        "the mean must be zero, the average user; got up to 3": Broken(shifted(lambda p: torch.tensor(3.0))),
        "swapped replies must turn p into 1 - p": Broken(
            predict=lambda q, p: torch.sigmoid(p.difference[..., 0] + 1.0)
        ),
        "a swapped lone pair must move the mean the opposite way": Broken(
            shifted(lambda p: p.mask.sum(1, keepdim=True) * torch.tensor([1.0, 1.0]))
        ),
    }
    for message, profile in cases.items():
        with pytest.raises(ContractError, match=message):
            check_profile(profile, pairs())


def test_beliefs_without_pairs_must_agree() -> None:
    def by_place(p: ReplyPairs) -> Posterior:
        posterior = good().encode(p)
        if p.mask.any() or len(p.mask) == 1:
            return posterior
        return Posterior(posterior.mean, posterior.covariance * torch.tensor([1.0, 2.0])[:, None, None])

    with pytest.raises(ContractError, match="without pairs all users must have the same belief"):
        check_profile(Broken(by_place), pairs())


def test_width_zero_must_be_an_empty_context() -> None:
    def by_width(p: ReplyPairs) -> Posterior:
        posterior = good().encode(p)
        return posterior if p.mask.shape[1] else Posterior(posterior.mean + 0.5, posterior.covariance)

    with pytest.raises(ContractError, match="a context of width 0 must be an empty context"):
        check_profile(Broken(by_width), pairs())


def test_too_few_pairs_cannot_be_checked() -> None:
    one = ReplyPairs(*(part[:, :1] for part in pairs()))
    with pytest.raises(DataError, match=r"at least 2 pairs; got \[1, 1\]"):
        check_profile(good(), one)
