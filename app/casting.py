"""The simulated users of a finished run, by the names that people type.

viewers           the world's own users, who know their hidden taste
learned           users learned from the run's log, comparisons and rated dialogues (Mirroring Users)
ailo              AILO, the users of ECPO, in one call a turn
ailo-five-calls   AILO in its published form
persona-prompt    a persona in one prompt, and no more
target-holding    users told the one film that they are after (iEvaLM)
random            users who like anything and nothing
over-agreeable    users who take what they are offered

The last six have personas, of the run's own users.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from app.errors import ConfigError
from app.pipeline.context import FILM_WORLD, RunContext
from app.pipeline.preferences import load_comparisons
from app.pipeline.replies import load_replies
from app.pipeline.rounds import known_log, load_lessons, viewers_of
from app.rehearsing import Guests
from persona.data.comparisons import ComparisonTable
from simulators.chat.model import ChatModel
from simulators.errors import MirrorError
from simulators.mirror import LevelModel, Manners, Wording
from simulators.mirror.selection import Setting, fit_best_levels
from simulators.protocols import SimulatedUser
from simulators.users.ailo import AiloUsers
from simulators.users.ailo_types import AiloConfig, Form
from simulators.users.baselines import Rule, RuleUsers, agreeable_rule, random_rule, wish_of
from simulators.users.mirror import MirrorUsers
from simulators.users.persona_building import observe_choices, personas_from_log
from simulators.users.persona_prompt import PersonaPromptUsers
from simulators.users.personas import Persona
from simulators.users.target_holders import TargetHolders
from simulators.world.population import draw_population
from simulators.world.true_personas import personas_from_truth

NEEDS_TARGETS = frozenset({"target-holding"})
"""Kinds of users who must have one item in mind; see `app.rehearsing.with_targets`."""

_WITHOUT_PERSONA = frozenset({"viewers", "learned"})


def users_of(
    run: RunContext,
    kind: str,
    guests: Guests,
    chat: ChatModel,
    *,
    personas: str = "observed",
    ailo_satisfaction: str = "mean",
    people: Sequence[Persona] | None = None,
) -> SimulatedUser:
    """The run's simulated users of a kind.

    Args:
        run: The finished run.
        kind: A name as `app.chat_config.UserKind` has it.
        guests: Who is to talk; only those have personas.
        chat: Speaks for them.
        personas: "observed" or "true", for users who have any.
        ailo_satisfaction: "mean" or "expression", as `app.chat_config.ChatFields` has it.
        people: Their `personas_of`, if they are there already.

    Raises:
        ConfigError: True personas are asked for in a world of real films, whose truth nobody knows.
    """
    if kind == "viewers":
        return viewers_of(run, chat)
    if kind == "learned":
        return _learned(run, guests, chat)
    if people is None:
        people = personas_of(run, kind, guests, personas=personas)
    if kind in _AILO:
        settings = AiloConfig(max_turns=run.config.turns, **_AILO[kind])
        if ailo_satisfaction == "expression":
            settings = settings.model_copy(update={"satisfaction_from": ("expression",)})
        return AiloUsers(people, chat, settings)
    return _WITH_PERSONA[kind](people, chat, run.config.turns)


def personas_of(run: RunContext, kind: str, guests: Guests, *, personas: str = "observed") -> list[Persona]:
    """Who the users of a kind are; nobody for kinds without personas. Arguments as in `users_of`.

    Raises:
        ConfigError: As `users_of` says.
    """
    if kind in _WITHOUT_PERSONA:
        return []
    return (_true_personas if personas == "true" else _observed_personas)(run, guests)


def judge_of(run: RunContext, kind: str, users: SimulatedUser) -> SimulatedUser:
    """Who knows what was worth how much: always the world's own users, as all others merely believe."""
    return users if kind == "viewers" else viewers_of(run)


