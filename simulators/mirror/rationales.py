"""Decision rationales of a strong and a weak model, and which scenes are worth learning from.

A rationale tells a choice in the four stages of Engel, Kollat and Blackwell (1968, "Consumer Behavior"): what caught
the eye, what is known of it, how it was weighed, what was done. A weak model then scores a scene's options given each
rationale. Where the weak model's own rationales leave much doubt and the strong model's little, the scene teaches
(UserMirrorer, arXiv 2508.18142). Differs from the published code: options are scored by all tokens of their label, not
the first; a scene whose rationales all miss is reported, not lost; strata share a quota evenly.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict
from scipy.special import softmax

from persona.policy.language_model import LanguageModel
from persona.policy.scoring import policy_log_probs, score_by_length
from simulators.chat.model import ChatModel
from simulators.chat.structured import complete_json
from simulators.errors import MirrorError

Values = NDArray[np.float64]
Ints = NDArray[np.int64]

STAGES = ("stimulus", "knowledge", "evaluation", "behaviour")
STYLES = ("reasoned", "intuitive", "impulsive", "habitual")
LABELS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

_TASK = (
    "You imagine how one person decides. You are told what the person did before and what is on offer now. "
    "Tell the decision step by step, in the person's place:\n"
    "stimulus: what on the list, or around it, catches the eye, and why.\n"
    "knowledge: what the person knows or believes about the options, from experience or from the list.\n"
    f"evaluation: how the options are weighed, and in which manner ({', '.join(STYLES)}).\n"
    "behaviour: the label of the one option taken.\n"
    "Answer as JSON with these four keys. Keep each of the first three to two sentences."
)
_SCORE = "Answer with the label of the one option that this person takes, and nothing else."


class Rationale(BaseModel):
    """One way to tell a decision."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # What caught the eye.
    stimulus: str
    # What is known or believed of the options.
    knowledge: str
    # How they were weighed.
    evaluation: str
    # The letter of the option taken.
    behaviour: str

    @property
    def thoughts(self) -> str:
        """The stages before the behaviour, one a line."""
        return "\n".join(f"{stage}: {getattr(self, stage)}" for stage in STAGES[:-1])


def option_labels(n_options: int) -> tuple[str, ...]:
    """A, B, C and so on.

    Raises:
        MirrorError: Fewer than two options, or more than letters.
    """
    if not 2 <= n_options <= len(LABELS):
        raise MirrorError(f"A scene must have 2 to {len(LABELS)} options to be lettered; got {n_options}.")
    return tuple(LABELS[:n_options])


def scene_text(history: Sequence[str], options: Sequence[str]) -> str:
    """What a model is told of a scene: what was met before, oldest first, and the options by letter."""
    before = "\n".join(f"- {line}" for line in history) or "- nothing that is known"
    offer = "\n".join(f"[{x}] {line}" for x, line in zip(option_labels(len(options)), options, strict=True))
    return f"Before:\n{before}\nOn offer:\n{offer}"


def rationale_prompt(scene: str) -> list[dict[str, str]]:
    """Asks for a rationale of the scene that `scene_text` put into words; what was really taken is not told."""
    return [{"role": "system", "content": _TASK}, {"role": "user", "content": scene}]


def scoring_prompt(scene: str, thoughts: str) -> list[dict[str, str]]:
    """Asks for the option, given the first three stages of a rationale; the behaviour that it ended in is not told."""
    return [
        {"role": "system", "content": _SCORE},
        {"role": "user", "content": f"{scene}\nThe person thinks:\n{thoughts}"},
    ]


def write_rationales(
    chat: ChatModel, scenes: Sequence[str], *, seeds: Sequence[int], attempts: int = 2
) -> list[Rationale | None]:
    """One rationale a scene; None where the model gave none in form. Call again with other seeds for more.

    Args:
        chat: Writes.
        scenes: From `scene_text`.
        seeds: One a scene.
        attempts: How often an answer out of form is asked for again, the first time included.
    """
    prompts = [rationale_prompt(scene) for scene in scenes]
    told = complete_json(chat, prompts, Rationale, seeds=seeds, attempts=attempts, max_new_tokens=320)
    return [parsed.value for parsed in told]


