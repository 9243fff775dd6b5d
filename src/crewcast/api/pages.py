"""What our pages have in common: HTML and one style sheet, no script, nothing from elsewhere."""

import base64
import hashlib
from dataclasses import dataclass
from functools import cache
from importlib import resources


@dataclass(frozen=True)
class Page:
    html: str
    headers: dict[str, str]


@cache
def style(name: str) -> str:
    return resources.files("crewcast.api").joinpath(name).read_text("utf-8")


def headers(sheet: str, *, forms: bool = False) -> dict[str, str]:
    """For a page with this style sheet inside; with `forms` it may send them to its own origin."""
    target = "'self'" if forms else "'none'"
    digest = base64.b64encode(hashlib.sha256(sheet.encode()).digest()).decode()
    return {
        "content-security-policy": (
            f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; "
            f"form-action {target}; frame-ancestors 'none'"
        ),
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
    }
