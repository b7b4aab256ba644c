"""A finished run, opened for people: the trained agent, the pool of replies, and what was learned about users."""

from collections.abc import Mapping
from pathlib import Path
from threading import Lock

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array
from torch import Tensor

from app.agents import agent_from
from app.errors import StoreError, TalkError
from app.manifest import MANIFEST, read_config, read_manifest
from app.pipeline.context import RunContext
from app.pipeline.profiles import load_profile, pool_features
from app.pipeline.replies import ReplyPool, load_replies
from app.pipeline.rounds import needed_stages
from app.quiet import quiet_libraries
from app.store import RECORD
from persona.profiles import Profile
from persona.profiles.direction import direction_from_sliders
from persona.types import Condition
from simulators.agent import Recommender
from simulators.grounding import reply_attributes
from simulators.types import Dialogue, ItemCard, Utterance

RUNS = Path("runs")
"""Where `persona run` puts its folders unless told otherwise."""

_SMALL_MODEL = 50_000_000  # weights


class TrainedRun:
    """What a finished run offers to people; every method may be called from several threads.

    Args:
        run: The run's configuration and world.
        agent: Finds a film and words it.
        pool: Replies of the base model that people may compare.
        profile: What comparisons tell about a user.
        features: What the profile reads of the pool's replies; None takes the pool's own features. Shape (N, D).
    """

    def __init__(
        self,
        run: RunContext,
        agent: Recommender,
        pool: ReplyPool,
        profile: Profile,
        features: Tensor | None = None,
    ) -> None:
        """See the arguments; use `TrainedRun.open`."""
        self.features = pool.features if features is None else features
        self.run = run
        self.pool = pool
        self.profile = profile
        self._agent = agent
        # The gate of the policy is set for one batch at a time, so two people must not generate at once.
        self._turn = Lock()

    @classmethod
    def open(cls, folder: Path, agent: str = "last") -> "TrainedRun":
        """Load an agent, the latent profile and the catalogue of a run.

        Args:
            folder: A folder that `persona run` made.
            agent: Who answers; see `app.agents`.

        Raises:
            ConfigError: There is no such agent.
            StoreError: There is no run in the folder, its training is not finished, its configuration is not
                one of this version, or its data have changed since.
        """
        quiet_libraries()
        run = open_run(folder)
        if sum(weight.numel() for weight in run.language_model.model.parameters()) < _SMALL_MODEL:
            # Two rows of a small model gain nothing from more threads, and wait long for them on a busy machine.
            torch.set_num_threads(1)
        pool = load_replies(run)
        return cls(run, agent_from(run, agent), pool, load_profile(run), pool_features(run, pool))

    def condition(self, sliders: Mapping[str, float], latent: Tensor | None = None) -> Condition:
        """What the policy is told about one person.

        Args:
            sliders: Wanted amount by attribute, -1 to 1; those not named are 0.
            latent: Mean of what was learned from the person's choices. Shape (Z,); None for nothing.

        Returns:
            One row; all zeros is the average user.

        Raises:
            DataError: An unknown attribute, or a value outside -1..1.
        """
        direction = direction_from_sliders(sliders, unit=False)
        known = torch.zeros(self.profile.latent_dim) if latent is None else latent
        return Condition(known[None], direction[None], (None,))

    def recommend(self, dialogue: Dialogue, said: Utterance, met: Mapping[int, int]) -> ItemCard:
        """The best film that the person has not met, of the genre named last, if any was named.

        Args:
            dialogue: The conversation so far; its films are not brought again.
            said: What the person said last.
            met: Level of interest, 0..4, by the row of the film; these are not brought again either.

        Raises:
            TalkError: Every film was met.
        """
        size = len(self.run.world.catalogue)
        if len({*met, *(turn.card.item for turn in dialogue.turns)}) >= size:
            raise TalkError(f"There must be a film that was not met yet; got all {size} met. Start again.")
        items = np.asarray(sorted(met), dtype=np.int64)
        values = np.asarray([met[item] + 1 for item in items.tolist()], dtype=np.float32)
        history = csr_array((values, items, [0, len(items)]), shape=(1, size))
        return self._agent.choose([dialogue], [said], history)[0]

    def reply(
        self, dialogue: Dialogue, said: Utterance, card: ItemCard, condition: Condition, *, seed: int
    ) -> tuple[Utterance, Utterance]:
        """The reply under the person's own condition and the average user's, under the same luck.

        Args:
            dialogue: The conversation so far.
            said: What the person said last.
            card: The film to recommend.
            condition: One row.
            seed: Equal seeds differ by their condition alone.

        Raises:
            ModelError: What was said does not fit the model's window.
        """
        prompt = self._agent.prompt(dialogue, said, card)
        average = self.condition({})
        with self._turn:
            own, usual = self._agent.word(
                [prompt, prompt],
                [card, card],
                Condition.concatenate([condition, average]),
                seeds=[seed, seed],
            )
        return own, usual

    def measure(self, replies: list[Utterance], card: ItemCard) -> NDArray[np.float64]:
        """Named attributes of replies about one film, in deviations of the base model's replies. Shape (N, A)."""
        return self.pool.scale(reply_attributes(replies, [card] * len(replies)))


def open_run(folder: Path, *stages: str) -> RunContext:
    """A run whose training is finished, its data as they were.

    Args:
        folder: A folder that `persona run` made.
        stages: Further stages that must be there.

    Raises:
        StoreError: There is no run in the folder, a stage is missing, its configuration is not one of this version, or
            its data have changed since.
    """
    manifest = read_manifest(folder)
    config = read_config(folder, manifest)
    needed = (*needed_stages(config), *stages)
    if missing := [name for name in needed if not (folder / "stages" / name).is_dir()]:
        raise StoreError(
            f"A run must have finished its training; got {folder} without its stage `{missing[0]}`. Go on "
            f"with it by `persona run --resume --out {folder}` and the settings that it began with."
        )
    run = RunContext(config, folder)
    if run.data_hashes() != manifest["data_hashes"]:
        raise StoreError(
            f"Catalogue and model must be those that the run was made from; got another content of "
            f"{config.catalogue} or {config.model}. Restore the folder, or make a new run."
        )
    return run


def newest_run(root: Path = RUNS) -> Path:
    """The run under `root` whose training finished last.

    Raises:
        StoreError: No run there has finished its training.
    """
    found = []
    for folder in (manifest.parent for manifest in root.glob(f"*/{MANIFEST}")):
        try:
            stages = needed_stages(read_config(folder, read_manifest(folder)))
        except StoreError:
            continue  # damaged, or of another version: no choice here, and told when it is named with --run
        records = [folder / "stages" / name / RECORD for name in stages]
        if all(record.is_file() for record in records):
            found.append((records[-1].stat().st_mtime_ns, folder))
    if not found:
        raise StoreError(
            f"A finished run must be given, or lie in {root}/; got none. Make one with `persona run`, or name "
            "its folder with --run."
        )
    return max(found)[1]
