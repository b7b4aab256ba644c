"""A light model trained on decision rationales: what imitation and DPO add, alone and beside a fitted choice model.

In the film world, on users never trained on: expected accuracy, log loss, calibration and accuracy by slot of the
embedded model as it is after it learned the form of a decision (weak), of a teacher's rationales as the weak model
reads them (strong), of the chances that the teacher itself draws from (teacher), after imitation of the rationales that
teach (sft), and after DPO on them (sft_dpo); and of each put together with the choice model, by weights fitted to other
users. The teacher tells what the choice model believes and what the user asks for; it knows neither the truth nor what
was taken. The embedded model, of five million parameters, cannot write a decision unasked, so it first imitates the
teacher's unselected ones. Writes `results/mirroring/<date>-<commit>.json` with the machine and all figures; a dirty
checkout writes to `results/local/`.

    python -m benchmarks.bench_mirroring --seeds 0 1 2
"""

import argparse
import json
import time
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.mirroring_scenes import FilmScenes, film_scenes, teacher_chances, teacher_stories
from benchmarks.recording import record
from persona.policy import ConditionedPolicy, load_language_model
from simulators.faithfulness.choices import (
    Scenes,
    expected_accuracy_by_scene,
    mean_over_users,
    nll_by_scene,
    reliability,
    slot_accuracy,
)
from simulators.mirror.adjustment import fit_adjustment
from simulators.mirror.light_model import LightModel, decision_text, mean_over_rationales
from simulators.randomness import keyed_seeds
from simulators.recipes.mirroring import (
    MirroringConfig,
    Stories,
    imitate_decisions,
    prefer_decisions,
    select_examples,
)

Values = NDArray[np.float64]
Ints = NDArray[np.int64]

FORM = MirroringConfig(sft_lr=5e-3, batch=16)
CONFIG = MirroringConfig(sft_lr=1e-3, dpo_lr=3e-4, batch=16)
"""As published but for the rates, which are those of a LoRA on a small model, and the batch."""

RANK = 32
_WEAK, _ASKED = 400, 401


def main() -> None:
    """Measure every seed and write it down."""
    options = _options()
    torch.set_num_threads(1)
    seeds = []
    for seed in options.seeds:
        seeds.append(_measure(seed, options))
        print(json.dumps(seeds[-1], indent=2), flush=True)
    print(record("mirroring", {"options": vars(options), "seeds": seeds}))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--model", default="nano", help="any causal language model by path or id")
    parser.add_argument(
        "--no-model", action="store_true", help="only the choice model and the teacher, in seconds"
    )
    parser.add_argument("--letters", action="store_true", help="label options by letters, not by their words")
    parser.add_argument("--films", type=int, default=500)
    parser.add_argument("--users", type=int, default=1400)
    parser.add_argument("--impressions", type=int, default=80, help="rows of the log for each user")
    parser.add_argument("--form", type=int, default=2000, help="scenes from which the form is learned")
    parser.add_argument("--candidates", type=int, default=400, help="scenes to select from")
    parser.add_argument("--held-out", type=int, default=160, help="scenes each of validation and test")
    parser.add_argument("--rationales", type=int, default=2, help="rationales of a scene")
    return parser.parse_args()


def _measure(seed: int, options: argparse.Namespace) -> dict[str, object]:
    started = time.process_time()
    films = film_scenes(
        films=options.films,
        users=options.users,
        impressions=options.impressions,
        letters=options.letters,
        seed=seed,
    )
    rng = np.random.default_rng((seed, 3))
    pool = rng.permutation(films.learners)
    form, candidates = pool[: options.form], pool[options.form : options.form + options.candidates]
    held = [rng.permutation(rows)[: options.held_out] for rows in (films.validation, films.test)]
    arms: dict[str, object] = {
        "choice_model": _judge(films, held, films.choice[held[1]], seed),
        "teacher": _judge_beside(films, held, [teacher_chances(films, rows) for rows in held], seed),
    }
    if options.no_model:
        return {"seed": seed, "cpu_s": time.process_time() - started, "arms": arms}
    base = load_language_model(options.model, device="cpu")
    policy = ConditionedPolicy.build(base, 0, 0, rank=RANK, seed=seed)
    light = LightModel(policy, max_new_tokens=48)

    def told(rows: Ints, seeds: list[int]) -> list[list[str]]:
        repeated = np.repeat(rows, options.rationales)
        texts = [films.told.texts[row] for row in repeated.tolist()]
        flat = light.tell(
            texts, seeds=[s for own in seeds for s in keyed_seeds(own, np.arange(options.rationales))]
        )
        return [flat[at : at + options.rationales] for at in range(0, len(flat), options.rationales)]

    def judge(tell: Callable[[Ints], Stories]) -> dict[str, object]:
        return _judge_words(films, light, held, [tell(rows) for rows in held], seed)

    def own(rows: Ints) -> list[list[str]]:
        return told(rows, keyed_seeds(seed, rows, _ASKED))

    def teacher(rows: Ints) -> list[list[str]]:
        return teacher_stories(films, rows, rationales=options.rationales, seed=seed)

    form_losses = _learn_form(films, policy, form, seed)
    arms["weak"] = judge(own)
    arms["strong"] = judge(teacher)
    weak = told(candidates, keyed_seeds(seed, candidates, _WEAK))
    examples = select_examples(films.told.take(candidates), teacher(candidates), weak, light.score, CONFIG)
    imitate_decisions(policy, examples.texts, examples.chosen, CONFIG, rng=np.random.default_rng((seed, 4)))
    arms["sft"] = judge(own)
    preference = prefer_decisions(policy, examples, CONFIG, seed=seed)
    arms["sft_dpo"] = judge(own)
    return {
        "seed": seed,
        "cpu_s": time.process_time() - started,
        "scenes": {
            "form": len(form),
            "selected": len(examples.rows),
            "missed": examples.missed,
            "twins": films.twins,
        },
        "form_nats_a_token": form_losses[-1],
        "dpo": {name: preference[-1][name] for name in ("loss", "accuracy", "margin")},
        "arms": arms,
    }


