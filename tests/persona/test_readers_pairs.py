import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from persona.data.cleaning import prompt_text
from persona.data.readers import ReadOptions, preferences_from_frame, read_preferences
from persona.data.report import DataReport, Dropped
from persona.errors import DataError
from tests.helpers.preference_files import ROW, write_lines

OTHER = {**ROW, "user_id": "bob", "chosen": "né", "rejected": "no, thank you"}


def dropped(report: DataReport) -> list[tuple[str, int, tuple[int, ...]]]:
    return [(part.reason, part.count, part.rows) for part in report.dropped]


class TestFormats:
    @pytest.mark.parametrize(
        "name", ["a.jsonl", "a.jsonl.gz", "a.json", "a.csv", "a.tsv.gz", "a.parquet", "b.json"]
    )
    def test_every_format_holds_the_same(self, tmp_path: Path, name: str) -> None:
        rows, path = [ROW, OTHER], tmp_path / name
        frame = pd.DataFrame(rows)
        if "jsonl" in name:
            write_lines(path, rows)
        elif name == "a.json":
            path.write_text(json.dumps(rows))
        elif name == "b.json":
            path.write_text(json.dumps({"data": rows}))
        elif name == "a.parquet":
            frame.to_parquet(path)
        else:
            frame.to_csv(path, index=False, sep="\t" if "tsv" in name else ",")
        read = read_preferences(path)
        assert read.to_frame().to_dict("records") == rows
        assert read.report == DataReport("pairs", name, 2, 2, 2, 1, 4, 2, 0, 0)

    def test_json_lines_under_the_wrong_ending_are_read(self, tmp_path: Path) -> None:
        path = write_lines(tmp_path / "a.json", [ROW, OTHER])
        assert len(read_preferences(path).comparisons.table) == 2
        path.write_text(json.dumps(ROW))
        assert len(read_preferences(path).comparisons.table) == 1

    def test_a_byte_order_mark_and_foreign_line_ends_do_no_harm(self, tmp_path: Path) -> None:
        text = "\r\n".join(json.dumps(row) for row in (ROW, OTHER)) + "\r\n\r\n"
        (tmp_path / "a.jsonl").write_bytes(b"\xef\xbb\xbf" + text.encode())
        assert read_preferences(tmp_path / "a.jsonl").to_frame().to_dict("records") == [ROW, OTHER]
        (tmp_path / "a.csv").write_bytes(b"\xef\xbb\xbfuser_id,prompt,chosen,rejected\r\na,p,c,r\r\n")
        assert read_preferences(tmp_path / "a.csv").comparisons.user_ids == ("a",)

    @pytest.mark.integration
    def test_a_saved_data_set_is_read_without_its_library(self, tmp_path: Path) -> None:
        datasets = pytest.importorskip("datasets")
        rows = datasets.Dataset.from_list([ROW, OTHER])
        rows.save_to_disk(str(tmp_path / "one"))
        assert read_preferences(tmp_path / "one").to_frame().to_dict("records") == [ROW, OTHER]
        both = datasets.DatasetDict({"train": rows.select([0]), "test": rows.select([1])})
        both.save_to_disk(str(tmp_path / "two"))
        assert read_preferences(tmp_path / "two").to_frame().to_dict("records") == [ROW, OTHER]
        (tmp_path / "one" / "data-00000-of-00001.arrow").write_bytes(b"no")
        with pytest.raises(
            DataError, match="`one` must be a whole folder by `save_to_disk`; got one that cannot"
        ):
            read_preferences(tmp_path / "one")

    def test_a_frame_is_read(self) -> None:
        read = preferences_from_frame(pd.DataFrame([ROW, {**OTHER, "user_id": 7}]))
        assert read.comparisons.user_ids == ("ann", "7")
        with pytest.raises(DataError, match="A frame of preferences must hold at least one row; got none"):
            preferences_from_frame(pd.DataFrame())


