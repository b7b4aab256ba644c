import pytest
import torch

from persona.errors import ShapeError
from persona.profiles.tilted_weights import read_lifted, tilted_sums
from persona.types import ReplyPairs


def test_rewards_are_subtracted_and_log_weights_averaged() -> None:
    first, second = torch.tensor([[[5.0, 1.0, -1.0, -3.0]]]), torch.tensor([[[2.0, 4.0, -3.0, -1.0]]])
    pairs = ReplyPairs(first, second, torch.ones(1, 1, dtype=torch.bool))
    margins, log_weights = read_lifted(pairs, 2)
    assert margins.tolist() == [[[3.0, -3.0]]]
    assert log_weights.tolist() == [[[-2.0, -2.0]]]
    other_way, same = read_lifted(pairs.swapped, 2)
    assert torch.equal(other_way, -margins)
    assert torch.equal(same, log_weights)


def test_plain_features_are_refused() -> None:
    plain = torch.zeros(1, 1, 3)
    with pytest.raises(ShapeError, match="4 columns, those of lifted features; got 3"):
        read_lifted(ReplyPairs(plain, plain, torch.ones(1, 1, dtype=torch.bool)), 2)


def test_mean_is_that_of_each_users_own_softmax() -> None:
    rng = torch.Generator().manual_seed(0)
    values, log_weights, tilts = (
        torch.randn(*shape, generator=rng, dtype=torch.float64) for shape in ((3, 4, 5), (3, 4, 5), (7, 5))
    )
    total, weight = tilted_sums(values, log_weights, tilts)
    slow = torch.stack([(torch.softmax(log_weights + tilt, -1) * values).sum(-1) for tilt in tilts], dim=-1)
    torch.testing.assert_close(total / weight, slow)
