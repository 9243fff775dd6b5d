import pytest
from hypothesis import given
from hypothesis import strategies as st

from crewcast.dispatch import proxy
from crewcast.dispatch.proxy import Proxy


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http://proxy.internal:3128", Proxy("proxy.internal", 3128)),
        ("HTTP://Proxy.Internal:3128/", Proxy("proxy.internal", 3128)),
        ("http://10.0.0.9:80", Proxy("10.0.0.9", 80)),
        ("http://[fd00::9]:3128", Proxy("fd00::9", 3128)),
        ("http://user:word@proxy:3128", Proxy("proxy", 3128, b"Basic dXNlcjp3b3Jk")),
        # user@corp:p:w@/r% as it has to be written, and as it may be
        (
            "http://user%40corp:p%3Aw%40%2Fr%25@proxy:3128",
            Proxy("proxy", 3128, b"Basic dXNlckBjb3JwOnA6d0AvciU="),
        ),
        ("http://user:p:w@proxy:3128", Proxy("proxy", 3128, b"Basic dXNlcjpwOnc=")),
        ("http://user:@proxy:3128", Proxy("proxy", 3128, b"Basic dXNlcjo=")),
        ("http://%C3%BC:%C3%A4@proxy:3128", Proxy("proxy", 3128, b"Basic w7w6w6Q=")),
    ],
)
def test_parse(text, expected):
    assert proxy.parse(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "proxy:3128",
        "https://proxy:3128",
        "socks5://proxy:1080",
        "http://proxy",
        "http://hunter2@proxy:3128",
        "http://:hunter2@proxy:3128",
        "http://user:hunter2@proxy",
        "http://user:hunter2@proxy:99999",
        "http://user:hunter2@proxy:0",
        "http://user:hunter2@:3128",
        "http://user:hunter2@127.1:3128",
        "http://user:hunter2@proxy:3128/path",
        "http://user:hunter2@proxy:3128?a:1",
        "http://user:hunter2@a/proxy:3128",
        "http://user:hunter2/x@a b:3128",
    ],
)
def test_what_is_no_proxy(text):
    with pytest.raises(ValueError, match=r"^(must|has|names|is) ") as caught:
        proxy.parse(text)
    assert "hunter2" not in str(caught.value)


@given(st.text(max_size=40))
def test_parse_raises_nothing_but_value_error(text):
    for link in (text, f"http://{text}", f"http://u:p@{text}:3128", f"http://{text}@proxy:3128"):
        try:
            found = proxy.parse(link)
        except ValueError:
            continue
        assert b"\r" not in (found.authorization or b"")
        assert b"\n" not in (found.authorization or b"")


def test_a_proxy_does_not_show_its_credentials():
    assert repr(Proxy("proxy", 3128, b"Basic dXNlcjp3b3Jk")) == "Proxy(host='proxy', port=3128)"
