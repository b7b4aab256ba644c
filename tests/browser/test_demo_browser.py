"""The demo in a real browser: sliders, teaching, two people at once, and nothing said to other machines."""

import importlib.util
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from app.demo.server import start
from persona.rewards.attributes import ATTRIBUTES
from tests.helpers.scripted_run import tiny_run

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--no-first-run", "--disable-quic",
]  # fmt: skip
PATIENCE_MS = 60_000

pytestmark = [
    pytest.mark.integration,
    # gradio 6 sets, with each call that it counts, an option that pandas 3 has retired.
    pytest.mark.filterwarnings("ignore:'future.no_silent_downcasting' is deprecated"),
    pytest.mark.skipif(importlib.util.find_spec("playwright") is None, reason="playwright is not installed"),
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH"),
]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    page, url = start(tiny_run(tmp_path_factory.getbasetemp()), port=0)
    yield url
    page.close(verbose=False)


@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 - may be missing, see above

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield opened
        opened.close()


class Visitor:
    """One person at the demo, with everything that the browser complained about or asked of other machines."""

    def __init__(self, browser: "Browser", address: str) -> None:
        self.page: Page = browser.new_context(viewport={"width": 1400, "height": 1000}).new_page()
        self.page.set_default_timeout(PATIENCE_MS)
        self.complaints: list[str] = []
        self.strangers: list[str] = []
        self.page.on("console", lambda m: self.complaints.append(m.text) if m.type == "error" else None)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self._note(request.url))
        self.page.goto(address)
        self.page.locator("#card .hint").wait_for()

    def _note(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme in {"http", "https", "ws", "wss"} and parts.hostname != "127.0.0.1":
            self.strangers.append(url)

    @property
    def replies(self) -> "Locator":
        # While a reply is awaited, a bubble of another kind stands in its place.
        return self.page.locator("#chat [data-testid=bot]")

    @property
    def reply(self) -> str:
        return self.replies.last.inner_text()

    def ask(self, words: str) -> str:
        asked = self.page.locator("#chat [data-testid=user]")
        count = asked.count()
        self.page.locator("#message textarea").fill(words)
        self.page.locator("#message textarea").press("Enter")
        self.replies.nth(count).wait_for()
        return self.reply

    def wait_for_other_reply(self, before: str) -> str:
        self.page.wait_for_function(
            """before => {
                const said = [...document.querySelectorAll('#chat [data-testid=bot]')].pop()?.innerText;
                return said !== undefined && said !== before;
            }""",
            arg=before,
        )
        return self.reply

    def drag(self, name: str, share: float) -> None:
        """Pull a slider's handle to a share of its width, as a hand would."""
        place = self.page.locator(f"#slider-{name} input[type=range]").bounding_box()
        assert place is not None
        middle = place["y"] + place["height"] / 2
        self.page.mouse.move(place["x"] + place["width"] / 2, middle)
        self.page.mouse.down()
        self.page.mouse.move(place["x"] + place["width"] * share, middle, steps=5)
        self.page.mouse.up()

    def open_tab(self, name: str) -> None:
        self.page.get_by_role("tab", name=name).click()


def test_slider_changes_the_reply_and_choices_move_the_posterior(
    browser: "Browser", address: str, tmp_path: Path
) -> None:
    visitor = Visitor(browser, address)
    page = visitor.page
    usual = visitor.ask("Hello, can you find me a comedy?")
    average = page.locator("#average .reply p").first.inner_text()
    assert average == usual
    visitor.drag("brevity", 0.98)
    moved = visitor.wait_for_other_reply(usual)
    assert page.locator("#average .reply p").first.inner_text() == average
    number = page.locator("#slider-brevity input[type=number]")
    number.fill("-1")
    number.press("Enter")
    moved = visitor.wait_for_other_reply(moved)
    page.locator("#slider-warmth input[type=range]").press("ArrowRight")
    visitor.wait_for_other_reply(moved)
    page.locator("#attributes .plotly .bars").first.wait_for(state="attached")
    assert page.locator("#card dt").count() >= 5
    page.screenshot(path=tmp_path / "talk.png", full_page=True)

    visitor.open_tab("Teach me")
    for count in range(1, 4):
        page.locator("#pick-first" if count % 2 else "#pick-second").click()
        page.get_by_text("After 1 choice" if count == 1 else f"After {count} choices").wait_for()
    page.locator("#belief .plotly").first.wait_for(state="visible")
    page.screenshot(path=tmp_path / "teach.png", full_page=True)
    page.locator("#undo").click()
    page.get_by_text("After 2 choices").wait_for()

    visitor.open_tab("Talk")
    before = visitor.reply
    page.get_by_label("Use what you learned about me").check()
    visitor.wait_for_other_reply(before)
    assert visitor.complaints == [] and visitor.strangers == []
    page.context.close()


def test_two_people_at_once_keep_their_own_conversations(browser: "Browser", address: str) -> None:
    one, other = Visitor(browser, address), Visitor(browser, address)
    one.ask("A horror film, please.")
    other.ask("Something funny, please.")
    one.drag("enthusiasm", 0.98)
    other.ask("And another one?")
    assert one.page.locator("#chat [data-testid=user]").all_inner_texts() == ["A horror film, please."]
    said = other.page.locator("#chat [data-testid=user]").all_inner_texts()
    assert said == ["Something funny, please.", "And another one?"]
    values = [other.page.locator(f"#slider-{name} input[type=number]").input_value() for name in ATTRIBUTES]
    assert set(values) == {"0"}
    assert one.complaints == other.complaints == []
    for visitor in (one, other):
        visitor.page.context.close()


def test_error_reaches_the_person_as_one_sentence(browser: "Browser", address: str) -> None:
    visitor = Visitor(browser, address)
    visitor.page.locator("#film").click()
    visitor.page.get_by_text("A film must have been recommended first").wait_for()
    visitor.page.context.close()