class TestFatal:
    def write(self, path: Path, content: bytes) -> Path:
        path.write_bytes(content)
        return path

    def test_paths(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="must be a file or a folder; there is none"):
            read_preferences(tmp_path / "nothing.jsonl")
        with pytest.raises(DataError, match=r"must end in \.jsonl.*got `a\.xlsx`"):
            read_preferences(self.write(tmp_path / "a.xlsx", b"PK"))
        with pytest.raises(
            DataError, match=r"or written by `save_to_disk` of `datasets`; got `\S+` with a\.xlsx"
        ):
            read_preferences(tmp_path)

    @pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.parquet"])
    def test_empty_files(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(DataError, match=r"`a\.\w+`"):
            read_preferences(self.write(tmp_path / name, b""))

    def test_a_table_without_rows(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"`a\.csv` must hold at least one row; got none"):
            read_preferences(self.write(tmp_path / "a.csv", b"user_id,prompt,chosen,rejected\n"))

    def test_a_broken_archive(self, tmp_path: Path) -> None:
        whole = gzip.compress(json.dumps(ROW).encode() * 50)
        for content in (b"no archive", whole[:-12]):
            with pytest.raises(DataError, match=r"`a\.jsonl\.gz` must be a readable file; got: "):
                read_preferences(self.write(tmp_path / "a.jsonl.gz", content))

    def test_other_encodings_are_named_with_their_lines(self, tmp_path: Path) -> None:
        lines = [json.dumps(row, ensure_ascii=False).encode("latin-1") for row in (ROW, OTHER, ROW, OTHER)]
        with pytest.raises(DataError, match=r"got other bytes in 2 lines, first in lines \[2, 4\]"):
            read_preferences(self.write(tmp_path / "a.jsonl", b"\n".join(lines)))
        with pytest.raises(DataError, match=r"must be UTF-8 text; got UTF-16"):
            read_preferences(self.write(tmp_path / "a.jsonl", json.dumps(ROW).encode("utf-16")))

    def test_no_json_lines(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"got 2 that are none, first in lines \[1, 3\], and 1 that are"):
            read_preferences(
                self.write(tmp_path / "a.jsonl", b"who,what\n" + json.dumps(ROW).encode() + b"\n[1]\n")
            )
        with pytest.raises(DataError, match="JSON array of objects; got one with none among 2 entries"):
            read_preferences(self.write(tmp_path / "a.json", b"[1, 2]"))

    def test_broken_tables(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"`a\.csv` must be a table .*Expected 4 fields in line 3, saw 5"):
            read_preferences(
                self.write(tmp_path / "a.csv", b"user_id,prompt,chosen,rejected\na,b,c,d\na,b,c,d,e\n")
            )
        with pytest.raises(DataError, match=r"`a\.parquet` must be a Parquet file"):
            read_preferences(self.write(tmp_path / "a.parquet", b"PAR1 not really"))

    def test_missing_columns_are_named(self, tmp_path: Path) -> None:
        path = write_lines(tmp_path / "a.jsonl", [{"prompt": "p", "chosen": "a", "rejected": "b"}])
        with pytest.raises(DataError, match="lacks user_id among prompt, chosen, rejected"):
            read_preferences(path)
        read = read_preferences(path, options=ReadOptions(user="all"))
        assert read.comparisons.user_ids == ("all",)
        assert (
            "There is one user only, so nothing personal can be learned or measured." in read.report.lines()
        )

    def test_columns_can_be_renamed(self, tmp_path: Path) -> None:
        row = {"annotator": "ann", "question": "p", "winner": "a", "loser": "b"}
        names = {"user_id": "annotator", "prompt": "question", "chosen": "winner", "rejected": "loser"}
        path = write_lines(tmp_path / "a.jsonl", [row])
        assert len(read_preferences(path, options=ReadOptions(columns=names)).comparisons.table) == 1

    def test_a_renamed_column_replaces_one_of_our_name(self, tmp_path: Path) -> None:
        path = write_lines(tmp_path / "a.jsonl", [{**ROW, "annotator": "eve"}])
        read = read_preferences(path, options=ReadOptions(columns={"user_id": "annotator"}))
        assert read.comparisons.user_ids == ("eve",)
        with pytest.raises(DataError, match=r"must map names of ours \(user_id, .*\); got user"):
            read_preferences(path, options=ReadOptions(columns={"user": "annotator"}))

    def test_nothing_usable(self, tmp_path: Path) -> None:
        path = write_lines(tmp_path / "a.jsonl", [{**ROW, "chosen": ""}, {**ROW, "chosen": "no"}])
        with pytest.raises(
            DataError,
            match=r"got none: 1 where a text is blank \(row 1\); 1 where both replies are the same \(row 2\)",
        ):
            read_preferences(path)


FAULTS: list[tuple[dict[str, Any], str]] = [
    ({"chosen": None}, "a value is missing"),
    ({"user_id": float("nan")}, "a value is missing"),
    ({"user_id": 1.5}, "`user_id` is neither text nor a whole number"),
    ({"user_id": True}, "`user_id` is neither text nor a whole number"),
    ({"user_id": " "}, "a text is blank"),
    ({"prompt": 3}, "`prompt` is neither text nor a list of messages"),
    ({"prompt": [{"role": "user"}]}, "`prompt` is neither text nor a list of messages"),
    ({"prompt": []}, "a text is blank"),
    ({"prompt": [{"role": "user", "content": "\n"}]}, "a text is blank"),
    ({"chosen": 3}, "a reply is not text"),
    ({"rejected": "  "}, "a text is blank"),
    ({"prompt": "x" * 10_000_000}, "a text is longer than 1,000,000 characters"),
    ({"chosen": "half \ud800"}, "a text is not valid Unicode"),
    ({"chosen": "no"}, "both replies are the same"),
    ({}, "a row repeats an earlier one"),
    ({"chosen": [{"content": "a"}], "rejected": [{"content": "x"}, {"content": "b"}]}, "a value is missing"),
    ({"tie": "perhaps"}, "a tie flag is neither true nor false"),
    ({"chosen_score": "high"}, "a score is missing or not a number"),
    ({"chosen_score": float("nan")}, "a score is missing or not a number"),
    ({"chosen_score": 1}, "the chosen reply is rated below the rejected one"),
    ({"scores": 4}, "`scores` does not map objectives to two numbers"),
    ({"scores": [1, 2, 3]}, "`scores` does not map objectives to two numbers"),
    ({"scores": {"warm": [1]}}, "`scores` does not map objectives to two numbers"),
]


class TestFaultsOfRows:
    @pytest.mark.parametrize(("change", "reason"), FAULTS)
    def test_a_bad_row_is_left_out_and_counted(
        self, tmp_path: Path, change: dict[str, Any], reason: str
    ) -> None:
        scores = {"chosen_score": 3, "rejected_score": 2} if "chosen_score" in change else {}
        rows = [{**ROW, **scores}, {**ROW, **scores, **change}, {**OTHER, **scores}]
        path = write_lines(tmp_path / "a.jsonl", rows)
        read = read_preferences(path)
        assert dropped(read.report) == [(reason, 1, (2,))]
        assert read.comparisons.user_ids == ("ann", "bob")
        assert len(read.comparisons.table) == 2
        with pytest.raises(DataError, match=r"must be usable when `strict`; got 1 where .* \(row 2\)"):
            read_preferences(path, options=ReadOptions(strict=True))

    def test_lines_that_are_no_json_are_counted_by_line(self, tmp_path: Path) -> None:
        text = "\n".join(
            [json.dumps(ROW), "", "{half", json.dumps(OTHER), "[" * 100_000, json.dumps({**ROW, "prompt": 2})]
        )
        (tmp_path / "a.jsonl").write_text(text)
        read = read_preferences(tmp_path / "a.jsonl")
        assert dropped(read.report) == [
            ("a line is not a JSON object", 2, (3, 5)),
            ("`prompt` is neither text nor a list of messages", 1, (6,)),
        ]
        assert read.report.rows == 5
        assert read.report.dropped_count == 3
        (tmp_path / "a.json").write_text(json.dumps([ROW, 3, OTHER]))
        assert dropped(read_preferences(tmp_path / "a.json").report) == [
            ("an entry is not a JSON object", 1, (2,))
        ]

    def test_the_report_says_it_in_sentences(self, tmp_path: Path) -> None:
        rows = [ROW, {**ROW, "chosen": "no", "rejected": "yes"}, OTHER, *[{**ROW, "prompt": ""}] * 5]
        report = read_preferences(write_lines(tmp_path / "a.jsonl", rows)).report
        assert report.lines() == [
            "a.jsonl: pairs, 8 rows; 3 comparisons (0 ties) by 2 users of 4 replies to 1 prompts.",
            "Left out: 5 where a text is blank (rows 4, 5, 6 ...).",
            "1 users have one comparison only: enough to show or to be asked.",
            "2 comparisons contradict another one by the same user.",
        ]
        assert report.to_json()["dropped"] == ({"reason": "a text is blank", "count": 5, "rows": (4, 5, 6)},)

    def test_one_row_may_be_named_by_several_ratings(self) -> None:
        assert str(Dropped.of("it is so", [4, 4, 4])) == "3 where it is so (row 4 ...)"


class TestTies:
    def test_equal_scores_and_flags_are_ties(self, tmp_path: Path) -> None:
        scored = [
            {**ROW, "prompt": f"p{i}", "score_chosen": high, "score_rejected": 3}
            for i, high in enumerate((4, 3, 3.4))
        ]
        path = write_lines(tmp_path / "a.jsonl", scored)
        assert read_preferences(path).comparisons.table.is_tie.tolist() == [False, True, False]
        slack = read_preferences(path, options=ReadOptions(slack=0.5))
        assert slack.comparisons.table.is_tie.tolist() == [False, True, True]
        assert slack.report.ties == 2
        assert slack.scores["score"].tolist() == [4, 3, 3.4, 3, 3, 3]
        flags = (True, False, "true", "0", 1, None)
        flagged = [{**ROW, "prompt": f"p{i}", "tie": flag} for i, flag in enumerate(flags)]
        read = read_preferences(write_lines(tmp_path / "b.jsonl", flagged))
        assert read.comparisons.table.is_tie.tolist() == [True, False, True, False, True, False]

    def test_a_flagged_tie_may_be_rated_either_way(self, tmp_path: Path) -> None:
        row = {**ROW, "tie": True, "score_chosen": 2, "score_rejected": 3}
        read = read_preferences(write_lines(tmp_path / "a.jsonl", [row]))
        assert read.comparisons.table.is_tie.tolist() == [True]

    def test_a_tie_the_other_way_round_is_a_repeat(self, tmp_path: Path) -> None:
        turned = {**ROW, "chosen": ROW["rejected"], "rejected": ROW["chosen"]}
        rows = [{**ROW, "tie": True}, {**turned, "tie": True}, {**turned, "tie": False}]
        read = read_preferences(write_lines(tmp_path / "a.jsonl", rows))
        assert dropped(read.report) == [("a row repeats an earlier one", 1, (2,))]
        assert read.comparisons.table.is_tie.tolist() == [True, False]


class TestMessages:
    ASKED = ({"role": "user", "content": "p"},)

    def reply(self, text: str) -> dict[str, str]:
        return {"role": "assistant", "content": text}

    @pytest.mark.parametrize("has_prompt", [False, True, None])
    def test_replies_as_messages(self, tmp_path: Path, has_prompt: bool | None) -> None:
        before = [] if has_prompt else list(self.ASKED)
        row = {
            "user_id": 1.0,
            "chosen": [*before, self.reply("a")],
            "rejected": [*before, self.reply("b")],
            **({} if has_prompt is False else {"prompt": list(self.ASKED)}),
        }
        for path in (write_lines(tmp_path / "a.jsonl", [row]), tmp_path / "a.parquet"):
            if path.suffix == ".parquet":
                pd.DataFrame([row]).to_parquet(path)
            read = read_preferences(path)
            assert read.comparisons.user_ids == ("1",)
            assert read.comparisons.replies == ("a", "b")
            assert [dict(m) for m in read.comparisons.prompts[0]] == list(self.ASKED)

    def test_a_prompt_in_words_that_the_replies_repeat_stays(self, tmp_path: Path) -> None:
        row = {
            "user_id": "u",
            "prompt": "p",
            "chosen": [*self.ASKED, self.reply("a")],
            "rejected": [*self.ASKED, self.reply("b")],
        }
        longer = {**row, "prompt": "before"}
        read = read_preferences(write_lines(tmp_path / "a.jsonl", [row, longer]))
        assert read.comparisons.prompts[0] == "p"
        assert prompt_text(read.comparisons.prompts[1]) == "before\np"


def test_one_pair_of_scores_needs_no_objective(tmp_path: Path) -> None:
    read = read_preferences(write_lines(tmp_path / "a.jsonl", [{**ROW, "scores": [4, 2]}]))
    np.testing.assert_array_equal(read.scores["score"], [4, 2])


def test_objectives_and_strengths_are_kept(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {**ROW, "scores": {"warm": [3, 1]}, "strength": 2},
        {**OTHER, "scores": {"warm": [2, 5], "brief": [1, "N/A"]}, "strength": "strong"},
        {**OTHER, "rejected": "yes", "scores": None, "strength": None},
    ]
    for path in (write_lines(tmp_path / "a.jsonl", rows), tmp_path / "a.parquet"):
        if path.suffix == ".parquet":
            rows[1] = {**rows[1], "scores": {"warm": [2.0, 5.0], "brief": [1.0, None]}, "strength": None}
            pd.DataFrame(rows).to_parquet(path)
        read = read_preferences(path)
        assert read.comparisons.replies == ("yes", "né", "no", "no, thank you")
        np.testing.assert_array_equal(read.scores["warm"], [3, 2, 1, 5])
        np.testing.assert_array_equal(read.scores["brief"], [np.nan, 1, np.nan, np.nan])
        np.testing.assert_array_equal(read.strength, [2, np.nan, np.nan])


def test_criteria_stay_beside_their_comparisons(tmp_path: Path) -> None:
    rows = [
        {**ROW, "context": " be brief "},
        {**ROW, "context": "a row that repeats the first"},
        {**OTHER, "context": None},
        {**OTHER, "user_id": "eve", "context": 3},
    ]
    assert read_preferences(write_lines(tmp_path / "c.jsonl", rows)).contexts == ("be brief", "", "")
    named = [{**ROW, "why": "be brief"}]
    options = ReadOptions(columns={"context": "why"})
    assert read_preferences(write_lines(tmp_path / "n.jsonl", named), options=options).contexts == (
        "be brief",
    )
    assert read_preferences(write_lines(tmp_path / "o.jsonl", [ROW])).contexts is None
