import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from persona.data import (
    ComparisonTable,
    check_comparisons,
    context_pairs,
    hold_out_users,
    index_comparisons,
    read_comparisons,
    rows_of_users,
    sample_episodes,
    split_users_and_prompts,
)
from persona.errors import DataError, ShapeError

ROW = {"user_id": "ann", "prompt": "a film?", "chosen": "yes", "rejected": "no"}


def table(users: list[int], prompts: list[int] | None = None) -> ComparisonTable:
    rows = np.arange(len(users))
    return ComparisonTable(
        np.asarray(users), rows if prompts is None else np.asarray(prompts), 2 * rows, 2 * rows + 1
    )


def random_table(users: int = 30, each: int = 20, prompts: int = 40, seed: int = 0) -> ComparisonTable:
    rng = np.random.default_rng(seed)
    count = users * each
    chosen = rng.integers(100, size=count)
    return ComparisonTable(
        rng.permutation(np.repeat(np.arange(users), each)),
        rng.integers(prompts, size=count),
        chosen,
        (chosen + rng.integers(1, 100, size=count)) % 100,
    )


class TestTable:
    def test_select_and_concatenate_keep_rows(self) -> None:
        whole = random_table()
        parts = [whole.select(np.arange(10)), whole.select(np.arange(len(whole)) >= 10)]
        again = ComparisonTable.concatenate(parts)
        assert np.array_equal(again.chosen, whole.chosen)
        assert np.array_equal(again.users, whole.users)

    def test_bad_rows_are_named(self) -> None:
        zeros = np.zeros(2, dtype=np.int64)
        with pytest.raises(DataError, match=r"in comparisons \[1\]"):
            ComparisonTable(zeros, zeros, np.array([1, 2]), np.array([0, 2]))
        with pytest.raises(DataError, match=r"in comparisons \[0\]"):
            ComparisonTable(np.array([-1, 0]), zeros, zeros, zeros + 1)
        with pytest.raises(ShapeError, match=r"\(2,\), \(2,\), \(3,\), \(2,\)"):
            ComparisonTable(zeros, zeros, np.arange(3), zeros)
        with pytest.raises(ShapeError, match=r"`ties` must have shape \(M,\) = \(2,\); got \(3,\)"):
            ComparisonTable(zeros, zeros, zeros + 1, zeros, np.zeros(3, dtype=bool))

    def test_ties_go_where_their_rows_go(self) -> None:
        strict = table([0, 1, 2])
        assert strict.without_ties() is strict
        assert not strict.is_tie.any()
        tied = replace(strict, ties=np.array([True, False, True]))
        assert tied.select(np.array([2, 1])).is_tie.tolist() == [True, False]
        assert tied.without_ties().users.tolist() == [1]
        assert tied.without_ties().ties is None
        joined = ComparisonTable.concatenate([strict, tied])
        assert joined.is_tie.tolist() == [False, False, False, True, False, True]
        assert ComparisonTable.concatenate([strict, strict]).ties is None


class TestContexts:
    def test_matches_a_loop_over_users(self) -> None:
        whole, features = random_table(), torch.randn(100, 4, generator=torch.Generator().manual_seed(0))
        users = np.array([3, 3, 29, 99, 0])
        pairs = context_pairs(whole, features, users, 6)
        for row, user in enumerate(users):
            own = np.flatnonzero(whole.users == user)[:6]
            expected = features[whole.chosen[own]] - features[whole.rejected[own]]
            assert pairs.mask[row].tolist() == [place < len(own) for place in range(6)]
            assert torch.equal(pairs.difference[row, : len(own)], expected)
            assert not pairs.difference[row, len(own) :].any()

    def test_all_pairs_are_as_wide_as_the_busiest_user(self) -> None:
        padded = rows_of_users(table([0, 1, 1, 1]), np.array([0, 1]))
        assert padded.mask.tolist() == [[True, False, False], [True, True, True]]

    def test_random_contexts_are_nested_and_complete(self) -> None:
        whole, users = random_table(), np.arange(30)
        small, large = (rows_of_users(whole, users, k, np.random.default_rng(7)).rows for k in (4, 20))
        assert np.array_equal(small, large[:, :4])
        assert sorted(large[5]) == np.flatnonzero(whole.users == 5).tolist()
        assert not np.array_equal(large, rows_of_users(whole, users, 20).rows)

    def test_no_pairs_asked_for_and_no_pairs_there(self) -> None:
        features = torch.zeros(100, 4)
        assert context_pairs(random_table(), features, np.arange(3), 0).difference.shape == (3, 0, 4)
        nothing = random_table().select(np.zeros(0, dtype=np.int64))
        assert not context_pairs(nothing, features, np.arange(3), 2).mask.any()

    def test_features_must_cover_the_replies(self) -> None:
        with pytest.raises(ShapeError, match=r"N at least 4.*got \(3, 2\)"):
            context_pairs(table([0, 0]), torch.zeros(3, 2), np.array([0]), 1)


