"""The OpenAPI document as a page: HTML and one style sheet, no script, nothing from elsewhere."""

import json
import re
import shlex
from collections.abc import Iterator
from functools import cache
from html import escape

from crewcast.api import pages
from crewcast.api.pages import Page
from crewcast.contract import openapi
from crewcast.contract.asyncapi import JSON

_MARKUP = re.compile(r"`(?P<code>[^`]+)`|\*\*(?P<bold>[^*]+)\*\*|\[(?P<text>[^\]]+)\]\((?P<url>[^)\s]+)\)")
_LIMITS = {
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "minimum": "at least {}",
    "maximum": "at most {}",
    "minItems": "at least {} entries",
    "maxItems": "at most {} entries",
}


@cache
def page() -> Page:
    sheet = pages.style("docs.css")
    return Page(render(openapi.document(), sheet), pages.headers(sheet))


def render(document: JSON, style: str) -> str:
    """The page of an OpenAPI 3.1 document that has what ours has."""
    return _Document(document).html(style)


class _Document:
    def __init__(self, document: JSON) -> None:
        self._document = document
        self._components: JSON = document["components"]

    def html(self, style: str) -> str:
        info = self._document["info"]
        title = f"{info['title']} {info['version']}"
        return "".join(
            [
                "<!doctype html><html lang=en><head><meta charset=utf-8>",
                "<meta name=viewport content='width=device-width, initial-scale=1'>",
                f"<title>{escape(title)}: API</title><style>{style}</style></head><body>",
                f"<nav><a class=title href=#top>{escape(title)}</a>{self._contents()}</nav>",
                f"<main id=top><h1>{escape(info['title'])} <small>{escape(info['version'])}</small></h1>",
                f"<p class=lead>{_inline(info['summary'])}</p>",
                "<p class=documents><a href=/openapi.json>openapi.json</a> <a href=/asyncapi.yaml>asyncapi.yaml</a></p>",
                _prose(info["description"]),
                self._authorization(),
                *(self._tag(tag) for tag in self._document["tags"]),
                self._schemas(),
                "</main></body></html>",
            ]
        )

    def _operations(self, tag: str) -> Iterator[tuple[str, str, JSON]]:
        """Method, path and operation; of a webhook its name is the path."""
        for group in ("paths", "webhooks"):
            for path, item in self._document[group].items():
                for method, operation in item.items():
                    if method != "parameters" and tag in operation["tags"]:
                        shared = item.get("parameters", [])
                        whole = {**operation, "parameters": [*shared, *operation.get("parameters", [])]}
                        yield method, path, whole

    def _contents(self) -> str:
        parts = []
        for tag in self._document["tags"]:
            links = "".join(
                f"<li><a href=#{escape(operation['operationId'])}><b class={method}>{method}</b> {_path(path)}</a></li>"
                for method, path, operation in self._operations(tag["name"])
            )
            parts.append(f"<h2>{escape(tag['name'])}</h2><ul>{links}</ul>")
        names = "".join(
            f"<li><a href=#{_anchor(name)}>{escape(name)}</a></li>" for name in self._components["schemas"]
        )
        return "".join(parts) + f"<h2>Schemas</h2><ul>{names}</ul>"

    def _authorization(self) -> str:
        scheme = self._components["securitySchemes"]["bearer"]
        return (
            "<h2>Token</h2><p>Routes marked <span class=lock>token</span> want the header "
            f"<code>Authorization: Bearer TOKEN</code>. {_inline(scheme['description'])}</p>"
        )

    def _tag(self, tag: JSON) -> str:
        operations = "".join(self._operation(*operation) for operation in self._operations(tag["name"]))
        return f"<section><h2>{escape(tag['name'])}</h2><p>{_inline(tag['description'])}</p>{operations}</section>"

    def _operation(self, method: str, path: str, operation: JSON) -> str:
        token = {"bearer": []} in {**self._document, **operation}["security"]
        lock = "<span class=lock>token</span>" if token else ""
        webhook = path in self._document["webhooks"]
        parts = [
            f"<article id={escape(operation['operationId'])}>",
            f"<h3><b class={method}>{method}</b> <code>{_path(path)}</code>{lock}</h3>",
            f"<p class=summary>{_inline(operation['summary'])}</p>",
            _prose(operation.get("description", "")),
            "" if webhook else f"<pre>{escape(self._curl(method, path, operation, token=token))}</pre>",
            self._parameters("Headers" if webhook else "Parameters", operation["parameters"]),
        ]
        if body := operation.get("requestBody"):
            parts += ["<h4>Body</h4>", self._content(body["content"])]
            [media] = body["content"].values()
            parts.append(
                f"<details><summary>Fields</summary>{self._schema(self._resolved(media['schema']))}</details>"
            )
        answers = "".join(self._answer(status, one) for status, one in operation["responses"].items())
        parts += [f"<h4>{'You answer' if webhook else 'Answers'}</h4>", answers, "</article>"]
        return "".join(parts)

    def _curl(self, method: str, path: str, operation: JSON, *, token: bool) -> str:
        """A command that can be copied: the examples of what must be there are in it."""
        for parameter in map(self._resolved, operation["parameters"]):
            if parameter["in"] == "path":
                path = path.replace(f"{{{parameter['name']}}}", str(parameter["example"]))
        lines = [f"curl {'' if method == 'get' else f'-X {method.upper()} '}$CREWCAST_URL{path}"]
        if token:
            lines.append('-H "Authorization: Bearer $CREWCAST_TOKEN"')
        if body := operation.get("requestBody"):
            [(kind, media)] = body["content"].items()
            example = next(value for _, _, value in _examples(media))
            text = json.dumps(example, indent=2, ensure_ascii=False)
            lines += [f"-H 'Content-Type: {kind}'", f"-d {shlex.quote(text)}"]
        return " \\\n  ".join(lines)

    def _parameters(self, title: str, parameters: list[JSON]) -> str:
        rows = [
            _row(
                f"<code>{escape(one['name'])}</code>{_required(one.get('required', False))}",
                escape(one["in"]),
                self._type(one["schema"]),
                _inline(one.get("description", "")),
            )
            for one in map(self._resolved, parameters)
        ]
        return f"<h4>{title}</h4>{_table(rows)}" if rows else ""

    def _answer(self, status: str, answer: JSON) -> str:
        answer = self._resolved(answer)
        headers = [
            _row(
                f"<code>{escape(name)}</code>",
                self._type(header["schema"]),
                _inline(header.get("description", "")),
            )
            for name, header in (
                (name, self._resolved(one)) for name, one in answer.get("headers", {}).items()
            )
        ]
        told = f"<b class=s{escape(status[0])}>{escape(status)}</b> {_inline(answer['description'].strip())}"
        inside = (_table(headers) if headers else "") + self._content(answer.get("content", {}))
        return (
            f"<details><summary>{told}</summary>{inside}</details>"
            if inside
            else f"<p class=answer>{told}</p>"
        )

    def _content(self, content: JSON) -> str:
        parts = []
        for kind, media in content.items():
            schema = media["schema"]
            parts.append(f"<p class=kind><code>{escape(kind)}</code> {self._type(schema)}</p>")
            if "$ref" not in schema:
                parts.append(_prose(schema.get("description", "")))
            for name, summary, value in _examples(media):
                text = value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False)
                caption = _inline(summary) if summary else escape(name)
                parts.append(f"<figure><figcaption>{caption}</figcaption><pre>{escape(text)}</pre></figure>")
        return "".join(parts)

    def _schemas(self) -> str:
        found = "".join(
            f"<article id={_anchor(name)}><h3>{escape(name)}</h3>{self._schema(schema)}</article>"
            for name, schema in self._components["schemas"].items()
        )
        return f"<section><h2>Schemas</h2>{found}</section>"

    def _schema(self, schema: JSON) -> str:
        parts = [_prose(schema.get("description", ""))]
        bases = [part for part in schema.get("allOf", ()) if "$ref" in part]
        if bases:
            parts.append(f"<p>All of {', '.join(map(self._type, bases))}, and:</p>")
        for part in schema.get("allOf", ()):
            names = [name for choice in part.get("anyOf", ()) for name in choice["required"]]
            if names:
                parts.append(
                    f"<p>{' or '.join(f'<code>{escape(name)}</code>' for name in names)}<em> required</em></p>"
                )
        rows = list(self._fields(schema))
        if rows:
            parts.append(_table(rows))
        else:
            parts.append(f"<p>{self._type(schema)}</p>")
        return "".join(parts)

    def _fields(self, schema: JSON, prefix: str = "") -> Iterator[str]:
        """A row for each property, those of objects inside it too."""
        for name, field in schema.get("properties", {}).items():
            required = _required(name in schema.get("required", ()))
            yield _row(
                f"<code>{escape(prefix + name)}</code>{required}",
                self._type(field),
                _inline(field.get("description", "")),
            )
            yield from self._fields(field, f"{prefix}{name}.")
            if "items" in field:
                yield from self._fields(field["items"], f"{prefix}{name}[].")

    def _type(self, schema: JSON) -> str:
        """What a value is, in a few words."""
        if reference := schema.get("$ref"):
            name, *inner = reference.removeprefix("#/components/schemas/").split("/properties/")
            return f"<a href=#{_anchor(name)}>{escape('.'.join([name, *inner]))}</a>"
        values = [schema["const"]] if "const" in schema else schema.get("enum", [])
        if values:
            told = ", ".join(f"<code>{escape(str(value))}</code>" for value in values)
            return f"one of {told}" if len(values) > 1 else told
        if "oneOf" in schema and "properties" not in schema:
            return "one of " + ", ".join(map(self._type, schema["oneOf"]))
        names = schema.get("type", "any JSON value")
        text = escape(" or ".join(names) if isinstance(names, list) else names)
        if "items" in schema:
            text = f"array of {self._type(schema['items'])}"
        elif isinstance(schema.get("additionalProperties"), dict):
            text = f"object of {self._type(schema['additionalProperties'])}"
        notes = [escape(schema["format"])] if "format" in schema else []
        notes += [told.format(schema[name]) for name, told in _LIMITS.items() if name in schema]
        notes += [f"<code>{escape(schema['pattern'])}</code>"] if "pattern" in schema else []
        notes += [f"default <code>{escape(str(schema['default']))}</code>"] if "default" in schema else []
        return f"{text} <span class=note>{', '.join(notes)}</span>" if notes else text

    def _resolved(self, value: JSON) -> JSON:
        """What a reference to a component stands for."""
        if "$ref" not in value:
            return value
        kind, name = value["$ref"].removeprefix("#/components/").split("/")
        found: JSON = self._components[kind][name]
        return found


