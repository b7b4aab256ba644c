from dataclasses import replace

import numpy as np
import pytest
import torch

from persona.data.comparisons import ComparisonTable, gather_pairs, rows_of_users
from persona.data.splits import split_users_and_prompts
from persona.data.synthetic import (
    FAMILIES,
    Size,
    draw_clustered,
    draw_cyclic,
    draw_ideal,
    draw_linear,
    draw_noisy,
    draw_tied,
)
from persona.errors import DataError
from persona.evaluation import oracle_accuracy
from persona.profiles.pooled import bradley_terry_weights

SMALL = Size(users=60, comparisons=30, prompts=50)


def differences(table: ComparisonTable, features: torch.Tensor) -> torch.Tensor:
    return features[torch.from_numpy(table.chosen)] - features[torch.from_numpy(table.rejected)]


@pytest.mark.parametrize("name", FAMILIES)
class TestEveryFamily:
    def test_same_seed_same_bits(self, name: str) -> None:
        first, again, other = (FAMILIES[name](seed) for seed in (3, 3, 4))
        assert torch.equal(first.features, again.features)
        for part in ("users", "prompts", "chosen", "rejected", "is_tie"):
            assert np.array_equal(getattr(first.table, part), getattr(again.table, part))
        assert not np.array_equal(first.table.chosen, other.table.chosen)

    def test_choices_are_as_frequent_as_the_truth_says(self, name: str) -> None:
        family = FAMILIES[name](0)
        strict = family.table.without_ties()
        swapped = replace(strict, chosen=strict.rejected, rejected=strict.chosen)
        probability = family.probability(strict)
        np.testing.assert_allclose(probability + family.probability(swapped), 1.0, atol=1e-12)
        likelier = np.maximum(probability, 1.0 - probability)
        deviation = np.sqrt((likelier * (1.0 - likelier)).sum())
        assert abs((probability > 0.5).sum() - likelier.sum()) < 4 * deviation

    def test_the_oracle_judges_parts_of_a_split(self, name: str) -> None:
        family = FAMILIES[name](0)
        target = split_users_and_prompts(family.table.without_ties(), seed=0).target
        right = oracle_accuracy(target, family.advantage(target)).mean()
        expected = np.maximum(family.probability(target), 1.0 - family.probability(target)).mean()
        assert right == pytest.approx(expected, abs=0.045)  # 750 targets: a deviation is 0.012

    def test_both_replies_answer_the_prompt_and_distractors_are_noise(self, name: str) -> None:
        family = FAMILIES[name](0)
        for side in (family.table.chosen, family.table.rejected):
            assert np.array_equal(side // 4, family.table.prompts)
        assert len(family.table) == 300 * 40


def test_linear_margins_are_weighted_differences() -> None:
    family = draw_linear(0, replace(SMALL, distractors=5), scale=3.0, common=0.25)
    assert family.features.shape == (200, 11)
    difference = differences(family.table, family.features[:, :6].double())
    own = torch.from_numpy(family.users)[torch.from_numpy(family.table.users)]
    np.testing.assert_allclose(
        family.advantage(family.table), (difference * own).sum(1).numpy(), rtol=0, atol=1e-5
    )
    assert np.linalg.norm(family.users, axis=1).mean() == pytest.approx(3.0, rel=0.1)
    assert np.linalg.norm(family.users.mean(0)) == pytest.approx(0.25**0.5 * 3.0, rel=0.25)


def test_ideal_users_prefer_what_is_nearer() -> None:
    family = draw_ideal(0, replace(SMALL, dims=3), scale=4.0)
    place = family.features.double().numpy()
    ideal = family.users[family.table.users]
    near, far = (
        np.linalg.norm(place[side] - ideal, axis=1) for side in (family.table.chosen, family.table.rejected)
    )
    np.testing.assert_allclose(family.advantage(family.table), 4.0 * (far - near), atol=1e-5)
    assert (near < far).mean() > 0.8
    squared = draw_ideal(0, replace(SMALL, dims=3), scale=1.0, prototypes=0, squared=True)
    one = ComparisonTable(*(np.array([i]) for i in (5, 0, 0, 1)))
    place, ideal = squared.features.double().numpy(), squared.users[5]
    expected = ((place[1] - ideal) ** 2).sum() - ((place[0] - ideal) ** 2).sum()
    assert squared.advantage(one)[0] == pytest.approx(expected, abs=1e-5)


class TestCyclic:
    def test_four_replies_beat_one_another_in_a_circle(self) -> None:
        family = draw_cyclic(0, scale=8.0)
        asked = ComparisonTable(
            np.zeros(4, int), np.zeros(4, int), np.array([0, 1, 2, 3]), np.array([1, 2, 3, 0])
        )
        np.testing.assert_allclose(family.advantage(asked), 8.0)
        assert (family.advantage(family.table) > 0).mean() > 0.999

    def test_a_linear_reward_stays_at_chance(self) -> None:
        family = draw_cyclic(0)
        difference = differences(family.table, family.features)
        weights = bradley_terry_weights(difference, 1.0)
        assert float((difference @ weights > 0).float().mean()) == pytest.approx(0.5, abs=0.02)

    def test_some_users_go_round_the_other_way(self) -> None:
        family = draw_cyclic(0, replace(SMALL, dims=4), reversed_users=0.5)
        assert family.kinds.sum() == 30
        assert ((family.users < 0).all(1) == (family.kinds == 1)).all()
        np.testing.assert_allclose(np.abs(family.users).sum(1), 1.0)

    @pytest.mark.parametrize(("replies", "dims", "got"), [(2, 2, "2 and 2"), (4, 3, "4 and 3")])
    def test_too_small_a_circle_is_refused(self, replies: int, dims: int, got: str) -> None:
        with pytest.raises(DataError, match=f"at least 3 replies and an even number of `dims`; got {got}"):
            draw_cyclic(0, Size(replies=replies, dims=dims))


class TestNoisy:
    def test_flips_turn_a_share_of_the_linear_choices(self) -> None:
        clean, noisy = draw_linear(0), draw_noisy(0, flips=0.25)
        assert (clean.table.chosen != noisy.table.chosen).mean() == pytest.approx(0.25, abs=0.015)
        expected = 0.25 + 0.5 * clean.probability(noisy.table)
        np.testing.assert_allclose(noisy.probability(noisy.table), expected)

    def test_a_coin_teaches_nothing(self) -> None:
        with pytest.raises(DataError, match=r"`flips` must lie in 0\.\.0\.5, without 0\.5; got 0\.5"):
            draw_noisy(0, flips=0.5)


class TestTied:
    def test_ties_are_as_frequent_as_asked_and_likeliest_between_equals(self) -> None:
        family = draw_tied(0, ties=0.3)
        assert family.table.is_tie.mean() == pytest.approx(0.3, abs=0.015)
        assert family.tie_probability(family.table).mean() == pytest.approx(0.3, abs=1e-6)
        margin = np.abs(family.advantage(family.table))
        assert margin[family.table.is_tie].mean() < 0.6 * margin[~family.table.is_tie].mean()

    def test_which_of_two_tied_replies_is_called_chosen_means_nothing(self) -> None:
        family = draw_tied(0)
        tied = family.table.select(family.table.is_tie)
        assert (family.advantage(tied) > 0).mean() == pytest.approx(0.5, abs=0.03)

    def test_a_share_of_ties_is_between_none_and_all(self) -> None:
        with pytest.raises(DataError, match=r"`ties` must lie between 0 and 1; got 1\.0"):
            draw_tied(0, ties=1.0)

    def test_pairs_for_learners_of_choices_hold_no_ties(self) -> None:
        family = draw_tied(0, SMALL)
        strict = family.table.without_ties()
        pairs = gather_pairs(strict, family.features, rows_of_users(strict, np.arange(60)))
        assert int(pairs.mask.sum()) == int((~family.table.is_tie).sum())
        first = np.flatnonzero(family.table.is_tie)[0]
        with pytest.raises(DataError, match=rf"strict choices; got ties in comparisons \[{first},"):
            gather_pairs(family.table, family.features, rows_of_users(family.table, np.arange(60)))


def test_clustered_users_are_near_their_kind() -> None:
    family = draw_clustered(0, clusters=3, spread=0.1)
    assert np.bincount(family.kinds).tolist() == [100, 100, 100]
    centres = np.stack([family.users[family.kinds == kind].mean(0) for kind in range(3)])
    distance = np.linalg.norm(family.users[:, None] - centres, axis=2)
    assert np.array_equal(distance.argmin(1), family.kinds)
    np.testing.assert_allclose(np.linalg.norm(centres, axis=1), 3.0, rtol=0.05)


def test_oracle_log_loss_is_the_entropy_of_the_noise() -> None:
    family = draw_noisy(0, flips=0.25, scale=1e6)
    assert family.oracle_log_loss(family.table) == pytest.approx(
        0.5623, abs=0.02
    )  # -(3 log(3/4) + log(1/4)) / 4


def test_sizes_are_checked() -> None:
    with pytest.raises(DataError, match="`users` must be at least 2; got 1"):
        Size(users=1)