def learned_levels(run: RunContext, log: pd.DataFrame) -> LevelModel:
    """What users learned from a log of the run's world do with items; the log is all that is known.

    Whether what users came across tells of their taste, the log's own last rows decide, after a few rounds: a whole
    trial of every setting would cost as much as two more fits.
    """
    return fit_best_levels(
        log,
        run.world.catalogue.features,
        n_users=run.world.n_users,
        trial_iterations=10,
        settings=(Setting(4, False), Setting(4, True)),
        seed=run.seed("learned users"),
    ).model


def _learned(run: RunContext, guests: Guests, chat: ChatModel) -> MirrorUsers:
    """Users who know what the run logged, what its users chose between replies and how learners rated dialogues.

    They know nothing of the truth.
    """
    split = load_comparisons(run)
    # What unseen users chose is read where they are invited: training with learners hears nothing of them.
    only_learners = np.isin(guests.users, run.groups.learners).all()
    choices = split.train if only_learners else ComparisonTable.concatenate([split.train, split.context])
    pool, world = load_replies(run), run.world
    model = learned_levels(run, known_log(run, 0))
    manners = Manners.fit(
        choices,
        pool.attributes,
        pool.scale,
        n_users=world.n_users,
        seed=run.seed("learned manners"),
    )
    wording = _wording(run, model, manners)
    return MirrorUsers(
        model, world.catalogue, chat, manners=manners, wording=wording, max_turns=run.config.turns
    )


def _wording(run: RunContext, model: LevelModel, manners: Manners) -> Wording:
    """As the run's first dialogues with its learners tell; assumed where these are too few, none, or do not tell."""
    dialogues = load_lessons(run, 1).dialogues if run.config.rounds else []
    try:
        return Wording.fit(model, manners, dialogues)
    except MirrorError as err:
        warnings.warn(f"Users are learned with assumed wording. {err}", stacklevel=2)
        return Wording()


def _observed_personas(run: RunContext, guests: Guests) -> list[Persona]:
    """Personas from the run's log and from what its users chose between replies."""
    split = load_comparisons(run)
    seen = ComparisonTable.concatenate([split.train, split.context])
    return personas_from_log(
        known_log(run, 0),
        run.world.catalogue,
        guests.users.tolist(),
        choices=observe_choices(seen, load_replies(run).attributes),
        targets=guests.targets,
        seed=run.seed("personas"),
    )


def _true_personas(run: RunContext, guests: Guests) -> list[Persona]:
    if run.config.catalogue != FILM_WORLD:
        raise ConfigError(
            f"`personas=true` must meet the film world, whose truth is known; got a run of {run.config.catalogue}. "
            "Use `personas=observed`."
        )
    catalogue, config = run.world.catalogue, run.config
    truth = draw_population(catalogue, config.users, seed=config.seed)
    seed = run.seed("personas")
    return personas_from_truth(truth, catalogue, guests.users.tolist(), targets=guests.targets, seed=seed)


def _persona_prompt(people: Sequence[Persona], chat: ChatModel, turns: int) -> SimulatedUser:
    return PersonaPromptUsers(people, chat, max_turns=turns)


def _target_holding(people: Sequence[Persona], chat: ChatModel, turns: int) -> SimulatedUser:
    targets = {person.user: person.target for person in people if person.target is not None}
    return TargetHolders(targets, chat, max_turns=turns)


def _by_rule(people: Sequence[Persona], chat: ChatModel, turns: int, *, rule: Rule) -> SimulatedUser:
    return RuleUsers(rule, {person.user: wish_of(person) for person in people}, chat, max_turns=turns)


_AILO: Mapping[str, dict[str, Any]] = {
    "ailo": {"form": Form.MERGED},
    # As published: nobody errs in rating, and nobody is absent-minded.
    "ailo-five-calls": {"form": Form.FIVE_CALLS, "rating_noise": 0.0, "lapse_rate": 0.0},
}
_WITH_PERSONA: Mapping[str, Callable[[Sequence[Persona], ChatModel, int], SimulatedUser]] = {
    "persona-prompt": _persona_prompt,
    "target-holding": _target_holding,
    "random": partial(_by_rule, rule=random_rule()),
    "over-agreeable": partial(_by_rule, rule=agreeable_rule()),
}
