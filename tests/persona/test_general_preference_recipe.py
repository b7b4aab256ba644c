import numpy as np
import pydantic
import pytest
import torch

from persona.checks import check_profile
from persona.data import ComparisonTable, context_pairs
from persona.data.splits import split_users_and_prompts
from persona.data.synthetic import Size, draw_cyclic, draw_linear
from persona.errors import DataError
from persona.evaluation import context_shuffle_gap, oracle_accuracy, score_users
from persona.profiles import Profile, fit_hierarchical_bayes, fit_pooled
from persona.recipes.general_preference import GeneralPreferenceConfig, train_general_preference
from tests.helpers.preference_world import make_world

SHORT = GeneralPreferenceConfig(
    circular_dims=(0, 3), steps=4, check_every=2, users_per_step=8, em_iterations=2
)
WORLD = make_world(users=20, comparisons=12, prompts=40)


def four_cycle(users: int = 12, prompts: int = 10) -> tuple[ComparisonTable, torch.Tensor]:
    """A over B over C over D over A, for every user and prompt; a reply's features say which of the four it is."""
    letter = np.tile(np.arange(4), users * prompts)
    prompt = np.tile(np.repeat(np.arange(prompts), 4), users)
    user = np.repeat(np.arange(users), 4 * prompts)
    table = ComparisonTable(user, prompt, 4 * prompt + letter, 4 * prompt + (letter + 1) % 4)
    return table, torch.eye(4).repeat(prompts, 1)


def test_reaches_all_of_a_four_cycle_where_every_bradley_terry_scorer_stays_at_chance() -> None:
    table, features = four_cycle()
    seen = table.select((table.users < 8) & (table.prompts < 6))
    unseen = table.select((table.users >= 8) & (table.prompts >= 6))
    nothing = table.select(table.users < 0)
    config = GeneralPreferenceConfig(circular_dims=(0, 2, 4), steps=0, em_iterations=3)
    general = train_general_preference(seen, features, config, seed=0)
    assert (score_users(general, nothing, unseen, features, k=0, seed=0).accuracy == 1.0).all()
    scorers: list[Profile] = [
        fit_pooled(seen, features, seed=0),
        fit_hierarchical_bayes(seen, features, seed=0, iterations=3),
        train_general_preference(seen, features, config.model_copy(update={"circular_dims": (0,)}), seed=0),
    ]
    pairs = context_pairs(unseen, features, unseen.user_ids)
    for scorer in scorers:
        lifted = context_pairs(unseen, scorer.lift(features), unseen.user_ids)
        with torch.no_grad():
            chance = scorer.predict(scorer.encode(lifted.keep(lifted.mask & False)), lifted)
        # Rewards sum to nothing around a circle, so the likeliest ones are all alike.
        torch.testing.assert_close(chance, torch.full_like(chance, 0.5), atol=1e-3, rtol=0.0)
    # Any reward at all loses at least one of the four, since r_A > r_B > r_C > r_D > r_A has no solution.
    rewards = torch.randn(1000, 4, generator=torch.Generator().manual_seed(0))
    assert int((rewards > rewards.roll(-1, 1)).sum(1).max()) == 3
    assert pairs.mask.all()


def test_training_is_the_same_to_the_bit_and_reported() -> None:
    config = SHORT.model_copy(update={"prompt_dim": 4})
    runs = []
    for _ in range(2):
        rows: list[dict[str, float]] = []
        profile = train_general_preference(WORLD.table, WORLD.features, config, seed=1, report=rows.append)
        runs.append((profile, rows))
    (first, rows), (second, again) = runs
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other)
    assert rows == again
    looks = [(row["circular_dims"], row["step"]) for row in rows if "held_out_log_loss" in row]
    assert looks == [(0, 2), (0, 4), (3, 2), (3, 4)]
    assert not first.training
    assert (first.n_features, first.prompt_dim) == (40, 4)
    with torch.no_grad():
        check_profile(first, context_pairs(WORLD.table, first.lift(WORLD.features), np.arange(6), 8))