class TestEpisodes:
    def test_targets_and_contexts_share_user_but_no_prompt(self) -> None:
        whole = random_table()
        users = np.tile(np.arange(30), 5)
        drawn = sample_episodes(whole, users, max_context=8, max_targets=6, rng=np.random.default_rng(0))
        for row, user in enumerate(users):
            shown = drawn.context.rows[row][drawn.context.mask[row]]
            asked = drawn.target.rows[row][drawn.target.mask[row]]
            assert (whole.users[np.concatenate([shown, asked])] == user).all()
            assert len(asked) == 6
            assert len(set(shown) | set(asked)) == len(shown) + len(asked)
            assert not set(whole.prompts[shown]) & set(whole.prompts[asked])

    def test_context_sizes_are_uniform_from_zero(self) -> None:
        whole = random_table(users=2000, each=20, prompts=1000)
        drawn = sample_episodes(
            whole, np.arange(2000), max_context=4, max_targets=3, rng=np.random.default_rng(0)
        )
        shares = np.bincount(drawn.context.mask.sum(1), minlength=5) / 2000
        np.testing.assert_allclose(shares, 0.2, atol=0.03)

    def test_a_user_with_one_prompt_has_targets_and_no_context(self) -> None:
        whole = table([0, 0, 0, 0, 1], prompts=[5, 5, 5, 5, 6])
        drawn = sample_episodes(
            whole, np.array([0, 1]), max_context=4, max_targets=3, rng=np.random.default_rng(0)
        )
        assert drawn.target.mask.sum(1).tolist() == [2, 1]
        assert not drawn.context.mask.any()

    def test_same_seed_same_draw(self) -> None:
        first, second = (
            sample_episodes(
                random_table(), np.arange(9), max_context=4, max_targets=3, rng=np.random.default_rng(3)
            )
            for _ in range(2)
        )
        assert np.array_equal(first.context.rows, second.context.rows)
        assert np.array_equal(first.target.rows, second.target.rows)


class TestSplits:
    @pytest.mark.parametrize("context_prompts", [0.0, 0.25])
    def test_users_and_prompts_are_disjoint(self, context_prompts: float) -> None:
        split = split_users_and_prompts(random_table(), seed=0, context_prompts=context_prompts)
        assert not set(split.train.users) & set(split.target.users)
        assert not set(split.train.users) & set(split.context.users)
        assert not set(split.train.prompts) & set(split.target.prompts)
        assert not set(split.context.prompts) & set(split.target.prompts)
        assert bool(set(split.train.prompts) & set(split.context.prompts)) == (context_prompts == 0.0)

    def test_seed_decides(self) -> None:
        first, again, other = (split_users_and_prompts(random_table(), seed=seed) for seed in (1, 1, 2))
        assert np.array_equal(first.train.chosen, again.train.chosen)
        assert not np.array_equal(first.train.user_ids, other.train.user_ids)

    def test_impossible_splits_are_refused(self) -> None:
        with pytest.raises(DataError, match=r"got 0\.25, 0\.6 and 0\.5"):
            split_users_and_prompts(random_table(), seed=0, target_prompts=0.6, context_prompts=0.5)
        with pytest.raises(DataError, match="got train 1, context 0, target 0 from 1 users and 1 prompts"):
            split_users_and_prompts(table([0]), seed=0)

    def test_held_out_users_are_a_share(self) -> None:
        stay, held = hold_out_users(random_table(), 0.2, np.random.default_rng(0))
        assert (len(stay), len(held)) == (24, 6)
        assert not set(stay) & set(held)
        with pytest.raises(DataError, match="at least 2 users; got 1"):
            hold_out_users(table([0, 0]), 0.5, np.random.default_rng(0))


