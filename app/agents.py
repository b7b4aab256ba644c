"""Who recommends: the policy and the retriever that a finished run left, or that a training on top of it did.

An agent is named by a word, "base" (the untrained model), "policy" (the run's first one) or "last" (after all rounds of
talking), or by the folder of a finished `persona train`.
"""

import os
from pathlib import Path
from typing import NamedTuple

from app.errors import ConfigError, StoreError
from app.files import read_json, write_json
from app.manifest import MANIFEST, hash_files, read_manifest
from app.pipeline.context import RunContext
from app.pipeline.profiles import latent_size
from app.pipeline.replies import base_policy
from app.pipeline.rounds import agent_of, load_retriever, needed_stages, stage_before
from app.store import RECORD
from persona.policy.conditioned import ConditionedPolicy
from simulators.agent import Recommender

TRAINING = "train"
"""The stage of a training that holds its agent."""
_OWN = ("base", "policy", "last")
_POLICY, _RETRIEVER = "policy", "retriever.json"


class _Parts(NamedTuple):
    """What an agent is made of.

    policy: Folder of its weights; None stands for the base model.
    retriever: The run's stage that left its retriever.
    """

    policy: Path | None
    retriever: str


def agent_from(run: RunContext, name: str, *, keep_tokens: bool = False) -> Recommender:
    """The agent of this name.

    Args:
        run: A finished run.
        name: See above.
        keep_tokens: Whether dialogues keep the tokens of the moment, from which whole ones are learned.

    Raises:
        ConfigError: It is neither a word that is known nor the folder of a training.
        StoreError: The training is not finished, or began from another run.
        ModelError: The policy's files were changed.
    """
    parts = _find(run, name)
    policy = (
        base_policy(run, latent_size(run))
        if parts.policy is None
        else ConditionedPolicy.load(parts.policy, run.language_model)
    )
    return agent_of(run, policy, load_retriever(run, parts.retriever), keep_tokens=keep_tokens)


def retriever_of(run: RunContext, name: str) -> str:
    """The run's stage that left an agent's retriever.

    Raises:
        ConfigError, StoreError: As `agent_from` says.
    """
    return _find(run, name).retriever


def save_agent(agent: Recommender, retriever: str, out: Path) -> None:
    """Leave an agent that was trained, so that the training's folder names it.

    Args:
        agent: The agent after training.
        retriever: The run's stage that left its retriever, which the training kept as it was.
        out: Folder of the stage `TRAINING`.
    """
    agent.policy.save(out / _POLICY)
    write_json(out / _RETRIEVER, {"stage": retriever})


def hash_run(run: RunContext) -> dict[str, str]:
    """SHA-256 of what a rehearsal takes from the run: its users, policies and retrievers, by file."""
    talks = ("talk-1",) if run.config.rounds else ()
    return _hash_stages(run, (*needed_stages(run.config), "choices", "policy", *talks))


def hash_agent(run: RunContext, name: str) -> dict[str, str]:
    """SHA-256 of what an agent adds to the run, by file; none for the run's own.

    Raises:
        ConfigError, StoreError: As `agent_from` says.
    """
    _find(run, name)
    if name in _OWN:
        return {}
    stage = Path(name) / "stages" / TRAINING
    return {**hash_files(stage / _POLICY), **hash_files(stage / _RETRIEVER)}


def _find(run: RunContext, name: str) -> _Parts:
    if name in _OWN:
        policy, retriever = stage_before(run.config.rounds + 1 if name == "last" else 1)
        return _Parts(None if name == "base" else run.stage(policy) / _POLICY, retriever)
    folder = Path(name)
    # Any text may be asked for: `os.path` says no where `Path` would fail, as of a name that is too long.
    if not name or not os.path.isfile(folder / MANIFEST):
        raise ConfigError(
            f"An agent must be {', '.join(_OWN)} or the folder of a `persona train`; got {name}, which is none. "
            "Correct the name."
        )
    stage = folder / "stages" / TRAINING
    if not (stage / _RETRIEVER).is_file():
        raise StoreError(
            f"An agent must be a finished training; got {name} without its stage `{TRAINING}`. If `persona train` made "
            "it, go on there with --resume."
        )
    # What both are sure to know of the run; a training may have started from more.
    theirs, ours = read_manifest(folder)["data_hashes"], _hash_stages(run, needed_stages(run.config))
    if not isinstance(theirs, dict) or any(theirs.get(file) != h for file, h in ours.items()):
        raise StoreError(
            f"An agent must be trained from the run that it is used with; got {name}, trained from another than "
            f"{run.folder}. Name its own run."
        )
    return _Parts(stage / _POLICY, _read_retriever(run, stage / _RETRIEVER))


def _read_retriever(run: RunContext, path: Path) -> str:
    """The run's stage that a training took its retriever from."""
    saved = read_json(path)
    stage = saved.get("stage") if isinstance(saved, dict) else None
    known = [stage_before(number)[1] for number in range(1, run.config.rounds + 2)]
    if stage not in known:
        raise StoreError(
            f"{path} must name the stage of a retriever, one of {', '.join(known)}; got {stage!r}. Restore it, or "
            "train again."
        )
    return str(stage)


def _hash_stages(run: RunContext, stages: tuple[str, ...]) -> dict[str, str]:
    return {
        f"{stage}/{file}": h
        for stage in dict.fromkeys(stages)
        for file, h in hash_files(run.stage(stage)).items()
        if file != RECORD  # the time that it took makes no other run of it
    }
