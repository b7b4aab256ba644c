import numpy as np
import pytest
import torch

from persona.data import ComparisonTable, split_users_and_prompts
from persona.errors import DataError, ShapeError
from persona.evaluation import (
    active_units,
    bootstrap_mean,
    calibration_error,
    check_targets,
    context_shuffle_gap,
    evaluate_preferences,
    oracle_accuracy,
    other_users,
    paired_difference,
    score_users,
    scores_by_user,
    worst_decile,
)
from persona.profiles import HierarchicalBayes, PooledReward, Profile
from tests.helpers.preference_world import make_world


def table(users: list[int], prompts: list[int], chosen: list[int], rejected: list[int]) -> ComparisonTable:
    return ComparisonTable(*(np.asarray(a) for a in (users, prompts, chosen, rejected)))


def empty() -> ComparisonTable:
    return table([], [], [], [])


class TestScoresByUser:
    def test_each_user_has_their_own_mean_and_an_even_call_counts_half(self) -> None:
        probability = np.array([[0.9, 0.4, 0.0], [0.5, 0.0, 0.0]])
        mask = np.array([[True, True, False], [True, False, False]])
        scores = scores_by_user(np.array([3, 7]), probability, mask)
        assert scores.users.tolist() == [3, 7]
        assert scores.accuracy.tolist() == [0.5, 0.5]
        np.testing.assert_allclose(scores.log_loss, [-(np.log(0.9) + np.log(0.4)) / 2, np.log(2.0)])

    def test_bins_hold_how_far_confidence_is_from_what_happened(self) -> None:
        scores = scores_by_user(np.array([0]), np.array([[0.92, 0.08]]), np.ones((1, 2), dtype=bool))
        # Both calls are 0.92 sure, in the ninth bin from one half; one is right and one is wrong.
        assert scores.bin_count.tolist() == [[0] * 8 + [2, 0]]
        np.testing.assert_allclose(scores.bin_gap[0, 8], 1 - 2 * 0.92)

    def test_what_stands_in_padded_places_does_not_count(self) -> None:
        mask = np.array([[True, False]])
        first, second = (scores_by_user(np.array([0]), np.array([[0.7, pad]]), mask) for pad in (0.0, 1.0))
        for one, other in zip(first, second, strict=True):
            assert np.array_equal(one, other)

    @pytest.mark.parametrize("seed", range(3))
    def test_every_user_gets_another_one_once(self, seed: int) -> None:
        users = np.array([2, 3, 5, 8, 13])
        others = other_users(users, np.random.default_rng(seed))
        assert sorted(others.tolist()) == users.tolist()
        assert (others != users).all()
        assert other_users(users[:1], np.random.default_rng(seed)).tolist() == [2]

    def test_a_prompt_that_only_others_show_may_be_asked_for(self) -> None:
        shown, asked = table([0, 1], [0, 1], [0, 2], [1, 3]), table([0], [1], [2], [3])
        check_targets(shown, asked)
        with pytest.raises(DataError, match=r"got 1 shared ones, such as \[1\]"):
            check_targets(table([0], [1], [0], [1]), asked)
        with pytest.raises(DataError, match="at least one comparison; got none"):
            check_targets(shown, empty())


class TestIntervals:
    def test_interval_is_that_of_a_mean(self) -> None:
        values = np.random.default_rng(0).normal(3.0, 2.0, size=400)
        measure = bootstrap_mean(values, seed=0)
        assert measure["value"] == pytest.approx(values.mean())
        half = 1.96 * values.std() / 20
        np.testing.assert_allclose(
            measure["ci95"], [values.mean() - half, values.mean() + half], atol=0.15 * half
        )
        assert measure["n"] == 400

    def test_users_without_a_value_do_not_count(self) -> None:
        assert bootstrap_mean([0.0, np.nan, 1.0], seed=0)["n"] == 2
        with pytest.raises(DataError, match=r"not NaN, in shape \(U,\); got shape \(1,\)"):
            bootstrap_mean([np.nan], seed=0)

    def test_seed_decides_and_blocks_do_not(self, monkeypatch: pytest.MonkeyPatch) -> None:
        values = np.random.default_rng(0).normal(size=50)
        first = bootstrap_mean(values, seed=1)
        assert first == bootstrap_mean(values, seed=1)
        assert first != bootstrap_mean(values, seed=2)
        monkeypatch.setattr("persona.evaluation._BLOCK", 700)
        assert bootstrap_mean(values, seed=1)["ci95"] == pytest.approx(first["ci95"])

    def test_pairing_removes_what_users_share(self) -> None:
        shared = np.random.default_rng(0).normal(size=100)
        measure = paired_difference(shared + 0.1, shared, seed=0)
        assert measure["value"] == pytest.approx(0.1)
        assert measure["ci95"] == pytest.approx([0.1, 0.1])
        with pytest.raises(ShapeError, match=r"got shapes \(2,\) and \(3,\)"):
            paired_difference([1.0, 2.0], [1.0, 2.0, 3.0], seed=0)

    def test_worst_decile_counts_the_border_in_part(self) -> None:
        # A tenth of 15 users is 1.5 of them: the worst whole, the next half.
        measure = worst_decile([0.9] * 13 + [0.3, 0.0], seed=0)
        assert measure["value"] == pytest.approx((0.0 + 0.5 * 0.3) / 1.5)
        assert measure["ci95"][0] <= measure["value"] <= measure["ci95"][1]