@torch.inference_mode()
def score_options(
    model: LanguageModel, scenes: Sequence[str], labels: Sequence[Sequence[str]], thoughts: Sequence[str]
) -> Values:
    """P(option) of a local model, asked in words, that has read each rationale's thoughts.

    An option's score is the log-probability of its whole label as a reply, normalised over the scene's options, so it
    holds however the tokenizer cuts labels.

    Args:
        model: Reads.
        scenes: One a rationale, from `scene_text`.
        labels: Of the options of each scene, such as `option_labels` gives them.
        thoughts: `Rationale.thoughts`, N of them.

    Returns:
        Shape (N, largest number of options), zero where a scene has fewer.
    """
    asked = [scoring_prompt(scene, told) for scene, told in zip(scenes, thoughts, strict=True)]
    rows = [
        model.encode_reply(prompt, label) for prompt, own in zip(asked, labels, strict=True) for label in own
    ]
    with model.precision():
        packed = score_by_length(
            rows, lambda part: policy_log_probs(model.model, [rows[i] for i in part]), model.device
        )
    scores = packed.sum(dim=1).double().cpu().numpy()
    n_options = [len(own) for own in labels]
    owner = np.repeat(np.arange(len(asked)), n_options)
    slot = np.arange(len(rows)) - np.repeat(np.cumsum(n_options) - n_options, n_options)
    table = np.full((len(asked), max(n_options, default=0)), -np.inf)
    table[owner, slot] = scores
    found: Values = softmax(table, axis=1) if len(table) else table
    return found


class Doubt(NamedTuple):
    """How unsure a model is of each scene, in nats; shape (S,) each.

    total: Entropy of the mean distribution over a scene's rationales.
    model: Mean entropy of the distributions given each rationale: what no story settles.
    data: total - model, at least 0: how far the rationales disagree.
    """

    total: Values
    model: Values
    data: Values


def decompose_doubt(probabilities: ArrayLike) -> Doubt:
    """Split the doubt about every scene.

    Args:
        probabilities: P(option) given each rationale; options that a scene lacks have 0. Shape (S, D, O).

    Raises:
        MirrorError: Rows that are not distributions, or no rationale.

    Example:
        Two sure rationales that disagree: all doubt, log 2, is in the data.

        >>> doubt = decompose_doubt([[[1.0, 0.0], [0.0, 1.0]]])
        >>> round(float(doubt.data[0]), 4), float(doubt.model[0])
        (0.6931, 0.0)
    """
    given = _distributions(probabilities)
    total, model = _entropy(given.mean(axis=1)), _entropy(given).mean(axis=1)
    # Jensen's inequality holds but for the last bit.
    return Doubt(total, model, np.maximum(total - model, 0.0))


def selection_gain(weak: ArrayLike, strong: ArrayLike) -> Values:
    """How much surer the strong model's rationales leave the reader: difference of `Doubt.model`, weak less strong.

    Args:
        weak: P(option) given the weak model's rationales. Shape (S, D, O).
        strong: P(option) given the strong model's. Shape (S, D', O).
    """
    return decompose_doubt(weak).model - decompose_doubt(strong).model


def select_scenes(gain: Values, strata: ArrayLike, usable: NDArray[np.bool_], count: int) -> Ints:
    """The usable scenes of the largest gain, as many from each stratum as can be.

    Strata take turns, each giving its best scene that is left, until `count` are taken; a small one that runs out
    leaves its places to the others.

    Args:
        gain: From `selection_gain`. Shape (S,).
        strata: What the choice is to be even over, such as domain and number of options. Shape (S,).
        usable: Which scenes have a rationale that hits. Shape (S,).
        count: How many to take, at most.

    Returns:
        Rows of the scenes, by falling gain.

    Raises:
        MirrorError: Arrays of different lengths, or a negative count.
    """
    kinds = np.unique(np.asarray(strata), return_inverse=True)[1]
    if not gain.shape == kinds.shape == usable.shape or count < 0:
        raise MirrorError(
            f"`gain`, `strata` and `usable` must have one entry a scene and `count` be at least 0; got "
            f"{gain.shape}, {kinds.shape}, {usable.shape} and {count}."
        )
    rows = np.flatnonzero(usable)
    rows = rows[np.argsort(-gain[rows], kind="stable")]
    turn = _rank_within(kinds[rows])
    # Within a turn the better scenes go first, so that the last turn, if cut, keeps them.
    taken = rows[np.argsort(turn, kind="stable")][:count]
    return np.asarray(taken[np.argsort(-gain[taken], kind="stable")], np.int64)


