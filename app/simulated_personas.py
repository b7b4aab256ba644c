"""What users of `persona simulate` were told of themselves, by kind, for the file beside their dialogues."""

from collections.abc import Sequence

from app.casting import NEEDS_TARGETS
from simulators.users.baselines import wish_of
from simulators.users.personas import Persona
from simulators.users.told_personas import ToldPersona

_TOLD_A_WISH = frozenset({"random", "over-agreeable"})


def told_personas(kind: str, people: Sequence[Persona]) -> list[ToldPersona]:
    """What each user knows of its persona: all of it, the item that it is after alone, or what it asks for.

    What a user was never told it cannot contradict, so the rest of the persona is left out.

    Args:
        kind: A name as `app.chat_config.UserKind` has it.
        people: The personas of users of that kind.
    """
    if kind in _TOLD_A_WISH:
        return [ToldPersona(user=person.user, likes=tuple(wish_of(person).values())) for person in people]
    if kind in NEEDS_TARGETS:
        people = [person.model_copy(update={"interests": ()}) for person in people]
    return [ToldPersona.of(person) for person in people]
