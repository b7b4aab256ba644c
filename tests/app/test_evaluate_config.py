from typing import Any

import pytest

from app.errors import ConfigError
from app.evaluation_config import (
    EvaluationConfig,
    build_config,
    find_level,
    split_list,
    split_numbers,
    split_pairs,
)

NAMES = ("shown", "view", "cart", "buy")


def test_options_that_were_not_given_take_their_defaults() -> None:
    assert build_config({"data": "log.csv", "levels": None, "models": None}) == EvaluationConfig(
        data="log.csv"
    )
    assert build_config({"data": "d", "seeds": (3, 1)}).seed == 3


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"split": "sideways"}, r"--split must fit: .*'temporal'.*; got 'sideways'\. See"),
        ({"test_share": 1.5}, r"--test-share must fit: .*less than 1; got 1\.5"),
        ({"device": "tpu"}, r"--device must fit: .*; got 'tpu'"),
        ({"models": ()}, r"--models must fit: .*at least 1 item.*; got \(\)"),
        ({"k": (0,)}, r"--k must fit: .*greater than or equal to 1.*; got \(0,\)"),
        ({"models": ("ease", "ease")}, "`models` must name each once; got ease, ease"),
        ({"k": (10, 10)}, "`k` must name each once; got 10, 10"),
        ({"test": "t.csv"}, "`test` goes with the split `given`; got temporal"),
    ],
)
def test_bad_options_are_told_with_what_was_got(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        build_config({"data": "d", **options})


def test_texts_become_lists_numbers_and_pairs() -> None:
    assert split_list(" a, b,") == ("a", "b") and split_list(None) is None
    assert split_numbers("--k", "10, 20") == (10, 20)
    assert split_pairs("--columns", "user_id=visitor,item_id = sku") == {
        "user_id": "visitor",
        "item_id": "sku",
    }
    assert split_pairs("--columns", None) is None


def test_texts_that_are_none_of_these_are_refused() -> None:
    for text in ("", "ten", "1,-2"):
        with pytest.raises(ConfigError, match=f"--k must be whole numbers .*; got '{text}'"):
            split_numbers("--k", text)
    with pytest.raises(ConfigError, match=r"--columns must read ours=theirs,\.\.\.; got 'user_id='"):
        split_pairs("--columns", "item_id=sku,user_id=")


def test_levels_go_by_name_or_number() -> None:
    assert [find_level(NAMES, wanted) for wanted in ("view", "3", None)] == [1, 3, 2]
    assert find_level(("not met", "met"), None) == 1


@pytest.mark.parametrize("wanted", ["0", "4", "shown", "byu"])
def test_a_level_that_does_not_exist_is_refused(wanted: str) -> None:
    with pytest.raises(ConfigError, match=rf"1 \(view\), 2 \(cart\), 3 \(buy\); got '{wanted}'"):
        find_level(NAMES, wanted)
    with pytest.raises(ConfigError, match="Did you mean 'buy'"):
        find_level(NAMES, "byu")
