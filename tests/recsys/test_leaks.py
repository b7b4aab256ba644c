"""Leaks between the rows of a split, planted and natural."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from recsys.data import (
    Holdout,
    Leak,
    Split,
    find_leaks,
    refuse_leaks,
    split_as_given,
    split_at_random,
    split_by_time,
    split_leave_last_out,
    split_per_user_by_time,
    split_users,
)
from recsys.data.leaks import LeakKind, Severity
from recsys.data.splits import TimeOrder
from recsys.errors import InteractionError, LeakError
from tests.helpers.slow_splits import pairs_of, share_with_later

BUY = 2
EVERY_WAY: dict[str, Callable[[pd.DataFrame], Split]] = {
    "time": split_by_time,
    "per user": lambda log: split_per_user_by_time(log, validation=0.1),
    "last out": split_leave_last_out,
    "random": lambda log: split_at_random(log, seed=0),
    "random, both known": lambda log: split_at_random(log, seed=0, known="train+validation"),
    "users": lambda log: split_users(log, seed=0),
    "users by time": lambda log: split_users(log, seed=0, by_time=True),
    "given": lambda log: split_as_given(log, np.arange(len(log)) % 9 == 0, seed=0),
}


def draw_log(seed: int, rows: int = 1500) -> pd.DataFrame:
    """Each pair once, at its own moment, levels 0 to 2."""
    rng = np.random.default_rng(seed)
    pair = rng.choice(40 * 90, size=rows, replace=False)
    user, item = np.divmod(pair, 90)
    time = rng.permutation(rows) + 10
    return pd.DataFrame(
        {"user_id": user, "item_id": item, "level": rng.integers(3, size=rows), "timestamp": time}
    )


def with_train(split: Split, rows: pd.DataFrame) -> Split:
    """The split with rows added to what models learn from."""
    return split._replace(train=pd.concat([split.train, rows]))


def of_test(leaks: list[Leak], kind: LeakKind) -> list[Leak]:
    return [leak for leak in leaks if leak.kind is kind and " test " in leak.sentence]


def refused(leaks: list[Leak]) -> list[Leak]:
    return [leak for leak in leaks if leak.severity is Severity.LEAK]


@pytest.mark.parametrize("way", EVERY_WAY)
@pytest.mark.parametrize("seed", range(3))
def test_clean_splits_are_not_refused(way: str, seed: int) -> None:
    leaks = find_leaks(EVERY_WAY[way](draw_log(seed)), relevant_level=1)
    assert refused(leaks) == []
    refuse_leaks(leaks)
    assert bool(leaks) == (
        way != "time"
    )  # whatever is not cut at moments of the whole log knows someone's future


@pytest.mark.parametrize("way", EVERY_WAY)
def test_a_test_row_that_is_learned_from_is_refused_under_every_split(way: str) -> None:
    split = EVERY_WAY[way](draw_log(0))
    target = split.test.target
    again = target[target["level"] == BUY].iloc[:1]
    leaks = find_leaks(with_train(split, again), relevant_level=BUY)
    (found,) = of_test(leaks, LeakKind.DUPLICATE)
    assert (found.severity, found.count) == (Severity.LEAK, 1)
    assert found.share == pytest.approx(1 / (target["level"] == BUY).sum())
    user, item = again["user_id"].item(), again["item_id"].item()
    assert found.examples == (f"user {user} with item {item}",)
    with pytest.raises(
        LeakError, match=rf"duplicates across parts: 1 of .*\(e\.g\. user {user} with item {item}\)"
    ):
        refuse_leaks(leaks)


def test_a_known_row_later_than_the_test_breaks_a_global_promise() -> None:
    split = split_by_time(draw_log(0))
    future = pd.DataFrame({"user_id": [99], "item_id": [0], "level": [1], "timestamp": [1400]})
    leaks = find_leaks(with_train(split, future), relevant_level=1)
    (found,) = of_test(leaks, LeakKind.TIME_TRAVEL)
    earlier = int((split.test.target["timestamp"] < 1400).sum())
    assert (found.severity, found.count) == (Severity.LEAK, earlier)
    assert "0.00% of the same user; the protocol promises that nobody's future is known" in found.sentence
    with pytest.raises(LeakError, match=rf"time travel: {earlier} of 150 test rows"):
        refuse_leaks(leaks)


def test_rows_of_the_moment_to_be_predicted_are_not_its_future() -> None:
    split = split_by_time(draw_log(0))
    moment = int(split.test.target["timestamp"].min())
    same = pd.DataFrame({"user_id": [99], "item_id": [0], "level": [1], "timestamp": [moment]})
    assert of_test(find_leaks(with_train(split, same), relevant_level=1), LeakKind.TIME_TRAVEL) == []


@pytest.mark.parametrize("way", ["per user", "last out", "users by time"])
def test_a_users_own_future_breaks_a_promise_for_each_user(way: str) -> None:
    split = EVERY_WAY[way](draw_log(0))
    clean = of_test(find_leaks(split, relevant_level=1), LeakKind.TIME_TRAVEL)
    assert [leak.severity for leak in clean] == [Severity.WARNING]
    assert "lets other users' future be known" in clean[0].sentence
    user = int(split.test.target["user_id"].iloc[0])
    future = pd.DataFrame({"user_id": [user], "item_id": [95], "level": [1], "timestamp": [10**6]})
    (found,) = of_test(find_leaks(with_train(split, future), relevant_level=1), LeakKind.TIME_TRAVEL)
    assert found.severity is Severity.LEAK
    assert found.count == int((split.test.target["user_id"] == user).sum())


@pytest.mark.parametrize("way", ["per user", "random", "users", "given", "last out"])
def test_shares_of_rows_with_a_later_known_row_equal_a_count_by_hand(way: str) -> None:
    split = EVERY_WAY[way](draw_log(1, rows=400))
    known = pd.concat([split.train, split.validation.known, split.validation.target, split.test.known])
    (found,) = of_test(find_leaks(split, relevant_level=0), LeakKind.TIME_TRAVEL)
    target = split.test.target
    assert found.share == share_with_later(known, target, same_user=False)
    assert f", {share_with_later(known, target, same_user=True):.2%} of the same user" in found.sentence


def test_a_given_split_cut_along_time_with_rows_on_the_wrong_side_is_refused() -> None:
    log = draw_log(0)
    is_test = (log["timestamp"] > 1200).to_numpy().copy()
    clean = split_as_given(log, is_test, validation=0.0, seed=0)
    assert find_leaks(clean, relevant_level=1) == []
    is_test[np.flatnonzero(log["timestamp"] > 1480)] = False
    broken = split_as_given(log, is_test, validation=0.0, seed=0)
    (found,) = find_leaks(broken, relevant_level=1)
    assert found.severity is Severity.LEAK
    assert "the parts were cut along time and these rows lie on the wrong side" in found.sentence


def test_a_log_of_few_moments_cut_at_random_is_not_taken_for_one_cut_along_time() -> None:
    log = draw_log(0)
    first = log.groupby("user_id")["timestamp"].transform("min")
    days = log.assign(
        timestamp=(log["timestamp"] > first).astype(int)
    )  # all but the first row of a user on one day
    for seed in range(5):
        (found,) = of_test(
            find_leaks(split_at_random(days, seed=seed), relevant_level=1), LeakKind.TIME_TRAVEL
        )
        assert 0 < found.share < 0.1 and found.severity is Severity.WARNING


def test_repeats_torn_apart_at_random_are_refused_and_repeats_in_time_are_told() -> None:
    log = draw_log(0)
    later = log.assign(timestamp=log["timestamp"] + 1490)
    twice = pd.concat([log, later], ignore_index=True)
    found = of_test(find_leaks(split_at_random(twice, seed=0), relevant_level=1), LeakKind.DUPLICATE)
    assert [leak.severity for leak in found] == [Severity.LEAK]
    (told,) = of_test(find_leaks(split_by_time(twice), relevant_level=1), LeakKind.DUPLICATE)
    assert (told.severity, told.share) == (Severity.WARNING, 1.0)
    assert "all at earlier times, which is natural but tells a model much" in told.sentence


def shop_log(seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Purchases, and a cart log in which two thirds of them appear three seconds before."""
    rng = np.random.default_rng(seed)
    buys = draw_log(seed).assign(level=BUY)
    buys["timestamp"] *= 10
    carted = buys[rng.random(len(buys)) < 2 / 3]
    return buys, carted.assign(timestamp=carted["timestamp"] - 3, level=1)


