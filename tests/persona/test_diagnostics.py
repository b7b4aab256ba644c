import numpy as np
import pytest
import torch

from persona.data.comparisons import context_pairs
from persona.diagnostics import (
    fit_probe,
    flip_cosines,
    probe_dimensions,
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
    pairs = context_pairs(data.table, data.features, data.table.user_ids, 8)
    assert flip_cosines(reads, pairs).tolist() == pytest.approx([-1.0] * 20, abs=1e-3)
    assert flip_cosines(blind, pairs).tolist() == pytest.approx([1.0] * 20, abs=1e-3)
    assert np.isnan(flip_cosines(PooledReward(torch.ones(40), 1.0), pairs)).all()  # nothing that could move
    shown = torch.arange(20)[:, None] < 2
    assert np.isnan(flip_cosines(reads, pairs.keep(shown))).tolist() == [False] * 2 + [True] * 18


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