def _learn_form(films: FilmScenes, policy: ConditionedPolicy, rows: Ints, seed: int) -> list[float]:
    """Imitate one unselected rationale of the teacher a scene, with the label of the option that it is of."""
    stories = teacher_stories(films, rows, rationales=1, seed=seed + 1000)
    texts, decisions = [], []
    for row, (story,) in zip(rows.tolist(), stories, strict=True):
        genre_mood = story.partition("\n")[0].removeprefix("stimulus: ")
        offered = [", ".join(films.facts[item][:2]) for item in films.scenes.options[row].tolist()]
        texts.append(films.told.texts[row])
        decisions.append(decision_text(story, films.told.labels[row][offered.index(genre_mood)]))
    return imitate_decisions(policy, texts, decisions, FORM, rng=np.random.default_rng((seed, 5)))


def _judge_words(
    films: FilmScenes, light: LightModel, held: list[Ints], stories: list[Stories], seed: int
) -> dict[str, object]:
    """What the light model makes of stories, as `_judge_beside`."""
    words = [_mean_read(films, light, rows, told) for rows, told in zip(held, stories, strict=True)]
    return _judge_beside(films, held, words, seed)


def _judge_beside(films: FilmScenes, held: list[Ints], words: list[Values], seed: int) -> dict[str, object]:
    """Words alone on the test scenes, and put together with the choice model by the validation scenes."""
    users, chosen = films.scenes.users, films.scenes.chosen
    fitted = fit_adjustment(films.choice[held[0]], words[0], chosen[held[0]], users[held[0]])
    together = fitted.apply(films.choice[held[1]], words[1])
    return {
        **_judge(films, held, words[1], seed),
        "adjustment": fitted._asdict(),
        "with_choice_model": _judge(films, held, together, seed),
    }


def _mean_read(films: FilmScenes, light: LightModel, rows: Ints, stories: Stories) -> Values:
    width = len(stories[0])
    repeated = films.told.take(np.repeat(rows, width))
    flat = [story or "" for own in stories for story in own]
    given = light.score(repeated.texts, repeated.labels, flat).reshape(len(rows), width, -1)
    return mean_over_rationales(given, films.told.take(rows).n_options)


def _judge(films: FilmScenes, held: list[Ints], probabilities: Values, seed: int) -> dict[str, object]:
    rows = held[1]
    scenes = Scenes(
        films.scenes.users[rows].astype(np.str_),
        np.full(len(rows), probabilities.shape[1]),
        probabilities.ravel(),
        films.scenes.chosen[rows],
    )
    base = films.choice[rows][np.arange(len(rows)), films.scenes.chosen[rows]]
    excess = nll_by_scene(scenes) + np.log(base)
    slots = slot_accuracy(scenes, seed=seed)
    return {
        "expected_accuracy": mean_over_users(
            scenes, expected_accuracy_by_scene(scenes), seed=seed
        ).to_report(),
        "nll": mean_over_users(scenes, nll_by_scene(scenes), seed=seed).to_report(),
        "nll_less_choice_model": mean_over_users(scenes, excess, seed=seed).to_report(),
        "ece": reliability(scenes, seed=seed).error.to_report(),
        "slots": {
            "expected_accuracy": slots.expected.tolist(),
            "p_flat": slots.p_flat,
            "p_even": slots.p_even,
        },
    }


if __name__ == "__main__":
    main()
