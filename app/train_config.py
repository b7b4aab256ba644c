"""What `persona train` does, said once: which finished run it starts from, whom it trains with, and who judges."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from app.chat_config import LOCAL, ChatFields, ChatName, UserKind


class TrainConfig(ChatFields):
    """Every choice of one training; who speaks for the users is `app.chat_config.ChatFields`."""

    # Folder of a finished `persona run`: its world, retriever, profile and policy.
    run: Annotated[str, Field(min_length=1)]
    # Every random draw follows from this one number, 0 or more.
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0

    # Whom the policy trains with: "learned" from what the run logged, "viewers" of the world itself, "ailo",
    # "ailo-five-calls", "persona-prompt", "target-holding", "random" or "over-agreeable"; see `app.casting`.
    users: UserKind = "learned"
    # Who judges, on users whom training never meets: "viewers", "learned" ones where viewers train, or any other kind
    # than trains; "ailo" and "persona-prompt" may judge their own kind if another model plays them.
    judges: UserKind = "viewers"
    # Speaks for the judges, named as `chat` is, which speaks for the users trained with.
    judges_chat: ChatName = LOCAL
    # Agent to begin with: before ("policy") or after ("last") the run's own rounds of talking, the "base" model, or the
    # folder of another training from the same run.
    start: Annotated[str, Field(min_length=1)] = "policy"
    # Users who train and users who judge, at least 2 each and at most as many as the run has.
    learners: Annotated[int, Field(ge=2)] = 128
    judging: Annotated[int, Field(ge=2)] = 200
    # Learners who are heard beside the judges, to see whether the policy pleases those it trains with rather than serve
    # them; at most all, none below 2.
    watched: Annotated[int, Field(ge=0)] = 64

    # Dialogues of each learner whose successes are imitated first, 0 or more, and optimiser steps of that.
    plans: Annotated[int, Field(ge=0)] = 1
    plan_steps: Annotated[int, Field(ge=1)] = 32
    # Rounds of talking and learning, 0 or more.
    rounds: Annotated[int, Field(ge=0)] = 1
    # For mtdpo and mtkto: dialogues of each learner in a round, at least 2.
    attempts: Annotated[int, Field(ge=2)] = 4
    # For ecpo: dialogues of each learner in a round, each under luck of its own, at least 1.
    talks: Annotated[int, Field(ge=1)] = 2
    # For ecpo: turns rated at most so many stars fell short, 1 to 5; all but the best in the published code.
    threshold: Annotated[float, Field(ge=1, le=5)] = 4.0
    # Rewrites tried for each, at least 1.
    candidates: Annotated[int, Field(ge=1)] = 4
    # Whether turns are chosen by their user's rating and mended by its reasons, or by chance and blindly.
    confirmation: bool = True
    # What a rewrite must pass: "felt" better by the same users under the same luck, found better by a language model as
    # "judge", "both", or "none".
    gate: Literal["felt", "judge", "both", "none"] = "felt"
    # The language model that judges at the gate, named as `chat` is.
    gate_chat: ChatName = LOCAL
    # Its votes on each rewrite in each order, at least 1, and whether it first answers the user itself, to compare with
    # (self-reference).
    gate_votes: Annotated[int, Field(ge=1)] = 1
    gate_own_answer: bool = False
    # Who rewrites: the "policy" itself, or a language model, named as `chat`.
    rewriter: ChatName = "policy"
    # How far the policy is steered away from what was minded when it rewrites, 0 to 1. At 0 it draws again, and the
    # gate alone makes rewrites better, which teaches more.
    steer: Annotated[float, Field(ge=0, le=1)] = 0.0

    # Passes over a round's pairs or dialogues, how many are in a step (at least 2), and the pull towards the policy
    # before, in 1/nat.
    epochs: Annotated[float, Field(gt=0)] = 3.0
    pairs_per_step: Annotated[int, Field(ge=2)] = 16
    beta: Annotated[float, Field(gt=0)] = 0.1
    # For ecpo: pairs of the run's own pool to be learned beside each round's, that nobody be forgotten; 0 or more.
    replay: Annotated[int, Field(ge=0)] = 0
    # For ecpo: weight of the preferred reply's own likelihood, 0 or more.
    sft_weight: Annotated[float, Field(ge=0)] = 1.0
    # Peak learning rates of the LoRA and of the gate, above 0.
    lora_lr: Annotated[float, Field(gt=0)] = 2e-3
    gate_lr: Annotated[float, Field(gt=0)] = 3e-3

    @model_validator(mode="before")
    @classmethod
    def _let_others_judge(cls, given: dict[str, Any]) -> dict[str, Any]:
        return {"judges": "learned" if given.get("users") == "viewers" else "viewers"} | given
