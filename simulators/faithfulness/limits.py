"""How far a simulator may stray from reality before it is unfit for a use; each limit is a setting with its reason."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


def _share(default: float, reason: str) -> Any:
    """A limit above 0 and at most 1."""
    return Field(default=default, gt=0, le=1, description=reason)


class Limits(BaseModel):
    """Limits of the verdicts. The description of each field is its reason, and stands in every report."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # Share of levels or stars on the wrong side of some cut, 0..1.
    level_ks: float = _share(
        0.1,
        "At any cut-off, at most one reaction in ten may fall on the wrong side; a published re-run of "
        "prompted agents on film ratings, which never gave one or two stars, lay at 0.39.",
    )
    # Mean shift of levels or stars, as a share of their range.
    level_shift: float = _share(
        0.05,
        "Means of reactions are what people read; a twentieth of the scale, 0.2 of a level or star, is "
        "about what versions of a recommender differ by.",
    )
    # Excess of simulated over real acceptance, in shares.
    acceptance_excess: float = _share(
        0.03,
        "What a policy is trained against it exploits: acceptance for nothing is learned first.",
    )
    # AUC of simulated answers for real acceptance.
    acceptance_auc: float = Field(
        default=0.5,
        ge=0.5,
        lt=1,
        description="At one half the simulator does not know which items a user accepts, whatever its accuracy; the "
        "whole interval must be above. Sampled levels stay far below the AUC of probabilities, so no more is asked.",
    )
    # Difference of the slopes of openings along a list, in logits a unit of log(1 + position).
    position_slope: float = Field(
        default=0.15,
        gt=0,
        description="Over a list of ten, 0.15 is a third of a logit between first and last place: more would "
        "credit a recommender for its order, or not, where real users do otherwise.",
    )
    # Kendall's tau-b of the order of policies.
    ranking_tau: float = Field(
        default=0.6,
        gt=-1,
        le=1,
        description="At 0.6 four of five pairs of policies are in the real order; the interval must be above 0.",
    )
    # Expected calibration error of probabilities of options.
    calibration_error: float = _share(
        0.05,
        "Probabilities off by more than five points make expected counts of choices wrong.",
    )
    # Nats a choice that probabilities save over picking blindly.
    choices_saved: float = Field(
        default=0.0,
        ge=0,
        description="Even probabilities are calibrated and flat over slots, and know nothing; the whole interval must "
        "be above.",
    )
    # Least p of accuracies that do not depend on the slot.
    slot_p: float = Field(
        default=0.01,
        gt=0,
        lt=1,
        description="A model that is right more often in some slots has learned the slot and not the user.",
    )
    # How far the accuracy of a slot may stray by chance, in shares of choices.
    slot_noise: float = _share(
        0.05,
        "Where a slot's accuracy strays by more than five points anyway, accuracies that look flat show nothing.",
    )
    # Largest distance of survival curves, in shares of sessions.
    survival_gap: float = _share(
        0.1,
        "At no turn may more than one session in ten be open that should be over, or the other way round.",
    )
    # AUC of a classifier of behaviour, simulated from real.
    behaviour_auc: float = Field(
        default=0.65,
        gt=0.5,
        le=1,
        description="What a linear classifier tells apart from shares of reactions alone, an optimiser finds too.",
    )
    # AUC of a classifier of words, simulated from real.
    words_auc: float = Field(
        default=0.75,
        gt=0.5,
        le=1,
        description="Words are told apart more easily than they matter; beyond three of four pairs, wording is tuned "
        "for another kind of speaker.",
    )
    # Simulated less real self-BLEU.
    self_bleu_excess: float = _share(
        0.15,
        "A simulator that says the same to everybody rewards the one wording that fits what it says.",
    )
    # Simulated less real share of dialogues with a critical fault.
    critical_errors: float = _share(
        0.05,
        "One dialogue in twenty decided by the simulator's own fault is about what a better policy gains.",
    )
    # Simulated less real share of dialogues with a fault that helped the agent.
    helped_errors: float = _share(
        0.02,
        "Faults that help are the ones that training finds and repeats.",
    )
    # Simulated less real share of dialogues in which the user speaks as the agent.
    role_swaps: float = _share(
        0.03,
        "A user that recommends to itself answers nothing about the agent's wording.",
    )
    # Simulated less real share of dialogues in which the user contradicts itself.
    contradictions: float = _share(
        0.03,
        "Wording cannot be fitted to a person whose wishes change without cause.",
    )
