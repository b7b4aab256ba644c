"""A chat model that acts a persona by rule: it runs every prompted user of `simulators.users` without a language model.

It knows nothing but the prompt: who it is, what was said, what was shown and what to tell stand there, and the schema
says which fields to write. Its judgement is a few lines of arithmetic with noise by seed. So it shows that prompts hold
what is needed and measures the machinery around a model, such as tokens and the agreement of two forms of asking;
what it says of an agent is worth nothing.
"""

import json
import re
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

import numpy as np

from persona.rewards.attributes import ATTRIBUTES, measure_attributes
from simulators.chat.model import Completion, Message, Schema
from simulators.users.ailo_prompts import ATTRIBUTE_WORDS, LEFT, NEW, RECOMMENDER, SHOWN, YOU
from simulators.users.ailo_types import Intent
from simulators.users.disclosure import LIKINGS

_POINTS = {word: liking for liking, word in LIKINGS.items()}
_ATTRIBUTE_OF = {word: name for name, word in ATTRIBUTE_WORDS.items()}
_THING = re.compile(r"([^;()]+) \(([^(),]+), ([^(),]+)\)")
_WISH = re.compile(r"(more|less) ([a-z ]+)")
_ENOUGH = dict(zip(ATTRIBUTES, (-np.log1p(16), 0.1, -4.4, 0.1, 0.1, 0.1), strict=True))
"""Raw value from which on a reply has an attribute: at most 16 words, short words, or at least one of the rest."""

_SAID = {"loved": "I love {}", "liked": "I like {}", "disliked": "I dislike {}", "hated": "I hate {}"}


class _Scene(NamedTuple):
    """What a prompt says.

    likings: Points by value of an interest.
    mind: Title and facts that the user has in mind, as one text; empty for none.
    bar, tone: Words of the orientation and the language.
    wishes: Wanted more (1) or less (-1) of each attribute of replies.
    talk: Speaker and text of each message.
    shown: Title and facts that were shown last; empty for none.
    telling: Value and kind of each thing to tell now.
    patience: Disappointing turns that are left.
    explains: Whether reasons may be whole sentences.
    """

    likings: dict[str, int]
    mind: str
    bar: str
    tone: str
    wishes: dict[str, int]
    talk: list[tuple[str, str]]
    shown: str
    telling: list[tuple[str, str]]
    patience: int
    explains: bool


class Actor:
    """Acts whoever the prompt says it is.

    Args:
        noise: Probability that a score comes out one point off.
        indiscretion: Probability that a message tells the title in mind although it must not.
        count_tokens: Counts the tokens of a text; None leaves them uncounted.
    """

    def __init__(
        self,
        *,
        noise: float = 0.05,
        indiscretion: float = 0.0,
        count_tokens: Callable[[str], int] | None = None,
    ) -> None:
        self._noise = noise
        self._indiscretion = indiscretion
        self._count = count_tokens or (lambda text: 0)

    @property
    def slots(self) -> frozenset[str]:
        """None: it copies what it is told."""
        return frozenset()

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
        """See `ChatModel.complete`; without a schema the answer is the message alone."""
        rows = []
        for conversation, seed in zip(conversations, seeds, strict=True):
            answers = self._act(_read(conversation), np.random.default_rng(seed))
            text = answers["reply"]
            if schema is not None:
                text = json.dumps({name: answers[name] for name in schema["properties"]}, ensure_ascii=False)
            read = sum(self._count(message["content"]) for message in conversation)
            rows.append(Completion(text, None, read, self._count(text)))
        return rows

    def _act(self, scene: _Scene, rng: np.random.Generator) -> dict[str, Any]:
        """Every field that any schema of this package asks for."""

        def felt(score: int, low: int, high: int) -> int:
            shift = rng.choice((-1, 1)) if rng.random() < self._noise else 0
            return int(np.clip(score + shift, low, high))

        offered = _fit(scene)
        fit = felt(offered, 1, 5) if offered else 0
        flexibility, coherence, guidance = _lost(scene)
        intent = _intended(scene, fit)
        leaves = intent is Intent.END and fit < 4
        move = felt(_move(scene, fit, leaves), 1, 5)
        reply = _message(scene, fit, intent)
        if scene.mind and rng.random() < self._indiscretion:
            reply += f" I mean {scene.mind.partition(' (')[0]}."
        return {
            "intent_reason": _reason(scene, fit, "so I go on like this"),
            "intent": intent.value,
            "reply_reason": "It is what I would say now, in my own way of speaking.",
            "reply": reply,
            "recommendation_reason": _reason(scene, fit, "by what I like"),
            "recommendation": fit,
            "expression_reason": _reason(scene, 5 - flexibility - coherence - guidance, "in its words"),
            "flexibility": felt(flexibility, 0, 2),
            "coherence": felt(coherence, 0, 2),
            "guidance": felt(guidance, 0, 1),
            "action_reason": _reason(scene, move, "as a move"),
            "action": move,
            "interest": max(fit - 1, 0),
            "rating": max(fit, 1),
            "leave": leaves,
        }


