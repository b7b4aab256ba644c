"""The whole audit: everything that two sets of behaviour allow to be measured, and the verdicts."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from recsys.columns import LEVEL, POSITION, USER
from simulators.errors import FaithfulnessError, MissingDependency
from simulators.faithfulness import measures, word_measures
from simulators.faithfulness.behaviour import (
    ACTION,
    POLICY,
    SATISFACTION,
    interactions_of_dialogues,
    refuse_one_user,
    sessions_of_dialogues,
    sessions_of_interactions,
)
from simulators.faithfulness.choices import Scenes
from simulators.faithfulness.limits import Limits
from simulators.faithfulness.speech import SpokenDialogue
from simulators.faithfulness.verdicts import verdicts
from simulators.faithfulness.word_measures import Dialogues, Part
from simulators.types import SUCCESS_LEVEL

STARS = (1.0, 5.0)
SHIFTED_EXPOSURE = 0.8
"""Share of simulated rows about items that the real side knows, below which the sides were shown other things."""
SHIFTED_POLICIES = 0.1
"""Share of rows of other policies than the real side has, above which the sides were served by others."""
_UNEVEN_P = 0.01


@dataclass(frozen=True, slots=True)
class Evidence:
    """What one side did, in whatever of the three forms there is.

    Attributes:
        interactions: From `checked_interactions`.
        dialogues: Dialogues with words.
        scenes: Predicted probabilities of options with the real choice; of the simulated side alone.
    """

    interactions: pd.DataFrame | None = None
    dialogues: tuple[SpokenDialogue, ...] = ()
    scenes: Scenes | None = None

    @property
    def reactions(self) -> pd.DataFrame | None:
        """The interactions, or those that the dialogues hold; None where nothing tells of levels."""
        if self.interactions is not None:
            return self.interactions
        found = interactions_of_dialogues(self.dialogues)
        return None if found.empty else found


def audit_simulator(
    simulated: Evidence,
    real: Evidence,
    *,
    seed: int = 0,
    max_level: int = 4,
    accept_level: int = SUCCESS_LEVEL,
    limits: Limits | None = None,
) -> dict[str, Any]:
    """Measure how far a simulator behaves as real users do, and say what it may be believed for.

    Args:
        simulated: What the simulator did.
        real: What real users did.
        seed: Every random draw follows from it.
        max_level: The deepest level C.
        accept_level: Level from which a row counts as accepted, 1..C.
        limits: What measures are held to; the defaults if None.

    Returns:
        Plain JSON values: one part a group of measures (absent where the evidence lacks it), notes, verdicts, limits
        with their reasons, and counts of what was read.

    Raises:
        FaithfulnessError: `accept_level` is out of range, a side has one user only, or nothing can be compared.
    """
    _refuse(simulated, real, accept_level, max_level)
    audit = _Audit(simulated, real, seed, max_level, accept_level)
    report = audit.measure()
    if not report:
        raise FaithfulnessError(
            "Both sides must have something in common to compare: interactions or dialogues on both, or predictions "
            "with the real choice; got neither. Give --log the same kind of file as SIM."
        )
    held = limits or Limits()
    return {
        **report,
        "counts": {"simulated": _counts(simulated), "real": _counts(real)},
        "notes": audit.notes,
        "limits": {
            name: {"value": getattr(held, name), "reason": about.description}
            for name, about in Limits.model_fields.items()
        },
        "verdicts": [verdict.to_report() for verdict in verdicts(report, held)],
        "settings": {"seed": seed, "max_level": max_level, "accept_level": accept_level},
    }


@dataclass(slots=True)
class _Audit:
    """One audit under way: what is compared, how, and what could not be."""

    simulated: Evidence
    real: Evidence
    seed: int
    max_level: int
    accept_level: int
    notes: list[str] = field(default_factory=list)

    def measure(self) -> Part:
        """Every part that the evidence allows."""
        tables, talks = (self.simulated.reactions, self.real.reactions), self._talks()
        found: Part = self._sessions() | self._satisfaction()
        classified: Part = {}
        if tables[0] is not None and tables[1] is not None:
            found |= self._behaviour(tables[0], tables[1])
            classified["behaviour"] = self._try(self._tell_behaviour, tables[0], tables[1])
        if self.simulated.scenes is not None:
            found["choices"] = measures.choice_part(self.simulated.scenes, seed=self.seed)
            self._note_slots(found["choices"]["slots"])
        if all(talks):
            found |= self._words(*talks)
            classified["words"] = self._try(self._tell_words, *talks)
        found["two_sample"] = {name: part for name, part in classified.items() if part} or None
        return {name: part for name, part in found.items() if part}

    def _talks(self) -> tuple[Dialogues, Dialogues]:
        return self.simulated.dialogues, self.real.dialogues

    def _behaviour(self, one: pd.DataFrame, other: pd.DataFrame) -> Part:
        own = {"seed": self.seed}
        accepted = {"accept_level": self.accept_level, **own}
        found: Part = {
            "levels": measures.distribution_part(one, other, LEVEL, span=self.max_level, **own),
            "acceptance_rate": measures.acceptance_rate_part(one, other, **accepted),
            "acceptance": self._try(measures.acceptance_part, one, other, **accepted),
        }
        if _both(one, other, POSITION):
            found["position"] = self._try(measures.position_part, one, other, **own)
        if _both(one, other, ACTION):
            sides = [(table[USER], table[ACTION]) for table in (one, other)]
            found["actions"] = measures.mix_part(sides[0], sides[1], **own)
        self._note_policies(one, other)
        if _both(one, other, POLICY):
            found["ranking"] = self._try(measures.ranking_part, one, other, **accepted)
        if (overlap := measures.exposure_overlap(one, other)) < SHIFTED_EXPOSURE:
            self.notes.append(
                f"Only {100 * overlap:.0f} % of the simulated rows are about items that real users were shown, so part "
                "of any difference may lie in what was shown and not in the users."
            )
        return found

    def _note_policies(self, one: pd.DataFrame, other: pd.DataFrame) -> None:
        for side, evidence in (("simulated", self.simulated), ("real", self.real)):
            named = sum(dialogue.policy is not None for dialogue in evidence.dialogues)
            if evidence.interactions is None and 0 < named < len(evidence.dialogues):
                self.notes.append(
                    f"{named} of {len(evidence.dialogues)} {side} dialogues say who recommends; all must, for policies "
                    "to be ranked."
                )
        if _both(one, other, POLICY):
            shares = [table[POLICY].value_counts(normalize=True) for table in (one, other)]
            if (apart := shares[0].sub(shares[1], fill_value=0.0).abs().sum() / 2) > SHIFTED_POLICIES:
                self.notes.append(
                    f"{100 * apart:.0f} % of the simulated rows would have to be of other policies for both sides to "
                    "hold the same mix of them, so part of any difference but that of order may lie in who recommended."
                )

    def _satisfaction(self) -> Part:
        """Stars of the tables, or of the dialogues where a table has none."""
        sides = self.simulated, self.real
        for tables in (
            [side.reactions for side in sides],
            [interactions_of_dialogues(s.dialogues) for s in sides],
        ):
            one, other = tables
            if one is not None and other is not None and _both(one, other, SATISFACTION):
                span = STARS[1] - STARS[0]
                return {
                    "satisfaction": measures.distribution_part(
                        one, other, SATISFACTION, span=span, seed=self.seed
                    )
                }
        return {}

    def _sessions(self) -> Part:
        talks = self._talks()
        if all(any(dialogue.replies for dialogue in side) for side in talks):
            return self._dialogue_lengths(talks)
        tables = self.simulated.interactions, self.real.interactions
        if tables[0] is None or tables[1] is None:
            return {}
        one, other = (sessions_of_interactions(table) for table in (tables[0], tables[1]))
        if one is None or other is None:
            return {}
        return {"sessions": {**measures.survival_part(one, other, seed=self.seed), "unit": "rows"}}

    def _dialogue_lengths(self, talks: tuple[Dialogues, Dialogues]) -> Part:
        def curves(abandoned: bool) -> Part:
            one, other = (sessions_of_dialogues(side, abandoned=abandoned) for side in talks)
            return {**measures.survival_part(one, other, seed=self.seed), "unit": "replies"}

        found = {"sessions": curves(False)}
        ends = [[(d.user, str(d.stop)) for d in side if d.stop is not None] for side in talks]
        if all(ends):
            one, other = (([user for user, _ in side], [stop for _, stop in side]) for side in ends)
            found |= {"abandonment": curves(True), "ends": measures.mix_part(one, other, seed=self.seed)}
        return found

    def _words(self, simulated: Dialogues, real: Dialogues) -> Part:
        masked = sum(message.is_masked for dialogue in simulated for message in dialogue.messages)
        if masked:
            self.notes.append(
                f"{masked} simulated messages told a title that was blanked out before anyone saw it; the rate of "
                "leaks counts what was seen."
            )
        return {
            "errors": word_measures.error_part(
                simulated, real, accept_level=self.accept_level, seed=self.seed
            ),
            "disclosure": word_measures.disclosure_part(simulated, real, seed=self.seed),
            "diversity": word_measures.diversity_part(simulated, real, seed=self.seed),
        }

    def _tell_behaviour(self, one: pd.DataFrame, other: pd.DataFrame) -> Part:
        found = measures.behaviour_two_sample(one, other, max_level=self.max_level, seed=self.seed)
        return measures.two_sample_part(found)

    def _tell_words(self, simulated: Dialogues, real: Dialogues) -> Part:
        return measures.two_sample_part(word_measures.word_two_sample(simulated, real, seed=self.seed))

    def _try(self, measure: Callable[..., Part | None], *sides: Any, **settings: int) -> Part | None:
        """A part, or None with a note of what it lacks: one measure that fails must not cost the others."""
        try:
            return measure(*sides, **settings)
        except (FaithfulnessError, MissingDependency) as err:
            if str(err) not in self.notes:
                self.notes.append(str(err))
            return None

    def _note_slots(self, slots: Part) -> None:
        if slots["p_even"] < _UNEVEN_P:
            self.notes.append(
                f"The options that real users took are not spread evenly over the slots "
                f"({', '.join(map(str, slots['rows']))}), so a model gains accuracy from the slot alone. Where lists "
                "were made up, deal slots evenly; where they were shown so, it is position bias."
            )


def _refuse(simulated: Evidence, real: Evidence, accept_level: int, max_level: int) -> None:
    if not 1 <= accept_level <= max_level:
        raise FaithfulnessError(
            f"The level of acceptance must lie in 1..{max_level}; got {accept_level}. Choose another --accept-level."
        )
    for side, name in ((simulated, "simulated"), (real, "real")):
        if side.dialogues:
            refuse_one_user([dialogue.user for dialogue in side.dialogues], name)
    if simulated.scenes is not None:
        refuse_one_user(simulated.scenes.users.tolist(), "simulated")


def _both(one: pd.DataFrame, other: pd.DataFrame, column: str) -> bool:
    return all(column in table and bool(table[column].notna().any()) for table in (one, other))


def _counts(side: Evidence) -> dict[str, int]:
    reactions = side.reactions
    users: set[str] = {dialogue.user for dialogue in side.dialogues}
    if reactions is not None:
        users |= set(reactions[USER])
    if side.scenes is not None:
        users |= set(side.scenes.users.tolist())
    return {
        "users": len(users),
        "rows": 0 if reactions is None else len(reactions),
        "dialogues": len(side.dialogues),
        "scenes": 0 if side.scenes is None else len(side.scenes),
    }
