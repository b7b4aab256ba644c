"""What AILO's language model answers: the schemas of its calls, in the five-call and in the merged form.

Fields bear the same names in both forms, reasons come before what they are reasons for, and the merged form judges
before it decides and speaks, as the order of its fields.
"""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

Words = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


class Intent(StrEnum):
    """What a user sets out to do in its next message; the paper's user policy."""

    CLARIFY = "answer_question"
    FEEDBACK = "give_feedback"
    END = "end_conversation"


class Form(StrEnum):
    """How many calls a turn costs.

    FIVE_CALLS: As published: one to choose an intent, one to write, three to rate.
    MERGED: One call for all of it; a second only where the title that is not to be told was told.
    """

    FIVE_CALLS = "five_calls"
    MERGED = "merged"


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class IntentChoice(_Answer):
    """What the user sets out to do, and why."""

    intent_reason: str
    intent: Intent


class WrittenReply(_Answer):
    """The response writer's answer in the five-call form."""

    reply_reason: str
    reply: Words


class PlainReply(_Answer):
    """A message and nothing else."""

    reply: Words


class RecommendationRating(_Answer):
    """How well the item fits: 0 where none was recommended, else 1 to 5."""

    recommendation_reason: str
    recommendation: Annotated[int, Field(ge=0, le=5)]


class ActionRating(_Answer):
    """How sensible the recommender's move was, 1 to 5."""

    action_reason: str
    action: Annotated[int, Field(ge=1, le=5)]


class ExpressionRating(_Answer):
    """What the recommender's wording loses of five points."""

    expression_reason: str
    flexibility: Annotated[int, Field(ge=0, le=2)]
    coherence: Annotated[int, Field(ge=0, le=2)]
    guidance: Annotated[int, Field(ge=0, le=1)]


class MergedTurn(_Answer):
    """Everything of a turn at once."""

    recommendation_reason: str
    recommendation: Annotated[int, Field(ge=0, le=5)]
    expression_reason: str
    flexibility: Annotated[int, Field(ge=0, le=2)]
    coherence: Annotated[int, Field(ge=0, le=2)]
    guidance: Annotated[int, Field(ge=0, le=1)]
    intent: Intent
    reply: Words
    action_reason: str
    action: Annotated[int, Field(ge=1, le=5)]


class AiloConfig(BaseModel):
    """How AILO users are run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # Calls a turn.
    form: Form = Form.MERGED
    # What is recommended, in the singular, for the prompts.
    item_word: str = "film"
    # Turns after which a dialogue ends.
    max_turns: Annotated[int, Field(ge=1)] = 5
    # Which scores the satisfaction of a turn is the mean of; the published ECPO trains on expression alone.
    satisfaction_from: Annotated[
        tuple[Literal["recommendation", "action", "expression"], ...], Field(min_length=1)
    ] = ("recommendation", "action", "expression")
    # Probability that a score comes out one point higher or lower than the model said.
    rating_noise: Annotated[float, Field(ge=0, le=1)] = 0.1
    # Probability that a user is absent-minded at a turn, and told to be.
    lapse_rate: Annotated[float, Field(ge=0, le=1)] = 0.05
    # Sampling temperature.
    temperature: Annotated[float, Field(ge=0)] = 0.7
    # How often a call is made until its answer is valid, at most.
    attempts: Annotated[int, Field(ge=1)] = 3
    # Longest answer of a call, in tokens.
    max_new_tokens: Annotated[int, Field(ge=16)] = 320
