"""What every report's page shares: its templates, its scripts, and how they are allowed to run."""

import base64
import hashlib
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from plotly.offline import get_plotlyjs

TEMPLATES = Path(__file__).parent / "templates"


def page_environment() -> Environment:
    """Templates that escape what they are given, and refuse a name that they were not."""
    return Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def page_scripts() -> list[str]:
    """Plotly's script and our own, to stand inside a page."""
    return [get_plotlyjs(), read_template("report.js")]


def read_template(name: str) -> str:
    """A file of the templates as it stands."""
    return (TEMPLATES / name).read_text(encoding="utf-8")


def fingerprint(script: str) -> str:
    """How a content security policy names an inline script that may run."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
