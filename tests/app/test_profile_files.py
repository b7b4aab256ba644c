import json
from pathlib import Path

import pytest
import torch

from app.errors import ConfigError, StoreError
from app.fit_methods import check_methods
from app.profile_features import Reads
from app.profile_files import load_profile, save_profile
from app.profile_methods import METHODS, Material
from persona.checks import check_profile
from persona.data.comparisons import context_pairs
from persona.errors import ContractError, DataError
from persona.recipes.logistic import VARIANCES, fit_logistic
from tests.helpers.preference_world import make_world


def material(reads: Reads = "replies") -> Material:
    world = make_world(users=24, comparisons=12, prompts=60, informative=6, noise=2)
    features = (
        torch.from_numpy(world.attributes).float() if reads.startswith("attributes") else world.features
    )
    if reads.endswith("prompts"):
        # Two columns of the prompt, the same for its six replies.
        asked = torch.randn(60, 2, generator=torch.Generator().manual_seed(0)).repeat_interleave(6, dim=0)
        features = torch.cat([features, asked], dim=1)
    names = tuple(f"a{place}" for place in range(world.attributes.shape[1]))
    dims = 2 if reads.endswith("prompts") else 0
    return Material(world.table, features, 0, prompt_dim=dims, length_column=0, objectives=names)


SLOW = {"vpl-amortised", "vpl-paper", "pal", "pal-prompt", "gpm", "micro", "pro"}
"""Methods that train for more than a few seconds."""


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.statistical if name in SLOW else pytest.mark.integration)
        for name in METHODS
    ],
)
def test_every_method_keeps_the_contract_and_comes_back_from_disk(name: str, tmp_path: Path) -> None:
    given = material(METHODS[name].reads)
    profile = METHODS[name].fit(given)
    pairs = context_pairs(given.table, profile.lift(given.features), given.table.user_ids[:4], 6)
    if name == "vpl-paper":
        # The published encoder reads a pair as a concatenation, so nothing makes it move the opposite way.
        with pytest.raises(ContractError, match="must move the mean the opposite way"):
            check_profile(profile, pairs)
    else:
        check_profile(profile, pairs)
    save_profile(profile, tmp_path)
    again = load_profile(tmp_path)
    assert type(again) is type(profile)
    with torch.no_grad():
        asked = context_pairs(given.table, again.lift(given.features), given.table.user_ids[:4], 3)
        torch.testing.assert_close(again.encode(pairs).mean, profile.encode(pairs).mean, rtol=1e-4, atol=1e-5)
        wanted = profile.predict(profile.encode(pairs), asked)
        torch.testing.assert_close(again.predict(again.encode(pairs), asked), wanted, rtol=1e-4, atol=1e-5)


def test_the_average_users_model_always_takes_part() -> None:
    assert check_methods(("vpl",)) == ("pooled", "vpl")
    assert check_methods(("vpl", "pooled")) == ("vpl", "pooled")


def test_length_needs_a_length() -> None:
    with pytest.raises(ConfigError, match="`length` must have the length among the features; got none"):
        METHODS["length"].fit(material()._replace(length_column=None))


def test_a_profile_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"must hold profile.json; got .*, without one"):
        load_profile(tmp_path)
    (tmp_path / "profile.json").write_text(json.dumps({"kind": "crystal ball"}))
    with pytest.raises(StoreError, match=r"of a known kind .*; got 'crystal ball'"):
        load_profile(tmp_path)


def test_logistic_shrinks_to_the_variance_that_held_out_users_choose() -> None:
    given = material()
    profile = fit_logistic(given.table, given.features, seed=0)
    variance = float(profile.factor[0, 0] ** 2)
    assert min(abs(variance - value) for value in VARIANCES) < 1e-6
    assert not profile.mean.any()
    # Labels that are coin flips leave nothing to learn but the strongest shrinkage.
    half = torch.arange(len(given.table)) % 2 == 0
    table = given.table
    chosen = torch.where(half, torch.from_numpy(table.chosen), torch.from_numpy(table.rejected)).numpy()
    rejected = table.chosen + table.rejected - chosen
    noise = type(table)(table.users, table.prompts, chosen, rejected)
    flipped = fit_logistic(noise, given.features, seed=0)
    assert float(flipped.factor[0, 0] ** 2) < variance


def test_logistic_refuses_variances_that_are_not_positive() -> None:
    with pytest.raises(DataError, match=r"`variances` must be positive, at least one; got \[0.0\]"):
        fit_logistic(material().table, material().features, seed=0, variances=[0.0])
