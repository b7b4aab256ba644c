"""Who a simulated user is, as plain data: Activities, Interests, Language and Orientations, after AILO.

After Feng et al. (2025), arXiv 2506.14302, whose personas have these four parts. Interests are single facts here, so
that `disclosure` can read off a conversation what has been told of them and what has not; patience and an item that
the user has in mind are added. Nothing is written by a language model: `persona_building`
reads personas off what users did.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from simulators.errors import PersonaError

Activity = Literal["efficiency-seeking", "detail-oriented", "exploration-oriented"]
Strictness = Literal["lenient", "even", "strict"]


class Interest(BaseModel):
    """One thing that a user likes or dislikes in items."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # Name of the fact, such as genre or mood.
    kind: str
    # Its value in the words of the cards, such as comedy.
    value: Annotated[str, Field(min_length=1)]
    # How much it is liked: 2 loved, 1 liked, -1 disliked, -2 hated.
    liking: Literal[-2, -1, 1, 2]


class ReplyWish(BaseModel):
    """More or less of one attribute of replies than usual."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # One of `persona.rewards.attributes.ATTRIBUTES`.
    attribute: Literal["brevity", "warmth", "plainness", "reasons", "curiosity", "enthusiasm"]
    # 1 for more of it, -1 for less.
    sign: Literal[-1, 1]


class Language(BaseModel):
    """How a user speaks."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # How much a message holds.
    density: Literal["terse", "even", "wordy"] = "even"
    style: Literal["plain", "elaborate"] = "plain"
    tone: Literal["cool", "even", "warm"] = "even"


class Orientations(BaseModel):
    """What a user goes by when judging."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # How high the bar for an item lies.
    strictness: Strictness = "even"
    # What replies should have more or less of, the strongest first.
    wishes: tuple[ReplyWish, ...] = ()


class Target(BaseModel):
    """The one item that a user has in mind; its title is never to be told."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: Annotated[str, Field(min_length=1)]
    facts: dict[str, str] = Field(default_factory=dict)


class Persona(BaseModel):
    """A simulated user, as plain data: `model_dump_json` and `model_validate_json` are its way out and in."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # Row of the user in the population.
    user: int
    # What the user is up to in a conversation.
    activity: Activity = "detail-oriented"
    # The strongest first.
    interests: tuple[Interest, ...] = ()
    language: Language = Language()
    orientations: Orientations = Orientations()
    # Disappointing turns that the user puts up with before leaving.
    patience: Annotated[int, Field(ge=1)] = 3
    target: Target | None = None


def save_personas(path: Path, personas: Sequence[Persona]) -> None:
    """Write personas as one JSON array; the file appears whole or not at all."""
    rows = [persona.model_dump(mode="json") for persona in personas]
    unfinished = path.with_name(f".{path.name}.unfinished")
    unfinished.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(unfinished, path)


def load_personas(path: Path) -> list[Persona]:
    """The personas that `save_personas` wrote, or that anybody wrote in its format.

    Raises:
        PersonaError: The file is missing or no JSON array of personas, or two of them are the same user.
    """
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PersonaError(f"A file of personas must be a JSON array; {path} is not: {error}.") from error
    if not isinstance(rows, list):
        raise PersonaError(f"A file of personas must be a JSON array; {path} holds a {type(rows).__name__}.")
    personas = [_checked(row, number, path) for number, row in enumerate(rows)]
    users = [persona.user for persona in personas]
    if len(set(users)) < len(users):
        twice = sorted({user for user in users if users.count(user) > 1})[:3]
        raise PersonaError(f"Personas must be of different users; {path} holds {twice} more than once.")
    return personas


def _checked(row: object, number: int, path: Path) -> Persona:
    try:
        return Persona.model_validate_json(json.dumps(row))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "the persona"
        raise PersonaError(
            f"Personas must have the fields of `Persona`; number {number} of {path} has not: {where}: {first['msg']}."
        ) from error
