"""One call of an endpoint: each row is tried until it is answered or given up, many at once."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from simulators.chat.budget import Budget
from simulators.chat.endpoint_settings import EndpointSettings
from simulators.chat.model import Completion, Message, Schema
from simulators.chat.outcomes import Kind, Outcome, read_answer, read_refusal
from simulators.errors import EndpointError
from simulators.randomness import keyed_uniforms

# Servers written in other languages keep a seed in 32 bits or in a float.
_SEED_BITS = 31


@dataclass(frozen=True, kw_only=True)
class EndpointCall:
    """What all rows of one call share.

    Attributes:
        settings: Where and how to ask.
        sdk: The `openai` module.
        client: Its asynchronous client, for this call alone.
        max_new_tokens: Longest answer, in tokens.
        temperature: Of the sampling.
        schema: What answers are held to where the server can, or None.
        schemas: Whether the server took a schema, by its JSON, as far as known; brought up to date here.
        budget: What may be used.
        sleep: Waits for so many seconds.
        hide: Takes secrets out of a text.
    """

    settings: EndpointSettings
    sdk: ModuleType
    client: Any
    max_new_tokens: int
    temperature: float
    schema: Schema | None
    schemas: dict[str, bool]
    budget: Budget
    sleep: Callable[[float], Awaitable[None]]
    hide: Callable[[str], str]

    async def answer_all(
        self,
        conversations: Sequence[Sequence[Message]],
        seeds: Sequence[int],
        arrived: Callable[[int, Completion], None],
    ) -> None:
        """Answer every row, `concurrency` at once, and tell each as it is done.

        Raises:
            EndpointError: The server refuses everything.
        """
        rows = iter(range(len(conversations)))
        failures: list[str] = []

        async def work() -> None:
            for row in rows:
                if len(failures) >= self.settings.give_up_after:
                    told = f"not asked: {len(failures)} rows failed one after the other, one because {failures[-1]}"
                    arrived(row, Completion("", told))
                    continue
                completion = await self._answer(conversations[row], int(seeds[row]))
                if completion.failure is None:
                    failures.clear()
                else:
                    failures.append(completion.failure)
                arrived(row, completion)

        workers = [
            asyncio.ensure_future(work()) for _ in range(min(self.settings.concurrency, len(conversations)))
        ]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)

    async def _answer(self, messages: Sequence[Message], seed: int) -> Completion:
        """One row, tried until something final comes."""
        held = self.schema is not None and self._schema_taken() is not False
        reason = ""
        for attempt in range(self.settings.attempts):
            outcome = await self._ask(messages, seed, held)
            if outcome.kind is Kind.REQUEST_REFUSED and held and not self._schema_taken():
                # Whether it was the schema that was refused shows when the same request is sent without one.
                held = False
                outcome = await self._ask(messages, seed, held)
            if outcome.kind is Kind.ANSWER:
                self._remember(held)
                return Completion(outcome.text, None, outcome.prompt_tokens, outcome.completion_tokens)
            if outcome.kind is Kind.END_OF_CALL:
                raise EndpointError(f"the endpoint {self.settings.base_url} must answer; {outcome.text}.")
            if outcome.kind is not Kind.TRY_AGAIN:
                return Completion("", outcome.text, outcome.prompt_tokens, outcome.completion_tokens)
            reason = outcome.text
            if attempt + 1 < self.settings.attempts:
                wait = self._wait_s(outcome.wait_s, seed, attempt)
                if wait is None:
                    return Completion("", f"{reason}, and asks to wait longer than `longest_wait_s`")
                await self.sleep(wait)
        tries = self.settings.attempts
        many = f"{tries} attempts failed, the last" if tries > 1 else "the one attempt failed"
        return Completion("", f"{many} because {reason}")

    async def _ask(self, messages: Sequence[Message], seed: int, held: bool) -> Outcome:
        """One request, if the budget allows it."""
        if refusal := self.budget.take_request():
            return Outcome(Kind.END_OF_ROW, refusal)
        outcome = await self._send(self._body(messages, seed, held))
        self.budget.count_tokens(outcome.prompt_tokens, outcome.completion_tokens)
        return outcome if outcome.kind is Kind.ANSWER else outcome._replace(text=self.hide(outcome.text))

    async def _send(self, body: dict[str, Any]) -> Outcome:
        openai = self.sdk
        try:
            # The client's own timeout starts anew with every byte.
            async with asyncio.timeout(self.settings.timeout_s):
                response = await self.client.chat.completions.with_raw_response.create(**body)
        except openai.APIStatusError as error:
            # A key is hidden before the text is cut, which might leave half of it.
            return read_refusal(error.status_code, error.response.headers, self.hide(error.response.text))
        except (TimeoutError, openai.APITimeoutError):
            return Outcome(Kind.TRY_AGAIN, f"it did not answer within {self.settings.timeout_s:g} s")
        except openai.APIConnectionError as error:
            cause = error.__cause__
            return Outcome(Kind.TRY_AGAIN, f"the connection failed ({type(cause).__name__}: {cause})")
        outcome = read_answer(response.http_response.content)
        if outcome.kind is Kind.ANSWER:
            return outcome
        hidden = self.hide(response.http_response.content.decode("latin-1")).encode("latin-1")
        return outcome._replace(text=read_answer(hidden).text)

    def _body(self, messages: Sequence[Message], seed: int, held: bool) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self.settings.model,
            "messages": [dict(message) for message in messages],
            "max_tokens": self.max_new_tokens,
            "temperature": self.temperature,
            "seed": seed % (1 << _SEED_BITS),
            "extra_body": self.settings.extra_body,
        }
        if held:
            form = {"name": "answer", "schema": self.schema, "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": form}
        return body

    def _wait_s(self, told: float | None, seed: int, attempt: int) -> float | None:
        """Seconds until the next try; None if the server asks for more than is allowed."""
        settings = self.settings
        longest = min(settings.first_wait_s * 2.0**attempt, settings.longest_wait_s)
        # Rows that failed together come back apart.
        wait = longest * (1 - float(keyed_uniforms(seed, attempt)) / 2)
        if told is None:
            return wait
        return None if told > settings.longest_wait_s else max(told, wait)

    def _schema_taken(self) -> bool | None:
        return self.schemas.get(json.dumps(self.schema))

    def _remember(self, held: bool) -> None:
        if self.schema is not None:
            self.schemas.setdefault(json.dumps(self.schema), held)
