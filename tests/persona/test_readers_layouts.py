from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from persona.data.preferences import Preferences, pairs_within
from persona.data.readers import LAYOUTS, ReadOptions, read_preferences
from persona.errors import DataError, ShapeError
from tests.helpers.preference_files import (
    ASPECTS,
    ATTRIBUTES,
    completion,
    helpsteer_row,
    hh_row,
    personal_llm_row,
    prism_conversation,
    prism_utterances,
    write_lines,
)


def said(read: Preferences) -> list[tuple[Any, ...]]:
    """(user, chosen, rejected, is a tie) of every comparison, sorted; a tie in order of its texts."""
    frame = read.to_frame()
    ties = frame["tie"] if "tie" in frame else [False] * len(frame)
    rows = zip(frame["user_id"], frame["chosen"], frame["rejected"], ties, strict=True)
    return sorted((u, *(sorted((c, r)) if tie else (c, r)), bool(tie)) for u, c, r, tie in rows)


def reasons(read: Preferences) -> dict[str, int]:
    return {part.reason: part.count for part in read.report.dropped}


class TestHhRlhf:
    def test_what_both_transcripts_share_is_the_prompt(self, tmp_path: Path) -> None:
        asked = "hello\n\nAssistant: yes?\n\nHuman: a cake?"
        read = read_preferences(write_lines(tmp_path / "a.jsonl.gz", [hh_row(asked, "bake it", "bake")]))
        assert read.report.layout == "HH-RLHF"
        assert read.comparisons.prompts == (
            [
                {"role": "user", "content": "hello"},
                {"role": "assistant", "content": "yes?"},
                {"role": "user", "content": "a cake?"},
            ],
        )
        assert said(read) == [("everyone", "bake it", "bake", False)]

    def test_transcripts_that_part_earlier_are_counted(self, tmp_path: Path) -> None:
        apart = hh_row("a", "b", "c")
        apart["chosen"] += "\n\nHuman: more\n\nAssistant: d"
        rows = [hh_row("a", "b", "c"), apart, {"chosen": "\n\nHuman: hm", "rejected": None}]
        read = read_preferences(write_lines(tmp_path / "a.jsonl", rows))
        assert reasons(read) == {"the two transcripts do not end in replies to one prompt": 2}
        assert read.report.dropped[0].rows == (2, 3)

    def test_a_folder_of_subsets_has_one_user_a_subset(self, tmp_path: Path) -> None:
        write_lines(tmp_path / "helpful-base" / "train.jsonl.gz", [hh_row("a", "b", "c")])
        write_lines(
            tmp_path / "harmless-base" / "train.jsonl.gz", [hh_row("a", "c", "b"), hh_row("a", "c", "")]
        )
        write_lines(tmp_path / "harmless-base" / "test.jsonl.gz", [hh_row("x", "y", "z")])
        read = read_preferences(tmp_path)
        assert said(read) == [("harmless-base", "c", "b", False), ("helpful-base", "b", "c", False)]
        assert (read.report.rows, reasons(read)) == (3, {"a text is blank": 1})
        test = read_preferences(tmp_path, options=ReadOptions(split="test", user="all"))
        assert said(test) == [("all", "y", "z", False)]

    def test_users_may_stand_beside_the_transcripts(self, tmp_path: Path) -> None:
        rows = [{**hh_row("a", *replies), "who": who} for replies, who in (("bc", "ann"), ("cb", "bob"))]
        path = write_lines(tmp_path / "a.jsonl", rows)
        read = read_preferences(path, options=ReadOptions(columns={"user_id": "who"}))
        assert read.report.layout == "HH-RLHF"
        assert said(read) == [("ann", "b", "c", False), ("bob", "c", "b", False)]


RATED = {
    "instruction": "sing",
    "completions": [
        completion("la", "4312"),
        completion("lo", "4215"),
        completion("li", ["N/A", "1", "1", "1"], overall=10.0),
    ],
}


