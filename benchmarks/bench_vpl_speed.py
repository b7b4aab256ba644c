"""Training speed of the latent profiles against the published VPL loop, and how fast users are read.

A row is one target pair that a training step learns from, with the context of its user. All are timed in one run, one
after another in each repeat, on one thread: the published loop (one Python iteration a user, one target a user); the
same networks in one pass (`PAPER`, the same rows); the mended amortised profile; and the default, the posterior in
closed form. The last two have smaller networks and more targets a user, which is part of what they are: a ratio
belongs to its network. Then the beliefs of 100,000 users in one batch, and of one new user from 16 comparisons.
Times are those of the process on its one thread, which other work on the machine does not lengthen as it does the
clock on the wall; on an idle machine the two are one.
Writes `results/vpl_speed/<date>-<commit>.json`; a dirty checkout writes to `results/local/vpl_speed/`.

    python -m benchmarks.bench_vpl_speed --repeats 5
"""

import argparse
import statistics
import time
from collections.abc import Callable, Mapping

import numpy as np
import torch

from benchmarks.published_vpl import train_one_step
from benchmarks.recording import record
from persona.data.comparisons import gather_pairs, sample_episodes
from persona.profiles import HierarchicalBayes, LatentProfile, Profile
from persona.profiles.amortised import AmortisedProfile
from persona.recipes import amortised, latent
from persona.recipes.amortised import PAPER, AmortisedConfig
from persona.recipes.latent import LatentConfig
from persona.types import ReplyPairs
from tests.helpers.preference_world import PreferenceWorld, make_world

FEATURES = 64
CONTEXT = 8
NEW_USER = 16
MANY_USERS = 100_000
GOALS = {
    "training_ratio": 50.0,
    "many_users_s": 10.0,
    "new_user_closed_s": 2e-3,
    "new_user_amortised_s": 20e-3,
}

Steps = Callable[[int], int]
"""Runs so many optimiser steps and gives the number of rows that they learned from."""


def published(world: PreferenceWorld) -> Steps:
    """The loop; contexts are all of the published size."""
    profile = _paper_profile()
    optimiser = torch.optim.AdamW(
        profile.parameters(), lr=PAPER.learning_rate, weight_decay=PAPER.weight_decay
    )
    rng, noise = np.random.default_rng(0), torch.Generator().manual_seed(0)

    def run(steps: int) -> int:
        for step in range(steps):
            batch = rng.choice(world.table.user_ids, PAPER.users_per_step, replace=False)
            rows = sample_episodes(world.table, batch, max_context=CONTEXT, max_targets=1, rng=rng)
            full = rows.context._replace(mask=np.ones_like(rows.context.mask))
            context = gather_pairs(world.table, world.features, full)
            target = gather_pairs(world.table, world.features, rows.target)
            train_one_step(
                profile,
                optimiser,
                (context.chosen, context.rejected),
                (target.chosen[:, 0], target.rejected[:, 0]),
                beta=PAPER.beta,
                step=step,
                noise=noise,
            )
        return steps * PAPER.users_per_step

    return run


def _paper_profile() -> AmortisedProfile:
    return AmortisedProfile(
        FEATURES, PAPER.latent_dim, encoder="concat", head="concat", hidden=PAPER.hidden, draws=0
    )


def amortised_steps(world: PreferenceWorld, config: AmortisedConfig) -> Steps:
    """Steps of the amortised recipe as it is, from a cold profile; the start is not timed."""
    profile = AmortisedProfile(
        FEATURES,
        config.latent_dim,
        encoder=config.encoder,
        head=config.head,
        hidden=config.hidden,
        draws=config.draws,
    )

    def run(steps: int) -> int:
        for _ in amortised._optimise(profile, world.table, world.features, config, steps=steps, seed=0):
            pass
        return steps * config.users_per_step * _targets(world, config.max_targets)

    return run


def closed_form_steps(world: PreferenceWorld, config: LatentConfig) -> Steps:
    """Steps of the default recipe as it is."""
    profile = LatentProfile(FEATURES, config.latent_dim)

    def run(steps: int) -> int:
        for _ in latent._optimise(profile, world.table, world.features, config, steps=steps, seed=0):
            pass
        return steps * config.users_per_step * _targets(world, config.max_targets)

    return run


