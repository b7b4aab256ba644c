"""The whole audit on the film world: the same people pass, a yes-man fails, and faults of tables are named."""

import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from simulators.errors import FaithfulnessError
from simulators.faithfulness import (
    USES,
    Answer,
    Evidence,
    Limits,
    audit_simulator,
    behaviour_features,
    checked_interactions,
    read_dialogue,
    scenes_from_frame,
    verdicts,
)
from simulators.faithfulness.behaviour import (
    interactions_of_dialogues,
    sessions_of_dialogues,
    sessions_of_interactions,
    shared_pairs,
)
from simulators.faithfulness.measures import ranking_part
from simulators.faithfulness.verdicts import Verdict
from simulators.types import StopReason
from tests.helpers.film_evidence import film_dialogues, film_interactions, film_scenes

RANK, WORDING, SATISFACTION, TRAIN = USES


def table(seed: int, users: int = 300, **kind: bool) -> pd.DataFrame:
    return checked_interactions(film_interactions(users, seed, **kind), side="real", max_level=4)


def talk(seed: int, users: int = 60, **kind: bool) -> Evidence:
    return Evidence(
        dialogues=tuple(read_dialogue(saved, max_level=4) for saved in film_dialogues(users, seed, **kind))
    )


def answers(report: dict[str, Any]) -> dict[str, str]:
    return {verdict["use"]: verdict["answer"] for verdict in report["verdicts"]}


def measured(value: float, low: float, high: float) -> dict[str, Any]:
    return {"value": value, "ci95": [low, high], "n": 100}


def held(path: str, found: Any, use: str) -> tuple[str, str]:
    """The answer for a use and where its measure at `path` stands, in a report of that measure alone."""
    report: dict[str, Any] = {}
    node = report
    *parents, leaf = path.split(".")
    for key in parents:
        node = node.setdefault(key, {})
    node[leaf] = found
    verdict = next(one for one in verdicts(report, Limits()) if one.use == use)
    standing = next(
        one.standing for one in verdict.criteria if one.value is not None or one.standing == "beyond"
    )
    return verdict.answer, standing


@pytest.mark.integration
def test_the_same_people_another_time_pass() -> None:
    scenes = scenes_from_frame(film_scenes(300, 3))
    report = audit_simulator(Evidence(table(1), scenes=scenes), Evidence(table(0)), accept_level=1)
    found = answers(report)
    assert found[RANK] == found[SATISFACTION] == found[TRAIN] == Answer.YES
    assert found[WORDING] == Answer.NOT_SHOWN and not report["notes"]


@pytest.mark.integration
def test_a_yes_man_fails() -> None:
    report = audit_simulator(Evidence(table(1, agreeable=True)), Evidence(table(0)), accept_level=1)
    found = answers(report)
    assert found[RANK] == found[SATISFACTION] == found[TRAIN] == Answer.NO
    assert report["acceptance"]["auc"]["value"] == 0.5 and report["ranking"]["tau"]["value"] is None
    because = {verdict["use"]: verdict["because"] for verdict in report["verdicts"]}
    assert "tau-b) has no value" in because[RANK] and "excess of acceptance is" in because[TRAIN]


@pytest.mark.integration
def test_the_over_agreeable_users_that_are_offered_fail() -> None:
    report = audit_simulator(talk(1, 120, rule=True), talk(0, 120), accept_level=3)
    found = answers(report)
    assert found[SATISFACTION] == found[TRAIN] == Answer.NO and found[RANK] != Answer.YES
    assert report["acceptance_rate"]["gap"]["ci95"][0] > 0.03


