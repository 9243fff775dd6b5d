import pytest
from hypothesis import given
from hypothesis import strategies as st

from crewcast.core.backoff import SECOND
from crewcast.dispatch import response

NOW = 1_792_567_620 * SECOND + 500_000  # Wed, 21 Oct 2026 07:27:00.5 GMT


def _retry_after(value: bytes, now: int = NOW) -> int | None:
    return response.retry_after(
        b"HTTP/1.1 503 x\r\nServer: y\r\nRetry-After:" + value + b"\r\nDate: z\r\n", now
    )


@pytest.mark.parametrize(
    ("value", "wait"),
    [
        (b" 120", 120 * SECOND),
        (b"120  ", 120 * SECOND),
        (b"\t0", 0),
        (b" -5", 0),
        (b" 007", 7 * SECOND),
        (b" 999999999999999", 366 * 86400 * SECOND),
        (b" Wed, 21 Oct 2026 07:28:00 GMT", 59_500_000),
        (b" Wednesday, 21-Oct-26 07:28:00 GMT", 59_500_000),
        (b" Wed Oct 21 07:28:00 2026", 59_500_000),
        (b" Wed, 21 Oct 2026 07:28:00 -0000", 59_500_000),
        (b" Wed, 21 Oct 2015 07:28:00 GMT", 0),
        (b" Fri, 31 Dec 9999 23:59:59 GMT", 366 * 86400 * SECOND),
        (b"", None),
        (b" 1.5", None),
        (b" 1e3", None),
        (b" +5", None),
        (b" 5 seconds", None),
        (b" 0x10", None),
        (b" 1_000", None),
        (b" \xb2", None),
        (b" " + b"9" * 5000, None),
        (b" soon", None),
        (b" Wed, 99 Oct 2026 07:28:00 GMT", None),
        (b" Wed, 21 Oct 2026 07:28:00 +9999", None),
        (b" Wed, 21 Oct 99999 07:28:00 GMT", None),
        (b" 2026-10-21T07:28:00Z", None),
    ],
)
def test_retry_after(value, wait):
    assert _retry_after(value) == wait


def test_retry_after_is_found_by_its_whole_name_whatever_its_case():
    assert response.retry_after(b"HTTP/1.1 503 x\r\nRETRY-AFTER: 1\r\n", NOW) == SECOND
    assert response.retry_after(b"HTTP/1.1 503 x\r\nX-Retry-After: 1\r\n", NOW) is None
    assert response.retry_after(b"HTTP/1.1 503 retry-after: 1\r\n", NOW) is None


@given(st.binary(max_size=40).filter(lambda value: not set(value) & set(b"\r\n")))
def test_no_retry_after_raises(value):
    wait = _retry_after(value)
    assert wait is None or 0 <= wait <= 366 * 86400 * SECOND


def test_the_final_head_is_behind_the_interim_ones_and_before_the_body():
    raw = (
        b"\r\nHTTP/1.1 103 Early\r\nRetry-After: 1\r\n\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n"
        b"HTTP/1.1 503 No\r\nA: b\r\n\r\nx\r\nRetry-After: 2\r\n\r\n"
    )
    assert response.final_head(raw, 2) == b"HTTP/1.1 503 No\r\nA: b\r\n"


def test_the_size_of_a_head_is_that_of_all_heads_before_the_body():
    interim = b"\r\nHTTP/1.1 103 Early\r\nA: b\r\n\r\n\r\n"
    final = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"
    assert response.head_end(interim + final + b"x\r\n\r\ny", 1) == len(interim + final)
    assert response.head_end(final + b"\r\n\r\n", 0) == len(final)
    assert response.head_end(interim + b"HTTP/1.1 200", 1) == len(interim + b"HTTP/1.1 200")


def test_is_framed():
    assert response.is_framed(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n")
    for encoding in (b"chunked", b"Chunked ", b"gzip, chunked", b"gzip,chunked"):
        assert response.is_framed(b"HTTP/1.1 200 OK\r\nTransfer-Encoding:" + encoding + b"\r\nA: b\r\n")
        assert response.is_framed(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: " + encoding + b"\r\n")
    for encoding in (b"gzip", b"xchunked", b"chunked, gzip", b"chunked;q=1", b"identity", b""):
        assert not response.is_framed(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: " + encoding + b"\r\n")
    assert not response.is_framed(b"HTTP/1.1 200 OK\r\nX-Content-Length: 2\r\n")


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", None),
        (b"ok", "ok"),
        ("schön".encode(), "schön"),
        (b"a\r\n\tb\x00\x1b[2J\x7f", "a   b\ufffd\ufffd[2J\ufffd"),
        (b"\xff\xfe", "\ufffd\ufffd"),
        ("a\u202eb\u2028c\u200bd".encode(), "a b c d"),
        ("a\u00adb\ufeffc\U000e0041d\u00a0e".encode(), "a b c d e"),
        (b"\xed\xa0\x80\xed\xb0\x80", "\ufffd" * 6),
        (b"x" * 5000, "x" * 512),
        (("\U0001f600" * 600).encode(), "\U0001f600" * 512),
    ],
)
def test_excerpt(body, text):
    assert response.excerpt(body) == text


@given(st.binary(max_size=3000))
def test_an_excerpt_is_short_and_harmless(body):
    text = response.excerpt(body) or ""
    assert len(text) <= 512
    assert text.isprintable()
    assert text.encode("utf-8").decode("utf-8") == text


@given(st.text(max_size=600))
def test_an_excerpt_keeps_what_can_be_seen(body):
    text = response.excerpt(body.encode("utf-8", "replace")) or ""
    kept = body.encode("utf-8", "replace").decode()[:512]
    assert len(text) == len(kept)
    assert all(one == other for one, other in zip(text, kept, strict=True) if other.isprintable())
