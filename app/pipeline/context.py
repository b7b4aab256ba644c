"""What every stage of a run shares: configuration, folder, world, language model, and who is who."""

import zlib
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from app.config import RunConfig
from app.errors import ConfigError
from app.manifest import hash_files
from persona.policy.device import resolve_device
from persona.policy.language_model import LanguageModel, load_language_model, nano_folder
from recsys.columns import USER
from recsys.data.splits import split_per_user_by_time
from recsys.types import histories_from_log
from simulators.chat.model import LocalChat
from simulators.world.opening import World, build_film_world, open_movielens

Ints = NDArray[np.int64]
FILM_WORLD = "film-world"
_LATER_SHARE = 0.3


class Groups(NamedTuple):
    """Rows of users by their part in the run; the two share nobody.

    learners: Everything is trained on these.
    unseen: Everything is measured on these.
    """

    learners: Ints
    unseen: Ints


class RunContext:
    """One run: its configuration, its folder and what is built from the configuration alone.

    Args:
        config: The run's choices.
        folder: The run's folder; finished stages lie in `folder/stages/<name>`.
        tell: Called with progress within a stage, as done and total steps.
    """

    def __init__(
        self, config: RunConfig, folder: Path, tell: Callable[[int, int], None] | None = None
    ) -> None:
        self.config = config
        self.folder = folder
        self.tell = tell or (lambda done, total: None)

    def stage(self, name: str) -> Path:
        """Folder of a finished stage."""
        return self.folder / "stages" / name

    def seed(self, purpose: str) -> int:
        """The seed for one purpose, drawn by its name."""
        return zlib.crc32(f"{self.config.seed}/{purpose}".encode())

    @property
    def device(self) -> str:
        """Where tensors live, "auto" settled."""
        return str(resolve_device(self.config.device))

    def check_input(self) -> None:
        """Open everything that a run is given, so that a fault in it is told before any work.

        Raises:
            PersonaError, SimulatorError, ConfigError: As the parts say.
        """
        _ = self.language_model, self.world, self.groups

    def data_hashes(self) -> dict[str, str]:
        """SHA-256 of every input file: of the catalogue if it is a folder, and of the model if it is one."""
        hashes = {}
        if self.config.catalogue != FILM_WORLD:
            hashes = {f"catalogue/{k}": v for k, v in hash_files(Path(self.config.catalogue)).items()}
        model = nano_folder() if self.config.model == "nano" else Path(self.config.model)
        if model.is_dir():
            hashes |= {f"model/{name}": value for name, value in hash_files(model).items()}
        return hashes

    def rng(self, purpose: str) -> np.random.Generator:
        """A fresh generator for one purpose."""
        return np.random.default_rng(self.seed(purpose))

    @cached_property
    def world(self) -> World:
        """The film world, or the MovieLens folder that the configuration names."""
        if self.config.catalogue == FILM_WORLD:
            films, users, shown = self.config.films, self.config.users, self.config.impressions
            return build_film_world(films, users, seed=self.config.seed, impressions_per_user=shown)
        return open_movielens(Path(self.config.catalogue), self.config.users, seed=self.config.seed)

    @cached_property
    def language_model(self) -> LanguageModel:
        """The frozen base model."""
        return load_language_model(self.config.model, device=self.config.device)

    @cached_property
    def chat(self) -> LocalChat:
        """The base model as the voice of the simulated users."""
        return LocalChat(self.language_model)

    @cached_property
    def groups(self) -> Groups:
        """Who is learned from and who is kept for measuring, at random.

        Raises:
            ConfigError: The world has fewer users than the two groups need.
        """
        wanted = self.config.learners + self.config.unseen_users
        if wanted > self.world.n_users:
            raise ConfigError(
                f"`learners` plus `unseen_users` must be at most the {self.world.n_users} users of the world; got "
                f"{wanted}. Lower them."
            )
        order = self.rng("groups").permutation(self.world.n_users)
        unseen = np.sort(order[: self.config.unseen_users])
        return Groups(np.sort(order[self.config.unseen_users : wanted]), unseen)

    @cached_property
    def unseen_histories(self) -> tuple[csr_array, csr_array]:
        """What is known of each unseen user, and what came later and is kept for measuring. Shape (B, I) each."""
        users, log = self.groups.unseen, self.world.log
        own = log[log[USER].isin(users)]
        if self.world.later is None:
            earlier, later = split_per_user_by_time(own, test=_LATER_SHARE).test
        else:
            earlier, later = own, self.world.later[self.world.later[USER].isin(users)]
        size = len(self.world.catalogue)
        return histories_from_log(earlier, users, size), histories_from_log(later, users, size)
