from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from persona.data.comparisons import ComparisonTable
from persona.errors import DataError
from persona.few_shot_evaluation import foretell, order_spread, score_few_shot_users
from persona.objectives.dpo import dpo_loss
from persona.objectives.ipo import ipo_loss
from persona.policy import LanguageModel
from persona.policy.sampling import Sampling
from persona.profiles.few_shot import FewShotProfile, Reference, described
from persona.profiles.shots import Layout, Order, Shot, ShotFormat, place_prompt
from persona.recipes.few_shot import FewShotConfig, train_few_shot, untrained_few_shot
from persona.recipes.few_shot_tasks import Dreamer, ReplyTexts, draw_tasks
from tests.helpers.tiny_models import WORDS, tiny_language_model

PROMPTS = 12
TEXTS = ReplyTexts(
    [[{"role": "user", "content": WORDS[i % 3].split()[i % 5]}] for i in range(PROMPTS)],
    [word for _ in range(PROMPTS) for word in ("yes", "no")],
)
FEATURES = torch.tensor([[1.0], [-1.0]]).repeat(PROMPTS, 1)
SMALL = {"steps": 3, "users_per_step": 3, "shots": (0, 1, 2), "rank": 2, "held_out_share": 0.2}


@pytest.fixture(scope="module")
def base() -> LanguageModel:
    return tiny_language_model()


def yes_and_no_sayers(users: int, *, first_user: int = 0, prompts: range = range(PROMPTS)) -> ComparisonTable:
    """Every second user always wants "yes", the others "no"; all compare the two on every prompt."""
    who = np.repeat(np.arange(first_user, first_user + users), len(prompts))
    asked = np.tile(np.asarray(prompts), users)
    wants_yes = who % 2 == 0
    return ComparisonTable(who, asked, 2 * asked + ~wants_yes, 2 * asked + wants_yes)


def train(
    base: LanguageModel, rows: list[dict[str, float]] | None = None, **settings: object
) -> FewShotProfile:
    loss, describe = settings.pop("loss", dpo_loss), settings.pop("describe", None)
    config = FewShotConfig(**{**SMALL, **settings})  # type: ignore[arg-type]
    return train_few_shot(
        yes_and_no_sayers(10),
        TEXTS,
        base,
        config,
        seed=0,
        features=FEATURES,
        loss=loss,  # type: ignore[arg-type]
        describe=describe,  # type: ignore[arg-type]
        report=None if rows is None else lambda row: rows.append(dict(row)),
    )


def test_nobody_is_asked_about_a_prompt_that_they_show() -> None:
    table = yes_and_no_sayers(4)
    rng = np.random.default_rng(0)
    for _ in range(5):
        tasks = draw_tasks(table, TEXTS, np.array([0, 1, 1]), np.array([5, 0, 30]), most_asked=3, rng=rng)
        for task in tasks:
            assert all(TEXTS.prompts[task.prompt] is not shot.conversation for shot in task.shots)
        sizes = [len(task.shots) for task in tasks]
        assert [sizes.count(size) for size in (0, 5, 11)] == [3, 3, 1] and len(sizes) == 7


def test_prompts_that_a_user_met_twice_leak_no_answer() -> None:
    table = ComparisonTable(
        np.zeros(4, dtype=np.int64), np.array([0, 0, 0, 1]), np.array([0, 0, 0, 2]), np.array([1, 1, 1, 3])
    )
    rng = np.random.default_rng(0)
    for _ in range(20):
        for task in draw_tasks(table, TEXTS, np.array([0]), np.array([2]), most_asked=4, rng=rng):
            assert all(TEXTS.prompts[task.prompt] is not shot.conversation for shot in task.shots)


def test_tasks_of_the_table_say_what_was_chosen() -> None:
    rng = np.random.default_rng(0)
    for task in draw_tasks(yes_and_no_sayers(2), TEXTS, np.array([1]), np.array([2]), most_asked=4, rng=rng):
        assert [TEXTS.replies[row] for row in task.options] == ["no", "yes"]
        assert all((shot.chosen, shot.rejected) == ("no", "yes") for shot in task.shots)
        assert task.wins.tolist() == [[0.0, 1.0], [0.0, 0.0]]


def test_imagined_users_agree_with_themselves() -> None:
    dreamer = Dreamer.fit(yes_and_no_sayers(40), FEATURES, seed=0)
    assert len(dreamer.prompts) == PROMPTS and dreamer.replies[3] == [6, 7]
    rng = np.random.default_rng(0)
    agreed = []
    for task in dreamer.tasks(
        TEXTS, np.full(40, 4), most_asked=1, most_options=2, clear_shots=True, clear_questions=True, rng=rng
    ):
        first, second = (TEXTS.replies[row] for row in task.options)
        favourite = first if task.wins[0, 1] > 0.5 else second
        agreed += [shot.chosen == favourite for shot in task.shots]
        assert task.wins.sum() == pytest.approx(1.0) and np.diag(task.wins).tolist() == [0.0, 0.0]
    assert all(agreed) and len(agreed) == 160
    by_chance = dreamer.tasks(
        TEXTS, np.full(40, 4), most_asked=1, most_options=2, clear_shots=False, clear_questions=False, rng=rng
    )
    kept = [
        shot.chosen == TEXTS.replies[task.options[int(task.wins[1, 0] > 0.5)]]
        for task in by_chance
        for shot in task.shots
    ]
    assert 0.7 < np.mean(kept) <= 1.0