@pytest.mark.integration
def test_viewers_who_talk_pass_where_a_yes_man_fails() -> None:
    real = talk(0, 120)
    same = audit_simulator(talk(1, 120), real)
    assert Answer.NO not in answers(same).values() and answers(same)[WORDING] in {
        Answer.YES,
        Answer.NOT_SHOWN,
    }
    assert {
        "levels",
        "satisfaction",
        "sessions",
        "abandonment",
        "ends",
        "errors",
        "disclosure",
        "diversity",
    } <= set(same)
    yes = audit_simulator(talk(1, 120, agreeable=True), real)
    assert answers(yes) == dict.fromkeys(USES, Answer.NO)


@pytest.mark.integration
def test_same_seed_gives_the_same_report() -> None:
    one, other = (audit_simulator(talk(1, 30), talk(0, 30), seed=4) for _ in range(2))
    assert one == other


@pytest.mark.statistical
def test_the_same_people_are_never_refused() -> None:
    found: list[str] = []
    for seed in range(8):
        sides = [Evidence(table(2 * seed + n, 60)) for n in (0, 1)]
        found += answers(audit_simulator(sides[1], sides[0], accept_level=1, seed=seed)).values()
    assert Answer.NO not in found


@pytest.mark.statistical
def test_a_twentieth_of_reactions_given_away_is_too_much_to_train_against() -> None:
    one = table(1)
    given = np.random.default_rng(0).random(len(one)) < 0.05
    one.loc[given, "level"] = 4
    found = answers(audit_simulator(Evidence(one), Evidence(table(0)), accept_level=1))
    assert found[TRAIN] == Answer.NO and found[RANK] == Answer.YES


@pytest.mark.parametrize(
    ("found", "answer", "standing"),
    [
        (measured(0.02, 0.0, 0.03), "not shown", "within"),
        (measured(0.02, 0.0, 0.05), "not shown", "not settled"),
        (measured(0.05, 0.01, 0.08), "not shown", "not settled"),
        (measured(0.05, 0.04, 0.08), "no", "beyond"),
    ],
)
def test_only_a_whole_interval_decides(found: dict[str, Any], answer: str, standing: str) -> None:
    assert held("acceptance_rate.gap", found, TRAIN) == (answer, standing)


@pytest.mark.parametrize(
    ("path", "found", "use", "answer", "standing"),
    [
        ("ranking.tau", measured(0.6, 0.2, 1.0), RANK, "yes", "within"),
        ("ranking.tau", measured(0.6, -0.1, 1.0), RANK, "not shown", "not settled"),
        ("ranking.tau", measured(-0.2, -0.8, 0.9), RANK, "no", "beyond"),
        ("ranking.tau", {"value": None, "ci95": [None, None], "n": 9}, RANK, "no", "beyond"),
        ("acceptance.auc", measured(0.5, 0.5, 0.5), RANK, "no", "beyond"),
        ("acceptance.auc", measured(0.55, 0.49, 0.6), RANK, "not shown", "not settled"),
        ("position.gap", measured(-0.2, -0.3, -0.16), RANK, "no", "beyond"),
        ("position.gap", measured(-0.2, -0.3, -0.1), RANK, "not shown", "not settled"),
        ("choices.slots.p_flat", 0.005, RANK, "no", "beyond"),
        ("ranking.tau", measured(-0.2, -0.8, 0.9), WORDING, "no", "beyond"),
    ],
)
def test_each_kind_of_limit(path: str, found: Any, use: str, answer: str, standing: str) -> None:
    assert held(path, found, use) == (answer, standing)


@pytest.mark.parametrize(
    ("noise", "standing"), [(0.04, "within"), (0.2, "not settled"), (None, "not settled")]
)
def test_flat_accuracies_of_few_scenes_show_nothing(noise: float | None, standing: str) -> None:
    report = {"choices": {"slots": {"p_flat": 0.6, "by_chance": noise}}}
    rank = next(verdict for verdict in verdicts(report, Limits()) if verdict.use == RANK)
    assert next(one.standing for one in rank.criteria if one.name == "slot_p") == standing
    told = {0.2: "(chance alone moves one by 0.2, limit 0.05)", None: "(nothing was tested)"}.get(noise, "")
    assert told in rank.because


