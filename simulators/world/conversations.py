"""Training conversations for the embedded language model, in both roles, made by the grammar without end."""

from collections.abc import Iterator, Sequence

import numpy as np

from persona.rewards.attributes import ATTRIBUTES
from simulators.prompts import recommender_prompt, viewer_opening_prompt, viewer_reaction_prompt
from simulators.types import Feedback, ItemCard, Turn, Utterance
from simulators.world.language import CARD_SLOTS, Situation, opening, reaction, reply, sample_style

Message = dict[str, str]

SLOTS = frozenset(f"<{name}>" for name in CARD_SLOTS)
_OPTIONAL = CARD_SLOTS[1:]
_SPARSE = ("year", "genre", "era")
_LEVEL_SHARES = (0.45, 0.15, 0.15, 0.15, 0.1)


def film_conversations(
    rng: np.random.Generator, *, remarks: Sequence[str] = (), words: Sequence[str] = ()
) -> Iterator[list[Message]]:
    """Endless conversations about films, half in the recommender's role and half in the user's.

    Args:
        rng: Source of every choice.
        remarks: Real utterances that now and then stand for the user's words, so that the model also meets free text.
        words: Genre and mood words that now and then replace the slots in the user's words, for the same reason.
    """
    while True:
        yield _recommender_side(rng, remarks, words) if rng.random() < 0.65 else _viewer_side(rng)


def _card(rng: np.random.Generator) -> ItemCard:
    """A card of slots: complete, as sparse as a table of ratings has it, or anything between."""
    kind = rng.random()
    if kind < 0.4:
        facts: tuple[str, ...] = _OPTIONAL
    elif kind < 0.6:
        facts = _SPARSE
    else:
        keep = rng.uniform(0.1, 0.9)
        facts = tuple(name for name in _OPTIONAL if rng.random() < keep)
    return ItemCard(0, "<title>", {name: f"<{name}>" for name in facts})


def _free_text(said: str, rng: np.random.Generator, remarks: Sequence[str], words: Sequence[str]) -> str:
    if remarks and rng.random() < 0.15:
        return remarks[int(rng.integers(len(remarks)))]
    if words and rng.random() < 0.3:
        for slot in ("<genre>", "<mood>"):
            said = said.replace(slot, words[int(rng.integers(len(words)))])
    return said


def _recommender_side(
    rng: np.random.Generator, remarks: Sequence[str], words: Sequence[str]
) -> list[Message]:
    style = sample_style(rng)
    history: list[Turn] = []
    said = _free_text(opening(("genre", "mood"), rng), rng, remarks, words)
    for turn in range(int(rng.integers(1, 4))):
        card = _card(rng)
        answer = reply(style, Situation(frozenset(card.facts) | {"title"}, again=turn > 0), rng)
        utterance = Utterance(answer, answer)
        history.append(Turn(Utterance(said, said), card, utterance, Feedback(0, 3.0, utterance)))
        words_back = reaction(
            int(rng.integers(3)), _complaint(rng), goes_on=True, facts=("title", "genre", "mood"), rng=rng
        )
        said = _free_text(words_back, rng, remarks, words)
    last = history.pop()
    return [
        *recommender_prompt(history, last.user.raw, last.card, SLOTS),
        {"role": "assistant", "content": last.reply.raw},
    ]


def _viewer_side(rng: np.random.Generator) -> list[Message]:
    wish = {name: f"<{name}>" for name in ("genre", "mood") if rng.random() < 0.85}
    if rng.random() < 0.3:
        wish = wish or {"genre": "<genre>"}
        return [
            *viewer_opening_prompt(wish, SLOTS),
            {"role": "assistant", "content": opening(tuple(wish), rng)},
        ]
    level = int(rng.choice(5, p=_LEVEL_SHARES))
    complaint, goes_on = _complaint(rng), level < 3
    answer = reply(sample_style(rng), Situation(frozenset(CARD_SLOTS)), rng)
    said = reaction(level, complaint, goes_on=goes_on, facts=("title", *wish), rng=rng)
    prompt = viewer_reaction_prompt(wish, answer, level, complaint, goes_on=goes_on, slots=SLOTS)
    return [*prompt, {"role": "assistant", "content": said}]


def _complaint(rng: np.random.Generator) -> tuple[str, int] | None:
    if rng.random() < 0.5:
        return None
    return ATTRIBUTES[rng.integers(len(ATTRIBUTES))], int(rng.choice((-1, 1)))
