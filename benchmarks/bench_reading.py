"""What it costs to know a user, for every method of `persona fit`: one new user, and 100,000 in one batch.

Each method is fitted to a small planted world and reads 16 comparisons a user, past the cost of features. Times are of
the processor. Writes `results/reading/<date>-<commit>.json`; a dirty checkout writes to `results/local/reading/`.

    python -m benchmarks.bench_reading
"""

import argparse
import statistics
import time

import torch

from app.profile_methods import METHODS, Material
from benchmarks.recording import record
from persona.profiles import Profile
from persona.types import ReplyPairs
from tests.helpers.preference_world import PreferenceWorld, make_world

COMPARISONS = 16
MANY_USERS = 100_000
PROMPT_DIM = 4
OBJECTIVES = 8
"""Named attributes, for methods that read these; the others read all features."""
GOALS = {"one_new_user_s": {"closed form": 2e-3, "pal": 5e-3, "amortised": 20e-3}, "many_users_s": 10.0}
SKIPPED = ("length", "vpl-paper")
"""One reads a column that this world lacks, the other 512 latents, whose covariances fill the memory."""


def main() -> None:
    """Time every method and write one JSON file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", nargs="+", default=[name for name in METHODS if name not in SKIPPED])
    parser.add_argument("--repeats", type=int, default=50, help="timed repeats for one user")
    options = parser.parse_args()
    torch.set_num_threads(1)
    world = make_world(users=150)
    found = {}
    for name in options.methods:
        profile, width = _fit(name, world)
        one = [_seconds(profile, width, 1) for _ in range(options.repeats)]
        found[name] = {
            "one_new_user_s": statistics.median(one),
            "many_users_s": _seconds(profile, width, MANY_USERS),
        }
        print(
            f"{name:<16} {1e3 * found[name]['one_new_user_s']:.2f} ms a user, {MANY_USERS:,} in "
            f"{found[name]['many_users_s']:.2f} s",
            flush=True,
        )
    print(record("reading", {"comparisons": COMPARISONS, "goals": GOALS, "methods": found}))


def _fit(name: str, world: PreferenceWorld) -> tuple[Profile, int]:
    """A fitted method and the number of features that it reads."""
    reads = METHODS[name].reads
    rng = torch.Generator().manual_seed(0)
    prompts = torch.randn(len(world.features), PROMPT_DIM, generator=rng)
    replies = world.features[:, :OBJECTIVES] if "attributes" in reads else world.features
    features = torch.cat([replies, prompts], dim=1) if "prompts" in reads else replies
    objectives = tuple(f"objective {column}" for column in range(OBJECTIVES))
    material = Material(
        world.table,
        features,
        0,
        PROMPT_DIM if "prompts" in reads else 0,
        objectives=objectives if "attributes" in reads else (),
    )
    return METHODS[name].fit(material), features.shape[1]


@torch.no_grad()
def _seconds(profile: Profile, width: int, users: int) -> float:
    rng = torch.Generator().manual_seed(1)
    chosen, rejected = (torch.randn(users, COMPARISONS, width, generator=rng) for _ in range(2))
    rejected[..., -PROMPT_DIM:] = chosen[..., -PROMPT_DIM:]
    pairs = ReplyPairs(
        profile.lift(chosen), profile.lift(rejected), torch.ones(users, COMPARISONS, dtype=torch.bool)
    )
    began = time.process_time()
    profile.encode(pairs)
    return time.process_time() - began


if __name__ == "__main__":
    main()
