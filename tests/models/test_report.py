"""The report of results made by hand: what it must say, and that it loads nothing."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import pytest
from results_by_hand import PROGRAM, facts, image, line, sitting

from pipelines.peer_results import PeerRun
from pipelines.report import (
    change,
    history_plot,
    kernel_rows,
    latency_plot,
    milliseconds,
    percent,
    render,
    round_scale,
    si,
    size,
    summary,
)
from pipelines.results import VerifyResult, read_history, read_result, write_result


class Page(HTMLParser):
    """The page's visible text, its tags' attributes, and tags left open."""

    VOID = ("meta", "img", "br", "line", "rect", "circle", "polyline", "link", "path")

    def __init__(self, html: str) -> None:
        super().__init__()
        self.text, self.attributes, self.open = "", [], []
        self.feed(html)
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, *pair) for pair in attrs]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, *pair) for pair in attrs]

    def handle_endtag(self, tag: str) -> None:
        while self.open and self.open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.text += data + " "


def page(**keys: object) -> Page:
    return Page(render(facts(**keys)))  # type: ignore[arg-type]


def test_random_weights_are_said_prominently() -> None:
    found = page(kind="random")
    assert ("p", "class", "notice") in found.attributes
    assert "random weights (seed 0)" in found.text[:400]
    assert "recognises means nothing" in found.text


def test_real_weights_are_named_and_not_called_random() -> None:
    found = page(kind="package")
    assert "weights.pth of toys 1.0" in found.text
    assert "random" not in found.text.lower()


@pytest.mark.parametrize(
    "fact",
    [
        "agrees with PyTorch",
        "25.8 ms",
        "p10 25.2 ms",
        "38.8 /s",
        "4.0e-07",
        "allowed 1.0e-04",
        "112.3 dB",
        "500 ms",
        "4.1 kB",
        "1.33 times",
        "46.8 MB of weights",
        "conv2d_f32",
        "75.0 %",
        "2000.0",
        "Toy Platform",
        "driver 7.1",
        "torch 2.13.0",
        "d" * 64,
        "doit report:toy",
        "batch = 3",
        "main.npubin",
        "12.3 kB",
        "4000 GFLOP/s",
        "50 % compute",
    ],
)
def test_facts_are_on_the_page(fact: str) -> None:
    assert fact.replace(" /s", "/s") in page().text


@pytest.mark.parametrize(
    ("run", "says", "not_said"),
    [
        (sitting(2, "d" * 64, 0.1), "2 threads", "changed since"),
        (sitting(1, "d" * 64, 0.1), "1 thread ", "may mislead"),
        (sitting(2, "e" * 64, 0.1), "The program has changed since.", "may mislead"),
        (sitting(2, "d" * 64, 3.0), "kept 3.0 cores busy: the figures may mislead", "changed since"),
    ],
)
def test_peers_stand_beside_the_program(run: PeerRun, says: str, not_said: str) -> None:
    text = page(peers=(run,)).text
    assert says in text and not_said not in text
    assert "50 ms" in text and "0.52" in text and "0.50 to 0.55" in text
    assert text.index("npubin ") < text.index("onnxruntime ")


def test_a_page_without_optional_parts_has_none_of_them() -> None:
    text = page().text
    assert "Image by image" not in text
    assert "earlier benchmarks" not in text
    assert "Beside other ways" not in text


def test_images_are_listed_one_by_one() -> None:
    found = page(kind="package", images=(image("cat_1.jpg", 7, 7, 7), image("dog_2.jpg", 8, 8, 9)))
    assert "1 / 2" in found.text
    assert "same class first on 1 of 2 images" in found.text
    assert "differs" in found.text
    assert sum(tag == "img" for tag, name, _ in found.attributes if name == "src") == 2


def test_images_prove_only_agreement_with_random_weights_or_without_labels() -> None:
    for found in (
        facts(kind="random", images=(image("a_1.jpg", 1, 1, 1),)),
        facts(kind="package", images=(image("a.jpg", None, 1, 1),)),
    ):
        text = Page(render(found)).text
        assert "Top-1 accuracy" not in text and "In top 5" not in text
        assert "Same class as PyTorch 1 / 1" in text
        assert any("same class as PyTorch on 1 of 1 images" in line for line in summary(found))


def test_nothing_is_loaded_from_outside() -> None:
    html = render(
        facts(images=(image("a_1.jpg", 1, 1, 1),), history=(line("before", 26.0), line("now", 25.75)))
    )
    assert not re.search(r"(?:https?:)?//|@import|<script|<link|<iframe", html)
    loaded = [value for tag, name, value in Page(html).attributes if name in ("src", "href", "data")]
    assert all(str(value).startswith("data:image/jpeg;base64,") for value in loaded)


def test_text_from_outside_is_escaped() -> None:
    html = render(facts(images=(image("<b>&.jpg", 1, 1, 1),)))
    assert "<b>" not in html
    assert "&lt;b&gt;&amp;.jpg" in html


def test_every_tag_is_closed() -> None:
    assert page(images=(image("a.jpg", 1, 1, 1),), history=(line("a", 26.0), line("b", 25.75))).open == []


@pytest.mark.parametrize(
    ("before", "digest", "noise", "same"),
    [(26.0, "d" * 64, True, True), (50.0, "d" * 64, False, True), (50.0, "e" * 64, False, False)],
)
def test_change_against_the_run_before(before: float, digest: str, noise: bool, same: bool) -> None:
    found = change(PROGRAM, (line("old", 10.0), line("before", before, digest), line("now", 25.75)))
    assert found is not None
    assert found["ratio"] == pytest.approx(25.75 / before - 1)
    assert (found["when"], found["noise"], found["same"]) == ("before", noise, same)
    assert change(PROGRAM, (line("now", 25.75),)) is None


def test_history_marks_changed_programs() -> None:
    plot = history_plot("main", (line("1", 30.0), line("2", 29.0, "e" * 64), line("3", 29.0, "e" * 64)))
    assert plot is not None
    assert [point["changed"] for point in plot["points"]] == [False, True, False]
    assert history_plot("main", (line("1", 30.0),)) is None


def test_kernels_are_ordered_by_time() -> None:
    rows = kernel_rows(PROGRAM.kernels)
    assert [(row["kernel"].kernel, row["share"], row["bar"]) for row in rows] == [
        ("conv2d_f32", 0.75, 1.0),
        ("relu_f32", 0.25, pytest.approx(1 / 3)),
    ]
    assert rows[0]["kernel"].gflops == pytest.approx(2000.0)
    assert rows[1]["kernel"].gbytes == pytest.approx(8.0)


def test_latency_plot_counts_every_sample() -> None:
    plot = latency_plot(PROGRAM)
    assert sum(plot["numbers"]) == len(PROGRAM.samples_ms)
    one = msgspec.structs.replace(PROGRAM, samples_ms=(5.0,), median_ms=5.0, p10_ms=5.0, p90_ms=5.0)
    assert sum(latency_plot(one)["numbers"]) == 1


@pytest.mark.parametrize(
    ("low", "high"), [(0, 1), (25.2, 40.1), (0.0123, 0.0131), (5, 5), (0, 0), (999, 100_001)]
)
def test_scales_cover_their_values_with_round_ticks(low: float, high: float) -> None:
    scale = round_scale(low, high)
    assert scale.low <= low <= high <= scale.high
    assert 2 <= len(scale.ticks) <= 7
    assert len({tick.text for tick in scale.ticks}) == len(scale.ticks)
    assert (scale.ticks[0].at, scale.ticks[-1].at) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (milliseconds(0.4123), "412 µs"),
        (milliseconds(25.51), "25.5 ms"),
        (milliseconds(1234), "1.23 s"),
        (si(3.64e9), "3.64 G"),
        (size(46_800_000), "46.8 MB"),
        (size(512), "512 B"),
        (percent(0.125), "12.5 %"),
    ],
)
def test_numbers_are_written_with_their_units(text: str, expected: str) -> None:
    assert text == expected


def test_the_summary_says_the_essentials() -> None:
    found = facts(
        kind="package",
        images=(image("a.jpg", 1, 1, 1),),
        history=(line("before", 50.0), line("now", 25.75)),
    )
    text = "\n".join(summary(found))
    for part in ("Toy CPU", "weights.pth", "agrees with PyTorch", "top-1 1/1", "25.8 ms", "-48.5 %"):
        assert part in text


def test_results_round_trip(tmp_path: Path) -> None:
    verify = facts(images=(image("a.jpg", 1, 1, 1),)).verify
    write_result(tmp_path / "verify.json", verify)
    assert read_result(tmp_path / "verify.json", VerifyResult) == verify
    (tmp_path / "verify.json").write_text("{}")
    with pytest.raises(ValueError, match=r"verify\.json is not a VerifyResult"):
        read_result(tmp_path / "verify.json", VerifyResult)


def test_a_history_line_cut_off_by_a_crash_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    path.write_bytes(msgspec.json.encode(line("1", 3.0)) + b"\n" + msgspec.json.encode(line("2", 4.0))[:30])
    assert [item.when for item in read_history(path)] == ["1"]
    assert read_history(tmp_path / "none.jsonl") == ()