class TestUltraFeedback:
    def test_every_aspect_is_a_user(self, tmp_path: Path) -> None:
        read = read_preferences(write_lines(tmp_path / "a.jsonl", [RATED]))
        assert read.comparisons.user_ids == ASPECTS
        assert said(read) == [
            ("helpfulness", "la", "li", False),
            ("helpfulness", "lo", "la", False),
            ("helpfulness", "lo", "li", False),
            ("honesty", "la", "li", True),
            ("honesty", "la", "lo", True),
            ("honesty", "li", "lo", True),
            ("instruction_following", "la", "lo", True),
            ("truthfulness", "la", "li", False),
            ("truthfulness", "la", "lo", False),
            ("truthfulness", "lo", "li", False),
        ]
        np.testing.assert_array_equal(read.scores["instruction_following"], [4, 4, np.nan])
        np.testing.assert_array_equal(read.scores["helpfulness"], [2, 5, 1])
        assert reasons(read) == {"a rating is missing or not a number": 1}

    def test_the_overall_score_is_no_rating(self, tmp_path: Path) -> None:
        worst = completion("lu", "1111", overall=10.0)
        row = {"instruction": "sing", "completions": [completion("la", "4444", overall=10.0), worst]}
        path = write_lines(tmp_path / "a.jsonl", [row])
        read = read_preferences(path, options=ReadOptions(by_aspect=False))
        assert said(read) == [("everyone", "la", "lu", False)]
        assert set(read.scores) == set(ASPECTS)
        assert read.report.notes[0].startswith(
            "1 replies have the overall score 10 with a mean rating of at most 2"
        )

    def test_completions_that_are_none_are_counted(self, tmp_path: Path) -> None:
        bad = [
            {"instruction": "sing", "completions": None},
            {"instruction": "sing", "completions": ["la", completion("lo", "1111")]},
            {"instruction": "hum", "completions": [{"response": "m", "annotations": {"honesty": []}}]},
        ]
        read = read_preferences(write_lines(tmp_path / "a.jsonl", [RATED, *bad]))
        assert reasons(read) == {
            "a value is missing": 2,
            "a rating is missing or not a number": 5,
            "a reply has no other one to be compared with": 2,
        }


class TestHelpSteer:
    def test_attributes_are_users_and_all_responses_to_a_prompt_meet(self, tmp_path: Path) -> None:
        rows = [
            helpsteer_row("p", text, ratings)
            for text, ratings in (("a", "43210"), ("b", "34210"), ("c", "00000"))
        ]
        read = read_preferences(write_lines(tmp_path / "train.jsonl.gz", rows))
        assert read.report.layout == "HelpSteer"
        assert read.comparisons.user_ids == ATTRIBUTES
        assert Counter(user for user, *_ in said(read)) == dict.fromkeys(ATTRIBUTES, 3)
        assert ("helpfulness", "a", "b", False) in said(read)
        assert ("correctness", "b", "a", False) in said(read)
        assert ("verbosity", "a", "c", True) in said(read)

    def test_consecutive_rows_are_pairs_even_if_a_prompt_comes_again(self, tmp_path: Path) -> None:
        texts = (("p", "a"), ("p", "b"), ("q", "c"), ("q", "d"), ("p", "e"), ("p", "f"), ("r", "g"))
        rows = [helpsteer_row(prompt, text, [4 - place] * 5) for place, (prompt, text) in enumerate(texts)]
        rows[6]["helpfulness"] = None
        read = read_preferences(write_lines(tmp_path / "a.jsonl", rows))
        pairs = {(chosen, rejected) for user, chosen, rejected, _ in said(read) if user == "helpfulness"}
        assert pairs == {("a", "b"), ("c", "d"), ("e", "f")}
        assert reasons(read)["a reply has no other one to be compared with"] == 1

    def test_earlier_turns_become_messages(self, tmp_path: Path) -> None:
        prompt = "hi\n<extra_id_1>Assistant\nhello\n<extra_id_1>User\nsing"
        rows = [helpsteer_row(prompt, text, [place] * 5) for place, text in enumerate(("a", "b"))]
        read = read_preferences(write_lines(tmp_path / "a.jsonl", rows))
        assert [(m["role"], m["content"]) for m in read.comparisons.prompts[0]] == [
            ("user", "hi"),
            ("assistant", "hello"),
            ("user", "sing"),
        ]

    def test_preferences_with_strength(self, tmp_path: Path) -> None:
        rows = [
            {
                "split": "train",
                "prompt": f"p{i}",
                "response_1": "a",
                "response_2": "b",
                "preference_strength": given,
            }
            for i, given in enumerate((-2, 3, 0, None))
        ]
        read = read_preferences(write_lines(tmp_path / "preference.jsonl", rows))
        assert read.report.layout == "HelpSteer2 preferences"
        frame = read.to_frame()
        assert frame["chosen"].tolist() == ["a", "b", "a"]
        assert frame["tie"].tolist() == [False, False, True]
        assert read.strength is not None
        assert read.strength.tolist() == [2, 3, 0]
        assert reasons(read) == {"the strength is missing or not a number": 1}


