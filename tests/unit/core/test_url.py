import ipaddress
import string

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from crewcast.core import url
from crewcast.core.url import Target


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("https://example.com", Target("https", "example.com", 443, "/")),
        ("https://example.com/", Target("https", "example.com", 443, "/")),
        ("HTTPS://EXAMPLE.com/Hook", Target("https", "example.com", 443, "/Hook")),
        ("https://example.com./a", Target("https", "example.com", 443, "/a")),
        ("https://example.com:443/a", Target("https", "example.com", 443, "/a")),
        ("https://example.com:8443/a?b=c&d", Target("https", "example.com", 8443, "/a?b=c&d")),
        ("https://example.com?b=c", Target("https", "example.com", 443, "/?b=c")),
        ("https://example.com/a?", Target("https", "example.com", 443, "/a")),
        ("https://example.com/a#part", Target("https", "example.com", 443, "/a")),
        ("https://example.com:/a", Target("https", "example.com", 443, "/a")),
        ("http://localhost:5678/x", Target("http", "localhost", 5678, "/x")),
        ("http://my_service/x", Target("http", "my_service", 80, "/x")),
        ("https://8.8.8.8/x", Target("https", "8.8.8.8", 443, "/x")),
        ("https://[2001:DB8:0:0::1]:8443/x", Target("https", "2001:db8::1", 8443, "/x")),
        ("https://[::ffff:7f00:1]/", Target("https", "::ffff:7f00:1", 443, "/")),
        (
            "https://bücher.example/ä".replace("/ä", "/%C3%A4"),
            Target("https", "xn--bcher-kva.example", 443, "/%C3%A4"),
        ),
        ("https://example。com/", Target("https", "example.com", 443, "/")),
    ],
)
def test_parse(text, target):
    assert url.parse(text) == target


@pytest.mark.parametrize(
    "text",
    [
        "",
        "example.com/hook",
        "//example.com/hook",
        "/hook",
        "ftp://example.com/",
        "file:///etc/passwd",
        "gopher://example.com/",
        "javascript:alert(1)",
        "https:",
        "https://",
        "https:///path",
        "https://?x",
        "https://./",
        "https://../",
        "https://example.com../",
        "https://a..b/",
        "https://.example.com/",
        "https://" + "a" * 64 + ".com/",
        "https://" + "a." * 127 + "com/",
        "https://" + "ü" * 300 + ".com/",
        "https://user@example.com/",
        "https://user:secret@example.com/",
        "https://@example.com/",
        "https://example.com:0/",
        "https://example.com:65536/",
        "https://example.com:-1/",
        "https://example.com:80:80/",
        "https://example.com:http/",
        "https://example.com:\uff18\uff10/",
        "https://exa mple.com/",
        " https://example.com/",
        "https://example.com/ ",
        "https://example.com/\r\nX: y",
        "https://example.com/\x00",
        "https://example.com\\@evil.example/",
        "https://exam\tple.com/",
        "https://ex%61mple.com/",
        "https://127.0.0.1%00.example.com/",
        "https://example.com/ä",
        "https://example.com/?q=ä",
        "https://\u2028example.com/",
        "https://\ud800.example/",
        "https://exa\u0085mple.com/",
        "https://example.com/" + "a" * 2048,
        # IPv6
        "https://[::1",
        "https://::1/",
        "https://::1]/",
        "https://[]/",
        "https://[::1]evil.example/",
        "https://evil.example[::1]/",
        "https://[::1][::2]/",
        "https://[127.0.0.1]/",
        "https://[v1.fe80]/",
        "https://[fe80::1%25eth0]/",
        "https://[fe80::1%eth0]/",
        "https://[example.com]/",
        # IPv4 in spellings that resolvers disagree about
        "https://127.1/",
        "https://127.0.1/",
        "https://2130706433/",
        "https://0x7f000001/",
        "https://0x7f.0.0.1/",
        "https://0177.0.0.1/",
        "https://017700000001/",
        "https://127.0.0.08/",
        "https://127.0.0.256/",
        "https://1.2.3.4.5/",
        "https://0/",
        "https://0x/",
        "https://foo.0x7f/",
        "https://foo.1/",
        "https://1.1.1.1../",
    ],
)
def test_parse_refuses(text):
    with pytest.raises(ValueError, match=r"^(is|has|carries|names) "):
        url.parse(text)


def test_a_reason_never_repeats_the_url():
    for text in ("https://u:hunter2@example.com/", "https://[hunter2]/", "https://example.com:hunter2/"):
        with pytest.raises(ValueError, match=r"^(is|has|carries) ") as caught:
            url.parse(text)
        assert "hunter2" not in str(caught.value)


def test_fullwidth_digits_are_digits():
    assert url.parse("https://\uff11\uff12\uff17.\uff10.\uff10.\uff11/").host == "127.0.0.1"


@pytest.mark.parametrize(
    ("text", "authority", "origin"),
    [
        ("https://example.com/a?b", "example.com", "https://example.com"),
        ("https://example.com:80/", "example.com:80", "https://example.com:80"),
        ("http://example.com:80/", "example.com", "http://example.com"),
        ("https://[0:0::1]:443/", "[::1]", "https://[::1]"),
        ("https://[::1]:8443/", "[::1]:8443", "https://[::1]:8443"),
    ],
)
def test_authority_and_origin(text, authority, origin):
    target = url.parse(text)
    assert (target.authority, target.origin) == (authority, origin)


def test_redacted():
    assert url.redacted("https://example.com/a?token=secret?x") == "https://example.com/a?..."
    assert url.redacted("https://example.com/a") == "https://example.com/a"


_PIECES = st.one_of(
    st.sampled_from(
        [
            "http",
            "https",
            "://",
            "//",
            ":",
            "@",
            "[",
            "]",
            "%",
            "?",
            "#",
            "/",
            "\\",
            ".",
            "0x",
            "127",
            "::1",
            "example.com",
            "80",
            "xn--",
        ]
    ),
    st.sampled_from(["\r\n", "\x00", "\t", "\u2028", "\ud800", "\u24db", "\u3002", "\xdf", "\uff11"]),
)
_URLS = st.one_of(
    st.text(max_size=60),
    st.lists(_PIECES, max_size=12).map("".join),
    st.builds("https://{}/{}".format, st.text(max_size=40), st.text(max_size=20)),
    st.builds("http://{}".format, st.lists(st.one_of(_PIECES, st.text(max_size=4)), max_size=8).map("".join)),
)


@given(_URLS)
@example("http://[::1%\n]/")
def test_parse_raises_nothing_but_value_error(text):
    try:
        target = url.parse(text)
    except ValueError:
        return
    assert target.scheme in ("http", "https")
    assert 0 < target.port < 65536
    assert target.path.startswith("/")
    assert set(target.path) <= set(string.printable) - set(string.whitespace)
    if ":" in target.host:
        assert str(ipaddress.IPv6Address(target.host)) == target.host
    else:
        assert set(target.host) <= set(string.ascii_lowercase + string.digits + "-_.")
    # Its own spelling leads to itself: an origin has one name.
    assert url.parse(f"{target.origin}{target.path}") == target