def _examples(media: JSON) -> Iterator[tuple[str, str, object]]:
    """Name, summary and value of each example."""
    if "example" in media:
        yield "Example", "", media["example"]
    for name, example in media.get("examples", {}).items():
        yield name, example.get("summary", ""), example["value"]


def _anchor(schema: str) -> str:
    return f"schema-{escape(schema)}"


def _path(path: str) -> str:
    """With a place to break after each slash."""
    return escape(path).replace("/", "/<wbr>")


def _required(required: bool) -> str:  # noqa: FBT001 - a field's own
    return " <em>required</em>" if required else ""


def _row(*cells: str) -> str:
    return f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


def _table(rows: list[str]) -> str:
    return f"<div class=table><table>{''.join(rows)}</table></div>"


def _prose(text: str) -> str:
    return "".join(f"<p>{_inline(part)}</p>" for part in re.split(r"\n\s*\n", text.strip()) if part)


def _inline(text: str) -> str:
    """What our descriptions use of CommonMark: code, bold and links."""
    parts, at = [], 0
    for found in _MARKUP.finditer(text):
        parts.append(escape(text[at : found.start()]))
        if code := found["code"]:
            parts.append(f"<code>{escape(code)}</code>")
        elif bold := found["bold"]:
            parts.append(f"<strong>{escape(bold)}</strong>")
        else:
            parts.append(f"<a href='{escape(found['url'])}'>{escape(found['text'])}</a>")
        at = found.end()
    return "".join([*parts, escape(text[at:])])
