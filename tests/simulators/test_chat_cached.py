"""A chat model with a memory: nothing is asked twice, failures are asked again, arrivals are kept at once."""

from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from simulators.chat.cache import CacheTotals, ResponseCache
from simulators.chat.cached import CachedChat
from simulators.chat.model import Completion, Message, Schema, ScriptedChat
from simulators.errors import CacheError


class Counting:
    """Answers with its count of questions; fails where the last message says so."""

    slots = frozenset({"<title>"})

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []

    def complete(
        self,
        conversations: Sequence[Sequence[Message]],
        *,
        seeds: Sequence[int],
        max_new_tokens: int = 64,
        temperature: float = 1.0,
        banned: Sequence[Collection[str]] | None = None,
        schema: Schema | None = None,
    ) -> list[Completion]:
        for row, conversation in enumerate(conversations):
            hidden = None if banned is None else set(banned[row])
            question = {"said": conversation[-1]["content"], "seed": seeds[row], "banned": hidden}
            self.asked.append({**question, "settings": (max_new_tokens, temperature, schema)})
        return [
            Completion("", "it timed out")
            if conversation[-1]["content"] == "fail"
            else Completion(f"answer to {conversation[-1]['content']} {seed}", None, 10, 3)
            for conversation, seed in zip(conversations, seeds, strict=True)
        ]


class Arriving(Counting):
    """Answers one by one and dies at a given number of answers."""

    identity = "arriving"

    def __init__(self, dies_at: int = 1000) -> None:
        super().__init__()
        self._dies_at = dies_at

    def complete_each(
        self,
        conversations: Sequence[Sequence[Message]],
        *,
        seeds: Sequence[int],
        arrived: Callable[[int, Completion], None] | None = None,
        **settings: Any,
    ) -> list[Completion]:
        found = []
        for row in reversed(range(len(conversations))):
            if len(self.asked) == self._dies_at:
                raise RuntimeError("killed")
            found.append(self.complete([conversations[row]], seeds=[seeds[row]], **settings)[0])
            assert arrived is not None
            arrived(row, found[-1])
        return found[::-1]


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[ResponseCache]:
    with ResponseCache(tmp_path / "answers.sqlite") as made:
        yield made


def rows(*said: str) -> list[list[Message]]:
    return [[{"role": "user", "content": text}] for text in said]


def test_what_was_answered_is_not_asked_again(cache: ResponseCache) -> None:
    inner = Counting()
    chat = CachedChat(inner, cache, identity="m")
    first = chat.complete(rows("a", "b"), seeds=[1, 2], max_new_tokens=9, temperature=0.5)
    assert first == inner.complete(rows("a", "b"), seeds=[1, 2])
    inner.asked.clear()
    found = chat.complete(rows("c", "b", "a"), seeds=[3, 2, 1], max_new_tokens=9, temperature=0.5)
    assert [row.text for row in found] == ["answer to c 3", "answer to b 2", "answer to a 1"]
    assert [(row.prompt_tokens, row.completion_tokens) for row in found] == [(10, 3), (0, 0), (0, 0)]
    assert [(question["said"], question["seed"]) for question in inner.asked] == [("c", 3)]
    assert chat.slots == {"<title>"}


def test_all_settings_reach_the_model_and_part_the_answers(cache: ResponseCache) -> None:
    inner = Counting()
    chat = CachedChat(inner, cache, identity="m")
    schema = {"type": "object"}
    chat.complete(rows("a", "b"), seeds=[1, 2], banned=[["<x>"], []], schema=schema)
    chat.complete(rows("a", "b"), seeds=[1, 2], banned=[["<x>"], ["<y>"]], schema=schema)
    assert [(question["said"], question["banned"]) for question in inner.asked] == [
        ("a", {"<x>"}),
        ("b", set()),
        ("b", {"<y>"}),
    ]
    assert {question["settings"][:2] for question in inner.asked} == {(64, 1.0)}
    assert all(question["settings"][2] == schema for question in inner.asked)


def test_a_question_that_occurs_twice_is_asked_once_and_paid_once(cache: ResponseCache) -> None:
    inner = Counting()
    chat = CachedChat(inner, cache, identity="m")
    found = chat.complete(rows("a", "b", "a", "fail", "fail"), seeds=[1, 1, 1, 1, 1])
    assert [question["said"] for question in inner.asked] == ["a", "b", "fail"]
    assert [row.text for row in found] == ["answer to a 1", "answer to b 1", "answer to a 1", "", ""]
    assert [row.failure for row in found] == [None, None, None, "it timed out", "it timed out"]
    assert [row.prompt_tokens for row in found] == [10, 10, 0, 0, 0]


def test_failures_are_asked_again(cache: ResponseCache) -> None:
    inner = Counting()
    chat = CachedChat(inner, cache, identity="m")
    for _ in range(2):
        assert chat.complete(rows("fail", "a"), seeds=[1, 1])[0].failure == "it timed out"
    assert [question["said"] for question in inner.asked] == ["fail", "a", "fail"]


def test_arrivals_are_kept_even_if_the_call_never_returns(cache: ResponseCache) -> None:
    with pytest.raises(RuntimeError, match="killed"):
        CachedChat(Arriving(dies_at=3), cache).complete(rows("a", "b", "c", "d", "e"), seeds=range(5))
    assert cache.totals() == CacheTotals(3, 30, 9)
    again = Arriving()
    found = CachedChat(again, cache).complete(rows("a", "b", "c", "d", "e"), seeds=range(5))
    assert [row.text for row in found] == [f"answer to {said} {seed}" for seed, said in enumerate("abcde")]
    assert [question["said"] for question in again.asked] == ["b", "a"]


def test_an_answer_that_another_process_put_first_is_everyone_s(cache: ResponseCache) -> None:
    class Slow(Arriving):
        def complete(self, *arguments: Any, **settings: Any) -> list[Completion]:
            answers = super().complete(*arguments, **settings)
            if len(self.asked) == 1:  # Meanwhile:
                CachedChat(Counting(), cache, identity="arriving").complete(rows("a"), seeds=[1])
            return [answer._replace(text="late") for answer in answers]

    assert CachedChat(Slow(), cache).complete(rows("a"), seeds=[1]) == [
        Completion("answer to a 1", None, 10, 3)
    ]


def test_a_model_without_a_name_needs_one(cache: ResponseCache) -> None:
    with pytest.raises(CacheError, match="under the name of what gave them; ScriptedChat has none"):
        CachedChat(ScriptedChat(lambda _: "x"), cache)
    one = CachedChat(ScriptedChat(lambda _: "one"), cache, identity="first")
    two = CachedChat(ScriptedChat(lambda _: "two"), cache, identity="second")
    assert one.complete(rows("a"), seeds=[1]) == [Completion("one")]
    assert two.complete(rows("a"), seeds=[1]) == [Completion("two")]


def test_no_rows_ask_nothing(cache: ResponseCache) -> None:
    inner = Counting()
    assert CachedChat(inner, cache, identity="m").complete([], seeds=[]) == [] and inner.asked == []
