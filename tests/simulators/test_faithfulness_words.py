"""Words: variety, what is stated and disclosed, and faults of users, each on sentences whose answer is plain."""

import itertools
import math
import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from simulators.errors import FaithfulnessError
from simulators.faithfulness import (
    Severity,
    SpokenDialogue,
    Tag,
    Vocabulary,
    contradictions,
    disclosures,
    distinct_n,
    find_user_errors,
    read_dialogue,
    self_bleu,
    statements,
)
from simulators.faithfulness.stated import GENRES
from simulators.faithfulness.user_errors import speaks_as_agent
from simulators.faithfulness.word_measures import diversity_part
from tests.helpers.film_evidence import film_dialogues
from tests.helpers.redial import redial_chats

SHARED = Path(os.environ.get("PERSONA_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))
REDIAL = SHARED / "conversations" / "redial_dialogues_valid.jsonl.gz"
THINGS = Vocabulary({"comedy", "horror", "science fiction", "war"})


def slow_self_bleu(texts: list[list[str]], max_n: int) -> float:
    """Every text against all others, n-gram by n-gram."""
    scores = []
    for row, text in enumerate(texts):
        others = texts[:row] + texts[row + 1 :]
        logs = []
        for n in range(1, max_n + 1):
            grams = [tuple(text[i : i + n]) for i in range(len(text) - n + 1)]
            if not grams:
                continue
            kept = 0
            for gram, count in Counter(grams).items():
                most = max(
                    sum(tuple(other[i : i + n]) == gram for i in range(len(other) - n + 1))
                    for other in others
                )
                kept += min(count, most)
            add = int(n > 1)
            logs.append(math.log((kept + add) / (len(grams) + add)) if kept + add else -math.inf)
        if not logs:
            scores.append(0.0)
            continue
        nearest = min((abs(len(other) - len(text)), len(other)) for other in others)[1]
        brevity = 1.0 if len(text) >= nearest else math.exp(1 - nearest / len(text))
        scores.append(brevity * math.exp(sum(logs) / len(logs)))
    return sum(scores) / len(scores)


def chat(*messages: str, **known: Any) -> SpokenDialogue:
    """User and agent in turn, the user first."""
    roles = itertools.cycle(["user", "assistant"])
    rows = [{"role": role, "content": text} for role, text in zip(roles, messages, strict=False)]
    return read_dialogue({"user_id": "u", "messages": rows, **known}, max_level=4)


def told(
    *turns: tuple[str, int, float, str], stop: str | None = None, title: str = "Sea of Glass"
) -> SpokenDialogue:
    """A transcript: level, stars and words after each reply."""
    rows, said = [], "Hello, a comedy please."
    for reply, level, stars, answer in turns:
        rows.append(
            {
                "user": {"raw": said, "text": said}, "item": 1, "title": title,
                "facts": {"genre": "Comedy", "year": "1999"},
                "reply": {"raw": reply, "text": reply}, "level": level, "satisfaction": stars, "complaint": None,
                "next": {"raw": answer, "text": answer}, "stop": None,
            }
        )  # fmt: skip
        said = answer
    return read_dialogue({"user": 3, "turns": rows, "stop": stop}, max_level=4)


def tags(dialogue: SpokenDialogue) -> list[tuple[Tag, Severity]]:
    return [(error.tag, error.severity) for error in find_user_errors(dialogue, THINGS)]


@pytest.mark.parametrize("max_n", [1, 2, 4])
def test_self_bleu_equals_the_slow_twin(max_n: int) -> None:
    rng = np.random.default_rng(max_n)
    texts = [[str(w) for w in rng.integers(5, size=rng.integers(0, 9))] for _ in range(25)]
    assert self_bleu(texts, max_n=max_n) == pytest.approx(slow_self_bleu(texts, max_n))


def test_sameness_at_its_ends() -> None:
    assert self_bleu([["a", "b", "c", "d", "e"]] * 3) == 1.0
    assert self_bleu([["a", "b"], ["c", "d"]], max_n=1) == 0.0
    assert math.isnan(self_bleu([["a"]])) and math.isnan(distinct_n([], 1))
    assert distinct_n([["a", "a", "b"], ["b"]], 1) == 2 / 4


def test_a_yes_man_says_the_same_to_everybody() -> None:
    sides = [
        tuple(read_dialogue(saved, max_level=4) for saved in film_dialogues(40, seed, agreeable=yes))
        for seed, yes in ((1, True), (0, False))
    ]
    found = diversity_part(sides[0], sides[1], seed=0)
    assert found["self_bleu"]["gap"]["ci95"][0] > 0 and found["distinct_2"]["gap"]["ci95"][1] < 0
    same = diversity_part(sides[1], sides[1], seed=0)["self_bleu"]["gap"]["ci95"]
    assert same[0] < 0 < same[1]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("I really love comedies and science fiction.", [("comedy", True), ("science fiction", True)]),
        ("I don\u2019t like horror, but I love war films", [("horror", False), ("war", True)]),
        ("I like comedy but not horror", [("comedy", True)]),
        ("I'm not a fan of war movies. Horror?", [("war", False)]),
        ("I can't stand horrors", [("horror", False)]),
        ("You like comedy. Do I like it?", []),
    ],
)
def test_statements_are_read_with_their_sign(text: str, expected: list[tuple[str, bool]]) -> None:
    assert [(found.thing, found.likes) for found in statements([text], THINGS)] == expected