CONVERSATIONS = [
    prism_conversation(
        0, "u1", [("hi", [("hello", 80), ("hey", 30), ("yo", 80)]), ("sing", [("la", 55), ("lo", 50)])]
    ),
    prism_conversation(1, "u2", [("hi", [("hello", 10), ("hey", None)])]),
]


class TestPrism:
    @pytest.mark.parametrize("is_long", [False, True])
    def test_replies_of_a_turn_are_compared_by_their_user(self, tmp_path: Path, is_long: bool) -> None:
        if is_long:
            write_lines(tmp_path / "utterances.jsonl", prism_utterances(CONVERSATIONS))
        else:
            write_lines(tmp_path / "conversations.jsonl", CONVERSATIONS)
        read = read_preferences(tmp_path)
        assert read.report.layout == "PRISM"
        assert said(read) == [
            ("u1", "hello", "hey", False),
            ("u1", "hello", "yo", True),
            ("u1", "la", "lo", False),
            ("u1", "yo", "hey", False),
        ]
        assert [m["content"] for m in read.comparisons.prompts[1]] == ["hi", "hello", "sing"]
        assert [m["role"] for m in read.comparisons.prompts[1]] == ["user", "assistant", "user"]
        assert reasons(read) == {"a rating is missing or not a number": 1}

    def test_close_scores_tie_if_told_so(self, tmp_path: Path) -> None:
        path = write_lines(tmp_path / "conversations.jsonl", CONVERSATIONS)
        read = read_preferences(path, options=ReadOptions(slack=5.0))
        assert ("u1", "la", "lo", True) in said(read)

    def test_a_history_without_the_users_words_is_counted(self, tmp_path: Path) -> None:
        mute = prism_conversation(2, "u3", [("hi", [("a", 1), ("b", 2)])])
        mute["conversation_history"] = mute["conversation_history"][1:]
        rows = [
            *CONVERSATIONS,
            mute,
            {"conversation_id": "c4", "user_id": "u4", "conversation_history": None},
        ]
        read = read_preferences(write_lines(tmp_path / "conversations.jsonl", rows))
        assert reasons(read)["a value is missing"] == 2


MIXED = [
    personal_llm_row(f"p{i}", [(i, 5 - j), (i + 1, j), (2 * i, 0.5)][:3]) for i, j in enumerate((3, 1, 4, 2))
]


class TestPersonalLlm:
    def test_users_follow_their_mixture_of_reward_models(self, tmp_path: Path) -> None:
        path = write_lines(tmp_path / "a.jsonl", MIXED)
        options = ReadOptions(simulated_users=40, simulated_comparisons=20, seed=1, concentration=1e-3)
        read = read_preferences(path, options=options)
        assert read.report.layout == "PersonalLLM"
        assert read.report.users == 40
        # With so small a concentration every user follows one model, so each user's choices fit one of the two.
        rewards = {
            row[f"response_{k}"]: (row[f"response_{k}_gemma_2b"], row[f"response_{k}_mistral_raft"])
            for row in MIXED
            for k in (1, 2, 3)
        }
        frame = read.to_frame().query("tie == False") if "tie" in read.to_frame() else read.to_frame()
        fits = {
            user: [
                all(
                    rewards[c][m] >= rewards[r][m]
                    for c, r in zip(own["chosen"], own["rejected"], strict=True)
                )
                for m in (0, 1)
            ]
            for user, own in frame.groupby("user_id")
        }
        assert all(any(fit) for fit in fits.values())
        assert {fit.index(True) for fit in fits.values()} == {0, 1}
        assert "40 mixtures of 2 reward models" in read.report.notes[0]

    def test_same_seed_same_users(self, tmp_path: Path) -> None:
        path = write_lines(tmp_path / "a.jsonl", MIXED)
        first, again, other = (read_preferences(path, options=ReadOptions(seed=seed)) for seed in (0, 0, 1))
        assert said(first) == said(again)
        assert said(first) != said(other)

    def test_rewards_that_are_no_numbers_are_counted(self, tmp_path: Path) -> None:
        broken = personal_llm_row("p9", [(1.0, float("nan")), (2.0, 1.0), (3.0, 2.0)])
        read = read_preferences(write_lines(tmp_path / "a.jsonl", [*MIXED, broken]))
        assert reasons(read)["a reward is missing or not a number"] == 1
        nothing = [personal_llm_row("p", [(1.0, 1.0), (2.0, 1.0)]) | {"response_1": None, "response_2": None}]
        with pytest.raises(DataError, match="replies with all of their 2 rewards; got none"):
            read_preferences(write_lines(tmp_path / "b.jsonl", nothing))