def test_a_distance_that_chance_explains_is_not_beyond() -> None:
    part = {"ks": measured(0.2, 0.12, 0.3), "p": 0.4}
    reports = [{"levels": part}, {"levels": part | {"p": 0.01}}]
    found = [
        next(v.answer for v in verdicts(report, Limits()) if v.use == SATISFACTION) for report in reports
    ]
    assert found == [Answer.NOT_SHOWN, Answer.NO]


@pytest.mark.parametrize("path", ["ranking.tau", "acceptance.auc", "position.gap", "choices.ece"])
def test_a_measure_of_too_few_users_for_an_interval_settles_nothing(path: str) -> None:
    for value in (0.0, 0.9):
        found = {"value": value, "ci95": [None, None], "n": 1}
        assert held(path, found, RANK) == ("not shown", "not settled")
    verdict = verdicts({"ranking": {"tau": found}}, Limits())[0]
    assert (
        "tau-b) is 0.9 [too few users], limit at least 0.6, which these users leave open" in verdict.because
    )


def test_a_handful_of_users_is_never_enough_for_a_yes() -> None:
    alike = pd.DataFrame({"user_id": list("aab"), "item_id": list("xyx"), "level": [3, 3, 3]})
    few = [checked_interactions(alike, side=side, max_level=4) for side in ("simulated", "real")]
    report = audit_simulator(Evidence(few[0]), Evidence(few[1]))
    assert set(answers(report).values()) == {Answer.NOT_SHOWN}
    rated = alike.assign(satisfaction=[4.0, np.nan, np.nan])
    report = audit_simulator(Evidence(rated), Evidence(rated))
    assert report["satisfaction"]["ks"]["ci95"] == [None, None] and report["satisfaction"]["ks"]["n"] == 1
    assert set(answers(report).values()) == {Answer.NOT_SHOWN}


def test_limits_are_settings() -> None:
    report = {"ranking": {"tau": measured(0.5, 0.2, 0.8)}}
    assert verdicts(report, Limits())[0].answer == Answer.NOT_SHOWN
    assert verdicts(report, Limits(ranking_tau=0.4))[0].answer == Answer.YES
    assert all(field.description for field in Limits.model_fields.values())


def test_another_exposure_is_noted() -> None:
    one = table(1, 40)
    one["item_id"] = "x" + one["item_id"]
    report = audit_simulator(Evidence(one), Evidence(table(0, 40)))
    assert any(note.startswith("Only 0 % of the simulated rows") for note in report["notes"])
    assert "acceptance" not in report


def test_uneven_slots_are_noted() -> None:
    frame = film_scenes(200, 2)
    last = frame.loc[(frame["chosen"] == 1) & (frame["slot"] == 4), "scene_id"]
    scenes = scenes_from_frame(frame[~frame["scene_id"].isin(last)])
    report = audit_simulator(Evidence(scenes=scenes), Evidence())
    assert "not spread evenly over the slots" in report["notes"][0]
    assert report["choices"]["nll_saved"]["ci95"][0] > 0


def test_sides_without_anything_in_common_are_refused() -> None:
    with pytest.raises(FaithfulnessError, match="something in common to compare"):
        audit_simulator(talk(0), Evidence())
    with pytest.raises(FaithfulnessError, match=r"in 1..4; got 5"):
        audit_simulator(talk(0), talk(1), accept_level=5)
    alone = Evidence(dialogues=talk(0).dialogues[:1])
    with pytest.raises(FaithfulnessError, match=r"The real side must have at least two users.*got 1 \(0\)"):
        audit_simulator(talk(0), alone)


