import numpy as np
import pytest
import torch
from torch import Tensor

from persona.data.comparisons import context_pairs
from persona.diagnostics import (
    fit_probe,
    flip_cosines,
    label_flip_cosine,
    probe_dimensions,
    reward_scale_spread,
    scale_ratio,
)
from persona.errors import DataError, ShapeError
from persona.profiles import HierarchicalBayes, PooledReward
from persona.types import Posterior, ReplyPairs
from tests.helpers.preference_world import PreferenceWorld, make_world


def world() -> PreferenceWorld:
    return make_world(users=20, comparisons=16, prompts=60)


class Blind(HierarchicalBayes):
    """Reads what was asked about, and not who won."""

    def encode(self, pairs: ReplyPairs) -> Posterior:
        together = ReplyPairs(pairs.chosen + pairs.rejected, torch.zeros_like(pairs.chosen), pairs.mask)
        return super().encode(together)


def test_an_encoder_that_reads_labels_turns_round_when_they_are_flipped() -> None:
    data = world()
    reads = HierarchicalBayes(torch.zeros(40), 0.3 * torch.eye(40))
    blind = Blind(torch.zeros(40), 0.3 * torch.eye(40))
    opposite = label_flip_cosine(reads, data.table, data.features, k=8, seed=0)
    same = label_flip_cosine(blind, data.table, data.features, k=8, seed=0)
    assert opposite["value"] == pytest.approx(-1.0, abs=1e-3)
    assert same["value"] == pytest.approx(1.0, abs=1e-3)
    pairs = context_pairs(data.table, data.features, data.table.user_ids[:3], 8)
    unknown = pairs.keep(torch.tensor([[True], [True], [False]]))
    assert flip_cosines(reads, unknown).tolist() == pytest.approx(
        [-1.0, -1.0, float("nan")], nan_ok=True, abs=1e-3
    )
    with pytest.raises(DataError, match="must move by 8 choices; got none of 20"):
        label_flip_cosine(PooledReward(torch.ones(40), 1.0), data.table, data.features, k=8, seed=0)


def test_loud_users_are_seen_and_equal_ones_are_not() -> None:
    data = world()
    equal = reward_scale_spread(PooledReward(torch.ones(40), 1.0), data.table, data.features, k=4, seed=0)
    assert equal.ratio == pytest.approx(1.0)
    assert equal.scales.shape == (20,)

    class Loud(PooledReward):
        def predict(self, posterior: Posterior, asked: ReplyPairs) -> Tensor:
            loud = torch.where(torch.arange(len(asked.mask)) < 10, 4.0, 1.0)
            return torch.sigmoid(0.05 * loud[:, None] * (asked.difference @ self.weights))

    spread = reward_scale_spread(Loud(torch.ones(40), 1.0), data.table, data.features, k=4, seed=0)
    assert spread.ratio == pytest.approx(4.0, rel=1e-4)


def test_the_ratio_of_scales_is_that_of_the_outer_tenths() -> None:
    assert scale_ratio(np.arange(1.0, 12.0)) == pytest.approx(10.0 / 2.0)  # quantiles of 1..11 at 10 and 90 %
    assert scale_ratio(np.zeros(3)) == float("inf")


def test_probes_read_what_is_there_and_know_where_they_are_unsure() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(900, 2))
    states = torch.from_numpy(
        np.stack([values[:, 0] + 0.3 * rng.normal(size=900), rng.normal(size=900)], axis=1)
    )
    found = probe_dimensions(states, values, names=("there", "absent"), seed=0, classes=2)
    assert found["there"]["accuracy"] > 0.85
    assert found["there"]["accuracy_confident"] > found["there"]["accuracy"] + 0.03
    assert abs(found["absent"]["accuracy"] - 0.5) < 0.1


def test_classes_and_confidence_by_hand() -> None:
    probe = fit_probe(torch.tensor([[-1.0], [-1.0], [1.0], [1.0]]), np.array([[0], [0], [1], [1]]))
    assert probe.classify(torch.tensor([[-0.5], [0.7]])).tolist() == [[0], [1]]
    border, sure = probe.confidence(torch.tensor([[0.0], [1.0]]))[:, 0].tolist()
    assert border == pytest.approx(0.0)
    assert sure == pytest.approx(1.0)
    # Half way between border and centre: distances of one half and three halves.
    assert probe.confidence(torch.tensor([[0.5]])).item() == pytest.approx(1 - 0.5 / 1.5)


def test_wrong_inputs_are_named() -> None:
    with pytest.raises(ShapeError, match=r"got \(3, 1\) and \(2, 1\)"):
        fit_probe(torch.zeros(3, 1), np.zeros((2, 1), dtype=np.int64))
    with pytest.raises(DataError, match=r"got one in columns \[0\]"):
        fit_probe(torch.zeros(3, 1), np.zeros((3, 1), dtype=np.int64))
    with pytest.raises(ShapeError, match=r"shape \(3, 1\); got \(3, 2\)"):
        probe_dimensions(torch.zeros(3, 1), np.zeros((3, 2)), names=("one",), seed=0)