def _read(conversation: Sequence[Message]) -> _Scene:
    lines = [line for message in conversation for line in message["content"].split("\n")]

    def after(label: str) -> str:
        return next((line[len(label) + 2 :] for line in reversed(lines) if line.startswith(f"{label}: ")), "")

    talk = [
        (speaker, line[len(speaker) + 2 :])
        for line in lines
        for speaker in (YOU, RECOMMENDER)
        if line.startswith(f"{speaker}: ")
    ]
    orientation = after("Orientation")
    interests, left = _THING.findall(after("Interests")), after(LEFT)
    # Who is not told what to tell tells everything.
    telling = _THING.findall(after(NEW)) if after(NEW) else interests
    return _Scene(
        {value.strip(): _POINTS[liking] for value, _, liking in interests},
        after("In mind"),
        orientation.partition(",")[0],
        after("Language").rstrip(".").rpartition(", ")[2],
        {_ATTRIBUTE_OF[w]: 1 if more == "more" else -1 for more, w in _WISH.findall(orientation)},
        talk,
        after(SHOWN),
        [(value.strip(), liking) for value, _, liking in telling],
        int(left) if left else 1,
        any("sentence" in message["content"] for message in conversation if message["role"] == "system"),
    )


def _fit(scene: _Scene) -> int:
    """0 where nothing was offered, else 1 to 5: by the likings that the shown facts meet, or by what is in mind."""
    title = scene.shown.partition(";")[0]
    if not title or not scene.talk or title not in _last(scene, RECOMMENDER):
        return 0
    if scene.mind:
        if scene.mind.startswith(f"{title} ("):
            return 5
        facts = [fact for fact in scene.shown.split("; ")[1:] if fact in scene.mind]
        return min(1 + len(facts), 4)
    points = sum(liking for value, liking in scene.likings.items() if _holds(scene.shown, value))
    doubt = {"strict": -1, "lenient": 1}.get(scene.bar, 0) if abs(points) <= 1 else 0
    return int(np.clip(3 + points + min(doubt, 0) + (doubt if doubt > 0 and points > 0 else 0), 1, 5))


def _lost(scene: _Scene) -> tuple[int, int, int]:
    """Points that the last reply loses: wishes passed over, repetition, and no reason or question."""
    reply = _last(scene, RECOMMENDER)
    if not reply:
        return 0, 0, 0
    raw = dict(zip(ATTRIBUTES, measure_attributes([reply])[0].tolist(), strict=True))
    missed = sum((raw[name] >= _ENOUGH[name]) != (sign > 0) for name, sign in scene.wishes.items())
    earlier = [text for speaker, text in scene.talk[:-1] if speaker == RECOMMENDER and text != reply]
    title = scene.shown.partition(";")[0]
    again = bool(title) and any(title in text for text in earlier)
    sentences = [{*re.split(r"(?<=[.!?]) ", text)} for text in (reply, *earlier)]
    repeats = any(sentences[0] & known for known in sentences[1:])
    leads = raw["reasons"] >= _ENOUGH["reasons"] or raw["curiosity"] >= _ENOUGH["curiosity"]
    return min(missed, 2), 2 if again else int(repeats), int(not leads)


def _intended(scene: _Scene, fit: int) -> Intent:
    if fit >= 4 or (fit <= 2 and scene.patience <= 1):
        return Intent.END
    return Intent.CLARIFY if "?" in _last(scene, RECOMMENDER) and scene.telling else Intent.FEEDBACK


def _move(scene: _Scene, fit: int, leaves: bool) -> int:
    """5 for an offer that is taken, less the further off it was; a question helps a little, leaving hurts."""
    asked = "?" in _last(scene, RECOMMENDER)
    offered = max((i for i, (speaker, _) in enumerate(scene.talk) if speaker == RECOMMENDER), default=0)
    known = " ".join(text for speaker, text in scene.talk[:offered] if speaker == YOU)
    against = any(
        liking < 0 and _holds(known, value) and _holds(scene.shown, value)
        for value, liking in scene.likings.items()
    )
    answered_by_leaving = scene.talk[-1:] and scene.talk[-1][0] == YOU and "had enough" in scene.talk[-1][1]
    score = 5 if fit >= 4 else 3 if fit == 3 else 2
    score += int(asked and fit < 4) - int(against) - int(leaves or bool(answered_by_leaving))
    return int(np.clip(score, 1, 5))


def _message(scene: _Scene, fit: int, intent: Intent) -> str:
    told = [_SAID.get(liking, "I think of something {}").format(value) for value, liking in scene.telling]
    tail = " ".join(f"{sentence}." for sentence in told)
    if not scene.talk:
        return f"I am looking for something to see. {tail}".strip()
    thanks = "Thank you kindly. " if scene.tone == "warm" else ""
    if intent is Intent.END:
        return thanks + ("I will take that one." if fit >= 4 else "I have had enough, goodbye.")
    verdict = "It is all right, but not quite it." if fit >= 3 else "That is not for me."
    return f"{thanks}{verdict} {tail}".strip()


def _reason(scene: _Scene, score: int, why: str) -> str:
    brief = f"{('None', 'Bad', 'Poor', 'Fair', 'Good', 'Perfect')[score]}, {why}."
    return f"{brief} I went by what I want and by what the last message says." if scene.explains else brief


def _last(scene: _Scene, speaker: str) -> str:
    return next((text for who, text in reversed(scene.talk) if who == speaker), "")


def _holds(text: str, value: str) -> bool:
    return re.search(rf"\b{re.escape(value)}\b", text, re.IGNORECASE) is not None
