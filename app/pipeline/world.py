"""Stage "world": what the world looks like to those who may look, and how well its users resemble real ones."""

from pathlib import Path

import numpy as np

from app.files import write_json
from app.pipeline.context import RunContext
from recsys.columns import LEVEL
from recsys.significance import bootstrap_interval, paired_difference
from simulators.types import LEVELS
from simulators.world import later_log_loss


def describe_world(run: RunContext, out: Path) -> None:
    """Sizes and base rates; with real later ratings, how well the simulated users predict them."""
    world = run.world
    shares = np.bincount(world.log[LEVEL], minlength=len(LEVELS)) / len(world.log)
    report = {
        "films": len(world.catalogue),
        "users": world.n_users,
        "interactions": len(world.log),
        "levels": dict(zip(LEVELS, shares.tolist(), strict=True)),
    }
    if world.later is not None:
        report["later_ratings"] = _compare_later(run)
    write_json(out / "world.json", report)


def _compare_later(run: RunContext) -> dict[str, object]:
    """Log loss of the fitted users on real later ratings, beside the item-mean rule, in nats a rating by user."""
    losses = later_log_loss(run.world)
    seed = run.seed("later ratings")
    fitted, simple = losses["simulated"].to_numpy(), losses["item_mean"].to_numpy()
    return {
        "log_loss_simulated_users": bootstrap_interval(fitted, seed=seed).to_report(),
        "log_loss_item_mean": bootstrap_interval(simple, seed=seed).to_report(),
        "log_loss_saved": paired_difference(simple, fitted, seed=seed).to_report(),
    }
