"""What simulated users are, and what speaks for them, as fields that `persona simulate` and `persona train` share."""

import re
from typing import Annotated, Literal, Self, TypeAlias
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    model_validator,
)

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
_VARIABLE = "[A-Za-z_][A-Za-z0-9_]{0,63}"
_KEYED = rf"[A-Za-z0-9.:\[\]-]+={_VARIABLE}"


def split_endpoint(name: str) -> tuple[str, str] | None:
    """Model and base URL of a chat model's name of the form MODEL@URL; None for any other name.

    Example:
        >>> split_endpoint("Qwen/Qwen3-8B@http://127.0.0.1:8000/v1")
        ('Qwen/Qwen3-8B', 'http://127.0.0.1:8000/v1')
    """
    found = _ENDPOINT.fullmatch(name)
    return (found[1], found[2]) if found else None


def _host(url: str) -> str:
    return (urlsplit(url).hostname or "").lower()


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
    # For AILO users, what a turn's satisfaction is: the "mean" of their scores of item, move and expression, or
    # "expression" alone, which the published ECPO trains on.
    ailo_satisfaction: Literal["mean", "expression"] = "mean"
    # Speaks for the users: "local" (the run's base model), folder or id of a causal language model, or MODEL@URL.
    chat: ChatName = LOCAL

    # For endpoints: environment variable that holds the key. Where several hosts are named, HOST=NAME for each that
    # asks for one, with commas between, so that no host is sent the key of another. Not given for servers without keys.
    key_variable: Annotated[
        str | None, Field(pattern=rf"^({_VARIABLE}|{_KEYED}(,{_KEYED})*)$", exclude=True, repr=False)
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

    def key_variable_of(self, url: str) -> str | None:
        """The environment variable that holds the key of the endpoint at `url`; None where it asks for none."""
        given = self.key_variable
        if given is None or "=" not in given:
            return given
        keys = {host.lower(): name for host, name in (part.split("=") for part in given.split(","))}
        return keys.get(_host(url))

    @model_validator(mode="after")
    def _check_hosts(self) -> Self:
        named = [split_endpoint(value) for value in self.__dict__.values() if isinstance(value, str)]
        hosts = sorted({_host(parts[1]) for parts in named if parts})
        if self.key_variable is not None and "=" not in self.key_variable and len(hosts) > 1:
            raise ValueError(
                f"`key_variable` must say whose key it is where several hosts are named; got one for "
                f"{', '.join(hosts)}. Write key_variable={hosts[0]}=NAME, with commas between those of several hosts."
            )
        return self