@pytest.mark.parametrize("way", ["random", "last out", "users", "given"])
def test_test_pairs_left_in_a_cart_log_without_times_are_refused(way: str) -> None:
    buys, carts = shop_log(0)
    split = EVERY_WAY[way](buys)
    leaks = find_leaks(split, relevant_level=BUY, auxiliary={"cart": carts[["user_id", "item_id"]]})
    (found,) = of_test(leaks, LeakKind.OTHER_LOG)
    both = pairs_of(split.test.target) & pairs_of(carts)
    assert (found.severity, found.count) == (Severity.LEAK, len(both))
    assert 0.5 < found.share < 0.8
    with pytest.raises(LeakError, match="in the log 'cart': no times prove that this was before"):
        refuse_leaks(leaks)
    rest = carts[[pair not in both for pair in zip(carts["user_id"], carts["item_id"], strict=True)]]
    cleaned = find_leaks(split, relevant_level=BUY, auxiliary={"cart": rest[["user_id", "item_id"]]})
    assert of_test(cleaned, LeakKind.OTHER_LOG) == []


def test_carts_proven_earlier_are_told_and_carts_after_the_purchase_refused() -> None:
    buys, carts = shop_log(0)
    split = split_by_time(buys)
    moment = int(split.test.target["timestamp"].min())
    before = carts.assign(timestamp=carts["timestamp"] % (moment - 1))
    (told,) = find_leaks(split, relevant_level=BUY, auxiliary={"cart": before})
    assert (told.kind, told.severity) == (LeakKind.OTHER_LOG, Severity.WARNING)
    leaks = find_leaks(split, relevant_level=BUY, auxiliary={"cart": carts.assign(timestamp=10**6)})
    assert {leak.kind for leak in refused(leaks)} == {LeakKind.OTHER_LOG, LeakKind.TIME_TRAVEL}
    assert all("log 'cart'" in leak.sentence for leak in leaks)
    together = find_leaks(
        split, relevant_level=BUY, auxiliary={"cart": carts.assign(timestamp=carts["timestamp"] + 3)}
    )
    assert (
        of_test(together, LeakKind.OTHER_LOG)[0].severity is Severity.LEAK
    )  # the same second proves nothing
    unsure = before["timestamp"].astype(float).where(np.arange(len(before)) > 0)
    assert refused(find_leaks(split, relevant_level=BUY, auxiliary={"cart": before.assign(timestamp=unsure)}))