def test_opposites_cancel_with_shots_alone() -> None:
    everyone_says_yes = replace(yes_and_no_sayers(40), **_all_yes(yes_and_no_sayers(40)))
    dreamer = Dreamer.fit(everyone_says_yes, FEATURES, seed=0)

    def yes_share(shots: int) -> float:
        tasks = dreamer.tasks(
            TEXTS,
            np.full(40, shots),
            most_asked=1,
            most_options=2,
            clear_shots=False,
            clear_questions=True,
            rng=np.random.default_rng(1),
        )
        return float(
            np.mean([t.wins[[TEXTS.replies[o] for o in t.options].index("yes")].sum() for t in tasks])
        )

    assert yes_share(4) == pytest.approx(0.5, abs=1e-6)
    assert yes_share(0) > 0.7


def _all_yes(table: ComparisonTable) -> dict[str, np.ndarray]:
    """The same pairs, "yes" preferred in each."""
    yes = np.array([TEXTS.replies[row] == "yes" for row in table.chosen])
    return {
        "chosen": np.where(yes, table.chosen, table.rejected),
        "rejected": np.where(yes, table.rejected, table.chosen),
    }


def test_imagined_users_need_prompts_and_features(base: LanguageModel) -> None:
    dreamer = Dreamer.fit(yes_and_no_sayers(4, prompts=range(4)), FEATURES, seed=0)
    with pytest.raises(DataError, match="at least 5 prompts with replies, three more than shots; got 4"):
        dreamer.tasks(
            TEXTS,
            np.array([2]),
            most_asked=1,
            most_options=2,
            clear_shots=True,
            clear_questions=True,
            rng=np.random.default_rng(0),
        )
    with pytest.raises(DataError, match=r"got described=0\.5 and no function"):
        train(base, described=0.5)
    with pytest.raises(DataError, match=r"got imagined=0\.5 and no features"):
        train_few_shot(yes_and_no_sayers(4), TEXTS, base, FewShotConfig(imagined=0.5), seed=0)


@pytest.mark.parametrize("reference", list(Reference))
def test_the_first_loss_is_that_of_no_margin(base: LanguageModel, reference: Reference) -> None:
    rows: list[dict[str, float]] = []
    train(base, rows, reference=reference, shots=(0,), steps=1)
    if reference is not Reference.NOTHING:
        assert rows[0]["loss"] == pytest.approx(np.log(2), abs=1e-4)
    assert [row["step"] for row in rows] == [1, 1] and rows[-1]["scale"] > 0
    ipo: list[dict[str, float]] = []
    train(base, ipo, shots=(0, 2), steps=1, loss=ipo_loss, beta=0.25)
    assert ipo[0]["loss"] == pytest.approx(4.0, abs=1e-2)