def test_contradictions_to_earlier_words_and_to_the_persona() -> None:
    against_itself = chat("I love horror.", "Try this.", "I hate horror.", "Or this.", "I love horror.")
    assert [found.turn for found in contradictions(against_itself, THINGS)] == [1]
    against_persona = chat("I love horror.", dislikes=["Horror"], likes=["Comedy"])
    assert [found.thing for found in contradictions(against_persona, THINGS)] == ["horror"]
    assert contradictions(chat("I love comedy.", "Ok.", "I enjoy comedies."), THINGS) == []


def test_only_what_the_user_says_first_is_disclosed() -> None:
    dialogue = chat(
        "A comedy please.", "Do you like war films?", "War or horror, and comedy.", "Ok", "Thanks"
    )
    assert disclosures(dialogue, THINGS) == [1, 1, 0]


@pytest.mark.parametrize(
    "text",
    ["Assistant: hello", "I would recommend Heat.", "You might also like this one.", "What kind of movies do you like?",
     "As an AI I have no taste.", "How can I help you today?", "Shall I look for more?"],
)  # fmt: skip
def test_the_agents_words_in_the_users_mouth_are_told(text: str) -> None:
    assert speaks_as_agent(text)


@pytest.mark.parametrize(
    "text", ["Can you recommend a comedy?", "What would you suggest?", "I like it.", "Do you have more?", ""]
)
def test_a_users_own_words_are_not(text: str) -> None:
    assert not speaks_as_agent(text)


def test_a_title_told_before_the_agent_helped_where_it_was_accepted() -> None:
    shown = told(("Well?", 0, 3.0, "Is it Sea of Glass?"), ("Yes.", 4, 5.0, "Thanks."), stop="accepted")
    assert tags(shown) == []
    wanted = chat(
        "Find me Sea of Glass.", "Sea of Glass it is.", "Thanks!", targets=["Sea of Glass"], stop="accepted"
    )
    assert tags(wanted) == [(Tag.TITLE_LEAK, Severity.HELPED)]
    later = chat(
        "Hello", "Sea of Glass?", "Sea of Glass sounds good.", targets=["Sea of Glass"], stop="accepted"
    )
    assert tags(later) == []


def test_faults_in_a_dialogue_that_failed_are_critical() -> None:
    swapped = told(("Try it.", 0, 3.0, "You might like this one."), stop="max_turns")
    assert tags(swapped) == [(Tag.ROLE_SWAP, Severity.HINDERED)]
    accepted = told(("Try it.", 4, 3.0, "You might like this one."), stop="accepted")
    assert tags(accepted) == [(Tag.ROLE_SWAP, Severity.MINOR)]
    assert tags(chat("I suggest this.", "Ok.")) == [(Tag.ROLE_SWAP, Severity.MINOR)]


def test_stops_without_cause() -> None:
    content = told(("Try it.", 1, 4.0, "Bye."), stop="out_of_patience")
    assert tags(content) == [(Tag.EARLY_STOP, Severity.HINDERED)]
    assert tags(told(("Try it.", 1, 1.0, "Bye."), stop="out_of_patience")) == []
    bought = told(("Try it.", 1, 4.0, "Bye."), stop="accepted")
    assert tags(bought) == [(Tag.EARLY_STOP, Severity.HELPED)]
    assert find_user_errors(bought, THINGS, accept_level=1) == []


