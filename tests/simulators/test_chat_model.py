"""The models behind the chat interface: reproducible by seed, banned slots absent, rows independent of one another."""

import pytest

from persona.errors import ModelError
from persona.types import Conversation
from simulators.chat.model import Completion, LocalChat, ScriptedChat
from tests.helpers.tiny_models import SLOTS, tiny_language_model

MODEL = tiny_language_model()
CONVERSATIONS: list[Conversation] = [
    [{"role": "user", "content": "Do you want more like it?"}],
    [{"role": "system", "content": "You like a warm film."}, {"role": "user", "content": "no"}],
    [
        {"role": "user", "content": "something short tonight"},
        {"role": "assistant", "content": "What a wonderful story! <title>"},
        {"role": "user", "content": "yes, because it is slow"},
    ],
]
SEEDS = [3, 4, 5]


@pytest.fixture
def chat() -> LocalChat:
    return LocalChat(MODEL)


def many(rows: int) -> tuple[list[Conversation], list[int]]:
    return [CONVERSATIONS[row % 3] for row in range(rows)], list(range(rows))


def test_local_chat_repeats_itself_for_the_same_seeds_alone(chat: LocalChat) -> None:
    first = chat.complete(CONVERSATIONS, seeds=SEEDS, max_new_tokens=16)
    assert chat.complete(CONVERSATIONS, seeds=SEEDS, max_new_tokens=16) == first
    others = chat.complete(CONVERSATIONS, seeds=[13, 14, 15], max_new_tokens=16)
    assert all(a != b for a, b in zip(first, others, strict=True))


def test_local_chat_at_temperature_zero_needs_no_luck(chat: LocalChat) -> None:
    likeliest = chat.complete(CONVERSATIONS, seeds=SEEDS, max_new_tokens=8, temperature=0.0)
    assert chat.complete(CONVERSATIONS, seeds=[0, 0, 0], max_new_tokens=8, temperature=0.0) == likeliest


def test_local_chat_says_the_same_in_any_company(chat: LocalChat) -> None:
    together = chat.complete(CONVERSATIONS, seeds=SEEDS, max_new_tokens=16)
    alone = [
        chat.complete([conversation], seeds=[seed], max_new_tokens=16)[0]
        for conversation, seed in zip(CONVERSATIONS, SEEDS, strict=True)
    ]
    assert together == alone
    assert chat.complete(CONVERSATIONS[::-1], seeds=SEEDS[::-1], max_new_tokens=16) == together[::-1]


def test_local_chat_never_writes_a_banned_slot(chat: LocalChat) -> None:
    conversations, seeds = many(96)
    banned = [frozenset({SLOTS[row % 3]}) for row in range(96)]
    free = chat.complete(conversations, seeds=seeds, max_new_tokens=24)
    kept = chat.complete(conversations, seeds=seeds, max_new_tokens=24, banned=banned)
    assert all(any(slot in row.text for row in free) for slot in SLOTS)
    assert any(slot in row.text for row, slots in zip(free, banned, strict=True) for slot in slots)
    assert not any(slot in row.text for row, slots in zip(kept, banned, strict=True) for slot in slots)
    assert all(any(slot in row.text for row in kept) for slot in SLOTS)  # banned in its own rows alone


def test_local_chat_overlooks_bans_of_slots_that_the_model_lacks(chat: LocalChat) -> None:
    plain = chat.complete(CONVERSATIONS, seeds=SEEDS, max_new_tokens=16)
    assert chat.complete(CONVERSATIONS, seeds=SEEDS, max_new_tokens=16, banned=[["<mood>"]] * 3) == plain


def test_local_chat_leaves_room_for_the_answer(chat: LocalChat) -> None:
    old = [{"role": "user", "content": "no " * 200}, {"role": "assistant", "content": "yes " * 200}]
    found = chat.complete([[*old, *CONVERSATIONS[0]]], seeds=[3], max_new_tokens=64)
    assert found == chat.complete([CONVERSATIONS[0]], seeds=[3], max_new_tokens=64)
    with pytest.raises(ModelError, match=r"must fit the window of 256 tokens; got \d+ \+ 250 tokens"):
        chat.complete([CONVERSATIONS[0]], seeds=[3], max_new_tokens=250)


def test_local_chat_has_the_slots_of_its_model(chat: LocalChat) -> None:
    assert chat.slots == frozenset(SLOTS)
    assert LocalChat(tiny_language_model(slots=())).slots == frozenset()


def test_scripted_chat_answers_each_conversation_by_its_function() -> None:
    chat = ScriptedChat(lambda conversation: conversation[-1]["content"].upper(), ["<title>"])
    assert chat.slots == frozenset({"<title>"})
    expected = ["DO YOU WANT MORE LIKE IT?", "NO", "YES, BECAUSE IT IS SLOW"]
    assert chat.complete(CONVERSATIONS, seeds=SEEDS) == [Completion(text) for text in expected]
    again = chat.complete(CONVERSATIONS[::-1], seeds=[0, 0, 0], temperature=0.0)
    assert [row.text for row in again] == expected[::-1]
