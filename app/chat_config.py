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
_KEYED = rf"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+)(:[0-9]{{1,5}})?={_VARIABLE}"


def split_endpoint(name: str) -> tuple[str, str] | None:
    """Model and base URL of a chat model's name of the form MODEL@URL; None for any other name.

    Example:
        >>> split_endpoint("Qwen/Qwen3-8B@http://127.0.0.1:8000/v1")
        ('Qwen/Qwen3-8B', 'http://127.0.0.1:8000/v1')
    """
    found = _ENDPOINT.fullmatch(name)
    return (found[1], found[2]) if found else None


def model_of(name: str) -> str:
    """The model that a name means, wherever it is served."""
    parts = split_endpoint(name)
    return parts[0] if parts else name


def _server(url: str) -> tuple[str, int]:
    """Host and port of an endpoint."""
    parts = urlsplit(url)
    return (parts.hostname or "").rstrip("."), parts.port or (443 if parts.scheme == "https" else 80)


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

    # For endpoints: environment variable that holds the key. Where several servers are named, HOST=NAME or
    # HOST:PORT=NAME for each that asks for one, with commas between, so that none is sent the key of another.
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
        host, port = _server(url)
        keys = self._keys()
        return keys.get((host, port)) or keys.get((host, None))

    def _keys(self) -> dict[tuple[str, int | None], str]:
        """Variables by host and port, the port None where all of the host's are meant.

        Raises:
            ValueError: One server is named twice.
        """
        found: dict[tuple[str, int | None], str] = {}
        for part in (self.key_variable or "").split(","):
            place, _, name = part.partition("=")
            parts = urlsplit(f"//{place}")
            key = ((parts.hostname or "").rstrip("."), parts.port)
            if key in found:
                raise ValueError(f"`key_variable` must name each server once; got {place} twice.")
            found[key] = name
        return found

    @model_validator(mode="after")
    def _check_servers(self) -> Self:
        named = [split_endpoint(value) for value in self.__dict__.values() if isinstance(value, str)]
        servers = sorted({_server(parts[1]) for parts in named if parts})
        told = ", ".join(f"{host}:{port}" for host, port in servers)
        if self.key_variable is None:
            return self
        if "=" not in self.key_variable:
            if len(servers) > 1:
                raise ValueError(
                    f"`key_variable` must say whose key it is where several servers are named; got one for {told}. "
                    f"Write key_variable={servers[0][0]}:{servers[0][1]}=NAME, with commas between those of several."
                )
            return self
        for host, port in self._keys():
            if not any(host == known and port in {None, its} for known, its in servers):
                raise ValueError(
                    f"`key_variable` must name servers that are asked; got {host}, and {told or 'none'} are asked. "
                    "Correct the host, or the port."
                )
        return self