def _targets(world: PreferenceWorld, most: int) -> int:
    """Targets of a user in a step: every user has the same number of comparisons, half of which may be targets."""
    return min(most, len(world.table) // len(world.table.user_ids) // 2)


def reading(size: int, users: int, repeats: int) -> dict[str, list[float]]:
    """Seconds to encode `users` users with `NEW_USER` comparisons each, all in one batch, by each kind of profile."""
    rng = torch.Generator().manual_seed(0)
    chosen, rejected = (torch.randn(users, NEW_USER, size, generator=rng) for _ in range(2))
    pairs = ReplyPairs(chosen, rejected, torch.ones(users, NEW_USER, dtype=torch.bool))
    population = HierarchicalBayes(torch.zeros(size), 0.3 * torch.eye(size))
    profiles: Mapping[str, Profile] = {
        "closed form, latent of 8": LatentProfile.from_population(population, 8),
        "amortised, deep sets": AmortisedProfile(size, 8, encoder="deep_sets").eval(),
        "amortised, attention": AmortisedProfile(size, 8).eval(),
        "amortised, attention and film": AmortisedProfile(size, 8, head="film").eval(),
    }
    if users == 1:
        profiles = {**profiles, "closed form, hierarchical Bayes": population, "published": _paper_profile()}
    seconds: dict[str, list[float]] = {}
    for _ in range(repeats):
        for name, profile in profiles.items():
            seconds.setdefault(name, []).append(_time(lambda profile=profile: profile.encode(pairs)))  # type: ignore[misc]
    return seconds


@torch.no_grad()
def _time(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def training(repeats: int, steps: int) -> dict[str, list[float]]:
    """Rows a second of each trainer, in turns."""
    world = make_world(users=400, comparisons=40, noise=FEATURES - 18)
    trainers: dict[str, Steps] = {
        "published loop": published(world),
        "published networks in one pass": amortised_steps(world, PAPER),
        "amortised": amortised_steps(world, AmortisedConfig()),
        "amortised, deep sets": amortised_steps(world, AmortisedConfig(encoder="deep_sets")),
        "amortised, film": amortised_steps(world, AmortisedConfig(head="film")),
        "closed form": closed_form_steps(world, LatentConfig()),
    }
    rates: dict[str, list[float]] = {name: [] for name in trainers}
    for run in trainers.values():
        run(2)
    for _ in range(repeats):
        for name, run in trainers.items():
            began = time.process_time()
            rows = run(steps)
            rates[name].append(rows / (time.process_time() - began))
    return rates


def _ratios(rates: Mapping[str, list[float]]) -> dict[str, float]:
    """Median over repeats of the rate against the published loop's of the same repeat."""
    base = rates["published loop"]
    return {
        name: statistics.median(own / other for own, other in zip(values, base, strict=True))
        for name, values in rates.items()
    }


def main() -> None:
    """Time everything and write one JSON file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5, help="timed repeats of each measurement")
    parser.add_argument("--steps", type=int, default=20, help="optimiser steps in a repeat")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rates = training(options.repeats, options.steps)
    one = reading(FEATURES, 1, 20 * options.repeats)
    many = reading(40, MANY_USERS, 1)
    ratios = _ratios(rates)
    record(
        "vpl_speed",
        {
            "features": FEATURES,
            "rows_per_second": rates,
            "ratio_to_published_loop": ratios,
            "one_new_user_seconds": one,
            "many_users": MANY_USERS,
            "many_users_seconds": many,
            "goals": GOALS,
        },
    )
    for name, ratio in ratios.items():
        print(f"{name}: {statistics.median(rates[name]):,.0f} rows/s, {ratio:.1f}x the published loop")
    for name, values in one.items():
        print(f"a new user from {NEW_USER} comparisons, {name}: {1e3 * statistics.median(values):.2f} ms")
    for name, values in many.items():
        print(f"{MANY_USERS:,} users in one batch, {name}: {statistics.median(values):.2f} s")


if __name__ == "__main__":
    main()
