import time

import numpy as np
import pydantic
import pytest
import torch

from persona.checks import check_profile
from persona.data import context_pairs
from persona.data.splits import split_users_and_prompts
from persona.data.synthetic import draw_ideal, draw_linear
from persona.errors import DataError
from persona.evaluation import context_shuffle_gap, oracle_accuracy, score_users
from persona.objectives.score_gap import hinge_loss
from persona.profiles import Profile, fit_hierarchical_bayes
from persona.profiles.pal import IdealPoints, PalProfile, PromptCosines
from persona.recipes.pal import PalConfig, train_pal
from persona.types import ReplyPairs
from tests.helpers.preference_world import make_world

SHORT = PalConfig(kinds=(3, 5), steps=4, check_every=2, users_per_step=8, em_iterations=2)
COSINES = SHORT.model_copy(update={"form": "prompt cosines", "prompt_dim": 4})
WORLD = make_world(users=20, comparisons=12, prompts=40)


@pytest.mark.parametrize("config", [SHORT, COSINES])
def test_training_is_the_same_to_the_bit_and_reported(config: PalConfig) -> None:
    runs = []
    for _ in range(2):
        rows: list[dict[str, float]] = []
        runs.append((train_pal(WORLD.table, WORLD.features, config, seed=1, report=rows.append), rows))
    (first, rows), (second, again) = runs
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other)
    assert rows == again
    looks = [(row["kinds"], row["step"]) for row in rows if "held_out_log_loss" in row]
    assert looks == [(3, 2), (3, 4), (5, 2), (5, 4)]
    assert not first.training
    with torch.no_grad():
        check_profile(first, context_pairs(WORLD.table, first.lift(WORLD.features), np.arange(6), 8))


def test_prompt_columns_are_split_off_for_cosines() -> None:
    profile = train_pal(WORLD.table, WORLD.features, COSINES, seed=1)
    assert isinstance(profile.scorer, PromptCosines)
    assert (profile.n_features, profile.prompt_dim) == (40, 4)
    assert profile.scorer.embed.shape[1] == 36


def test_start_has_the_tastes_of_hierarchical_bayes_and_a_curve() -> None:
    config = PalConfig(kinds=(45,), steps=0, embed_dim=40, em_iterations=2)
    profile = train_pal(WORLD.table, WORLD.features, config, seed=1)
    pairs = context_pairs(WORLD.table, WORLD.features, np.arange(5))
    lifted = context_pairs(WORLD.table, profile.lift(WORLD.features), np.arange(5))
    square = WORLD.features.square().sum(1, keepdim=True)
    columns = torch.cat([WORLD.features, square / square.std()], dim=1)
    wide = fit_hierarchical_bayes(WORLD.table, columns, seed=1, iterations=2)
    assert isinstance(profile.scorer, IdealPoints)
    with torch.no_grad():
        mean, variance = profile.log_odds(profile.encode(lifted.keep(lifted.mask & False)), lifted)
        curve = profile.scorer.log_curvature.exp()
    squares = (pairs.chosen.square() - pairs.rejected.square()).sum(-1)
    torch.testing.assert_close(
        mean, pairs.difference @ wide.mean[:-1] - curve * squares, atol=2e-3, rtol=2e-3
    )
    spread = (pairs.difference @ wide.factor[:-1]).square().sum(-1)
    torch.testing.assert_close(variance, spread, atol=1e-2, rtol=1e-2)


def test_held_out_users_choose_the_number_of_steps() -> None:
    rows: list[dict[str, float]] = []
    wild = SHORT.model_copy(update={"learning_rate": 3.0})
    train_pal(WORLD.table, WORLD.features, wild, seed=1, report=rows.append)
    assert not [row for row in rows if "loss" in row]  # every look found the start to be better


def test_looking_ends_when_held_out_users_gain_no_more() -> None:
    rows: list[dict[str, float]] = []
    wild = SHORT.model_copy(update={"learning_rate": 3.0, "steps": 20, "check_every": 1, "kinds": (3,)})
    train_pal(WORLD.table, WORLD.features, wild, seed=1, report=rows.append)
    assert [row["step"] for row in rows if "held_out_log_loss" in row] == [1, 2, 3]


