"""The ordinal choice model of a log: planted truths come back, and probabilities mean what they say."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from persona.errors import DataError
from recsys.metrics.calibration import calibration_error
from simulators.errors import MirrorError
from simulators.mirror import Effect, LevelModel, fit_levels
from simulators.world.choice import NestedChoice

CHOICE = NestedChoice(np.array([0.8, 0.4, 0.6]), np.array([1.0, 0.7, 0.9]), 0.4)
POPULARITY_EFFECT = 0.3


class Planted:
    """Users and items with known tastes and effects, and a log of random slates in which some items are shown more."""

    def __init__(self, users: int = 150, items: int = 80, per_user: int = 40, *, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.features = rng.normal(size=(items, 3))
        fame = rng.normal(size=items)
        shown = np.argsort(fame + 0.7 * rng.gumbel(size=(users, items)), axis=1)[:, -per_user:]
        counts = np.log1p(np.bincount(shown.ravel(), minlength=items))
        standard = (counts - counts.mean()) / counts.std()
        effect = POPULARITY_EFFECT * standard + 0.4 * rng.normal(size=items)
        taste = rng.normal([0.5, 0.0, -0.3], 0.6, size=(users, 3))
        self.utility = taste @ self.features.T + effect + 0.3 * rng.normal(size=(users, 1))
        for row in shown:
            rng.shuffle(row)
        who, what = np.repeat(np.arange(users), per_user), shown.ravel()
        place = np.tile(np.arange(per_user) % 10, users)
        levels = CHOICE.sample(self.utility[who, what], rng.random(len(who)), position=place)
        self.log = pd.DataFrame({"user_id": who, "item_id": what, "level": levels, "position": place})

    def fit(self, log: pd.DataFrame | None = None, *, iterations: int = 15, n_factors: int = 0) -> LevelModel:
        rows = self.log if log is None else log
        return fit_levels(
            rows,
            self.features,
            n_users=len(self.utility),
            n_levels=4,
            iterations=iterations,
            use_exposure=False,
            n_factors=n_factors,
            seed=0,
        )


@pytest.fixture(scope="module")
def planted() -> Planted:
    return Planted()


@pytest.fixture(scope="module")
def model(planted: Planted) -> LevelModel:
    return planted.fit()


def test_planted_utilities_come_back(planted: Planted, model: LevelModel) -> None:
    users, items = np.indices(planted.utility.shape).reshape(2, -1)
    mean, variance = model.utility(users, items)
    truth = planted.utility.ravel()
    assert np.corrcoef(mean, truth)[0, 1] > 0.85
    away = mean - mean.mean() - (truth - truth.mean())
    # The doubt is honest: what is off is as large as it says.
    assert away.var() == pytest.approx(variance.mean(), rel=0.35)


def test_position_and_popularity_lie_in_their_intervals(model: LevelModel) -> None:
    for name, truth in (("position", CHOICE.position_effect), ("popularity", POPULARITY_EFFECT)):
        found = model.effects[name]
        assert 0.005 < found.error < 0.15
        assert abs(found.value - truth) < 3 * found.error
    assert Effect(1.0, 0.5).interval == pytest.approx((0.02, 1.98))


def test_what_all_users_like_does_not_stay_in_the_items_effects(planted: Planted) -> None:
    few, many = (planted.fit(iterations=n).population.mean[0, :3] for n in (8, 60))
    np.testing.assert_allclose(many, [0.5, 0.0, -0.3], atol=0.15)
    np.testing.assert_allclose(few, many, atol=0.1)


def test_probabilities_are_calibrated_on_rows_not_seen() -> None:
    planted = Planted(per_user=60)
    late = planted.log.groupby("user_id").cumcount() >= 40
    model = planted.fit(planted.log[~late])
    users, items, levels, place = (
        planted.log[late][c].to_numpy() for c in ("user_id", "item_id", "level", "position")
    )
    found = model.probabilities(users, items, position=place)
    np.testing.assert_allclose(found.sum(axis=1), 1)
    truth = CHOICE.probabilities(planted.utility[users, items], position=place)
    rows = np.arange(len(levels))
    loss, least = (-np.log(p[rows, levels]).mean() for p in (found, truth))
    base = np.bincount(levels) / len(levels)
    assert loss - least < 0.4 * (-(base * np.log(base)).sum() - least)
    for level in (1, 2, 3):
        assert calibration_error(found[:, level:].sum(axis=1), levels >= level) < 0.05


def test_the_loss_falls_and_the_same_seed_gives_the_same_bits(planted: Planted) -> None:
    seen: list[dict[str, float]] = []
    arguments = dict(n_users=150, n_levels=4, n_factors=2, iterations=4, seed=3)
    first = fit_levels(planted.log, planted.features, report=seen.append, **arguments)  # type: ignore[arg-type]
    second = fit_levels(planted.log, planted.features, **arguments)  # type: ignore[arg-type]
    np.testing.assert_array_equal(first.users.mean, second.users.mean)
    np.testing.assert_array_equal(first.items.covariance, second.items.covariance)
    assert [row["iteration"] for row in seen] == [1, 2, 3, 4]
    assert seen[-1]["loss"] < seen[0]["loss"]


def test_new_users_are_believed_as_those_of_the_fit(planted: Planted, model: LevelModel) -> None:
    own = planted.log[planted.log["user_id"] < 5]
    told = model.for_users(own, 6)
    np.testing.assert_allclose(told.users.mean[:5], model.users.mean[:5], atol=0.05)
    np.testing.assert_array_equal(told.users.mean[5], model.population.mean[0])
    _, known = told.utility([0], [3])
    _, unknown = told.utility([5], [3])
    assert unknown[0] > 1.3 * known[0]


@pytest.mark.integration
def test_factors_find_what_no_attribute_tells() -> None:
    planted = Planted(users=200, items=60, per_user=50)
    planted.features = np.zeros((60, 1))
    with_factors, without = (planted.fit(n_factors=n, iterations=20) for n in (3, 0))
    users, items = np.indices(planted.utility.shape).reshape(2, -1)
    truth = planted.utility.ravel()
    found, plain = (np.corrcoef(m.utility(users, items)[0], truth)[0, 1] for m in (with_factors, without))
    assert found > plain + 0.05


def test_a_model_is_saved_and_loaded_bit_for_bit(model: LevelModel, tmp_path: Path) -> None:
    told = replace(model, effects={**model.effects, "position": Effect(0.0, np.nan)})
    told.save(tmp_path)
    again = LevelModel.load(tmp_path)
    np.testing.assert_array_equal(
        again.probabilities([0, 4], [1, 2], position=[0, 3]),
        model.probabilities([0, 4], [1, 2], position=[0, 3]),
    )
    assert again.effects["popularity"] == model.effects["popularity"]
    assert np.isnan(again.effects["position"].error)
    (tmp_path / "level_model.json").unlink()
    with pytest.raises(DataError, match=r"level_model\.safetensors and level_model\.json"):
        LevelModel.load(tmp_path)


def test_a_log_without_positions_has_no_effect_of_them(planted: Planted) -> None:
    found = planted.fit(planted.log.drop(columns="position"), iterations=2)
    assert found.effects["position"].value == 0 and np.isnan(found.effects["position"].error)


def test_what_the_model_cannot_use_is_refused(planted: Planted, model: LevelModel) -> None:
    log = planted.log
    with pytest.raises(MirrorError, match=r"every level 0\.\.3 .* got counts \[0, \d+"):
        planted.fit(log[log["level"] > 0])
    with pytest.raises(MirrorError, match=r"`user_id` must lie in 0\.\.149; got \[150\]"):
        planted.fit(log.assign(user_id=np.where(log.index == 7, 150, log["user_id"])))
    with pytest.raises(MirrorError, match=r"`level` must lie in 0\.\.3; got \[4\]"):
        planted.fit(log.assign(level=np.where(log.index == 7, 4, log["level"])))
    with pytest.raises(MirrorError, match="`position` must be at least 0; got -1"):
        planted.fit(log.assign(position=-1))
    with pytest.raises(MirrorError, match=r"`items` must lie in 0\.\.79; got \[80\]"):
        model.utility([0], [80])
    with pytest.raises(MirrorError, match=r"got \(2,\) and \(1,\)"):
        model.utility([0, 1], [3])


@pytest.mark.statistical
def test_intervals_of_position_and_popularity_cover() -> None:
    covered = {"position": 0, "popularity": 0}
    for seed in range(20):
        effects = Planted(seed=seed).fit().effects
        for name, truth in (("position", CHOICE.position_effect), ("popularity", POPULARITY_EFFECT)):
            low, high = effects[name].interval
            covered[name] += low <= truth <= high
    # 95 % of 20 is 19; 15 or fewer has a chance below 1 in 300.
    assert min(covered.values()) >= 16, covered
