"""Stages "choices" and "preferences": users compare replies; profiles learn, and are measured on unseen users.

Only the first of the two asks the oracle; what learns and is measured sees nothing but choices.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from app.files import read_json, read_tensors, write_arrays, write_json
from app.pipeline.context import Ints, RunContext
from app.pipeline.profiles import fit_profile, save_profile, side_by_side
from app.pipeline.replies import ReplyPool, load_replies
from persona.data.comparisons import ComparisonTable, context_pairs
from persona.data.splits import PreferenceSplit
from persona.evaluation import (
    active_units,
    bootstrap_mean,
    context_shuffle_gap,
    evaluate_preferences,
    oracle_accuracy,
    paired_difference,
    score_users,
)
from persona.features import LENGTH_COLUMN, probe_attributes
from persona.profiles import Profile
from persona.profiles.hierarchical_bayes import fit_hierarchical_bayes, fit_length_rule
from persona.profiles.pooled import fit_pooled

CONTEXT_SIZES = (0, 2, 4, 8, 16)
_TARGETS = 24


def ask_users(run: RunContext, out: Path) -> None:
    """Let every user choose between replies, and note how well someone who knows the truth would predict it."""
    pool = load_replies(run)
    split = _ask_everyone(run, pool)
    write_arrays(
        out / "comparisons.safetensors",
        {name: np.stack([t.users, t.prompts, t.chosen, t.rejected]) for name, t in split._asdict().items()},
    )
    target, oracle = split.target, run.world.oracle
    gain = oracle.reply_utility(target.users, pool.attributes[target.chosen])
    gain -= oracle.reply_utility(target.users, pool.attributes[target.rejected])
    write_json(out / "ceiling.json", oracle_accuracy(target, gain).tolist())


def learn_preferences(run: RunContext, out: Path) -> None:
    """Fit every profile on the learners' choices; measure on unseen users and unseen prompts."""
    pool, seed = load_replies(run), run.seed("profiles")
    features, split = pool.features, load_comparisons(run)
    profile = fit_profile(run, pool, split.train, seed=seed)
    run.tell(2, 4)
    profiles: dict[str, Profile] = {
        "pooled": fit_pooled(split.train, features, seed=seed),
        "length_only": fit_length_rule(split.train, features, LENGTH_COLUMN, seed=seed),
        "hierarchical_bayes": fit_hierarchical_bayes(split.train, features, seed=seed),
        # Whatever profile the configuration names stands here.
        "vpl": profile,
    }
    run.tell(3, 4)
    save_profile(run, profile, out)
    write_json(out / "preferences.json", _measure(run, split, profiles))


def load_comparisons(run: RunContext) -> PreferenceSplit:
    """Who chose what: learners on training prompts, unseen users as context, unseen users on unseen prompts."""
    saved = read_tensors(run.stage("choices") / "comparisons.safetensors")
    return PreferenceSplit(*(ComparisonTable(*saved[name].numpy()) for name in PreferenceSplit._fields))


def user_latents(
    profile: Profile, table: ComparisonTable, features: Tensor, users: Ints, shots: int
) -> Tensor:
    """Posterior means of users from their first `shots` comparisons. Shape (B, Z)."""
    with torch.inference_mode():
        return profile.encode(context_pairs(table, profile.lift(features), users, shots)).mean


def _ask_everyone(run: RunContext, pool: ReplyPool) -> PreferenceSplit:
    """Learners and unseen users' contexts on training prompts, the targets on the other prompts."""
    config, rng = run.config, run.rng("comparisons")
    train, held_out = np.flatnonzero(pool.is_train), np.flatnonzero(~pool.is_train)
    return PreferenceSplit(
        _ask(run, pool, run.groups.learners, train, config.comparisons, rng),
        _ask(run, pool, run.groups.unseen, train, max(*CONTEXT_SIZES, config.shots), rng),
        _ask(run, pool, run.groups.unseen, held_out, _TARGETS, rng),
    )


def _ask(
    run: RunContext, pool: ReplyPool, users: Ints, prompts: Ints, count: int, rng: np.random.Generator
) -> ComparisonTable:
    """Each user chooses between two different replies to each of `count` prompts; equal replies are not asked about."""
    per_prompt = len(pool.replies) // len(pool.prompts)
    who = np.repeat(users, count)
    asked = rng.choice(prompts, len(who))
    first = rng.integers(per_prompt, size=len(who))
    other = (first + rng.integers(1, per_prompt, size=len(who))) % per_prompt
    a, b = asked * per_prompt + first, asked * per_prompt + other
    _, text_of = np.unique([reply.raw for reply in pool.replies], return_inverse=True)
    differ = text_of[a] != text_of[b]
    who, asked, a, b = who[differ], asked[differ], a[differ], b[differ]
    likes_a = run.world.oracle.choose(who, pool.attributes[a], pool.attributes[b], rng.random(len(who)))
    return ComparisonTable(who, asked, np.where(likes_a, a, b), np.where(likes_a, b, a))


def _measure(run: RunContext, split: PreferenceSplit, profiles: dict[str, Profile]) -> dict[str, object]:
    """The report's part on preferences: accuracies, the paired gaps that matter, and collapse diagnostics."""
    pool, seed = load_replies(run), run.seed("preference contexts")
    profiles, features = side_by_side(run, pool, profiles, "vpl")
    vpl = profiles["vpl"]
    measures = evaluate_preferences(
        profiles, split.context, split.target, features, ks=CONTEXT_SIZES, seed=seed
    )
    ceiling = np.asarray(read_json(run.stage("choices") / "ceiling.json"))
    at_8 = {
        name: score_users(profiles[name], split.context, split.target, features, k=8, seed=seed).accuracy
        for name in ("vpl", "hierarchical_bayes")
    }
    pooled, reached = (
        measures[name][k]["accuracy"]["value"] for name, k in (("pooled", "k0"), ("vpl", "k8"))
    )
    return {
        "accuracy": {
            "pooled": measures["pooled"]["k0"]["accuracy"],
            "length_only": measures["length_only"]["k8"]["accuracy"],
            "oracle": bootstrap_mean(ceiling, seed),
            **{
                name: {k: figures["accuracy"] for k, figures in measures[name].items()}
                for name in ("hierarchical_bayes", "vpl")
            },
        },
        "gaps_at_k8": {
            "vpl_over_pooled": measures["vpl"]["k8"]["over_baseline"],
            "vpl_over_hierarchical_bayes": paired_difference(at_8["vpl"], at_8["hierarchical_bayes"], seed),
            "oracle_over_vpl": paired_difference(ceiling, at_8["vpl"], seed),
        },
        "gap_closed": (reached - pooled) / gap if (gap := float(ceiling.mean()) - pooled) > 0 else None,
        "active_units": active_units(vpl, split.context, features, k=8, seed=seed),
        "context_shuffle_gap": context_shuffle_gap(
            vpl, split.context, split.target, features, k=8, seed=seed
        ),
        "details": measures,
        "attribute_r2": probe_attributes(pool.features, pool.attributes, seed=seed),
    }