def test_words_against_deeds() -> None:
    assert tags(told(("Try it.", 0, 3.0, "Perfect, I will watch it."))) == [
        (Tag.WORDS_AGAINST_DEED, Severity.HINDERED)
    ]
    assert tags(told(("Try it.", 4, 3.0, "No, not for me."), stop="accepted")) == [
        (Tag.WORDS_AGAINST_DEED, Severity.HELPED)
    ]


def test_silence_and_repetition() -> None:
    twice = chat("I want a nice film.", "Ok.", "i want a nice film", "Ok.", "...", stop="max_turns")
    assert tags(twice) == [(Tag.REPEAT, Severity.MINOR), (Tag.EMPTY, Severity.HINDERED)]


def test_viewers_of_the_film_world_hardly_err() -> None:
    found = [read_dialogue(saved, max_level=4) for saved in film_dialogues(40, 0)]
    things = Vocabulary(GENRES)
    assert sum(bool(find_user_errors(dialogue, things)) for dialogue in found) <= 1
    assert {dialogue.stop for dialogue in found} <= {"accepted", "out_of_patience", "max_turns"}
    assert all(
        len(dialogue.replies) == len(saved["turns"])
        for dialogue, saved in zip(found, film_dialogues(40, 0), strict=True)
    )


def test_transcripts_keep_levels_stars_and_facts() -> None:
    dialogue = told(("Try it.", 2, 3.5, "Saved."), stop="max_turns")
    (reply,) = dialogue.replies
    assert (reply.level, reply.satisfaction, reply.title) == (2, 3.5, "Sea of Glass")
    assert dialogue.user == "3" and dialogue.facts == {"comedy"} and dialogue.said[-1] == "Saved."


@pytest.mark.parametrize(
    ("saved", "said"),
    [
        ({"user_id": 1}, "must have `turns`.*got user_id"),
        ({}, "got nothing"),
        ({"user_id": 1, "messages": [{"role": "bot", "content": "x"}]}, "got 'bot'"),
        ({"user_id": 1, "messages": [{"role": "user"}]}, "got no 'content'"),
        ({"messages": []}, "got no 'user'"),
        ({"user_id": 1, "messages": [], "stop": "bored"}, "got 'bored'"),
        (
            {"user_id": 1, "messages": [{"role": "agent", "content": "x", "level": 9}]},
            r"in 0..4; got 9 in a dialogue of user 1",
        ),
        ({"user_id": 1, "messages": [{"role": "agent", "content": "x", "level": 1.5}]}, "whole numbers; got 1.5"),
        ({"user_id": 1, "messages": [{"role": "agent", "content": "x", "level": "much"}]}, "another type"),
        (
            {"user_id": 1, "messages": [{"role": "agent", "content": "x", "satisfaction": float("nan")}]},
            "must be finite; got nan",
        ),
        ({"user_id": 1, "messages": "hello"}, r"got another type \(string indices"),
        ({"user": 1, "turns": [{"user": "hello"}]}, "as a rollout wrote it"),
    ],
)  # fmt: skip
def test_dialogues_that_make_no_sense_are_refused(saved: dict[str, Any], said: str) -> None:
    with pytest.raises(FaithfulnessError, match=said):
        read_dialogue(saved, max_level=4)


def test_a_message_without_content_says_nothing_and_one_target_is_one_title() -> None:
    rows = [{"role": "assistant", "content": None, "title": 1984}]
    found = read_dialogue({"user_id": 1, "messages": rows, "targets": "Heat"}, max_level=4)
    assert found.targets == ("Heat",)
    assert [(message.text, message.title) for message in found.messages] == [("", "1984")]


@pytest.mark.skipif(not REDIAL.is_file(), reason="no ReDial in the folder that PERSONA_TEST_DATA names")
def test_people_who_seek_films_hardly_speak_as_agents_and_recommenders_do() -> None:
    found = [read_dialogue(saved, max_level=4) for saved in redial_chats(REDIAL)]
    seekers = [any(map(speaks_as_agent, dialogue.said)) for dialogue in found]
    recommenders = [any(speaks_as_agent(reply.text) for reply in dialogue.replies) for dialogue in found]
    assert len(found) == 1000 and np.mean(seekers) < 0.03 < 0.4 < np.mean(recommenders)
    assert np.mean([bool(contradictions(dialogue, Vocabulary(GENRES))) for dialogue in found]) < 0.01
