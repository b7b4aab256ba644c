"""What one evaluation does, said once: the fields, their units and ranges, and how the command line sets them."""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from app.errors import ConfigError, option_error

SplitName = Literal["temporal", "per-user", "leave-last-out", "random", "users", "given"]


class EvaluationConfig(BaseModel):
    """Every choice of one evaluation; a folder of results belongs to exactly one of these."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    # Folder or file of the data set; of a given split, its train part.
    data: Annotated[str, Field(min_length=1)]
    # File of the test part, for a given split whose source keeps it apart.
    test: str | None = None
    # Tables of what is known of users and of items, for logs in one table.
    users: str | None = None
    items: str | None = None
    # The file's name of user_id, item_id, level, rating, event and timestamp, where it differs.
    columns: dict[str, str] | None = None
    # Steps of depth or cut-points of ratings, shallow to deep; None takes what the format says.
    levels: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    # Level from which an item counts as wanted, by name or number from 1; None is the second, or the only one.
    relevant: str | None = None
    # Least number of items of each user and of users of each item; 0 keeps everything.
    core: Annotated[int, Field(ge=0)] = 0
    # How the log is cut.
    split: SplitName = "temporal"
    # Share of the rows, or of the users where users are held out, that is the test; above 0, below 1.
    test_share: Annotated[float, Field(gt=0, lt=1)] = 0.1
    # The same of the validation.
    validation_share: Annotated[float, Field(gt=0, lt=1)] = 0.1
    # Draws the split where it is random.
    split_seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    # Names of the models in the order of the tables; None takes all that fit the log.
    models: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    # List lengths; models are compared at the first.
    k: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)] = (10, 20)
    # Settings that each model may try on the validation; 1 takes the defaults.
    tune: Annotated[int, Field(ge=1)] = 1
    # Of the trainings of models that draw; the first also draws trials and resamples.
    seeds: Annotated[tuple[Annotated[int, Field(ge=0, lt=2**32)], ...], Field(min_length=1)] = (0,)
    # Whether to go on where the leak detector refuses; the report is marked.
    allow_leaks: bool = False
    # Where tensors live: "auto" (CUDA where there is a GPU), "cpu", "cuda" or "cuda:1".
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:[0-9]+)?)$")] = "auto"

    @model_validator(mode="after")
    def _fits_together(self) -> "EvaluationConfig":
        for name in ("models", "k", "seeds"):
            values = getattr(self, name) or ()
            if len(set(values)) < len(values):
                raise ValueError(f"`{name}` must name each once; got {', '.join(map(str, values))}.")
        if self.test is not None and self.split != "given":
            raise ValueError(f"`test` goes with the split `given`; got {self.split}.")
        return self

    @property
    def seed(self) -> int:
        """The seed that a manifest shows."""
        return self.seeds[0]


def build_config(options: Mapping[str, Any]) -> EvaluationConfig:
    """A configuration from the options that were given.

    Args:
        options: By field; None stands for an option that was not given.

    Raises:
        ConfigError: A value does not fit its field, or two do not fit together.
    """
    given = {name: value for name, value in options.items() if value is not None}
    try:
        return EvaluationConfig(**given)
    except ValidationError as err:
        raise option_error(err, given, command="evaluate") from err


def split_list(text: str | None) -> tuple[str, ...] | None:
    """The parts of `a,b,c`, without blanks around them; None stays None."""
    return None if text is None else tuple(part.strip() for part in text.split(",") if part.strip())


def split_numbers(option: str, text: str) -> tuple[int, ...]:
    """The whole numbers of `1,2,3`.

    Raises:
        ConfigError: A part is no whole number, or there is none.
    """
    parts = split_list(text) or ()
    if not parts or not all(part.isdecimal() for part in parts):
        raise ConfigError(f"{option} must be whole numbers with commas between; got {text!r}. Write 10,20.")
    return tuple(map(int, parts))


def split_pairs(option: str, text: str | None) -> dict[str, str] | None:
    """The pairs of `a=b,c=d`; None stays None.

    Raises:
        ConfigError: A part is no pair.
    """
    if text is None:
        return None
    found = {}
    for part in split_list(text) or ():
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not (key and equals and value):
            raise ConfigError(f"{option} must read ours=theirs,...; got {part!r}. Write user_id=visitor.")
        found[key] = value
    return found


def find_level(names: tuple[str, ...], wanted: str | None) -> int:
    """The number of the level that is called so.

    Args:
        names: What level 0..C is called.
        wanted: Name, or number 1..C; None is the second level, or the only one.

    Raises:
        ConfigError: There is no such level.
    """
    if wanted is None:
        return min(2, len(names) - 1)
    if wanted in names[1:]:
        return names.index(wanted, 1)
    if wanted.isdecimal() and 1 <= int(wanted) < len(names):
        return int(wanted)
    near = get_close_matches(wanted, names[1:], n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    known = ", ".join(f"{place} ({name})" for place, name in enumerate(names) if place)
    raise ConfigError(
        f"--relevant and --level must be one of {known}; got {wanted!r}.{hint} Name one of them."
    )
