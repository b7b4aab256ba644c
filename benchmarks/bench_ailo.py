"""What AILO's merged form saves and whether it rates as the published five calls do.

Users of the film world, with personas read off their log and their preferred replies, talk with an agent in the
five-call form. Every turn is then met again: in the five-call form under another seed, which shows how far the model
agrees with itself, and in the merged form. Reported are Cohen's kappa of each score (quadratic) and of the intent
(plain), with intervals over users; tokens read and written a turn, by the embedded model's tokenizer or as the endpoint
counts them; and how much of what is read is a prefix that the dialogue's last turn already had.

By default the model is `tests.helpers.actor.Actor`, which judges by rule with noise. That measures the machinery:
whether both forms tell the model the same and read it right, and what they cost. It says nothing of how a language
model judges, whose two forms may differ more; for that, name an endpoint. Writes
`results/ailo/<date>-<commit>.json`; a dirty checkout writes to `results/local/ailo/`.

    python -m benchmarks.bench_ailo --users 200 --seeds 0 1 2
    python -m benchmarks.bench_ailo --users 50 --seeds 0 --endpoint http://127.0.0.1:8000/v1 --model my-model
"""

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from app.quiet import quiet_libraries
from benchmarks.recording import record
from persona.policy.language_model import load_language_model
from persona.rewards.attributes import ATTRIBUTES
from recsys.models.popularity import Popularity
from recsys.types import histories_from_log
from simulators.agent import Recommender
from simulators.agreement import cohen_kappa
from simulators.chat.endpoint import EndpointChat
from simulators.chat.endpoint_settings import EndpointSettings
from simulators.chat.model import ChatModel, Completion, Message
from simulators.rollout import rollout
from simulators.types import Confirmation, Dialogue
from simulators.users.ailo import AiloUsers
from simulators.users.ailo_types import AiloConfig, Form, Intent
from simulators.users.persona_building import ObservedChoices, personas_from_log
from simulators.users.personas import Persona
from simulators.world import World, build_film_world
from tests.helpers.actor import Actor
from tests.helpers.talking import GrammarPolicy

GOAL_KAPPA, GOAL_TOKENS = 0.8, 0.2
SCORES = ("recommendation", "action", "expression")
N_BOOT = 500
PAIRS = 32

Ratings = dict[str, NDArray[np.float64]]


class Metered:
    """Passes on and counts what each call reads and writes.

    Args:
        inner: Answers.
        tokens_of: Splits a text into tokens, to see what of a prompt was read before.
    """

    def __init__(self, inner: ChatModel, tokens_of: Callable[[str], list[int]]) -> None:
        self._inner = inner
        self._tokens_of = tokens_of
        self._last: dict[str, list[int]] = {}
        self.calls = self.read = self.written = self.again = self.counted = 0

    @property
    def slots(self) -> frozenset[str]:
        """Those of the model."""
        return self._inner.slots

    def complete(self, conversations: Sequence[Sequence[Message]], **settings: object) -> list[Completion]:
        """See `ChatModel.complete`."""
        found = self._inner.complete(conversations, **settings)  # type: ignore[arg-type]
        self.calls += len(found)
        self.read += sum(row.prompt_tokens for row in found)
        self.written += sum(row.completion_tokens for row in found)
        for conversation in conversations:
            self._count_prefix(conversation)
        return found

    def _count_prefix(self, conversation: Sequence[Message]) -> None:
        """What this prompt begins with that the last prompt of the same system message began with too."""
        tokens = self._tokens_of("\n".join(message["content"] for message in conversation))
        before = self._last.get(conversation[0]["content"], [])
        shared = next((i for i, (a, b) in enumerate(zip(tokens, before, strict=False)) if a != b), None)
        self.again += min(len(tokens), len(before)) if shared is None else shared
        self.counted += len(tokens)
        self._last[conversation[0]["content"]] = tokens

    def report(self, turns: int) -> dict[str, float]:
        """Calls and tokens a turn, and the share of what was read that the last prompt held."""
        return {
            "calls": self.calls / turns,
            "tokens_read": self.read / turns,
            "tokens_written": self.written / turns,
            "tokens": (self.read + self.written) / turns,
            "prefix_share": self.again / max(self.counted, 1),
        }


