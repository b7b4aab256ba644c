"""A trained run without training: a scripted policy, a small catalogue, a pool whose latent is its attributes."""

from collections.abc import Collection, Sequence
from functools import cache
from pathlib import Path
from typing import cast

import numpy as np
import torch
from scipy.sparse import csr_array

from app.config import RunConfig
from app.files import write_json
from app.manifest import MANIFEST, build_manifest
from app.pipeline.context import RunContext
from app.pipeline.replies import ReplyPool, base_policy, load_replies, sample_replies
from app.pipeline.retrieval import train_retrieval
from app.store import RECORD
from app.trained import TrainedRun
from persona.policy.conditioned import ConditionedPolicy
from persona.profiles.latent import LatentProfile
from persona.rewards.attributes import ATTRIBUTES, AttributeScale
from persona.types import Condition
from recsys.models.gnolr import Gnolr
from recsys.models.popularity import Popularity
from simulators.agent import Recommender
from simulators.grounding import fill, reply_attributes, slot_values
from simulators.types import Utterance
from simulators.world.catalogue import Catalogue
from simulators.world.invention import invent_catalogue

FILMS, PROMPTS, PER_PROMPT = 60, 40, 6


class ScriptedPolicy:
    """Writes shorter replies the more brevity is asked for, by slider or by the first coordinate of the latent."""

    slots = frozenset({"<title>", "<year>"})

    def generate(
        self,
        conversations: Sequence[Sequence[dict[str, str]]],
        condition: Condition,
        *,
        seeds: Sequence[int],
        max_new_tokens: int,
        temperature: float,
        banned: Sequence[Collection[str]],
    ) -> list[str]:
        assert len(conversations) == len(condition) == len(seeds) == len(banned)
        wanted = (condition.direction[:, 0] + condition.latent[:, 0]).clamp(-1, 1)
        return ["Try <title>." + " It is a film." * round(3 - 3 * value) for value in wanted.tolist()]


class ScriptedRun(TrainedRun):
    """A `TrainedRun` over scripted parts; `films` is its catalogue, all under one title if one is given."""

    def __init__(self, title: str | None = None) -> None:
        self.films = invent_catalogue(FILMS, seed=0)
        if title is not None:
            self.films = Catalogue.of_films(self.films.films.assign(title=title), self.films.genres)
        run = RunContext(RunConfig(), Path("nowhere"))
        vars(run)["world"] = _World(self.films)
        policy = cast(ConditionedPolicy, ScriptedPolicy())
        levels = np.arange(FILMS, 0, -1, dtype=np.float32)
        shown = csr_array(np.minimum(levels, 5)[None])
        agent = Recommender(self.films, Popularity.fit(shown), policy)
        super().__init__(run, agent, scripted_pool(self.films), attribute_profile())


class _World:
    def __init__(self, catalogue: Catalogue) -> None:
        self.catalogue = catalogue


def attribute_profile() -> LatentProfile:
    """A latent whose coordinates are the tastes for the named attributes themselves."""
    profile = LatentProfile(len(ATTRIBUTES), len(ATTRIBUTES))
    with torch.no_grad():
        profile.head.copy_(torch.eye(len(ATTRIBUTES)))
    return profile


def scripted_pool(catalogue: Catalogue) -> ReplyPool:
    """Replies of every style to a few questions; their features are their attributes."""
    rng = np.random.default_rng(0)
    cards = [catalogue.card(item % len(catalogue)) for item in range(PROMPTS)]
    replies = [fill(_reply(rng), slot_values(card)) for card in cards for _ in range(PER_PROMPT)]
    measured = reply_attributes(replies, [card for card in cards for _ in range(PER_PROMPT)])
    scale = AttributeScale.fit(measured)
    said = Utterance("A <genre> film, please.", "A quiet film, please.")
    return ReplyPool(
        prompts=[[{"role": "user", "content": said.raw}]] * PROMPTS,
        cards=[card.item for card in cards],
        openings=[said] * PROMPTS,
        replies=replies,
        prompt_of=np.repeat(np.arange(PROMPTS), PER_PROMPT),
        attributes=scale(measured),
        features=torch.from_numpy(scale(measured)).float(),
        is_train=np.ones(PROMPTS, dtype=bool),
        scale=scale,
    )


def _reply(rng: np.random.Generator) -> str:
    parts = ["Try <title>.", "It is a fine old film. " * int(rng.integers(6))]
    extras = ("A friend.", "Because it fits.", "Does it fit?", "Wow!", "Considerable sophistication.")
    parts += [extra for extra in extras for _ in range(int(rng.integers(3)))]
    return " ".join(part.strip() for part in parts if part)


@cache
def tiny_run(base: Path) -> Path:
    """The folder of `train_tiny_run` under a test session's own folder, made once for all tests; not to be changed."""
    return train_tiny_run(base / "tiny-run")


def train_tiny_run(folder: Path) -> Path:
    """A run of the embedded model on a tiny world, whose last policy is drawn instead of trained.

    LoRA and latent profile are drawn at random, so that conditions change what is said; the stages of retrieval and
    replies are the real ones.
    """
    config = RunConfig(
        users=40, films=60, impressions=15, learners=20, unseen_users=10, prompts=16,
        replies_per_prompt=4, latent_dim=3, rank=2, rounds=1, device="cpu", reply_tokens=48,
    )  # fmt: skip
    folder.mkdir(parents=True)
    run = RunContext(config, folder)
    write_json(folder / MANIFEST, build_manifest(config, run.data_hashes(), "cpu"))
    for name, work in (("retrieval", train_retrieval), ("replies", sample_replies)):
        run.stage(name).mkdir(parents=True)
        work(run, run.stage(name))
        write_json(run.stage(name) / RECORD, {})
    profile = LatentProfile(load_replies(run).features.shape[1], config.latent_dim, seed=0)
    profile.head.data.mul_(20.0)  # so that a single choice moves the latent far
    profile.save(run.stage("preferences"))
    write_json(run.stage("preferences") / RECORD, {})
    policy = base_policy(run)
    generator = torch.Generator().manual_seed(0)
    for parameter in policy.adapter_parameters():
        parameter.data.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    policy.gate.fit_scale(torch.eye(config.latent_dim), torch.eye(len(ATTRIBUTES)))
    policy.save(run.stage("learn-1") / "policy")
    Gnolr.load(run.stage("retrieval") / "gnolr").save(run.stage("learn-1") / "gnolr")
    write_json(run.stage("learn-1") / RECORD, {})
    return folder
