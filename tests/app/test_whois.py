import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from app.errors import ConfigError, StoreError
from app.whois import Ask, tell_user
from app.whois_words import summary
from tests.helpers.choices_file import choices, write_choices
from tests.helpers.finished_fit import FinishedFit, finished_fit, run_fit


@pytest.fixture(name="done", scope="session")
def a_finished_comparison(tmp_path_factory: pytest.TempPathFactory) -> FinishedFit:
    return finished_fit(tmp_path_factory.getbasetemp())


def tell(out: Path, ask: Ask) -> tuple[dict[str, Any], str]:
    """What is known, and what was printed."""
    written = io.StringIO()
    return tell_user(out, ask, console=Console(file=written, width=80)), written.getvalue()


def one_user(path: Path, user: int, count: int = 24) -> Path:
    """A file of one user of another world, who wants short replies if the number is odd."""
    rows = [row for row in choices(users=2, comparisons=count, seed=5) if row["user_id"] == f"u{user}"]
    return write_choices(path, rows)


@pytest.mark.integration
@pytest.mark.parametrize(("user", "words"), [(0, "longer replies"), (1, "shorter replies")])
def test_a_planted_taste_is_told_in_words(user: int, words: str, done: FinishedFit, tmp_path: Path) -> None:
    told, printed = tell(done.out, Ask(one_user(tmp_path / "u.jsonl", user), method="hierarchical"))
    brevity = next(wish for wish in told["wishes"] if wish["attribute"] == "brevity")
    assert brevity["words"] == words and brevity["sure"] > 0.9
    assert brevity["low"] < brevity["mean"] < brevity["high"]
    assert printed.startswith(f"After 24 choices, u{user} wants ") and words in printed.splitlines()[0]
    assert 0 < told["doubt_left"] < 1
    assert told["expects_to_foretell"] > told["expects_of_a_stranger"] >= 0.5
    assert told["measured"]["known"] == 4
    assert "The choices that told most" in printed and "The next best question (worth 0." in printed


@pytest.mark.integration
def test_json_holds_everything_and_nothing_else_is_printed(done: FinishedFit, tmp_path: Path) -> None:
    told, printed = tell(done.out, Ask(one_user(tmp_path / "u.jsonl", 1), as_json=True))
    assert json.loads(printed) == told
    assert told["method"] == done.report["best"]["name"]
    assert sorted(choice["place"] for choice in told["telling_choices"]) == list(range(1, 25))
    influences = [choice["influence"] for choice in told["telling_choices"]]
    assert influences == sorted(influences, reverse=True) and influences[0] > 0
    gains = [question["gain_bits"] for question in told["questions"]]
    assert len(gains) == 3 and gains == sorted(gains, reverse=True) and 0 < gains[0] < 1


@pytest.mark.integration
def test_a_single_choice_is_enough_and_moves_little(done: FinishedFit, tmp_path: Path) -> None:
    told, printed = tell(done.out, Ask(one_user(tmp_path / "u.jsonl", 1, count=1), method="hierarchical"))
    assert printed.startswith("After 1 choice, ")
    assert len(told["telling_choices"]) == 1 and told["doubt_left"] > 0.3
    assert told["measured"]["known"] == 0


@pytest.mark.integration
def test_questions_come_from_the_file_that_is_named_and_were_not_answered(
    done: FinishedFit, tmp_path: Path
) -> None:
    mine = one_user(tmp_path / "u.jsonl", 1)
    own = {
        frozenset((row["chosen"], row["rejected"])) for row in map(json.loads, mine.read_text().splitlines())
    }
    told, _ = tell(done.out, Ask(mine, questions=done.data))
    asked = {frozenset((question["first"], question["second"])) for question in told["questions"]}
    assert asked and not asked & own
    told, printed = tell(done.out, Ask(mine, questions=mine))
    assert told["questions"] == [] and printed.endswith("There is no pair left to ask about.\n")


@pytest.mark.integration
@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({}, r"--user must say whose choices to read; got none, and .* has 40 users: u0, u1, u2 ..."),
        ({"user": "u91"}, r"--user must be in .*; got 'u91'. Did you mean 'u9'\? Name one"),
        (
            {"user": "u1", "method": "pooled"},
            "must be one that learns of users: length, hierarchical; got pooled",
        ),
        ({"user": "u1", "comparisons": Path("absent.jsonl")}, "must be a file; got absent.jsonl"),
    ],
)
def test_what_cannot_be_told_is_said_in_one_sentence(
    change: dict[str, Any], says: str, done: FinishedFit
) -> None:
    with pytest.raises(ConfigError, match=says):
        tell(done.out, Ask(done.data)._replace(**change))


@pytest.mark.integration
def test_an_empty_file_and_an_empty_folder_are_told(done: FinishedFit, tmp_path: Path) -> None:
    empty = tmp_path / "empty.jsonl"
    empty.write_text("")
    with pytest.raises(ConfigError, match="at least one row; got none in"):
        tell(done.out, Ask(empty))
    with pytest.raises(StoreError, match=r"got .*, without profiles.json. Make it with `persona fit`"):
        tell(tmp_path, Ask(done.data))


@pytest.mark.integration
def test_a_comparison_without_personal_methods_tells_nothing(tmp_path: Path) -> None:
    data = write_choices(tmp_path / "c.jsonl", users=12, comparisons=16)
    run_fit(data, tmp_path / "out", methods=("pooled",), seeds=(0,))
    with pytest.raises(ConfigError, match=r"must hold a method that learns of users; got pooled in"):
        tell(tmp_path / "out", Ask(data, user="u1"))


@pytest.mark.integration
def test_a_file_of_one_person_needs_no_names(done: FinishedFit, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in one_user(tmp_path / "u.jsonl", 1).read_text().splitlines()]
    bare = [{key: value for key, value in row.items() if key != "user_id"} for row in rows]
    told, printed = tell(done.out, Ask(write_choices(tmp_path / "bare.jsonl", bare)))
    assert told["user"] == "this user" and printed.startswith("After 24 choices, this user wants ")


def test_a_wish_that_decides_nothing_is_not_said() -> None:
    def wish(attribute: str, words: str, mean: float, sure: float) -> dict[str, Any]:
        return {"attribute": attribute, "words": words, "mean": mean, "low": mean, "high": mean, "sure": sure}

    wishes = [
        wish("brevity", "longer replies", -1.0, 0.9),
        wish("lists", "more lists", 0.01, 0.99),
        wish("warmth", "warmer words", 0.5, 0.6),
    ]
    said = summary({"choices": 5, "user": "ada", "wishes": wishes})
    assert said == (
        "After 5 choices, ada wants longer replies (90.0 % sure), compared with the average user. Still open: warmth."
    )


@pytest.mark.integration
def test_rows_that_are_left_out_are_counted(done: FinishedFit, tmp_path: Path) -> None:
    rows = [row for row in choices(users=8, comparisons=16) if row["user_id"] == "u1"]
    rows[0]["tie"], rows[1]["chosen"] = True, ""
    told, printed = tell(done.out, Ask(write_choices(tmp_path / "c.jsonl", rows)))
    assert told["choices"] == 14
    assert told["left_out"] == ["1 where a text is blank (row 2)", "1 where neither reply was chosen"]
    assert (
        "Left out of the file: 1 where a text is blank (row 2); 1 where neither reply was chosen." in printed
    )
