"""What can be told to a reader of preferences beyond the path; each layout uses what concerns it."""

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, Field

from persona.data.cleaning import MAX_TEXT


class ReadOptions(BaseModel):
    """Options of `read_preferences`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # For rows of pairs: the file's name of one of our columns, by ours, such as {"user_id": "annotator"}.
    columns: Mapping[str, str] = Field(default_factory=dict)
    # Name of the user where the file has none; without it, rows of pairs must have a column `user_id`.
    user: str | None = None
    # For folders with one file a split: which split to read.
    split: str = "train"
    # For ratings: two that differ by at most this are a tie, in the layout's own units.
    slack: float = Field(default=0.0, ge=0.0)
    # For UltraFeedback and HelpSteer: one user an aspect, or one user who goes by the mean of the aspects.
    by_aspect: bool = True
    # Most characters of a text; longer rows are left out and counted.
    max_text: int = Field(default=MAX_TEXT, ge=1)
    # Refuse a file with rows that would be left out.
    strict: bool = False
    # For PersonalLLM: draws the users and what they are asked.
    seed: int = 0
    # For PersonalLLM: number of simulated users.
    simulated_users: int = Field(default=200, ge=2)
    # For PersonalLLM: comparisons of each simulated user.
    simulated_comparisons: int = Field(default=50, ge=1)
    # For PersonalLLM: concentration of the users' weights; as published, which makes most users all but one-sided.
    concentration: float = Field(default=0.01, gt=0.0)