def test_a_known_reference_equals_one_computed_anew(base: LanguageModel) -> None:
    profile = train(base, reference=Reference.NO_SHOTS, steps=4)
    reward = profile.rewards(profile.read([]), [TEXTS.prompts[0]], [["yes", "no"]])
    placed = [
        place_prompt(base, Layout((), (Order(),)), Order(), TEXTS.prompts[0], [reply])
        for reply in ("yes", "no")
    ]
    assert len(placed[0].replies) == 1 and reward.shape == (1, 2)
    with torch.no_grad():
        rows = profile.policy.encode_replies([TEXTS.prompts[0]] * 2, ["yes", "no"])
        expected = profile.policy.sequence_log_probs(rows) - profile.policy.reference_log_probs(rows).sum(1)
    torch.testing.assert_close(reward[0], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.integration
def test_the_same_seed_gives_the_same_bits(base: LanguageModel) -> None:
    profiles = [train(base, imagined=0.5) for _ in range(2)]
    weights = [profile.policy.adapter_parameters() for profile in profiles]
    assert all(torch.equal(a, b) for a, b in zip(*weights, strict=True))
    assert profiles[0].scale == profiles[1].scale


def test_the_base_model_is_not_trained(base: LanguageModel) -> None:
    before = [parameter.clone() for parameter in base.model.parameters()]
    train(base)
    assert all(torch.equal(a, b) for a, b in zip(before, base.model.parameters(), strict=True))


@pytest.mark.integration
def test_shots_teach_who_says_yes_to_users_never_met(base: LanguageModel) -> None:
    rows: list[dict[str, float]] = []
    profile = train(
        base,
        rows,
        steps=60,
        users_per_step=4,
        shots=(0, 1, 2),
        learning_rate=1e-2,
        sft_weight=0.1,
        shot_format=ShotFormat(last_tokens=4),
    )
    context = yes_and_no_sayers(8, first_user=100, prompts=range(6))
    target = yes_and_no_sayers(8, first_user=100, prompts=range(6, 12))
    by_k = {
        k: score_few_shot_users(profile, context, target, TEXTS, k=k, seed=0).accuracy.mean()
        for k in (0, 2, 4)
    }
    assert by_k[0] == pytest.approx(0.5) and by_k[2] > 0.95 and by_k[4] > 0.95
    shuffled = score_few_shot_users(profile, context, target, TEXTS, k=2, seed=0, shuffled=True, targets=3)
    assert shuffled.accuracy.mean() < 0.8 and len(shuffled.users) == 8
    moved = order_spread(profile, context, target, TEXTS, k=3, permutations=3, seed=0, users=3, targets=2)
    assert moved.shape == (6,) and moved.max() < 1e-4


@pytest.mark.integration
def test_a_user_can_be_described_and_then_answered(base: LanguageModel) -> None:
    profile = train(
        base,
        steps=40,
        users_per_step=4,
        shots=(0, 1, 2),
        learning_rate=1e-2,
        shot_format=ShotFormat(last_tokens=4),
        described=0.5,
        describe=lambda shots: shots[0].chosen,
    )
    for wanted, other in (("yes", "no"), ("no", "yes")):
        shots = [Shot(TEXTS.prompts[0], wanted, other)] * 2
        words = profile.describe(shots, seed=0, sampling=Sampling(8, temperature=0.0))
        assert words == wanted
        told = described(TEXTS.prompts[1], words)
        assert profile.score(shots, told, wanted, other) > 0.5


def test_evaluation_refuses_what_would_leak(base: LanguageModel) -> None:
    profile = train(base, steps=1)
    table = yes_and_no_sayers(2, prompts=range(3))
    with pytest.raises(DataError, match=r"got 3 shared ones, such as \[0, 1, 2\]"):
        score_few_shot_users(profile, table, table, TEXTS, k=1, seed=0)
    empty = table.select(np.zeros(0, dtype=np.int64))
    with pytest.raises(DataError, match="at least one comparison; got none"):
        score_few_shot_users(profile, table, empty, TEXTS, k=1, seed=0)
    done: list[int] = []
    score_few_shot_users(
        profile,
        yes_and_no_sayers(2, prompts=range(3)),
        yes_and_no_sayers(2, prompts=range(3, 5)),
        TEXTS,
        k=1,
        seed=0,
        progress=lambda done_now, total: done.append(done_now),
    )
    assert done == [1, 2]


@pytest.mark.parametrize(
    "setting", [{"steps": 0}, {"beta": 0.0}, {"imagined": 1.5}, {"shots": ()}, {"unknown": 1}]
)
def test_settings_out_of_range_are_refused(setting: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=next(iter(setting))):
        FewShotConfig(**setting)  # type: ignore[arg-type]


def test_what_is_foretold_gives_scores_accuracies_of_parts_and_the_ranking(base: LanguageModel) -> None:
    table = yes_and_no_sayers(4)
    context, target = (table.select(table.prompts % 2 == part) for part in (0, 1))
    profile = train(base, steps=1)
    told = foretell(profile, context, target, TEXTS, k=2, seed=0)
    scores = told.scores()
    mask = told.asked.mask
    right = np.where(mask, told.policy > told.reference, False)
    assert np.allclose(scores.accuracy, right.sum(1) / mask.sum(1))
    everything, nothing = np.ones(len(target), dtype=bool), np.zeros(len(target), dtype=bool)
    assert np.array_equal(told.accuracy_on(everything), scores.accuracy)
    assert np.isnan(told.accuracy_on(nothing)).all()
    ranking = told.ranking(beta=0.3)
    assert ranking.ranking == pytest.approx((told.policy[mask] > 0).mean())
    assert ranking.reward == pytest.approx(right[mask].mean())


def test_the_untrained_prompt_needs_a_reference_without_shots(base: LanguageModel) -> None:
    table = yes_and_no_sayers(4)
    config = FewShotConfig(shots=(0, 2), reference=Reference.NO_SHOTS, held_out_share=0.5)
    profile = untrained_few_shot(table, TEXTS, base, config, seed=0)
    gaps = profile.gaps(profile.read([]), [TEXTS.prompts[0]], ["yes"], ["no"])
    assert torch.allclose(gaps.policy, gaps.reference, atol=1e-5)  # without shots it is the base model
    same = config.model_copy(update={"reference": Reference.SAME_SHOTS})
    with pytest.raises(DataError, match="got 'same shots', against which every reward is 0"):
        untrained_few_shot(table, TEXTS, base, same, seed=0)