class Met(NamedTuple):
    """Every turn of some dialogues, met once.

    owner: Row of the turn's user. Shape (N,).
    number: Number of the turn in its dialogue. Shape (N,).
    ratings: Scores by name, and the intent as a number. Each of shape (N,).
    """

    owner: NDArray[np.int64]
    number: NDArray[np.int64]
    ratings: Ratings


def main() -> None:
    """Measure every seed and write one JSON file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--users", type=int, default=200, help="users a seed")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="one world a seed")
    parser.add_argument(
        "--noise", type=float, nargs="+", default=[0.0, 0.05, 0.1], help="of the actor's scores"
    )
    parser.add_argument("--endpoint", help="an OpenAI-compatible endpoint in the actor's place")
    parser.add_argument("--model", default="default", help="the endpoint's model")
    parser.add_argument("--api-key-variable", help="environment variable that holds the endpoint's key")
    options = parser.parse_args()
    quiet_libraries()
    language_model = load_language_model("nano", "cpu")

    def tokens_of(text: str) -> list[int]:
        return list(language_model.tokenizer(text)["input_ids"])

    def chat_of(noise: float) -> ChatModel:
        if options.endpoint:
            return EndpointChat(
                EndpointSettings(
                    base_url=options.endpoint,
                    model=options.model,
                    api_key_variable=options.api_key_variable,
                )
            )
        return Actor(noise=noise, count_tokens=lambda text: len(tokens_of(text)))

    levels = [0.0] if options.endpoint else options.noise
    runs = [
        measure(chat_of(noise), tokens_of, options.users, seed) | {"noise": noise, "seed": seed}
        for noise in levels
        for seed in options.seeds
    ]
    for run in runs:
        print(run)
    result = {
        "model": options.model if options.endpoint else "actor",
        "users": options.users,
        "goals": {"kappa_at_least": GOAL_KAPPA, "token_share_at_most": GOAL_TOKENS},
        "runs": runs,
    }
    print(record("ailo", result))


def measure(
    chat: ChatModel, tokens_of: Callable[[str], list[int]], n_users: int, seed: int
) -> dict[str, object]:
    """One world: agreement, tokens and time of both forms on the same turns."""
    world = build_film_world(600, n_users, seed=seed)
    personas = personas_from_log(
        world.log, world.catalogue, range(n_users), choices=observe_choices(world, n_users, seed), seed=seed
    )
    dialogues = talk(world, users_of(Form.FIVE_CALLS, personas, chat), n_users, seed)
    meters = {form: Metered(chat, tokens_of) for form in Form}
    started = time.perf_counter()
    met = {
        form: meet_again(users_of(form, personas, meters[form]), dialogues, 1000 + seed + i)
        for i, form in enumerate(Form)
    }
    seconds = time.perf_counter() - started
    first = meet_again(users_of(Form.FIVE_CALLS, personas, chat), dialogues, seed)
    turns = len(first.owner)
    tokens = {form.value: meters[form].report(turns) for form in Form}
    return {
        "turns": turns,
        "dialogues": len(dialogues),
        "agreement": agreement(first, met[Form.MERGED], seed),
        "agreement_with_itself": agreement(first, met[Form.FIVE_CALLS], seed),
        "tokens_a_turn": tokens,
        "token_share": tokens[Form.MERGED.value]["tokens"] / tokens[Form.FIVE_CALLS.value]["tokens"],
        "token_share_by_turn": shares_by_turn(personas, chat, tokens_of, dialogues, seed),
        "seconds": seconds,
    }


def users_of(form: Form, personas: Sequence[Persona], chat: ChatModel) -> AiloUsers:
    """Users without noise of their own, so that only the model's is left."""
    return AiloUsers(personas, chat, AiloConfig(form=form, rating_noise=0.0, lapse_rate=0.0))


