"""AILO through a real endpoint that fails now and then: the same dialogues as without it, none lost."""

from collections.abc import Sequence

import pytest

from simulators.chat.endpoint import EndpointChat
from simulators.chat.endpoint_settings import EndpointSettings
from simulators.chat.model import Completion, Message
from simulators.types import Dialogue
from simulators.users.ailo import AiloUsers
from simulators.users.ailo_types import AiloConfig, Form
from tests.helpers.actor import Actor
from tests.helpers.faulty_server import Fault, FaultyServer, Request
from tests.helpers.persona_users import persona_world, talk

WORLD, AGENT, PERSONAS = persona_world()
USERS = list(range(20))
SURE = Actor(noise=0.0)


def acted(request: Request) -> str:
    """What the actor says to a request, from its messages, its seed and the schema it is held to."""
    form = request.get("response_format", {}).get("json_schema", {}).get("schema")
    messages: Sequence[Message] = request["messages"]
    found: list[Completion] = SURE.complete([messages], seeds=[request["seed"]], schema=form)
    return found[0].text


@pytest.mark.integration
@pytest.mark.parametrize("form", list(Form))
def test_dialogues_are_the_same_over_a_server_that_fails_now_and_then(form: Form) -> None:
    config = AiloConfig(form=form)
    expected: list[Dialogue] = talk(WORLD, AGENT, AiloUsers(PERSONAS, SURE, config), USERS)
    chances = {fault: 0.04 for fault in (Fault.DROP, Fault.RATE_LIMIT, Fault.ERROR, Fault.BROKEN_JSON)}
    with FaultyServer(acted, seed=1, chances=chances) as server:
        settings = EndpointSettings(base_url=server.url, model="actor", first_wait_s=0.0)
        found = talk(WORLD, AGENT, AiloUsers(PERSONAS, EndpointChat(settings), config), USERS)
        assert server.counts()["faults"]
    assert found == expected
