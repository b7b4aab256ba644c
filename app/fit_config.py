"""What one comparison of profiles does, said once: the fields, their units and ranges."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from app.errors import option_error

STEPS = 150
"""Optimiser steps where nobody says how many: minutes on the embedded model."""
Share = Annotated[float, Field(gt=0, lt=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]


class FitConfig(BaseModel):
    """Every choice of one `persona fit`; a folder of results belongs to exactly one of these."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    # File of comparisons: who chose which reply over which.
    data: Annotated[str, Field(min_length=1)]
    # The file's name of user_id, prompt, chosen and rejected, where it differs.
    columns: dict[str, str] | None = None
    # Names of the methods in the order of the tables; the average user's model always stands beside them.
    methods: Annotated[tuple[str, ...], Field(min_length=1)] = (
        "pooled",
        "length",
        "logistic",
        "hierarchical",
        "vpl",
    )
    # Kinds of features of a reply, side by side.
    features: Annotated[tuple[str, ...], Field(min_length=1)] = ("surface",)
    # Each draws a split of its own, the training and the contexts.
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)] = (0, 1, 2)
    # Comparisons known of an unseen user, ascending; methods are compared at the last.
    context: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)] = (0, 1, 2, 4, 8, 16)
    # Share of users that are never trained on.
    test_users: Share = 0.25
    # Share of prompts kept for what is to be foretold.
    target_prompts: Share = 0.25
    # Share of prompts kept for what unseen users show; 0 lets them show answers to prompts of training.
    context_prompts: Annotated[float, Field(ge=0, lt=1)] = 0.25
    # Whether prompts that nearly repeat one another come into one part of a split.
    group_near_duplicates: bool = False
    # Optimiser steps of methods that train a language model.
    steps: Annotated[int, Field(ge=1)] = STEPS
    # Language model that methods over texts read with: "nano", an id or a folder.
    model: Annotated[str, Field(min_length=1)] = "nano"
    # Where tensors live: "auto" (CUDA where there is a GPU), "cpu", "cuda" or "cuda:1".
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:[0-9]+)?)$")] = "auto"

    @model_validator(mode="after")
    def _fits_together(self) -> "FitConfig":
        for name in ("methods", "features", "seeds", "context"):
            values = getattr(self, name)
            if len(set(values)) < len(values):
                raise ValueError(f"`{name}` must name each once; got {', '.join(map(str, values))}.")
        if list(self.context) != sorted(self.context):
            raise ValueError(f"`context` must ascend; got {', '.join(map(str, self.context))}.")
        if self.target_prompts + self.context_prompts >= 1:
            raise ValueError(
                "`target_prompts` and `context_prompts` must leave prompts to train on; got "
                f"{self.target_prompts} and {self.context_prompts}."
            )
        return self

    @property
    def seed(self) -> int:
        """The seed that a manifest shows."""
        return self.seeds[0]


def build_fit_config(options: Mapping[str, Any]) -> FitConfig:
    """A configuration from the options that were given.

    Args:
        options: By field; None stands for an option that was not given.

    Raises:
        ConfigError: A value does not fit its field, or two do not fit together.
    """
    given = {name: value for name, value in options.items() if value is not None}
    try:
        return FitConfig(**given)
    except ValidationError as err:
        raise option_error(err, given, command="fit") from err
