"""One person's conversation with a trained run, as plain data: every move returns a new conversation.

The terminal and the browser both speak through these moves. A conversation holds no model, so it can be kept for
each session and copied freely.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from app.errors import TalkError
from app.trained import TrainedRun
from persona.types import Condition
from simulators.randomness import keyed_seeds
from simulators.types import Dialogue, Feedback, ItemCard, Turn, Utterance

_PASSED_LEVEL, _LIKED_LEVEL = 0, 4
_PERSON = -1


class Exchange(NamedTuple):
    """One question with its answer.

    said: What the person said.
    card: The film that is recommended.
    reply: The answer under the person's own condition.
    average: The answer that the average user would get, under the same luck.
    """

    said: Utterance
    card: ItemCard
    reply: Utterance
    average: Utterance


@dataclass(frozen=True, slots=True)
class Talk:
    """A conversation so far; the last exchange is open: it can be worded anew.

    Attributes:
        exchanges: Oldest first.
        met: Level of interest, 0 passed on or 4 liked, by the row of the film.
        seed: Equal seeds, words and conditions give equal answers.
    """

    exchanges: tuple[Exchange, ...] = ()
    met: Mapping[int, int] = field(default_factory=dict)
    seed: int = 0

    @property
    def last(self) -> Exchange | None:
        """The open exchange, or None before the first question."""
        return self.exchanges[-1] if self.exchanges else None


def say(trained: TrainedRun, talk: Talk, text: str, condition: Condition) -> Talk:
    """Answer a new message.

    Args:
        trained: The run that answers.
        talk: The conversation so far.
        text: The message; a genre that it names restricts the films.
        condition: What is known of the person, one row.

    Raises:
        TalkError: The message is empty, or every film was met.
        ModelError: The message does not fit the model's window.
    """
    words = " ".join(text.split())
    if not words:
        raise TalkError("A message must hold words; got none. Write what you would like to watch.")
    return _answer(trained, talk, talk.exchanges, Utterance(words, words), condition)


def reword(trained: TrainedRun, talk: Talk, condition: Condition) -> Talk:
    """The last question answered anew, about the same film and under the same luck; nothing asked, nothing changed.

    Raises:
        ModelError: The message does not fit the model's window.
    """
    if talk.last is None:
        return talk
    *earlier, last = talk.exchanges
    reply, average = _speak(trained, talk, tuple(earlier), last.said, last.card, condition)
    return replace(talk, exchanges=(*earlier, last._replace(reply=reply, average=average)))


def another_film(trained: TrainedRun, talk: Talk, condition: Condition) -> Talk:
    """The last question answered with another film; the one that was passed on is remembered as ignored.

    Raises:
        TalkError: Nothing was asked yet, or every film was met.
    """
    last = last_exchange(talk)
    met = {**talk.met, last.card.item: talk.met.get(last.card.item, _PASSED_LEVEL)}
    return _answer(trained, replace(talk, met=met), talk.exchanges[:-1], last.said, condition)


def like(talk: Talk) -> Talk:
    """The film of the last answer remembered as loved, so that later ones are chosen near it.

    Raises:
        TalkError: Nothing was asked yet.
    """
    return replace(talk, met={**talk.met, last_exchange(talk).card.item: _LIKED_LEVEL})


def last_exchange(talk: Talk) -> Exchange:
    """The exchange that is open.

    Raises:
        TalkError: Nothing was asked yet.
    """
    if talk.last is None:
        raise TalkError(
            "A film must have been recommended first; got no question yet. Write what you would like."
        )
    return talk.last


def _answer(
    trained: TrainedRun, talk: Talk, earlier: tuple[Exchange, ...], said: Utterance, condition: Condition
) -> Talk:
    card = trained.recommend(_dialogue(earlier), said, talk.met)
    reply, average = _speak(trained, talk, earlier, said, card, condition)
    return replace(talk, exchanges=(*earlier, Exchange(said, card, reply, average)))


def _speak(
    trained: TrainedRun,
    talk: Talk,
    earlier: tuple[Exchange, ...],
    said: Utterance,
    card: ItemCard,
    condition: Condition,
) -> tuple[Utterance, Utterance]:
    seed = keyed_seeds(talk.seed, [len(earlier)])[0]
    return trained.reply(_dialogue(earlier), said, card, condition, seed=seed)


def _dialogue(exchanges: tuple[Exchange, ...]) -> Dialogue:
    """The exchanges as the agent reads them; it looks at words and films alone, so the feedback stands for nothing."""
    unknown = Feedback(0, 3.0, Utterance("", ""))
    return Dialogue(_PERSON, tuple(Turn(e.said, e.card, e.reply, unknown) for e in exchanges))
