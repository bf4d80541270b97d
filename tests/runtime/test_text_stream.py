"""Text from bytes: characters appear when they are whole, stop strings never."""

from __future__ import annotations

import numpy as np
import pytest

from npu_runtime.text_stream import TextStream


@pytest.mark.parametrize(
    ("parts", "texts"),
    [
        ([b"ab", b"c"], ["ab", "c", ""]),
        ([b"\xc3", b"\xa9!"], ["", "é!", ""]),
        ([b"x\xf0\x9f", b"\x98", b"\x80y"], ["x", "", "😀y", ""]),
        ([b"\xf0\x9f", b"a"], ["", "\ufffda", ""]),
        ([b"\xff", b"b"], ["\ufffd", "b", ""]),
        ([b"a\xe2\x82"], ["a", "\ufffd"]),
        ([b"\xe2", b"\xe2\x82\xac"], ["", "\ufffd€", ""]),
        ([b"\x80\x80"], ["\ufffd\ufffd", ""]),
        ([b"\xed\xa0\x80"], ["\ufffd\ufffd\ufffd", ""]),  # half of a surrogate pair is no character
        ([b"", b"\r\n"], ["", "\r\n", ""]),
    ],
)
def test_characters_appear_when_they_are_whole(parts: list[bytes], texts: list[str]) -> None:
    stream = TextStream()
    assert [*map(stream.push, parts), stream.finish()] == texts
    assert "".join(texts) == b"".join(parts).decode(errors="replace")


@pytest.mark.parametrize(
    ("stops", "parts", "texts", "stopped"),
    [
        (["END"], [b"aE", b"N", b"D b"], ["a", "", "", ""], True),
        (["END"], [b"aE", b"N", b"x"], ["a", "", "ENx", ""], False),
        (["END"], [b"aEEN", b"Db"], ["aE", "", ""], True),
        (["aab"], [b"aaa", b"b"], ["a", "", ""], True),
        (["xyz", "y"], [b"ax", b"y"], ["a", "x", ""], True),
        (["b", "abc"], [b"xab", b"c"], ["xa", "", ""], True),
        (["\n\n"], [b"one\n", b"two\n"], ["one", "\ntwo", "\n"], False),
        (["€"], [b"a\xe2\x82", b"\xacb"], ["a", "", ""], True),
        (["\ufffd"], [b"a\xe2\x82"], ["a", ""], True),
        (["END"], [b"END"], ["", ""], True),
    ],
)
def test_stop_strings_are_cut_out(
    stops: list[str], parts: list[bytes], texts: list[str], stopped: bool
) -> None:
    stream = TextStream(stops)
    assert [*map(stream.push, parts), stream.finish()] == texts
    assert stream.stopped == stopped


def test_how_the_bytes_are_split_does_not_matter() -> None:
    random = np.random.default_rng(0)
    text = "naïve 😀 — 日本語 STO STOP\u0301 after"
    data = text.encode() + b"\xf0\x9f"
    for _ in range(200):
        cuts = sorted(random.integers(0, len(data), random.integers(0, 12)))
        parts = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]
        for stops, wanted in (
            (["STOP"], text[: text.index("STOP")]),
            ([], data.decode(errors="replace")),
            (["x-", "語 STO", "STOP"], text[: text.index("語")]),
        ):
            stream = TextStream(stops)
            assert "".join([*map(stream.push, parts), stream.finish()]) == wanted
