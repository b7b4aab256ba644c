"""A user's choices as shots: how they go through a chat template, and where prompt and replies stand behind them."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from persona.errors import ModelError
from persona.policy.context_windows import Prompt
from persona.policy.language_model import LanguageModel
from persona.rewards.attributes import ATTRIBUTES, measure_attributes
from persona.types import Conversation


class Shot(NamedTuple):
    """One choice of a user, as texts.

    conversation: What both replies answer.
    chosen: The reply that the user preferred.
    rejected: The other one.
    """

    conversation: Conversation
    chosen: str
    rejected: str


class ShotFormat(BaseModel):
    """How shots become tokens, and what later rows see of them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # Whether a shot repeats the question that its replies answer.
    question: bool = False
    # Words before the reply not wanted.
    mark: str = "Not: "
    # False: every shot is a window of its own, so shots are a set. True: all shots are one text, in order.
    in_order: bool = False
    # Last tokens of each window that later rows see, which have to sum it up; None for all.
    last_tokens: int | None = Field(default=8, ge=1)
    # Positions for a window, in tokens; a longer shot is left out, and in one text the oldest shots are.
    room: int = Field(default=192, ge=8)
    # Most shots read, the newest; None for all that are given.
    most: int | None = Field(default=None, ge=0)


class Order(NamedTuple):
    """Shots laid out in one order.

    windows: Indexes of the token rows that a prompt sees.
    start: Position that the prompt starts at.
    exchanges: The messages before the prompt, where all shots are one text with it.
    """

    windows: tuple[int, ...] = ()
    start: int = 0
    exchanges: Conversation = ()


class Layout(NamedTuple):
    """Shots as token rows to be read, and the orders in which they are seen."""

    rows: tuple[tuple[int, ...], ...]
    orders: tuple[Order, ...]


def render_shot(shot: Shot, shot_format: ShotFormat) -> Conversation:
    """One exchange: the user shows the reply not wanted, the assistant gives the one that was chosen."""
    asked = f"{shot.conversation[-1]['content']}\n" if shot_format.question else ""
    return [
        {"role": "user", "content": f"{asked}{shot_format.mark}{shot.rejected}"},
        {"role": "assistant", "content": shot.chosen},
    ]


def describe_choices(shots: Sequence[Shot], most: int = 2) -> str:
    """The attributes in which a user's chosen replies differ most surely from the others, in words.

    Sureness is the sum of an attribute's differences over the root of the sum of their squares: its sign alone for a
    single shot, growing with the root of the number of shots that agree.

    Args:
        shots: A user's choices.
        most: Most attributes named.

    Example:
        >>> describe_choices([Shot([], "Yes!", "It is a quiet film that lasts two hours.")])
        'likes brevity and likes plainness'
    """
    chosen = measure_attributes([shot.chosen for shot in shots])
    rejected = measure_attributes([shot.rejected for shot in shots])
    difference = chosen - rejected
    spread = np.sqrt((difference**2).sum(0))
    sureness = difference.sum(0) / np.where(spread > 0, spread, 1.0)
    named = [axis for axis in np.argsort(-np.abs(sureness), kind="stable")[:most] if sureness[axis] != 0]
    words = [f"{'likes' if sureness[axis] > 0 else 'minds'} {ATTRIBUTES[axis]}" for axis in named]
    return " and ".join(words) if words else "likes what most like"


def lay_out_shots(
    model: LanguageModel,
    shots: Sequence[Shot],
    shot_format: ShotFormat,
    *,
    orders: int = 1,
    system: str | None = None,
) -> Layout:
    """Shots as token rows and, for each order of the shots, which rows are seen and where a prompt starts.

    What does not fit is left out: apart, every shot that is longer than the room; in one text, the oldest shots.

    Args:
        model: Its template and tokenizer render the shots.
        shots: One user's, oldest first.
        shot_format: How they are rendered.
        orders: Orders to lay out where shots are one text: as given, backwards, then turned by a quarter each.
        system: System message before shots and prompt, where they are one text.
    """
    if shot_format.most is not None:
        shots = shots[max(0, len(shots) - shot_format.most) :]
    exchanges = [render_shot(shot, shot_format) for shot in shots]
    if not shot_format.in_order:
        rows = [tuple(model.encode(exchange, False)) for exchange in exchanges]
        rows = [row for row in rows if len(row) <= shot_format.room]
        return Layout(tuple(rows), (Order(tuple(range(len(rows))), shot_format.room if rows else 0),))
    opening = [] if system is None else [{"role": "system", "content": system}]

    def as_text(parts: Sequence[Conversation]) -> Conversation:
        return [*opening, *(message for part in parts for message in part)]

    while exchanges and len(model.encode(as_text(exchanges), False)) > shot_format.room:
        exchanges = exchanges[1:]
    if not exchanges:
        return Layout((), (Order(),))
    texts = [as_text(_turn(exchanges, order)) for order in range(min(orders, 2 * len(exchanges)))]
    rows = [tuple(model.encode(text, False)) for text in texts]
    return Layout(
        tuple(rows),
        tuple(Order((i,), len(row), text) for i, (row, text) in enumerate(zip(rows, texts, strict=True))),
    )


class Placed(NamedTuple):
    """A prompt where its shots let it start, and the tokens of replies to it, end tokens included."""

    prompt: Prompt
    replies: list[list[int]]


def place_prompt(
    model: LanguageModel,
    layout: Layout,
    order: Order,
    conversation: Conversation,
    replies: Sequence[str] = (),
    *,
    reserve: int = 0,
) -> Placed:
    """Tokens of a conversation behind its shots, and those of replies to it.

    Shots give way to the question: if not all fits the model's window, the prompt is read without them.

    Args:
        model: Its template and tokenizer render both.
        layout: The shots' tokens.
        order: Which of them are seen.
        conversation: Ends with a message to be answered.
        replies: Replies to it.
        reserve: Tokens to leave free for a reply.

    Raises:
        ModelError: The last message and a reply do not fit the window even without shots; or the template renders
            shots otherwise where a prompt follows them.
    """
    rows = [model.encode_reply(conversation, reply) for reply in replies]
    answers = [[t for t, own in zip(row.ids, row.policy, strict=True) if own] for row in rows]
    reserve = max([reserve, *map(len, answers)])
    alone = model.encode(conversation, reserve=reserve)
    # Special tokens may stand before both the shots and the prompt, so this errs on the side of leaving room.
    if order.start + len(alone) + reserve > model.window:
        return Placed(Prompt(alone), answers)
    if not order.exchanges:
        return Placed(Prompt(alone, order.windows, order.start), answers)
    spoken = [message for message in conversation if message["role"] != "system"]
    whole = model.encode([*order.exchanges, *spoken], reserve=reserve)
    if tuple(whole[: order.start]) != layout.rows[order.windows[0]]:
        raise ModelError(
            f"The chat template must render shots the same whatever follows; that of {model.name!r} does not. Read "
            "shots apart, with `in_order=False`."
        )
    return Placed(Prompt(whole[order.start :], order.windows, order.start), answers)


def _turn(exchanges: Sequence[Conversation], order: int) -> list[Conversation]:
    """The exchanges in another order: every second one backwards, each next two turned by a quarter more."""
    shift = (order // 2) * max(1, len(exchanges) // 4) % len(exchanges)
    shifted = [*exchanges[shift:], *exchanges[:shift]]
    return shifted[::-1] if order % 2 else shifted
