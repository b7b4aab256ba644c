"""Where an endpoint is and how it may be asked."""

from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator

_OWN_FIELDS = frozenset(
    {"model", "messages", "seed", "temperature", "max_tokens", "response_format", "n", "stream"}
)


class EndpointSettings(BaseModel):
    """An OpenAI-compatible endpoint. The key itself is never among the settings: they name where it is."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    # Where `/chat/completions` is, such as http://127.0.0.1:8000/v1.
    base_url: str
    # Name of the model, as the server knows it.
    model: str = Field(min_length=1)
    # Environment variable that holds the key; None for a server that asks for none.
    api_key_variable: str | None = None
    # Requests under way at once in one call.
    concurrency: int = Field(default=16, ge=1)
    # Longest wait for one whole response, in seconds.
    timeout_s: float = Field(default=60.0, gt=0)
    # How often one row is tried, the first time included.
    attempts: int = Field(default=6, ge=1)
    # Wait before the second try, in seconds; doubled for each further one, less a random part of up to a half.
    first_wait_s: float = Field(default=0.5, ge=0)
    # Longest wait before a try, in seconds; a row whose server asks for more fails.
    longest_wait_s: float = Field(default=60.0, ge=0)
    # Rows of one call that may fail one after the other before the rest fails unasked.
    give_up_after: int = Field(default=50, ge=1)
    # Most requests in the life of this chat model, failed ones included; None for no limit.
    max_requests: int | None = Field(default=None, ge=0)
    # Most tokens read and written likewise; the requests under way may exceed it. None for no limit.
    max_tokens: int | None = Field(default=None, ge=0)
    # Further fields of each request, such as top_p or what a server's chat template takes.
    extra_body: dict[str, Any] = Field(default_factory=dict)

    @field_validator("base_url")
    @classmethod
    def _check_url(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.username or parts.password:
            raise ValueError("must hold no user and password; put a key into `api_key_variable`'s variable")
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError(f"must be an http or https URL such as http://127.0.0.1:8000/v1; got {url!r}")
        if parts.query or parts.fragment:
            raise ValueError(
                "must end with its path; a query or fragment cannot be asked, and may hold a key"
            )
        # Read from the text, as what cannot be a port may be a password.
        port = parts.netloc.rpartition("]")[2].partition(":")[2] or "80"
        if not (port.isascii() and port.isdigit() and 0 < int(port) < 1 << 16) or not url.isprintable():
            raise ValueError(
                "must be printable, with a port in 1..65535 if any, such as http://127.0.0.1:8000/v1"
            )
        return url

    @field_validator("extra_body")
    @classmethod
    def _check_extra(cls, extra: dict[str, Any]) -> dict[str, Any]:
        if taken := sorted(_OWN_FIELDS & set(extra)):
            raise ValueError(
                f"must not hold what has a setting or argument of its own; got {', '.join(taken)}"
            )
        return extra