def test_weights_of_a_log_make_the_order_that_of_snips() -> None:
    one, real = table(1, 40), table(0, 40)
    real["weight"] = np.where(real["level"] > 0, 1.0, 3.0)
    found = ranking_part(one, real, accept_level=1, seed=0)
    for name, value in zip(found["policies"], found["real"], strict=True):
        own = real[real["policy"] == name]
        assert value["value"] == pytest.approx(np.average(own["level"] > 0, weights=own["weight"]))
    assert found["estimator"] == "SNIPS"


def test_without_scikit_learn_the_rest_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.linear_model", None)
    report = audit_simulator(Evidence(table(1, 40)), Evidence(table(0, 40)))
    assert "two_sample" not in report and "levels" in report
    assert any("`scikit-learn` must be installed" in note for note in report["notes"])
    train = next(verdict for verdict in report["verdicts"] if verdict["use"] == TRAIN)
    assert train["answer"] == Answer.NOT_SHOWN and "is not measured" in train["because"]


def test_sessions_are_parted_by_half_an_hour_of_silence() -> None:
    frame = pd.DataFrame({"user_id": list("aaabb"), "timestamp": [0.0, 1800.0, 3601.0, 0.0, 10.0]})
    found = sessions_of_interactions(frame)
    assert found is not None and np.asarray(found.length).tolist() == [2, 1, 2]
    named = sessions_of_interactions(frame.assign(session_id=list("xyxyy")))
    assert named is not None and sorted(np.asarray(named.length).tolist()) == [1, 2, 2]
    assert sessions_of_interactions(frame[["user_id"]]) is None


def test_only_leaving_counts_as_abandonment() -> None:
    dialogues = talk(0).dialogues
    left, ended = (sessions_of_dialogues(dialogues, abandoned=flag) for flag in (True, False))
    stops = [dialogue.stop for dialogue in dialogues]
    assert np.sum(left.ended) == stops.count(StopReason.OUT_OF_PATIENCE)
    assert np.sum(ended.ended) == len(stops) - stops.count(StopReason.MAX_TURNS)
    assert len(interactions_of_dialogues(dialogues)) == sum(len(dialogue.replies) for dialogue in dialogues)


def test_who_recommends_is_known_of_all_dialogues_or_not_told() -> None:
    saved = {
        "user_id": "a",
        "messages": [{"role": "assistant", "content": "This.", "title": "Calm", "level": 1}],
    }
    named = [read_dialogue({**saved, "policy": name}, max_level=4) for name in (1, "B")]
    unnamed = read_dialogue(saved, max_level=4)
    assert interactions_of_dialogues(named)["policy"].tolist() == ["1", "B"]
    assert "policy" not in interactions_of_dialogues([*named, unnamed])


@pytest.mark.parametrize("policy", [float("nan"), None])
def test_an_unknown_policy_has_no_name(policy: float | None) -> None:
    saved = {"user_id": "a", "messages": [{"role": "user", "content": "Hi"}], "policy": policy}
    assert read_dialogue(saved, max_level=4).policy is None
    assert read_dialogue({**saved, "policy": 2.0}, max_level=4).policy == "2"


@pytest.mark.parametrize("policy", [["a"], {"a": 1}, True, ""])
def test_a_policy_that_is_no_name_is_refused(policy: Any) -> None:
    saved = {"user_id": "a", "messages": [{"role": "user", "content": "Hi"}], "policy": policy}
    with pytest.raises(FaithfulnessError, match="must be a name or a number; got"):
        read_dialogue(saved, max_level=4)


@pytest.mark.parametrize("tau", [measured(-0.2, -0.8, 0.9), {"value": None, "ci95": [None, None], "n": 9}])
@pytest.mark.parametrize("use", [RANK, WORDING])
def test_an_order_that_the_log_leaves_open_cannot_be_wrong(tau: dict[str, Any], use: str) -> None:
    def found(settled: int) -> Verdict:
        report = {"ranking": {"tau": tau, "settled": settled}}
        return next(one for one in verdicts(report, Limits()) if one.use == use)

    assert found(1).answer == Answer.NO
    assert found(0).answer == Answer.NOT_SHOWN
    assert "the log settles the order of no two policies" in found(0).because