class TestDetection:
    def test_every_layout_is_tested_here(self) -> None:
        assert len(LAYOUTS) == 7

    def test_unknown_columns_are_named(self, tmp_path: Path) -> None:
        path = write_lines(tmp_path / "a.jsonl", [{"question": "q", "best": "a"}])
        with pytest.raises(
            DataError, match=r"a known layout \(HH-RLHF, .*pairs\); got the columns question, best"
        ):
            read_preferences(path)
        with pytest.raises(DataError, match=r"`layout` must be one of .*; got `csv`"):
            read_preferences(path, layout="csv")

    def test_columns_of_pairs_that_lack_are_named(self, tmp_path: Path) -> None:
        path = write_lines(tmp_path / "a.jsonl", [{"user_id": "u", "prompt": "q", "better": "a"}])
        with pytest.raises(DataError, match="columns user_id, prompt, better, without chosen, rejected"):
            read_preferences(path)
        with pytest.raises(DataError, match=r"columns user_id, prompt, better, without rejected\."):
            read_preferences(path, options=ReadOptions(columns={"chosen": "better"}))

    def test_replies_that_nobody_rated_are_told_apart(self, tmp_path: Path) -> None:
        path = write_lines(tmp_path / "a.jsonl", [{"prompt": "p", "responses": {"m": "a"}}])
        with pytest.raises(
            DataError, match=r"must say who preferred what; got replies alone.*`read_answers`"
        ):
            read_preferences(path)

    def test_a_layout_can_be_named(self, tmp_path: Path) -> None:
        row = {"user_id": "ann", "prompt": "p", "chosen": "\n\nHuman: x", "rejected": "b"}
        path = write_lines(tmp_path / "a.jsonl", [row])
        assert read_preferences(path, layout="Pairs").report.layout == "pairs"


@pytest.mark.parametrize(
    "rows",
    [
        [hh_row("a", "b", "c"), hh_row("a", "b\ud800", "c")],
        [RATED, {"instruction": "s", "completions": [completion("a", "1111"), completion("\ud800", "2222")]}],
        [helpsteer_row("p", text, "12345") for text in ("a", "b", "c\ud800")],
        [*CONVERSATIONS, prism_conversation(2, "u3", [("hi", [("\ud800", 1), ("b", 2)])])],
        [*MIXED, personal_llm_row("q\ud800", [(1.0, 2.0), (2.0, 1.0), (0.0, 0.0)])],
        [
            {"prompt": "p", "response_1": "a", "response_2": text, "preference_strength": 1}
            for text in ("b", "c\ud800")
        ],
    ],
)
def test_a_text_that_is_no_unicode_is_counted_in_every_layout(tmp_path: Path, rows: list[Any]) -> None:
    read = read_preferences(write_lines(tmp_path / "a.jsonl", rows))
    assert "a text is not valid Unicode" in reasons(read)


class TestPairsWithin:
    def test_matches_a_loop(self) -> None:
        groups = np.random.default_rng(0).integers(0, 9, size=40)
        first, second = pairs_within(groups)
        expected = {(i, j) for j in range(40) for i in range(j) if groups[i] == groups[j]}
        assert set(zip(first.tolist(), second.tolist(), strict=True)) == expected
        assert len(first) == len(expected)

    def test_shape_is_checked(self) -> None:
        with pytest.raises(ShapeError, match=r"shape \(R,\); got \(2, 2\)"):
            pairs_within(np.zeros((2, 2), dtype=np.int64))
