"""Stage "measure": what the trained policy does for unseen users on unseen prompts, and how it holds to the facts."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata

from app.files import write_json
from app.pipeline.context import RunContext
from app.pipeline.conversations import load_dialogues, measure_dialogues, unseen_condition
from app.pipeline.policy import load_policy
from app.pipeline.profiles import latent_size
from app.pipeline.replies import ReplyPool, base_policy, load_replies
from app.pipeline.rounds import agent_of, load_retriever, stage_before
from persona.policy.conditioned import ConditionedPolicy
from persona.profiles.direction import direction_from_sliders
from persona.rewards.attributes import ATTRIBUTES
from persona.types import Condition, Conversation
from recsys.models.gnolr import Gnolr
from recsys.significance import bootstrap_interval
from simulators.agent import Recommender
from simulators.grounding import GroundingCheck, reply_attributes
from simulators.randomness import keyed_seeds
from simulators.types import ItemCard, Utterance

SLIDER_VALUES = (-1.0, -0.5, 0.0, 0.5, 1.0)
_PROMPTS_PER_USER = 2
_SLIDER_PROMPTS = 40
_RESAMPLES = 500


class Spoken(NamedTuple):
    """Replies with the cards that they were written from, and the user or prompt that groups each with its like."""

    replies: list[Utterance]
    cards: list[ItemCard]
    groups: list[str]


def measure_run(run: RunContext, out: Path) -> None:
    """Win rates, slider responses, grounding and dialogue figures of the trained policy."""
    pool = load_replies(run)
    policy_stage, retrieval_stage = stage_before(run.config.rounds + 1)
    gnolr = load_retriever(run, retrieval_stage)
    trained = agent_of(run, load_policy(run, policy_stage), gnolr)
    untrained = agent_of(run, base_policy(run), gnolr)
    wins, own = _win_rates(run, pool, trained, untrained, gnolr)
    run.tell(1, 3)
    sliders, moved = _slider_responses(run, pool, trained)
    run.tell(2, 3)
    talked = _spoken_in(run, "after")
    grounding = _grounding(run, [own, moved, talked])
    write_json(
        out / "measure.json",
        {"policy": {**wins, "sliders": sliders, **grounding}, "dialogue": measure_dialogues(run)},
    )


def _win_rates(
    run: RunContext, pool: ReplyPool, trained: Recommender, untrained: Recommender, gnolr: Gnolr
) -> tuple[dict[str, object], Spoken]:
    """How often the reply under the user's own condition is truly worth more to that user than another reply."""
    unseen, rng = run.groups.unseen, run.rng("win rate prompts")
    held_out = np.flatnonzero(~pool.is_train)
    prompts = rng.choice(held_out, (len(unseen), _PROMPTS_PER_USER)).ravel()
    rows = np.repeat(np.arange(len(unseen)), _PROMPTS_PER_USER)
    condition = unseen_condition(run, run.config.shots).select(rows.tolist())
    conversations = [pool.prompts[i] for i in prompts]
    cards = [run.world.catalogue.card(pool.cards[i]) for i in prompts]
    seeds = keyed_seeds(run.seed("win rate sampling"), np.arange(len(rows)))
    own = trained.word(conversations, cards, condition, seeds=seeds)
    average = trained.word(conversations, cards, None, seeds=seeds)
    before = untrained.word(conversations, cards, None, seeds=seeds)
    worth = {
        name: run.world.oracle.reply_utility(unseen[rows], pool.scale(reply_attributes(replies, cards)))
        for name, replies in (("own", own), ("average", average), ("before", before))
    }
    report: dict[str, object] = {}
    for name, other in (("conditioned_vs_average", "average"), ("after_vs_before", "before")):
        won = (worth["own"] > worth[other]) + 0.5 * (worth["own"] == worth[other])
        per_user = won.reshape(len(unseen), _PROMPTS_PER_USER).mean(1)
        interval = bootstrap_interval(per_user, seed=run.seed(name))
        gain = (worth["own"] - worth[other]).reshape(len(unseen), _PROMPTS_PER_USER).mean(1)
        report[f"win_rate_{name}"] = interval.to_report()
        report[f"utility_gain_{name}"] = bootstrap_interval(gain, seed=run.seed(name)).to_report()
        report[f"worst_decile_gain_{name}"] = float(np.sort(gain)[: max(1, len(gain) // 10)].mean())
    hasty = agent_of(run, trained.policy, gnolr, attempts=1).word(
        conversations, cards, condition, seeds=seeds
    )
    named = [card.title in reply.text for card, reply in zip(cards, hasty, strict=True)]
    per_user = np.reshape(named, (len(unseen), _PROMPTS_PER_USER)).mean(1)
    report["exact_title_rate_at_first_try"] = bootstrap_interval(per_user, seed=run.seed("hasty")).to_report()
    spoken = {"conditioned": own, "average": average, "before": before}
    report["base_nll_per_token"] = {
        name: bootstrap_interval(
            _strangeness(trained.policy, conversations, replies).reshape(len(unseen), -1).mean(1),
            seed=run.seed("strangeness"),
        ).to_report()
        for name, replies in spoken.items()
    }
    return report, Spoken(own, cards, [f"user {row}" for row in rows])


def _strangeness(
    policy: ConditionedPolicy, conversations: Sequence[Conversation], replies: Sequence[Utterance]
) -> NDArray[np.float64]:
    """How unlikely the base model finds each reply, in nats a token: broken language shows here. Shape (B,)."""
    rows = policy.encode_replies(conversations, [reply.raw for reply in replies])
    tokens = torch.tensor([sum(row.policy) for row in rows])
    return (-policy.reference_log_probs(rows).sum(1).cpu() / tokens).double().numpy()


def _slider_responses(
    run: RunContext, pool: ReplyPool, agent: Recommender
) -> tuple[dict[str, dict[str, object]], Spoken]:
    """Every slider at five places on unseen prompts: rank correlation of its value with the measured attributes."""
    rng = run.rng("slider prompts")
    held_out = np.flatnonzero(~pool.is_train)
    prompts = rng.permutation(held_out)[:_SLIDER_PROMPTS]
    places = [(a, v, p) for a in ATTRIBUTES for v in SLIDER_VALUES for p in prompts]
    directions = torch.stack([direction_from_sliders({a: v}, unit=False) for a, v, _ in places])
    condition = Condition.of_direction(directions, latent_dim=latent_size(run))
    cards = [run.world.catalogue.card(pool.cards[p]) for _, _, p in places]
    # One seed a prompt and place on the slider: what differs between sliders is the slider alone.
    where = [(SLIDER_VALUES.index(v), int(p)) for _, v, p in places]
    seeds = keyed_seeds(run.seed("slider sampling"), *map(np.asarray, zip(*where, strict=True)))
    replies = agent.word([pool.prompts[p] for _, _, p in places], cards, condition, seeds=seeds)
    measured = pool.scale(reply_attributes(replies, cards))
    measured = measured.reshape(len(ATTRIBUTES), len(SLIDER_VALUES), len(prompts), len(ATTRIBUTES))
    report: dict[str, dict[str, object]] = {}
    for index, attribute in enumerate(ATTRIBUTES):
        drags = {
            other: _spearman(measured[index, :, :, j]) for j, other in enumerate(ATTRIBUTES) if j != index
        }
        report[attribute] = {
            "spearman": _spearman_interval(measured[index, :, :, index], run.rng(f"slider {attribute}")),
            "curve": measured[index, :, :, index].mean(1).tolist(),
            "values": list(SLIDER_VALUES),
            "drags": drags,
        }
    return report, Spoken(replies, cards, [f"prompt {p}" for _, _, p in places])


def _spearman(measured: NDArray[np.float64]) -> float:
    """Rank correlation of slider value with one attribute over all replies. Input shape (values, prompts)."""
    places = rankdata(np.repeat(np.asarray(SLIDER_VALUES), measured.shape[1]))
    ranks = rankdata(measured.ravel())
    if np.ptp(ranks) == 0:
        return 0.0
    return float(np.corrcoef(places, ranks)[0, 1])


def _spearman_interval(measured: NDArray[np.float64], rng: np.random.Generator) -> dict[str, object]:
    """The correlation with a bootstrap interval over prompts."""
    count = measured.shape[1]
    draws = [_spearman(measured[:, rng.integers(count, size=count)]) for _ in range(_RESAMPLES)]
    low, high = np.quantile(draws, (0.025, 0.975)).tolist()
    return {"value": _spearman(measured), "ci95": [low, high], "n": count}


def _spoken_in(run: RunContext, stage: str) -> Spoken:
    turns = [(row, turn) for row, d in enumerate(load_dialogues(run, stage)) for turn in d.turns]
    replies, cards = [t.reply for _, t in turns], [t.card for _, t in turns]
    return Spoken(replies, cards, [f"user {row}" for row, _ in turns])


def _grounding(run: RunContext, parts: Sequence[Spoken]) -> dict[str, object]:
    """How often replies name their film exactly, name another one, or state what the card does not hold."""
    check = GroundingCheck(run.world.catalogue.films["title"].tolist())
    found = [
        check(reply.text, card)
        for part in parts
        for reply, card in zip(part.replies, part.cards, strict=True)
    ]
    rates = {
        "exact_title_rate": [f.exact_title for f in found],
        "invented_title_rate": [f.invented_title for f in found],
        "invented_fact_rate": [bool(f.invented_facts) for f in found],
    }
    _, group = np.unique([name for part in parts for name in part.groups], return_inverse=True)
    # One value for each user or prompt, since the replies of one are alike.
    return {
        name: bootstrap_interval(
            np.bincount(group, flags) / np.bincount(group), seed=run.seed(name)
        ).to_report()
        for name, flags in rates.items()
    }
