"""The pages of `docs/`, and how to read them."""

import re
import tomllib
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
DOCS = REPOSITORY / "docs"
SOURCE = REPOSITORY / "src" / "crewcast"
PAGES = {file.name: file.read_text("utf-8") for file in sorted(DOCS.glob("*.md"))}
PYPROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def section(page: str, heading: str) -> str:
    """The text below a heading up to the next of its level or above, whatever `#` stands in code."""
    lines, level, found = PAGES[page].split("\n"), 0, []
    fenced = False
    for line in lines:
        fenced ^= line.startswith("```")
        mark = re.match(r"(#+) (.*)", line) if not fenced else None
        if level and mark and len(mark[1]) <= level:
            break
        if level:
            found.append(line)
        elif mark and mark[2] == heading:
            level = len(mark[1])
    assert level, f"{page} has no heading {heading!r}"
    return "\n".join(found)


def table(text: str, header: str) -> list[list[str]]:
    """The rows of the table with this first cell in its header, backticks removed."""
    lines = iter(text.split("\n"))
    for line in lines:
        if line.startswith(f"| {header} |"):
            assert set(next(lines)) <= set("|- ")
            rows = []
            for row in lines:
                if not row.startswith("|"):
                    break
                rows.append([cell.strip().replace("`", "") for cell in row.strip("|").split("|")])
            assert rows
            return rows
    raise AssertionError(f"no table that begins with {header!r}")


def blocks(text: str, language: str) -> list[str]:
    return [body for found, body in FENCE.findall(text) if found == language]


def prose(page: str) -> str:
    return " ".join(PAGES[page].split())
