"""A finished run, small enough for tests, that rehearsals start from; and a server that acts its users by rule."""

import json
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

from app.config import load_config
from app.files import write_json
from app.manifest import MANIFEST, build_manifest
from app.pipeline.context import RunContext
from app.pipeline.policy import train_first_policy
from app.pipeline.preferences import ask_users, learn_preferences
from app.pipeline.replies import sample_replies
from app.pipeline.retrieval import train_retrieval
from app.pipeline.rounds import learn, talk
from simulators.chat.model import Completion, Message
from tests.helpers.actor import Actor
from tests.helpers.faulty_server import Request

SMALL = (
    "users=60 films=120 learners=30 unseen_users=12 impressions=40 prompts=16 replies_per_prompt=4 comparisons=12 "
    "dialogues=8 turns=2 rounds=1 policy_steps=2 pairs_per_step=4 reply_tokens=24 latent_dim=3 device=cpu"
).split()
_SURE = Actor(noise=0.0)


@cache
def rehearsed_run(base: Path) -> Path:
    """The run's folder under a test session's own folder, made once for all tests; not to be changed."""
    folder = base / "rehearsed-run"
    folder.mkdir()
    run = RunContext(load_config(None, SMALL), folder)
    write_json(folder / MANIFEST, build_manifest(run.config, run.data_hashes(), run.device))
    stages: dict[str, Callable[[RunContext, Path], None]] = {
        "retrieval": train_retrieval,
        "replies": sample_replies,
        "choices": ask_users,
        "preferences": learn_preferences,
        "policy": train_first_policy,
        "talk-1": partial(talk, number=1),
        "learn-1": partial(learn, number=1),
    }
    for name, work in stages.items():
        run.stage(name).mkdir(parents=True)
        work(run, run.stage(name))
    return folder


def acted(request: Request) -> str:
    """What a rule says to a request: as the persona in the prompt, a judge who likes length, or a rewriter."""
    schema = request.get("response_format", {}).get("json_schema", {}).get("schema")
    said: str = request["messages"][-1]["content"]
    if schema and "better" in schema["properties"]:
        first, second = (
            said.split(f"[{name}]\n")[1].split("\n[end", maxsplit=1)[0] for name in ("first", "second")
        )
        better = "tie" if len(first) == len(second) else "first" if len(first) > len(second) else "second"
        return json.dumps({"reason": "It says more.", "better": better})
    if "Reply: " in said:
        return said.rpartition("Reply: ")[2].partition("\n")[0] + " Because it fits what you asked for."
    messages: list[Message] = request["messages"]
    answers: list[Completion] = _SURE.complete([messages], seeds=[request["seed"]], schema=schema)
    return answers[0].text
