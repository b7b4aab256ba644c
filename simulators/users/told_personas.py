"""What simulated users were told of themselves, as a file beside their dialogues.

Transcripts hold what was said and shown, and nothing that is hidden from the agent; so whether a user kept to its
persona, or gave away the title that it has in mind, can be told only with this file. It is for measuring: no agent and
no learner may read it.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from simulators.errors import PersonaError
from simulators.users.personas import Persona

PERSONAS = "personas.jsonl"
"""Its name, in the folder of the dialogues."""

Names = tuple[Annotated[str, Field(min_length=1)], ...]


class ToldPersona(BaseModel):
    """What one user was told of itself, by name; one line of the file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # Row of the user in the population.
    user: int
    # What the user likes, and what it does not, such as genres and moods.
    likes: Names = ()
    dislikes: Names = ()
    # Titles that the user is after and must not tell.
    targets: Names = ()

    @classmethod
    def of(cls, persona: Persona) -> "ToldPersona":
        """What a persona tells its user."""
        return cls(
            user=persona.user,
            likes=tuple(interest.value for interest in persona.interests if interest.liking > 0),
            dislikes=tuple(interest.value for interest in persona.interests if interest.liking < 0),
            targets=() if persona.target is None else (persona.target.title,),
        )


def told_lines(personas: Iterable[ToldPersona]) -> str:
    """The file's text, one JSON object a line."""
    return "".join(
        json.dumps(persona.model_dump(mode="json"), ensure_ascii=False) + "\n" for persona in personas
    )


def read_told(path: Path) -> dict[int, ToldPersona]:
    """What users were told of themselves, by user.

    Args:
        path: A file of `told_lines`.

    Raises:
        PersonaError: The file cannot be read, a line holds something else, or a user stands twice.
    """
    found: dict[int, ToldPersona] = {}
    try:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                told = ToldPersona.model_validate_json(line)
                if told.user in found:
                    raise PersonaError(
                        f"Each user must stand once in {path}; got user {told.user} again in line {number}. Delete "
                        "one of the lines."
                    )
                found[told.user] = told
    except ValidationError as err:
        first = err.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "the line"
        raise PersonaError(
            f"Each line of {path} must tell a user's likes, dislikes and targets; line {number} does not: {where}: "
            f"{first['msg']}. Restore the file, or move it away to audit without it."
        ) from err
    except (OSError, UnicodeDecodeError) as err:
        raise PersonaError(
            f"{path} must be readable as JSON lines; got: {err}. Restore it, or move it away to audit without it."
        ) from err
    return found
