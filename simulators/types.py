"""The plain data of a simulated conversation: cards, feedback, turns, dialogues.

Levels of interest, everywhere: 0 ignored, 1 opened, 2 saved, 3 watched, 4 loved.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

LEVELS = ("ignored", "opened", "saved", "watched", "loved")
SUCCESS_LEVEL = 3
DISSATISFIED = 2.0
"""Satisfaction at or below which a turn costs a user patience."""


class StopReason(StrEnum):
    """Why a dialogue ended."""

    ACCEPTED = "accepted"
    OUT_OF_PATIENCE = "out_of_patience"
    MAX_TURNS = "max_turns"
    MODEL_FAILED = "model_failed"


@dataclass(frozen=True, slots=True)
class ItemCard:
    """What may be said about one item: its title and facts by name, in the words to be used.

    Attributes:
        item: Row of the item in its catalogue.
        title: Title as it must appear in a reply.
        facts: Facts by name, such as year, genre, mood, director or plot; an unknown one is left out.
    """

    item: int
    title: str
    facts: Mapping[str, str] = field(default_factory=dict)


class GeneratedTokens(NamedTuple):
    """What a model read and wrote when it spoke, as token ids.

    prompt: All that it read.
    reply: All that it drew, the token that ended it among them; more than was shown where the end was cut off.
    """

    prompt: tuple[int, ...]
    reply: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Utterance:
    """One message, as its speaker's model wrote it and as the other side reads it.

    Attributes:
        raw: As generated; a small model leaves slots such as `<title>` for the agent to fill.
        text: As shown, every slot filled. Equal to `raw` for a model that writes facts by itself.
        failure: Why the speaker's model gave no words, in one sentence; None where it gave some.
        masked: Whether a title that the speaker must not tell stood here and was blanked out, in `raw` too.
        tokens: What the speaker's model read and wrote, where that is kept for training.
    """

    raw: str
    text: str
    failure: str | None = None
    masked: bool = False
    tokens: GeneratedTokens | None = None


@dataclass(frozen=True, slots=True)
class Confirmation:
    """How one turn met its user's expectation, by dimension, and why.

    Attributes:
        scores: By name, such as recommendation 0..5 (0 where none was made, which no mean counts), action 1..5 and
            expression 0..5, with the points that each fault cost it.
        reasons: The user's reason in words, by name; a dimension without one is left out.
        intent: What the user set out to do in its answer, such as giving feedback; None where it does not say.
    """

    scores: Mapping[str, float]
    reasons: Mapping[str, str] = field(default_factory=dict)
    intent: str | None = None


class Decision(NamedTuple):
    """What a user decides about one reply, before any words.

    level: Interest, 0..4.
    satisfaction: Own rating of the turn, 1..5.
    complaint: The attribute of the reply that was most off and the sign of what was heard, or None if content.
    utility: Worth of item and reply to the user, true where a world knows it, for measuring only.
    """

    level: int
    satisfaction: float
    complaint: tuple[str, int] | None
    utility: float


@dataclass(frozen=True, slots=True)
class Feedback:
    """A simulated user's reaction to one reply.

    Attributes:
        level: Deepest interest reached, 0..4.
        satisfaction: The user's own rating of the turn, 1 (worst) to 5.
        utterance: What the user says next.
        complaint: What was wrong with the reply's wording, as (attribute, sign of what was heard), if anything was.
        stop: Why the user ends the dialogue here, or None to go on.
        confirmation: Scores by dimension with reasons, from a user who gives them.
    """

    level: int
    satisfaction: float
    utterance: Utterance
    complaint: tuple[str, int] | None = None
    stop: StopReason | None = None
    confirmation: Confirmation | None = None


@dataclass(frozen=True, slots=True)
class Turn:
    """One exchange: what the user had said, the item shown, the reply, and the reaction to it."""

    user: Utterance
    card: ItemCard
    reply: Utterance
    feedback: Feedback


@dataclass(frozen=True, slots=True)
class Dialogue:
    """All turns of one user with the agent, oldest first.

    Attributes:
        user: Row of the user in the population.
        turns: Finished exchanges.
        stop: Why it ended; None while it is going on.
        opening: What the user said first, while nothing has come of it; None once there are turns, which hold it.
    """

    user: int
    turns: tuple[Turn, ...] = ()
    stop: StopReason | None = None
    opening: Utterance | None = None

    @property
    def said(self) -> Utterance | None:
        """What the user said last; None before the first word."""
        return self.turns[-1].feedback.utterance if self.turns else self.opening

    def before(self, turn: int) -> "Dialogue":
        """The dialogue as it stood when the user had spoken and turn number `turn`, from 0, was to come."""
        if turn == 0:
            return Dialogue(self.user, opening=self.turns[0].user if self.turns else self.opening)
        return Dialogue(self.user, self.turns[:turn])
