"""What simulated users are, and what speaks for them, as fields that `persona simulate` and `persona train` share."""

import re
from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainSerializer, ValidationError

from simulators.chat.endpoint_settings import EndpointSettings

UserKind: TypeAlias = Literal[
    "viewers",
    "learned",
    "ailo",
    "ailo-five-calls",
    "persona-prompt",
    "target-holding",
    "random",
    "over-agreeable",
]
"""Names of simulated users; `app.casting` says what each of them is."""

LOCAL = "local"
"""Name of the run's own base model as a chat model."""

_ENDPOINT = re.compile(r"(.+?)@(https?://.+)")


def split_endpoint(name: str) -> tuple[str, str] | None:
    """Model and base URL of a chat model's name of the form MODEL@URL; None for any other name.

    Example:
        >>> split_endpoint("Qwen/Qwen3-8B@http://127.0.0.1:8000/v1")
        ('Qwen/Qwen3-8B', 'http://127.0.0.1:8000/v1')
    """
    found = _ENDPOINT.fullmatch(name)
    return (found[1], found[2]) if found else None


def _check_name(name: str) -> str:
    parts = split_endpoint(name)
    if parts is None and "://" in name:
        raise ValueError("an endpoint is written MODEL@URL, such as my-model@http://127.0.0.1:8000/v1")
    if parts is not None:
        try:
            EndpointSettings(model=parts[0], base_url=parts[1])
        except ValidationError as err:
            raise ValueError(err.errors()[0]["msg"]) from err
    return name


def _without_url(name: str) -> str:
    parts = split_endpoint(name)
    return f"{parts[0]}@endpoint" if parts else name


ChatName = Annotated[
    str, Field(min_length=1, repr=False), AfterValidator(_check_name), PlainSerializer(_without_url)
]
"""The name of a chat model: "local", the folder or id of a Hugging Face causal language model, or MODEL@URL.

Work is not told apart by where an endpoint is, so the URL is left out of what is written down.
"""


class ChatFields(BaseModel):
    """Who speaks for simulated users. What changes no answer is left out when the fields are written down."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True)

    # Where personas come from: "observed" in the run's log and comparisons, or "true" in the film world alone.
    personas: Literal["observed", "true"] = "observed"
    # Speaks for the users: "local" (the run's base model), folder or id of a causal language model, or MODEL@URL.
    chat: ChatName = LOCAL

    # For endpoints: environment variable that holds the key, which every endpoint named here is sent; not given for
    # servers that ask for none.
    key_variable: Annotated[
        str | None, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}$", exclude=True, repr=False)
    ] = None
    # Requests under way at once, at least 1.
    concurrency: Annotated[int, Field(ge=1, exclude=True)] = 16
    # Longest wait for one response, in seconds, above 0.
    timeout_s: Annotated[float, Field(gt=0, exclude=True)] = 60.0
    # How often one question is tried, the first time included, at least 1.
    tries: Annotated[int, Field(ge=1, exclude=True)] = 6
    # Most requests, and most tokens read and written, of each endpoint in one go, 0 or more; none given, no limit.
    max_requests: Annotated[int | None, Field(ge=0, exclude=True)] = None
    max_tokens: Annotated[int | None, Field(ge=0, exclude=True)] = None
    # File that keeps the answers, so that none is paid for twice; `answers.sqlite` in --out if not given.
    answers: Annotated[str | None, Field(min_length=1, exclude=True)] = None
