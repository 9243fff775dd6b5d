"""The page of the OpenAPI document: all of it is there, every link leads somewhere, and it needs nothing from elsewhere."""

import base64
import hashlib
from html.parser import HTMLParser
from urllib.parse import urlsplit

import pytest

from crewcast.api import docs_page
from crewcast.contract import openapi

VOID = {"meta", "wbr", "br", "hr", "link", "img", "input"}
DOCUMENT = openapi.document()


class Reader(HTMLParser):
    """What a browser is told: elements with their attributes, the text outside code, and whether tags match."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.prose: list[str] = []
        self.text: list[str] = []
        self.open: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text.append(data)
            if not {"code", "pre"} & set(self.open):
                self.prose.append(data)


@pytest.fixture(scope="module")
def page() -> Reader:
    return Reader(docs_page.page().html)


def values(page: Reader, attribute: str) -> list[str]:
    return [attributes[attribute] or "" for _, attributes in page.elements if attribute in attributes]


def test_its_tags_match(page):
    assert page.open == []
    assert len(page.elements) > 500


def test_every_operation_and_every_schema_has_a_place(page):
    places = values(page, "id")
    assert len(places) == len(set(places))
    operations = [
        operation["operationId"]
        for group in ("paths", "webhooks")
        for item in DOCUMENT[group].values()
        for method, operation in item.items()
        if method != "parameters"
    ]
    assert set(places) >= set(operations)
    assert set(places) >= {f"schema-{name}" for name in DOCUMENT["components"]["schemas"]}


def test_every_link_leads_somewhere(page):
    links = values(page, "href")
    inside = {link[1:] for link in links if link.startswith("#")}
    assert inside <= set(values(page, "id"))
    assert {link for link in links if not link.startswith("#")} == {"/openapi.json", "/asyncapi.yaml"}
    assert all(link in DOCUMENT["paths"] for link in links if link.startswith("/"))


def test_it_runs_no_script_and_loads_nothing(page):
    assert {tag for tag, _ in page.elements} & {"script", "link", "img", "iframe", "object", "form"} == set()
    assert values(page, "src") == values(page, "style") == []
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)
    assert all(urlsplit(link).netloc == "" for link in values(page, "href"))
    style = docs_page.page().html.partition("<style>")[2].partition("</style>")[0]
    assert "url(" not in style
    assert "@import" not in style


def test_its_policy_allows_its_own_style_and_nothing_else():
    page = docs_page.page()
    style = page.html.partition("<style>")[2].partition("</style>")[0]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    rules = dict(rule.strip().split(" ", 1) for rule in page.headers["content-security-policy"].split(";"))
    assert rules.pop("style-src") == f"'sha256-{digest}'"
    assert set(rules) == {"default-src", "base-uri", "form-action", "frame-ancestors"}
    assert set(rules.values()) == {"'none'"}


def test_no_markup_is_left_in_the_text(page):
    for text in page.prose:
        assert "`" not in text
        assert "**" not in text
        assert "](" not in text


def test_what_a_description_says_is_text_and_never_markup():
    document = {
        "info": {
            "title": "<b>",
            "version": "1",
            "summary": "a `<i>` b",
            "description": "x & [<u>](/y?a=1&b='2')",
        },
        "security": [],
        "tags": [],
        "paths": {},
        "webhooks": {},
        "components": {"securitySchemes": {"bearer": {"description": "<script>"}}, "schemas": {}},
    }
    page = Reader(docs_page.render(document, ""))
    assert {tag for tag, _ in page.elements} & {"i", "u", "script"} == set()
    for said in ("<b>", "<i>", "<u>", "x & ", "<script>"):
        assert any(said in text for text in page.text), said
    assert "/y?a=1&b='2'" in values(page, "href")


def test_the_commands_are_for_a_shell(page):
    commands = [text for text in page.text if text.startswith("curl ")]
    assert len(commands) == sum(len(item.keys() - {"parameters"}) for item in DOCUMENT["paths"].values())
    assert all("{" not in command.partition(" \\\n")[0] for command in commands)