class RationalePairs(NamedTuple):
    """For each scene, the rationale to learn and the one to unlearn.

    chosen: Index of the strong rationale that hits with least entropy, -1 where none hits. Shape (S,).
    rejected: Index of the rationale that misses with least entropy, -1 where none misses; the strong model's first,
        then the weak one's at D and up. Shape (S,).
    usable: Which scenes have both. Shape (S,).
    missed: Scenes in which no rationale of either model hits. Shape (S,).
    """

    chosen: Ints
    rejected: Ints
    usable: NDArray[np.bool_]
    missed: NDArray[np.bool_]


def pair_rationales(strong: ArrayLike, weak: ArrayLike, taken: ArrayLike) -> RationalePairs:
    """Pair rationales by whether they lead the reader to what was really taken.

    A rationale hits where the taken option is likelier than every other given it.

    Args:
        strong: P(option) given the strong model's rationales. Shape (S, D, O).
        weak: P(option) given the weak model's. Shape (S, D', O).
        taken: The option that was really taken. Shape (S,).

    Raises:
        MirrorError: Shapes that do not fit, or an option that does not exist.
    """
    told, own = _distributions(strong), _distributions(weak)
    truth = np.asarray(taken, np.int64)
    if told.shape[::2] != own.shape[::2] or truth.shape != told.shape[:1]:
        raise MirrorError(
            f"`strong`, `weak` and `taken` must speak of the same scenes and options; got {told.shape}, {own.shape} "
            f"and {truth.shape}."
        )
    if len(truth) and not 0 <= truth.min() <= truth.max() < told.shape[2]:
        raise MirrorError(f"`taken` must lie in 0..{told.shape[2] - 1}; got {truth.min()}..{truth.max()}.")
    every = np.concatenate([told, own], axis=1)
    hits, entropy = _hits(every, truth), _entropy(every)
    is_strong = np.arange(every.shape[1]) < told.shape[1]
    chosen = _surest(entropy, hits & is_strong)
    rejected = _surest(entropy, ~hits)
    return RationalePairs(chosen, rejected, (chosen >= 0) & (rejected >= 0), np.logical_not(hits.any(axis=1)))


def _hits(given: Values, truth: Ints) -> NDArray[np.bool_]:
    own = np.take_along_axis(given, truth[:, None, None], axis=2)
    # A tie is no hit: the reader would not know what to take.
    found: NDArray[np.bool_] = (given >= own).sum(axis=2) == 1
    return found


def _surest(entropy: Values, among: NDArray[np.bool_]) -> Ints:
    """Index of the least entropy in each row, -1 where none counts."""
    best = np.where(among, entropy, np.inf).argmin(axis=1)
    return np.where(among.any(axis=1), best, -1)


def _rank_within(kinds: Ints) -> Ints:
    """How many earlier rows are of the same kind."""
    order = np.argsort(kinds, kind="stable")
    ordered = kinds[order]
    starts = np.searchsorted(ordered, ordered, side="left")
    rank = np.empty(len(kinds), np.int64)
    rank[order] = np.arange(len(kinds)) - starts
    return rank


def _distributions(probabilities: ArrayLike) -> Values:
    given = np.asarray(probabilities, np.float64)
    if given.ndim != 3 or not given.shape[1] or (given < 0).any() or not np.allclose(given.sum(axis=-1), 1.0):
        raise MirrorError(
            "Probabilities must have shape (scenes, rationales, options), at least one rationale, and sum to 1 over "
            f"the options; got shape {given.shape}. Normalise the scores of each rationale."
        )
    return given


def _entropy(probabilities: Values) -> Values:
    """In nats, over the last axis; 0 log 0 is 0."""
    positive = np.where(probabilities > 0, probabilities, 1.0)
    found: Values = -(positive * np.log(positive)).sum(axis=-1)
    return found
