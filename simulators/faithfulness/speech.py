"""Dialogues as the measures of words read them: who said what, what was shown, and what came of it.

Two forms are read: the transcripts that a rollout leaves (`simulators.transcripts`), and plain chat messages as other
systems log them, with whatever else is known beside them.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from simulators.errors import FaithfulnessError
from simulators.types import StopReason

_USER_ROLES = frozenset({"user", "seeker"})
_AGENT_ROLES = frozenset({"assistant", "agent", "recommender"})
_NO_FACTS = frozenset({"title", "plot"})


@dataclass(frozen=True, slots=True)
class Message:
    """One message.

    Attributes:
        is_user: Whether the user said it, and not the agent.
        text: Its words; empty where a model gave none.
        title: Item that an agent's message showed, if known.
        level: Deepest interest that the user then took in it, if known.
        satisfaction: The user's rating of the turn, if known.
        is_masked: Whether a title that the user must not tell was blanked out.
    """

    is_user: bool
    text: str
    title: str | None = None
    level: int | None = None
    satisfaction: float | None = None
    is_masked: bool = False


@dataclass(frozen=True, slots=True)
class SpokenDialogue:
    """One dialogue.

    Attributes:
        user: Id of the user.
        messages: Oldest first.
        stop: Why it ended, if known.
        targets: Titles that the user is after and must not tell; empty where unknown.
        likes: Things that the user is known to like, such as genres.
        dislikes: Things that the user is known not to like.
        facts: Things that may be wished for, from the cards shown, such as genres and moods.
        policy: Name of who recommends, if known.
    """

    user: str
    messages: tuple[Message, ...]
    stop: StopReason | None = None
    targets: tuple[str, ...] = ()
    likes: tuple[str, ...] = ()
    dislikes: tuple[str, ...] = ()
    facts: frozenset[str] = frozenset()
    policy: str | None = None

    @property
    def said(self) -> list[str]:
        """What the user said, oldest first."""
        return [message.text for message in self.messages if message.is_user]

    @property
    def replies(self) -> list[Message]:
        """What the agent said, oldest first, with what came of it."""
        return [message for message in self.messages if not message.is_user]


def read_dialogue(saved: Mapping[str, Any], *, max_level: int) -> SpokenDialogue:
    """One dialogue from a JSON object.

    Args:
        saved: Either a transcript, with user and turns, or a chat: user_id (or user), messages (each with role and
            content; an agent's may have title, level and satisfaction), and where known stop, targets, likes and
            dislikes; both with policy where it is known who recommends.
        max_level: The deepest level.

    Raises:
        FaithfulnessError: It is neither, a role or the reason of its end is unknown, or a level is out of range.
    """
    try:
        if "turns" in saved:
            found = _from_transcript(saved)
        elif "messages" in saved:
            found = _from_chat(saved)
        else:
            raise FaithfulnessError(
                "A dialogue must have `turns`, as a rollout writes them, or `messages`; got "
                f"{', '.join(map(str, list(saved)[:5])) or 'nothing'}. Write one JSON object a line."
            )
    except FaithfulnessError:
        raise
    except (KeyError, TypeError, AttributeError, ValueError) as err:
        raise FaithfulnessError(
            f"A dialogue must be as a rollout wrote it, or user_id with messages of role and content; got "
            f"{f'no {err}' if isinstance(err, KeyError) else f'another type ({err})'}. Correct the file."
        ) from err
    found = replace(found, policy=_policy(saved.get("policy")))
    for message in found.messages:
        if message.level is not None and not 0 <= message.level <= max_level:
            raise FaithfulnessError(
                f"Levels must be whole numbers in 0..{max_level}; got {message.level} in a dialogue of user "
                f"{found.user}. Correct the file, or give the deepest level with --max-level."
            )
    return found


def dialogue_items(dialogue: SpokenDialogue) -> list[str]:
    """Titles shown by the agent, in order."""
    return [reply.title for reply in dialogue.replies if reply.title is not None]


def known_things(dialogues: Sequence[SpokenDialogue]) -> frozenset[str]:
    """Everything that these users may wish for: facts of the cards shown, and what they are known to like or not."""
    found: set[str] = set()
    for dialogue in dialogues:
        found.update(dialogue.facts)
        found.update(thing.casefold() for thing in (*dialogue.likes, *dialogue.dislikes))
    return frozenset(found)


def _from_transcript(saved: Mapping[str, Any]) -> SpokenDialogue:
    messages: list[Message] = []
    facts: set[str] = set()
    turns = list(saved["turns"])
    for turn in turns:
        messages.append(_utterance(turn["user"]))
        level, stars = _level(turn["level"]), _stars(turn["satisfaction"])
        messages.append(Message(False, _text(turn["reply"]["text"]), str(turn["title"]), level, stars))
        facts.update(
            str(value).casefold()
            for name, value in turn["facts"].items()
            if value is not None and name not in _NO_FACTS and not str(value).isdigit()
        )
    last = turns[-1]["next"] if turns else saved.get("opening")
    if last is not None and (last["text"] or not turns):
        messages.append(_utterance(last))
    return SpokenDialogue(
        str(saved["user"]), tuple(messages), _stop(saved.get("stop")), facts=frozenset(facts)
    )


def _utterance(saved: Mapping[str, Any]) -> Message:
    return Message(True, _text(saved["text"]), is_masked=bool(saved.get("masked")))


def _from_chat(saved: Mapping[str, Any]) -> SpokenDialogue:
    messages = []
    for row in saved["messages"]:
        role = str(row["role"])
        if role == "system":
            continue
        if role not in _USER_ROLES | _AGENT_ROLES:
            raise FaithfulnessError(
                f"A message's role must be user or assistant; got {role!r}. Rename the roles in the file."
            )
        level, stars = row.get("level"), row.get("satisfaction")
        messages.append(
            Message(
                role in _USER_ROLES,
                _text(row["content"]),
                None if row.get("title") is None else str(row["title"]),
                None if level is None else _level(level),
                None if stars is None else _stars(stars),
            )
        )
    user = saved["user_id"] if "user_id" in saved else saved["user"]
    targets, likes, dislikes = (_texts(saved.get(name)) for name in ("targets", "likes", "dislikes"))
    return SpokenDialogue(str(user), tuple(messages), _stop(saved.get("stop")), targets, likes, dislikes)


def _text(value: Any) -> str:
    """Words; none where a message is null, as chat logs write a call of a tool."""
    return "" if value is None else str(value)


def _texts(value: Any) -> tuple[str, ...]:
    """Things by name, of which one alone may stand for itself."""
    return (value,) if isinstance(value, str) else tuple(map(str, value or ()))


def _policy(value: Any) -> str | None:
    """Who recommends, as a text; None where unknown. 7.0, which a gap elsewhere in its column makes of 7, is 7."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, bool) or not isinstance(value, str | int | float) or value == "":
        raise FaithfulnessError(
            f"Who recommends, `policy` of a dialogue, must be a name or a number; got {value!r:.40}. Correct the file, "
            "or leave it out."
        )
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _stars(value: Any) -> float:
    stars = float(value)
    if not math.isfinite(stars):
        raise FaithfulnessError(
            f"Satisfaction in dialogues must be finite; got {value}. Correct the file, or leave unknown ones out."
        )
    return stars


def _level(value: Any) -> int:
    number = float(value)
    if not number.is_integer():
        raise FaithfulnessError(
            f"Levels in dialogues must be whole numbers; got {value}. Correct the file, or leave unknown levels out."
        )
    return int(number)


def _stop(value: str | None) -> StopReason | None:
    if value is None:
        return None
    try:
        return StopReason(value)
    except ValueError as err:
        raise FaithfulnessError(
            f"The reason why a dialogue stopped must be one of {', '.join(StopReason)}; got {value!r}. "
            "Correct the file, or leave `stop` out."
        ) from err
