"""Stage "world": what the world looks like to those who may look, and how well its users resemble real ones."""

from pathlib import Path

import numpy as np

from app.files import write_json
from app.pipeline.context import RunContext
from recsys.columns import ITEM, LEVEL, USER
from recsys.significance import bootstrap_interval, paired_difference
from simulators.types import LEVELS
from simulators.world.taste import item_mean_levels, log_loss_by_user


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
    world = run.world
    assert world.later is not None  # the caller has looked
    users, items, levels = (world.later[name].to_numpy() for name in (USER, ITEM, LEVEL))
    fitted = world.oracle.level_probabilities(users, items)
    simple = item_mean_levels(world.log, items, n_items=len(world.catalogue))
    losses = {
        name: log_loss_by_user(table, levels, users).to_numpy()
        for name, table in (("simulated_users", fitted), ("item_mean", simple))
    }
    seed = run.seed("later ratings")
    report: dict[str, object] = {
        f"log_loss_{name}": bootstrap_interval(loss, seed=seed).to_report() for name, loss in losses.items()
    }
    saved = paired_difference(losses["item_mean"], losses["simulated_users"], seed=seed)
    return {**report, "log_loss_saved": saved.to_report()}