def test_without_circles_and_steps_it_is_hierarchical_bayes() -> None:
    config = GeneralPreferenceConfig(
        circular_dims=(0,), linear_dims=40, latent_dim=40, steps=0, em_iterations=2
    )
    profile = train_general_preference(WORLD.table, WORLD.features, config, seed=1)
    bayes = fit_hierarchical_bayes(WORLD.table, WORLD.features, seed=1, iterations=2)
    users = np.arange(10)
    plain = context_pairs(WORLD.table, WORLD.features, users)
    lifted = context_pairs(WORLD.table, profile.lift(WORLD.features), users)
    with torch.no_grad():
        got = profile.predict(profile.encode(lifted), lifted)
    torch.testing.assert_close(got, bayes.predict(bayes.encode(plain), plain), atol=1e-3, rtol=0.0)


def test_ties_are_left_out() -> None:
    table = WORLD.table
    ties = np.zeros(len(table), dtype=np.bool_)
    ties[::7] = True
    tied = ComparisonTable(table.users, table.prompts, table.chosen, table.rejected, ties)
    got = train_general_preference(tied, WORLD.features, SHORT, seed=1)
    wanted = train_general_preference(table.select(~ties), WORLD.features, SHORT, seed=1)
    assert torch.equal(got.embed, wanted.embed)


def test_config_and_data_faults_are_named() -> None:
    few = make_world(users=3, comparisons=4, prompts=10)
    with pytest.raises(DataError, match=r"got 3 users and \[0, 2, 4, 6\]"):
        train_general_preference(few.table, few.features, GeneralPreferenceConfig(), seed=0)
    with pytest.raises(DataError, match=r"got 20 users and \[-1\]"):
        train_general_preference(
            WORLD.table, WORLD.features, GeneralPreferenceConfig(circular_dims=(-1,)), seed=0
        )
    with pytest.raises(DataError, match=r"below the number of features \(40\); got 40"):
        train_general_preference(WORLD.table, WORLD.features, GeneralPreferenceConfig(prompt_dim=40), seed=0)
    with pytest.raises(pydantic.ValidationError, match="block"):
        GeneralPreferenceConfig(block=4)  # type: ignore[call-arg]


@pytest.mark.integration
def test_tells_users_who_go_round_either_way_apart() -> None:
    family = draw_cyclic(0, Size(dims=6, users=200), reversed_users=0.5)
    split = split_users_and_prompts(family.table, seed=0)
    config = GeneralPreferenceConfig(circular_dims=(0, 6), steps=0)
    profile = train_general_preference(split.train, family.features, config, seed=0)
    bayes = fit_hierarchical_bayes(split.train, family.features, seed=0)
    parts = split.context, split.target, family.features
    assert score_users(profile, *parts, k=16, seed=0).accuracy.mean() > 0.97
    assert abs(score_users(bayes, *parts, k=16, seed=0).accuracy.mean() - 0.5) < 0.06
    assert context_shuffle_gap(profile, *parts, k=16, seed=0)["value"] > 0.3
    assert oracle_accuracy(split.target, family.advantage(split.target)).mean() > 0.98


@pytest.mark.integration
def test_keeps_up_with_hierarchical_bayes_on_linear_users() -> None:
    family = draw_linear(0)
    split = split_users_and_prompts(family.table, seed=0)
    config = GeneralPreferenceConfig(circular_dims=(0, 2), steps=60)
    profiles: list[Profile] = [
        train_general_preference(split.train, family.features, config, seed=0),
        fit_hierarchical_bayes(split.train, family.features, seed=0),
    ]
    for k in (0, 16):
        own, bayes = (
            score_users(which, split.context, split.target, family.features, k=k, seed=0).accuracy.mean()
            for which in profiles
        )
        assert own > bayes - 0.015