def test_shallower_rows_of_the_same_pair_in_the_same_log_are_found() -> None:
    buys, carts = shop_log(1)
    log = pd.concat([buys, carts], ignore_index=True)
    split = split_at_random(log.drop(columns="timestamp"), seed=0)
    (found,) = of_test(find_leaks(split, relevant_level=BUY), LeakKind.OTHER_LOG)
    target = split.test.target[split.test.target["level"] == BUY]
    learned = pd.concat([split.train, split.validation.target])
    both = pairs_of(target) & pairs_of(learned[learned["level"] < BUY])
    assert (found.severity, found.count) == (Severity.LEAK, len(both))
    assert f"{len(both)} of {len(target)} " in found.sentence
    assert "known at a level shallower than 2: no times prove" in found.sentence
    in_time = find_leaks(split_by_time(log), relevant_level=BUY)
    assert refused(in_time) == []


def test_a_leak_into_the_validation_is_found_too() -> None:
    split = split_by_time(draw_log(0))
    leaks = find_leaks(with_train(split, split.validation.target), relevant_level=1)
    assert {leak.kind for leak in refused(leaks)} == {LeakKind.TIME_TRAVEL, LeakKind.DUPLICATE}
    assert all(" validation " in leak.sentence for leak in refused(leaks))


def test_a_test_without_relevant_rows_is_refused() -> None:
    split = split_by_time(draw_log(0))
    with pytest.raises(InteractionError, match="none of 150 reaches 3"):
        find_leaks(split, relevant_level=3)


def test_what_is_refused_comes_first_and_warnings_pass() -> None:
    split = split_per_user_by_time(draw_log(0))
    leaks = find_leaks(with_train(split, split.test.target), relevant_level=1)
    severities = [leak.severity for leak in leaks]
    assert severities == sorted(severities)  # "leak" before "warning"
    with pytest.raises(LeakError, match=f"{len(refused(leaks))} leaks found"):
        refuse_leaks(leaks)
    refuse_leaks([leak for leak in leaks if leak.severity is Severity.WARNING])


def test_a_split_made_by_hand_promises_nothing() -> None:
    log = draw_log(0)
    nothing = log.iloc[:0]
    split = Split(
        log.iloc[:900], Holdout(nothing, nothing), Holdout(log.iloc[:900], log.iloc[900:]), "by hand"
    )
    assert split.order is TimeOrder.NONE
    (found,) = find_leaks(split, relevant_level=1)
    assert found.severity is Severity.WARNING