def test_policies_known_of_some_or_mixed_otherwise_are_noted() -> None:
    one, other = table(1, 60), table(0, 60)
    names = np.array(["a", "b", "c", "d"])
    report = audit_simulator(
        Evidence(one.assign(policy=names[np.arange(len(one)) % 3])),
        Evidence(other.assign(policy=names[1 + np.arange(len(other)) % 3])),
        accept_level=1,
    )
    assert any(note.startswith("33 % of the simulated rows") for note in report["notes"])
    sides = [talk(0, 30), talk(1, 30)]
    first, *rest = sides[0].dialogues
    named = Evidence(dialogues=(first, *(replace(dialogue, policy="a") for dialogue in rest)))
    notes = audit_simulator(named, sides[1])["notes"]
    assert any("simulated dialogues say who recommends; all must" in note for note in notes)


def test_features_by_hand() -> None:
    frame = pd.DataFrame(
        {"user_id": list("aaab"), "level": [0, 0, 2, 1], "satisfaction": [1.0, 2.0, 3.0, 5.0]}
    )
    found, names = behaviour_features(frame, max_level=2)
    row = dict(zip(names, found.values[0].tolist(), strict=True))
    # Three rows: places 0 and 1 are early, place 2 is late; one of two followers repeats its level.
    assert row["share of level 0"] == 2 / 3 and row["mean level early"] == 0 and row["mean level late"] == 2
    assert row["level as before"] == 0.5 and row["mean satisfaction"] == 2.0


def test_probabilities_are_asked_before_levels() -> None:
    one = pd.DataFrame(
        {"user_id": ["a", "b"], "item_id": ["x", "x"], "level": [0, 1], "probability": [0.3, 0.9]}
    )
    real = pd.DataFrame({"user_id": ["a", "a", "c"], "item_id": ["x", "x", "x"], "level": [1, 3, 2]})
    assert shared_pairs(one, real)[["answer", "level"]].to_numpy().tolist() == [[0.3, 3]]


GOOD = pd.DataFrame({"user_id": [1, 2, 2], "item_id": [5, 5, 6], "level": [0, 4, 2], "position": [0, 0, 1]})


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        (GOOD.drop(columns="level"), "interactions must have.*level missing among user_id, item_id, position"),
        (GOOD.iloc[:0], "at least one row; got none"),
        (GOOD.iloc[1:], r"at least two users.*got 1 \(2\)"),
        (GOOD.assign(level=[0, 5, 2]), r"whole numbers in 0..4; got \[5.0\] in 1 rows"),
        (GOOD.assign(level=[0, 1.5, 2]), r"got \[1.5\]"),
        (GOOD.assign(level=[0, np.nan, 2]), r"`level`.*a value in every row; got none in 1 rows, such as row \[1\]"),
        (GOOD.assign(level=["0", "much", "2"]), r"finite numbers; got \['much'\]"),
        (GOOD.assign(probability=[0.1, 1.2, 0.5]), r"`probability`.*lie in 0..1; got \[1.2\]"),
        (GOOD.assign(weight=[0.1, -1.0, 0.5]), r"`weight`.*0 or more; got \[-1.0\]"),
        (pd.concat([GOOD, GOOD.iloc[1:2]]), "user 2 with item 5 twice in all columns, and 1 such rows"),
    ],
)  # fmt: skip
def test_tables_that_make_no_sense_are_refused(frame: pd.DataFrame, said: str) -> None:
    with pytest.raises(FaithfulnessError, match=said):
        checked_interactions(frame, side="simulated", max_level=4)


def test_ids_are_compared_as_texts() -> None:
    found = checked_interactions(GOOD.assign(user_id=[1.0, 2.0, 2.0], extra=0), side="real", max_level=4)
    assert found["user_id"].tolist() == ["1", "2", "2"] and "extra" not in found