def test_ties_are_left_out() -> None:
    table = WORLD.table
    ties = np.zeros(len(table), dtype=np.bool_)
    ties[::7] = True
    tied = type(table)(table.users, table.prompts, table.chosen, table.rejected, ties)
    got = train_pal(tied, WORLD.features, SHORT, seed=1)
    wanted = train_pal(table.select(~ties), WORLD.features, SHORT, seed=1)
    assert torch.equal(got.average_logits, wanted.average_logits)


def test_a_hinge_can_take_the_place_of_the_logistic_loss() -> None:
    plain = SHORT.model_copy(update={"kinds": (3,), "steps": 2, "check_every": 1})
    rows: list[dict[str, float]] = []
    train_pal(WORLD.table, WORLD.features, plain, seed=1, report=rows.append, loss=hinge_loss)
    assert len([row for row in rows if "held_out_log_loss" in row]) == 2


def test_config_and_data_faults_are_named() -> None:
    few = make_world(users=3, comparisons=4, prompts=10)
    with pytest.raises(DataError, match=r"got 3 users and \[4, 16, 32\]"):
        train_pal(few.table, few.features, PalConfig(), seed=0)
    with pytest.raises(DataError, match=r"got 20 users and \[1\]"):
        train_pal(WORLD.table, WORLD.features, PalConfig(kinds=(1,)), seed=0)
    with pytest.raises(DataError, match=r"at most 0 for ideal points over 40 features; got 4"):
        train_pal(WORLD.table, WORLD.features, PalConfig(prompt_dim=4), seed=0)
    with pytest.raises(DataError, match=r"at most 39 for prompt cosines over 40 features; got 40"):
        train_pal(WORLD.table, WORLD.features, PalConfig(form="prompt cosines", prompt_dim=40), seed=0)
    with pytest.raises(pydantic.ValidationError, match="kind"):
        PalConfig(kind=4)  # type: ignore[call-arg]


@pytest.mark.integration
@pytest.mark.parametrize("form", ["ideal points", "prompt cosines"])
def test_finds_ideal_points_where_a_linear_reward_learns_next_to_nothing(form: str) -> None:
    family = draw_ideal(0)
    split = split_users_and_prompts(family.table, seed=0)
    config = PalConfig.model_validate({"form": form, "kinds": (4,), "steps": 20})
    pal = train_pal(split.train, family.features, config, seed=0)
    bayes = fit_hierarchical_bayes(split.train, family.features, seed=0)

    def accuracy(which: Profile) -> float:
        return float(
            score_users(which, split.context, split.target, family.features, k=16, seed=0).accuracy.mean()
        )

    ceiling = oracle_accuracy(split.target, family.advantage(split.target)).mean()
    assert accuracy(bayes) < 0.65
    assert accuracy(pal) > ceiling - 0.06
    gap = context_shuffle_gap(pal, split.context, split.target, family.features, k=16, seed=0)
    assert gap["ci95"][0] > 0.0


@pytest.mark.integration
@pytest.mark.parametrize("form", ["ideal points", "prompt cosines"])
def test_keeps_up_with_hierarchical_bayes_on_linear_users(form: str) -> None:
    family = draw_linear(0)
    split = split_users_and_prompts(family.table, seed=0)
    config = PalConfig.model_validate({"form": form, "kinds": (8,), "steps": 60})
    profiles: list[Profile] = [
        train_pal(split.train, family.features, config, seed=0),
        fit_hierarchical_bayes(split.train, family.features, seed=0),
    ]
    for k in (0, 16):
        own, bayes = (
            score_users(which, split.context, split.target, family.features, k=k, seed=0).accuracy.mean()
            for which in profiles
        )
        assert own > bayes - 0.015


def random_pairs(profile: PalProfile, users: int) -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    return torch.randn(users, 16, profile.kinds, generator=rng), torch.ones(users, 16, dtype=torch.bool)


@pytest.mark.integration
def test_new_users_are_placed_in_milliseconds() -> None:
    profile = PalProfile(PromptCosines(8, 16, 4))
    lone, mask = random_pairs(profile, 1)
    with torch.no_grad():
        times = []
        for _ in range(20):
            start = time.perf_counter()
            profile.encode(ReplyPairs.of_differences(lone, mask))
            times.append(time.perf_counter() - start)
        many, mask = random_pairs(profile, 20_000)
        start = time.process_time()
        profile.encode(ReplyPairs.of_differences(many, mask))
        seconds = time.process_time() - start
    assert min(times) < 0.005
    assert seconds < 4.0  # about 1 s on an idle core: 100,000 users in 5 s
