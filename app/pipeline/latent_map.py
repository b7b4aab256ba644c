"""Stage "map": where the unseen users lie in the latent space, and how two opposed ones fare, for people to look at.

Nothing here is learned from. The hidden truth is written beside the latents so that a reader can see whether users
with the same truth came to lie together.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from app.files import write_json
from app.pipeline.context import RunContext
from app.pipeline.conversations import load_dialogues, unseen_condition
from app.pipeline.policy import load_policy
from app.pipeline.replies import base_policy, load_replies
from app.pipeline.rounds import agent_of, stage_before, viewers_of
from persona.rewards.attributes import ATTRIBUTES
from persona.types import Condition
from recsys.models.gnolr import Gnolr
from simulators.agent import Recommender
from simulators.randomness import keyed_seeds
from simulators.rollout import rollout
from simulators.transcripts import dialogue_to_json

SAMPLES = 3
"""Dialogues shown of each of the two users, and questions that both are answered."""


class _Side(NamedTuple):
    """One side of the comparison.

    stage: The stage whose dialogues come first.
    agent: Who recommends.
    condition: What it knows of the two users, or None.
    """

    stage: str
    agent: Recommender
    condition: Condition | None


def draw_map(run: RunContext, out: Path) -> None:
    """Latents and hidden styles of all unseen users; dialogues and replies of the two most opposed ones."""
    condition = unseen_condition(run, run.config.shots)
    users = run.groups.unseen
    latents = condition.latent.double().cpu().numpy()
    pair = most_opposed(latents)
    style = run.world.oracle.reply_contributions(users, np.ones((len(users), len(ATTRIBUTES))))
    write_json(
        out / "map.json",
        {
            "users": users.tolist(),
            "latents": latents.tolist(),
            "attributes": list(ATTRIBUTES),
            "hidden_style": style.tolist(),
            "shots": run.config.shots,
            "opposed": list(pair),
        },
    )
    policy_stage, retrieval_stage = stage_before(run.config.rounds + 1)
    trained = agent_of(run, load_policy(run, policy_stage), Gnolr.load(run.stage(retrieval_stage) / "gnolr"))
    untrained = agent_of(run, base_policy(run), Gnolr.load(run.stage("retrieval") / "gnolr"))
    known = condition.select(pair)
    sides = {
        "before": _sample_dialogues(run, pair, _Side("before", untrained, None)),
        "after": _sample_dialogues(run, pair, _Side("after", trained, known)),
    }
    dialogues = [
        {"row": row, **{name: found[place] for name, found in sides.items()}}
        for place, row in enumerate(pair)
    ]
    write_json(out / "samples.json", {"dialogues": dialogues, "answers": _answer_alike(run, trained, known)})


def most_opposed(latents: NDArray[np.float64]) -> tuple[int, int]:
    """The two rows that point the most strongly in opposite directions: those of the lowest dot product.

    Args:
        latents: Shape (B, Z), B at least 2.

    Returns:
        Two different rows, ascending; the first such pair of equals.

    Example:
        >>> most_opposed(np.array([[1.0, 0.0], [0.0, 3.0], [-2.0, 0.0]]))
        (0, 2)
    """
    products = latents @ latents.T
    products[np.tril_indices(len(latents))] = np.inf
    first, second = np.unravel_index(int(products.argmin()), products.shape)
    return int(first), int(second)


def _sample_dialogues(run: RunContext, pair: tuple[int, int], side: _Side) -> list[list[dict[str, Any]]]:
    """`SAMPLES` dialogues of each of two users: the measured one, then others under fresh luck."""
    measured = load_dialogues(run, side.stage)
    found = [[dialogue_to_json(measured[row])] for row in pair]
    viewers = viewers_of(run)
    for number in range(1, SAMPLES):
        dialogues = rollout(
            run.groups.unseen[list(pair)].tolist(),
            side.agent,
            viewers,
            histories=run.unseen_histories[0][list(pair)],
            condition=side.condition,
            seed=run.seed(f"sample dialogue {number}"),
        )
        for kept, dialogue in zip(found, dialogues, strict=True):
            kept.append(dialogue_to_json(dialogue))
    return found


def _answer_alike(run: RunContext, agent: Recommender, known: Condition) -> list[dict[str, str]]:
    """The same question about the same film, answered for the average user and for each of the two, same seed."""
    pool = load_replies(run)
    prompts = run.rng("sample answers").permutation(np.flatnonzero(~pool.is_train))[:SAMPLES]
    average = Condition.absent(1, latent_dim=known.latent.shape[1], direction_dim=known.direction.shape[1])
    everyone = Condition.concatenate([average, known])
    rows = [(int(prompt), who) for prompt in prompts for who in range(len(everyone))]
    cards = [run.world.catalogue.card(pool.cards[prompt]) for prompt, _ in rows]
    replies = agent.word(
        [pool.prompts[prompt] for prompt, _ in rows],
        cards,
        everyone.select([who for _, who in rows]),
        seeds=keyed_seeds(run.seed("sample answers"), np.asarray([prompt for prompt, _ in rows])),
    )
    answers = []
    for start in range(0, len(rows), len(everyone)):
        average_text, first, second = (reply.text for reply in replies[start : start + len(everyone)])
        question = pool.openings[rows[start][0]].text
        answers.append(
            {
                "question": question,
                "title": cards[start].title,
                "average": average_text,
                "first": first,
                "second": second,
            }
        )
    return answers