def write(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


class TestReader:
    def test_jsonl_and_parquet_hold_the_same(self, tmp_path: Path) -> None:
        rows = [ROW, {**ROW, "user_id": "bob", "chosen": "né", "strength": 2.0}]
        text = read_comparisons(write(tmp_path / "a.jsonl", *rows))
        pd.DataFrame(rows).to_parquet(tmp_path / "a.parquet")
        table = read_comparisons(tmp_path / "a.parquet")
        for name in ROW:
            assert text[name].tolist() == table[name].tolist()
        assert table["strength"].tolist()[1] == 2.0

    def test_index_gives_rows_of_users_prompts_and_replies(self) -> None:
        messages = [{"role": "user", "content": "hi"}]
        frame = check_comparisons(
            pd.DataFrame(
                [
                    {"user_id": 7, "prompt": "p", "chosen": "a", "rejected": "b"},
                    {"user_id": 3, "prompt": messages, "chosen": "b", "rejected": "a"},
                    {"user_id": 7, "prompt": "p", "chosen": "b", "rejected": "c"},
                ]
            )
        )
        indexed = index_comparisons(frame)
        assert indexed.user_ids == ("7", "3")
        assert indexed.prompts == ("p", messages)
        assert indexed.table.users.tolist() == [0, 1, 0]
        assert indexed.table.prompts.tolist() == [0, 1, 0]
        shown = [
            (indexed.prompts[indexed.reply_prompts[row]], indexed.replies[row])
            for row in indexed.table.rejected
        ]
        assert shown == [("p", "b"), (messages, "a"), ("p", "c")]
        assert len(indexed.replies) == 5

    @pytest.mark.parametrize(
        ("row", "message"),
        [
            (
                {**ROW, "chosen": None},
                r"`chosen` must be there in every row; got missing values in 1 rows.*\[2\]",
            ),
            ({**ROW, "user_id": float("nan")}, r"`user_id` must be there.*\[2\]"),
            ({**ROW, "user_id": 1.5}, r"`user_id` must be text or a whole number.*\[2\]"),
            ({**ROW, "prompt": []}, r"`prompt` must be text or a list of messages.*\[2\]"),
            ({**ROW, "prompt": [{"role": "user"}]}, r"`prompt` must be text or a list of messages.*\[2\]"),
            ({**ROW, "rejected": "  "}, r"`rejected` must be text that is not blank.*\[2\]"),
            ({**ROW, "chosen": 3}, r"`chosen` must be text that is not blank.*\[2\]"),
            (
                {**ROW, "chosen": "no"},
                r"`chosen` and `rejected` must differ; got equal replies in 1 rows.*\[2\]",
            ),
            ([1], r"got 1 where a line is not a JSON object \(row 2\)"),
        ],
    )
    def test_a_bad_row_is_named(self, tmp_path: Path, row: Any, message: str) -> None:
        with pytest.raises(DataError, match=message):
            read_comparisons(write(tmp_path / "a.jsonl", ROW, row))

    def test_bad_files_are_named(self, tmp_path: Path) -> None:
        (tmp_path / "a.doc").write_text("")
        with pytest.raises(DataError, match=r"must end in \.jsonl, .*; got `a\.doc`"):
            read_comparisons(tmp_path / "a.doc")
        with pytest.raises(DataError, match="must be a file or a folder; there is none"):
            read_comparisons(tmp_path / "a.jsonl")
        (tmp_path / "b.jsonl").write_bytes(json.dumps(ROW).encode() + b"\n\xff\xfe\n")
        with pytest.raises(DataError, match=r"UTF-8 text; got other bytes in 1 lines, first in lines \[2\]"):
            read_comparisons(tmp_path / "b.jsonl")
        (tmp_path / "c.jsonl").write_text(json.dumps(ROW) + "\n{\n")
        with pytest.raises(DataError, match=r"got 1 where a line is not a JSON object \(row 2\)"):
            read_comparisons(tmp_path / "c.jsonl")
        missing = {"user_id": 1, "prompt": "p", "answer": "a"}
        with pytest.raises(DataError, match="missing chosen, rejected among user_id, prompt, answer"):
            read_comparisons(write(tmp_path / "f.jsonl", missing))
        with pytest.raises(DataError, match="at least one row; got none"):
            check_comparisons(pd.DataFrame(columns=list(ROW)))

    def test_a_column_of_ties_goes_into_the_table(self) -> None:
        frame = check_comparisons(
            pd.DataFrame([{**ROW, "tie": True}, {**ROW, "user_id": "bob", "tie": False}])
        )
        assert index_comparisons(frame).table.is_tie.tolist() == [True, False]
