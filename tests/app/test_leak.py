"""Nothing that learns reads the hidden truth, nor anything that is kept for measuring."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from app.config import load_config
from app.pipeline.context import RunContext
from app.pipeline.policy import train_first_policy
from app.pipeline.preferences import ask_users, learn_preferences, load_comparisons
from app.pipeline.replies import load_replies, sample_replies
from app.pipeline.retrieval import train_retrieval
from app.pipeline.rounds import learn, talk

pytestmark = pytest.mark.integration

SMALL = (
    "users=60 films=120 learners=30 unseen_users=12 impressions=40 prompts=16 replies_per_prompt=4 comparisons=12 "
    "dialogues=8 turns=2 policy_steps=2 pairs_per_step=4 reply_tokens=24 latent_dim=3"
).split()
STAGES: dict[str, Callable[[RunContext, Path], None]] = {
    "retrieval": train_retrieval,
    "replies": sample_replies,
    "choices": ask_users,
    "preferences": learn_preferences,
    "policy": train_first_policy,
    "talk-1": partial(talk, number=1),
    "learn-1": partial(learn, number=1),
}
LEARNERS = ("retrieval", "preferences", "policy", "learn-1")


class Forbidden:
    """Stands where the oracle was: any look at it fails."""

    def __getattribute__(self, name: str) -> object:
        raise AssertionError(f"a learner asked the oracle for {name}")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunContext:
    context = RunContext(load_config(None, SMALL), tmp_path_factory.mktemp("run"))
    for name, work in STAGES.items():
        context.stage(name).mkdir(parents=True)
        work(context, context.stage(name))
    return context


def files(folder: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield path.relative_to(folder).as_posix(), path.read_bytes()


@pytest.mark.parametrize("name", LEARNERS)
def test_a_learner_ends_the_same_without_an_oracle(run: RunContext, tmp_path: Path, name: str) -> None:
    blind = RunContext(run.config, run.folder)
    blind.world = replace(run.world, oracle=Forbidden())  # type: ignore[arg-type]
    STAGES[name](blind, tmp_path)
    assert dict(files(tmp_path)) == dict(files(run.stage(name)))


def test_learners_and_unseen_users_are_different_people(run: RunContext) -> None:
    learners, unseen = run.groups
    assert not set(learners) & set(unseen)
    split = load_comparisons(run)
    assert set(split.train.users) <= set(learners)
    assert set(split.target.users) | set(split.context.users) <= set(unseen)


def test_prompts_for_measuring_are_never_trained_on(run: RunContext) -> None:
    split, pool = load_comparisons(run), load_replies(run)
    held_out = set(np.flatnonzero(~pool.is_train))
    assert set(split.target.prompts) <= held_out
    assert not held_out & (set(split.train.prompts) | set(split.context.prompts))
    texts = [str(prompt) for prompt in pool.prompts]
    assert not {texts[i] for i in held_out} & {texts[i] for i in np.flatnonzero(pool.is_train)}


def test_later_interactions_of_unseen_users_are_apart_from_their_histories(run: RunContext) -> None:
    known, later = run.unseen_histories
    assert later.nnz and (known * later).nnz == 0
