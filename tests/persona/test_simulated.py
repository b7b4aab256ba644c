import os
from pathlib import Path

import numpy as np
import pytest

from persona.data.comparisons import ComparisonTable
from persona.data.duplicates import find_near_duplicates
from persona.data.readers import read_answers
from persona.data.simulated import simulate_users
from persona.errors import DataError, ShapeError
from tests.helpers.preference_files import write_lines

DATA = Path(os.environ.get("PERSONA_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))
ALPACA = DATA / "preferences" / "alpaca_eval_responses.jsonl.gz"
PROMPTS = np.repeat(np.arange(50), 5)


def values(seed: int = 0) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    return np.random.default_rng(seed).normal(3.0, 2.0, size=(250, 4))


class TestSimulatedUsers:
    def test_pairs_are_two_replies_to_one_prompt(self) -> None:
        table = simulate_users(values(), PROMPTS, users=30, comparisons=20, seed=0).table
        assert np.array_equal(PROMPTS[table.chosen], table.prompts)
        assert np.array_equal(PROMPTS[table.rejected], table.prompts)
        assert np.bincount(table.users).tolist() == [20] * 30
        assert len(np.unique(np.sort(np.stack([table.chosen, table.rejected], 1), axis=1), axis=0)) > 300

    def test_choices_are_as_frequent_as_the_truth_says(self) -> None:
        people = simulate_users(values(), PROMPTS, users=200, comparisons=50, seed=0)
        probability = people.probability(people.table)
        likelier = np.maximum(probability, 1 - probability)
        assert (probability > 0.5).mean() == pytest.approx(likelier.mean(), abs=0.015)
        standard = (values() - values().mean(0)) / values().std(0)
        one = ComparisonTable(*(np.array([i]) for i in (7, 0, 1, 2)))
        gain = float((standard[1] - standard[2]) @ people.weights[7])
        assert people.advantage(one)[0] == pytest.approx(gain)
        assert people.probability(one)[0] == pytest.approx(1 / (1 + np.exp(-gain / 0.15)))

    def test_weights_are_signed_dirichlet(self) -> None:
        people = simulate_users(values(), PROMPTS, users=2000, comparisons=1, seed=0)
        np.testing.assert_allclose(np.abs(people.weights).sum(1), 1.0)
        assert (people.weights > 0).mean() == pytest.approx(0.5, abs=0.02)
        # Variance of a Dirichlet weight: (A - 1) / (A^2 (A c + 1)).
        assert np.abs(people.weights).var(0).mean() == pytest.approx(3 / (16 * (4 * 0.3 + 1)), rel=0.05)
        plain = simulate_users(values(), PROMPTS, users=20, comparisons=1, seed=0, is_signed=False)
        assert (plain.weights >= 0).all()

    def test_without_noise_the_better_reply_wins(self) -> None:
        people = simulate_users(values(), PROMPTS, users=20, comparisons=20, seed=0, temperature=0.0)
        assert (people.advantage(people.table) > 0).all()
        assert (people.probability(people.table) == 1).all()

    def test_same_seed_same_bits(self) -> None:
        first, again, other = (
            simulate_users(values(), PROMPTS, users=5, comparisons=9, seed=s) for s in (2, 2, 3)
        )
        assert np.array_equal(first.table.chosen, again.table.chosen)
        assert np.array_equal(first.weights, again.weights)
        assert not np.array_equal(first.weights, other.weights)

    def test_bad_input_is_named(self) -> None:
        with pytest.raises(ShapeError, match=r"got \(250, 4\) and \(3,\)"):
            simulate_users(values(), PROMPTS[:3], users=2, comparisons=1, seed=0)
        with pytest.raises(DataError, match=r"got 0, 1, 0\.15 and 0\.3"):
            simulate_users(values(), PROMPTS, users=0, comparisons=1, seed=0)
        flat = values()
        flat[:, 1], flat[3, 2] = 1.0, np.nan
        with pytest.raises(DataError, match=r"got otherwise in columns \[1, 2\] of `values`"):
            simulate_users(flat, PROMPTS, users=2, comparisons=1, seed=0)
        with pytest.raises(DataError, match="at least 2 replies; got none among 250 prompts"):
            simulate_users(values(), np.arange(250), users=2, comparisons=1, seed=0)


class TestAnswers:
    def test_replies_keep_prompt_and_model(self, tmp_path: Path) -> None:
        rows = [
            {"dataset": "x", "prompt": "p", "responses": {"m": "a", "n": "b", "o": "a"}},
            {"dataset": "x", "prompt": "q", "responses": {"m": "a", "n": " "}},
            {"dataset": "x", "prompt": "r", "responses": None},
        ]
        answers = read_answers(write_lines(tmp_path / "a.jsonl.gz", rows))
        assert (answers.prompts, answers.replies) == (("p", "q"), ("a", "b", "a"))
        assert (answers.reply_prompts.tolist(), answers.models) == ([0, 0, 1], ("m", "n", "m"))
        assert [(part.reason, part.rows) for part in answers.dropped] == [
            ("a value is missing", (3,)),
            ("a text is blank", (2,)),
            ("a reply repeats another one to its prompt", (1,)),
        ]

    def test_other_files_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="lacks responses among prompt, reply"):
            read_answers(write_lines(tmp_path / "a.jsonl", [{"prompt": "p", "reply": "a"}]))
        with pytest.raises(DataError, match=r"got none: 1 where a value is missing \(row 1\)"):
            read_answers(write_lines(tmp_path / "b.jsonl", [{"prompt": "p", "responses": {}}]))

    @pytest.mark.integration
    @pytest.mark.skipif(not ALPACA.is_file(), reason=f"no {ALPACA}")
    def test_published_replies_are_read_whole(self) -> None:
        answers = read_answers(ALPACA)
        assert len(answers.prompts) == 805
        # 801 prompts have 24 replies and four have 23; what is not there is accounted for.
        assert len(answers.replies) + sum(part.count for part in answers.dropped) == 801 * 24 + 4 * 23
        assert len(find_near_duplicates(answers.prompts, threshold=0.7).first) == 111
        length = np.log1p([len(reply.split()) for reply in answers.replies])
        marks = [reply.count("?") + 2.0 * reply.count("!") for reply in answers.replies]
        people = simulate_users(
            np.stack([length, marks], axis=1), answers.reply_prompts, users=60, comparisons=40, seed=0
        )
        assert len(people.table) == 2400