class TestScores:
    features = torch.tensor([[0.0], [1.0], [2.0], [1.0]])
    model = PooledReward(torch.tensor([1.0]), 1.0)

    def test_accuracy_loss_and_ties_by_hand(self) -> None:
        target = table([0, 0, 0, 5], [0, 1, 2, 3], [1, 2, 1, 0], [0, 0, 3, 2])
        scores = score_users(self.model, empty(), target, self.features, k=4, seed=0)
        assert scores.users.tolist() == [0, 5]
        # User 0: two right calls and an even one; user 5: one wrong call.
        np.testing.assert_allclose(scores.accuracy, [2.5 / 3, 0.0])
        nats = [np.log1p(np.exp(-1)), np.log1p(np.exp(-2)), np.log(2)]
        np.testing.assert_allclose(scores.log_loss, [np.mean(nats), np.log1p(np.exp(2))], rtol=1e-6)
        assert scores.bin_count.sum(1).tolist() == [3, 1]

    def test_rounding_of_an_even_call_counts_for_nobody(self) -> None:
        target = table([0, 0], [0, 1], [1, 2], [0, 0])
        barely = PooledReward(torch.tensor([1e-7]), 1.0)
        scores = score_users(barely, empty(), target, self.features, k=0, seed=0)
        np.testing.assert_allclose(scores.accuracy, [0.5])

    def test_calibration_error_by_hand(self) -> None:
        target = table([0, 1, 1], [0, 1, 2], [1, 1, 0], [0, 0, 1])
        error = calibration_error(
            score_users(self.model, empty(), target, self.features, k=0, seed=0), seed=0
        )
        # Three calls of confidence sigmoid(1), two of them right.
        assert error["value"] == pytest.approx(abs(2 / 3 - 1 / (1 + np.exp(-1))), abs=1e-6)

    def test_a_leaked_prompt_is_refused(self) -> None:
        target = table([0], [7], [1], [0])
        with pytest.raises(DataError, match=r"got 1 shared ones, such as \[7\]"):
            score_users(self.model, target, target, self.features, k=1, seed=0)
        with pytest.raises(DataError, match="at least one comparison; got none"):
            score_users(self.model, target, empty(), self.features, k=1, seed=0)

    def test_oracle_by_hand(self) -> None:
        target = table([0, 0, 5], [0, 1, 2], [1, 2, 0], [0, 0, 1])
        assert oracle_accuracy(target, [1.0, 0.0, -2.0]).tolist() == [0.75, 0.0]
        with pytest.raises(ShapeError, match=r"shape \(3,\).*got \(2,\)"):
            oracle_accuracy(target, [1.0, 0.0])


class TestLatents:
    def opposite_users(self) -> tuple[HierarchicalBayes, ComparisonTable, ComparisonTable, torch.Tensor]:
        """Half of the users want more of a feature and half want less, and none is in doubt."""
        rng = np.random.default_rng(0)
        features = torch.from_numpy(rng.normal(size=(400, 3))).float()
        users = np.repeat(np.arange(20), 20)
        first, second = np.arange(400), (np.arange(400) + 200) % 400
        wins = (features[first, 0] > features[second, 0]).numpy() == (users % 2 == 0)
        whole = ComparisonTable(
            users, np.arange(400) % 20, np.where(wins, first, second), np.where(wins, second, first)
        )
        model = HierarchicalBayes(torch.zeros(3), torch.diag(torch.tensor([3.0, 0.0, 0.0])))
        shown = whole.prompts < 10
        return model, whole.select(shown), whole.select(~shown), features

    def test_shuffled_contexts_cost_what_the_latent_knows(self) -> None:
        model, context, target, features = self.opposite_users()
        gap = context_shuffle_gap(model, context, target, features, k=10, seed=0)
        own = score_users(model, context, target, features, k=10, seed=0)
        assert own.accuracy.mean() > 0.95
        assert gap["value"] > 0.3
        pooled = PooledReward(torch.ones(3), 1.0)
        assert context_shuffle_gap(pooled, context, target, features, k=10, seed=0)["value"] == 0.0

    def test_a_single_used_direction_counts_once_however_it_lies(self) -> None:
        model, context, _, features = self.opposite_users()
        assert active_units(model, context, features, k=10, seed=0)["value"] == 1.0
        turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(0))).Q
        turned = HierarchicalBayes(torch.zeros(3), turn @ model.factor)
        measure = active_units(turned, context, features @ turn.T, k=10, seed=0)
        assert (measure["value"], measure["n"]) == (1.0, 20)
        assert active_units(PooledReward(torch.ones(3), 1.0), context, features, k=5, seed=0)["value"] == 0.0


def test_table_holds_every_method_and_size() -> None:
    world = make_world(users=24, comparisons=20, prompts=60)
    split = split_users_and_prompts(world.table, seed=0)
    profiles: dict[str, Profile] = {
        "pooled": PooledReward(torch.ones(40), 1.0),
        "personal": HierarchicalBayes(torch.zeros(40), 0.2 * torch.eye(40)),
    }
    table = evaluate_preferences(profiles, split.context, split.target, world.features, ks=(0, 4), seed=0)
    assert list(table) == ["pooled", "personal"]
    for name, sizes in table.items():
        assert list(sizes) == ["k0", "k4"]
        for measures in sizes.values():
            assert list(measures) == ["accuracy", "over_baseline", "worst_decile", "log_loss", "ece"]
            assert measures["accuracy"]["n"] == len(split.target.user_ids)
        difference = sizes["k4"]["accuracy"]["value"] - table["pooled"]["k4"]["accuracy"]["value"]
        assert sizes["k4"]["over_baseline"]["value"] == pytest.approx(difference), name
    assert table["personal"]["k0"]["accuracy"]["value"] == pytest.approx(0.5)
    with pytest.raises(DataError, match="the baseline `pooled`; got personal"):
        evaluate_preferences(
            {"personal": profiles["personal"]}, split.context, split.target, world.features, ks=(0,), seed=0
        )