def observe_choices(world: World, n_users: int, seed: int) -> ObservedChoices:
    """What users were seen to prefer among replies that differ at random."""
    rng = np.random.default_rng((seed, 51))
    users = np.repeat(np.arange(n_users), PAIRS)
    one, other = rng.normal(size=(2, len(users), len(ATTRIBUTES)))
    first = world.oracle.choose(users, one, other, rng.random(len(users)))
    return ObservedChoices(users, np.where(first[:, None], one - other, other - one))


def talk(world: World, users: AiloUsers, n_users: int, seed: int) -> list[Dialogue]:
    """The dialogues of all users with an agent that words popular films by the world's grammar."""
    histories = histories_from_log(world.log, np.arange(n_users), len(world.catalogue))
    agent = Recommender(world.catalogue, Popularity.fit(histories), GrammarPolicy())  # type: ignore[arg-type]
    return rollout(range(n_users), agent, users, histories=histories, condition=None, seed=seed)


def meet_again(users: AiloUsers, dialogues: Sequence[Dialogue], seed: int) -> Met:
    """The reaction to every turn, under another seed; a turn whose model failed is an error here."""
    turns = [(row, i, turn) for row, d in enumerate(dialogues) for i, turn in enumerate(d.turns)]
    found = users.react(
        [dialogues[row].before(i) for row, i, _ in turns],
        [turn.card for _, _, turn in turns],
        [turn.reply for _, _, turn in turns],
        seed=seed,
    )
    said: list[Confirmation] = []
    for reaction in found:
        if reaction.confirmation is None:
            raise SystemExit(f"The model failed: {reaction.utterance.failure}")
        said.append(reaction.confirmation)
    ratings = {name: np.asarray([c.scores[name] for c in said], np.float64) for name in SCORES}
    intents = [intent.value for intent in Intent]
    ratings["intent"] = np.asarray([intents.index(c.intent or "") for c in said], np.float64)
    ratings["level"] = np.asarray([reaction.level for reaction in found], np.float64)
    owner = np.asarray([row for row, _, _ in turns])
    return Met(owner, np.asarray([i for _, i, _ in turns]), ratings)


def agreement(one: Met, other: Met, seed: int) -> dict[str, dict[str, float]]:
    """Kappa of each rating with a percentile interval over users, and the share of equal ratings."""
    rng = np.random.default_rng((seed, 52))
    rows_of = [np.flatnonzero(one.owner == user) for user in np.unique(one.owner)]
    draws = [
        np.concatenate([rows_of[u] for u in rng.integers(0, len(rows_of), len(rows_of))])
        for _ in range(N_BOOT)
    ]
    report = {}
    for name in (*SCORES, "level", "intent"):
        a, b = one.ratings[name], other.ratings[name]
        weights = "none" if name == "intent" else "quadratic"
        again = [cohen_kappa(a[rows], b[rows], weights=weights) for rows in draws]  # type: ignore[arg-type]
        low, high = np.nanpercentile(again, [2.5, 97.5]).tolist()
        kappa = cohen_kappa(a, b, weights=weights)  # type: ignore[arg-type]
        report[name] = {"kappa": kappa, "low": low, "high": high, "equal": float((a == b).mean())}
    return report


def shares_by_turn(
    personas: Sequence[Persona],
    chat: ChatModel,
    tokens_of: Callable[[str], list[int]],
    dialogues: Sequence[Dialogue],
    seed: int,
) -> list[Mapping[str, float]]:
    """Tokens of the merged form as a share of the five calls', for the first turn, the second, and so on."""
    report: list[Mapping[str, float]] = []
    for number in range(max(len(d.turns) for d in dialogues)):
        there = [d for d in dialogues if len(d.turns) > number]
        spent = {}
        for form in Form:
            meter = Metered(chat, tokens_of)
            users_of(form, personas, meter).react(
                [d.before(number) for d in there],
                [d.turns[number].card for d in there],
                [d.turns[number].reply for d in there],
                seed=seed,
            )
            spent[form] = meter.read + meter.written
        report.append(
            {"turn": number + 1, "n": len(there), "share": spent[Form.MERGED] / spent[Form.FIVE_CALLS]}
        )
    return report


if __name__ == "__main__":
    main()
