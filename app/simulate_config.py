"""What `persona simulate` does, said once: which finished run's agent talks, with whom, and how long."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from app.chat_config import ChatFields, UserKind


class SimulateConfig(ChatFields):
    """Every choice of one simulation; who speaks for the users is `app.chat_config.ChatFields`."""

    # Folder of a finished `persona run`: its world, agent and users.
    run: Annotated[str, Field(min_length=1)]
    # Every random draw follows from this one number, 0 or more.
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    # Who talks: "viewers" of the world itself, users "learned" from what the run logged, "ailo",
    # "ailo-five-calls", "persona-prompt", "target-holding", "random" or "over-agreeable"; see `app.casting`.
    users: UserKind = "learned"
    # Whom they are of: "unseen" users, whom the run never trained on, or its "learners".
    population: Literal["unseen", "learners"] = "unseen"
    # Dialogues, one a user, at least 1.
    dialogues: Annotated[int, Field(ge=1)] = 100
    # Agent: the "base" model, the run's first "policy", its "last" one after all rounds, or the folder of a finished
    # `persona train` on that run.
    agent: Annotated[str, Field(min_length=1)] = "last"
    # What the agent is called in the dialogues, so that an audit can rank agents by the names of a log; empty takes
    # `agent`, with "-average" behind it where nothing is known of users.
    name: Annotated[str, Field(max_length=100)] = ""
    # Whether the policy is told what is known of each user; if not, everyone is the average user.
    personal: bool = True
    # Whether users who give probabilities are held to what real users did later, in files for `persona audit`; in the
    # film world users are learned a second time for it, from the earlier part of the log, which takes a minute or two.
    predictions: Annotated[bool, Field(exclude=True)] = False
    # Most dialogues that are live together, at least 1; memory grows with it, and rounding, so words, depend on it.
    block: Annotated[int, Field(ge=1)] = 256

    @field_validator("agent", "name")
    @classmethod
    def _check_printable(cls, value: str, field: ValidationInfo) -> str:
        """Names go into files and onto pages."""
        if not value.isprintable() or value != value.strip():
            raise ValueError(
                f"`{field.field_name}` must be printable, without blanks around it; got {value!r:.40}. Change it."
            )
        return value

    @property
    def policy(self) -> str:
        """What the agent is called in the dialogues."""
        return self.name or Path(self.agent).resolve().name + "-average" * (not self.personal)
