import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from rich.console import Console

from app.errors import StoreError
from app.fit_methods import check_methods, find_method, read_texts
from app.fit_report import PROFILES_HTML
from app.fit_text_methods import CARD, TEXT_METHODS, TextMaterial, load_text_profile, save_text_profile
from app.fit_texts import cut_texts, most_tokens, open_reader
from app.whois import Ask, tell_user
from persona.data import check_comparisons, index_comparisons
from persona.features import surface_features
from persona.profiles.texts import text_log_odds
from tests.helpers.choices_file import choices, write_choices
from tests.helpers.finished_fit import run_fit
from tests.helpers.tiny_models import save_tiny_model, tiny_language_model


@pytest.fixture(name="model", scope="module")
def a_tiny_model_on_disk(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("model")
    save_tiny_model(folder)
    return str(folder)


def test_long_texts_are_cut_and_short_ones_left_as_they_are() -> None:
    model = tiny_language_model()
    short, long = "yes  no", "yes no " * 40
    kept, cut = cut_texts(model, [short, long])
    assert kept == short and long.startswith(cut) and 0 < len(cut) < len(long)
    assert len(model.tokenizer(cut)["input_ids"]) <= most_tokens(model) == model.window // 6
    assert cut_texts(model, []) == []


@pytest.mark.integration
@pytest.mark.parametrize("name", TEXT_METHODS)
def test_profiles_over_texts_come_back_from_disk(name: str, model: str, tmp_path: Path) -> None:
    indexed = index_comparisons(check_comparisons(pd.DataFrame(choices(users=8, comparisons=12))))
    reader = open_reader(indexed, model, "cpu")
    features = torch.from_numpy(surface_features(indexed.replies)).float()
    told: list[tuple[int, int]] = []
    material = TextMaterial(indexed.table, reader, features, 0, 1, lambda *step: told.append(step))
    profile = TEXT_METHODS[name].fit(material)
    assert name == "in-context-prompt" or told[0] == (1, 1)
    save_text_profile(profile, tmp_path, model=model)
    again, base = load_text_profile(tmp_path, device="cpu")
    assert base.name == model and again.scale == profile.scale
    rows = np.flatnonzero(indexed.table.users == 0)
    shots = reader.texts.shots(indexed.table, rows[:2])
    asked = [reader.texts.prompts[0]], [reader.texts.replies[0]], [reader.texts.replies[1]]
    for shown in (shots, []):
        wanted = text_log_odds(profile, profile.read(shown), *asked)
        torch.testing.assert_close(
            text_log_odds(again, again.read(shown), *asked), wanted, atol=1e-5, rtol=1e-4
        )


def test_a_folder_without_a_profile_over_texts_is_told(tmp_path: Path) -> None:
    with pytest.raises(
        StoreError, match=f"must hold {CARD} with a kind among few-shot profile, .*; got None in"
    ):
        load_text_profile(tmp_path)
    (tmp_path / CARD).write_text(json.dumps({"kind": "crystal ball", "model": "nano"}))
    with pytest.raises(StoreError, match="'kind': 'crystal ball'"):
        load_text_profile(tmp_path)


def test_methods_over_texts_are_found_beside_the_others() -> None:
    assert check_methods(("fspo",)) == ("pooled", "fspo")
    assert find_method("fspo").title.startswith("FSPO") and find_method("vpl").title.startswith("VPL")
    assert read_texts(("vpl", "user-tokens")) and not read_texts(("vpl",))


@pytest.mark.integration
def test_a_method_over_texts_is_compared_kept_and_asked_like_the_others(model: str, tmp_path: Path) -> None:
    data = write_choices(tmp_path / "c.jsonl", users=12, comparisons=16)
    options: dict[str, Any] = {"methods": ("in-context-prompt", "fspo"), "seeds": (0,), "context": (0, 2, 3)}
    report, _ = run_fit(data, tmp_path / "out", model=model, steps=1, **options)
    assert report["order"] == ["pooled", "in-context-prompt", "fspo"] and report["left_out"] == []
    own = report["methods"]["fspo"]
    assert own["latent_dim"] is None and own["active_units"] == [None]
    assert (
        own["by_context"]["k3"]["accuracy"]["n"]
        == report["methods"]["pooled"]["by_context"]["k3"]["accuracy"]["n"]
    )
    shares = [own["ranking"][name] for name in ("kept_right", "lost", "gained", "kept_wrong")]
    assert sum(shares) == pytest.approx(1.0) and 0.0 <= own["ranking"]["idealised"] <= 1.0
    assert report["methods"]["in-context-prompt"]["ranking"]["idealised"] is None
    page = (tmp_path / "out" / PROFILES_HTML).read_text()
    assert "policies themselves rank replies" in page and "Policies: the reward is right" in page
    written = io.StringIO()
    ask = Ask(data, user="u3", method="fspo")
    told = tell_user(tmp_path / "out", ask, console=Console(file=written, width=80))
    assert told["doubt_left"] is None and len(told["questions"]) == 3
    assert len(told["telling_choices"]) == 16 and told["method"] == "fspo"
    assert "of the doubt about a stranger" not in written.getvalue()
