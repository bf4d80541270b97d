"""Generation with small random decoders: the tokens of ``transformers``, and how sequences end."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache, partial
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest
from tiny_decoders import Decoder, tiny_decoder

from npu_compiler.token_sampler import token_sampler
from npu_runtime import device, executor
from npu_runtime.device import Device
from npu_runtime.errors import InputError
from npu_runtime.generate import Piece, Sampling, generate
from npu_runtime.weight_loader import load_weights

VOCABULARY, CACHE, LONGEST = 211, 96, 64


@cache
def built(architecture: str) -> Decoder:
    return tiny_decoder(architecture, VOCABULARY, cache=CACHE, longest=LONGEST)


@pytest.fixture(params=["LlamaForCausalLM", "Qwen2ForCausalLM"])
def decoder(request: pytest.FixtureRequest) -> Decoder:
    return built(request.param)


@pytest.fixture
def llama() -> Decoder:
    return built("LlamaForCausalLM")


def prompt(length: int) -> list[int]:
    return [int(token) for token in np.random.default_rng(length).integers(0, VOCABULARY, length)]


def pieces(decoder: Decoder, ids: Any, **settings: Any) -> list[Piece]:
    return list(generate(decoder.prefill, decoder.decode, decoder.weights, ids, **settings))


def tokens(decoder: Decoder, ids: Any, **settings: Any) -> list[int]:
    return [piece.token for piece in pieces(decoder, ids, **settings)]


def letters(token: int) -> bytes:
    """A text for every token: two letters that follow from its number."""
    return bytes((97 + token // 16, 97 + token % 16))


@pytest.mark.parametrize("length", [1, 7, 33, LONGEST])
def test_greedy_tokens_are_those_of_transformers(length: int, decoder: Decoder) -> None:
    ids = prompt(length)
    wanted = decoder.greedy(ids, 24)
    assert len(set(wanted)) > 3
    assert tokens(decoder, ids, max_tokens=24) == wanted
    assert tokens(decoder, np.array([ids], np.int32), max_tokens=24) == wanted


@cache
def choosing() -> Decoder:
    """Programs that give the best token as well."""
    return tiny_decoder("LlamaForCausalLM", VOCABULARY, cache=CACHE, longest=LONGEST,
                        outputs=("logits", "token"))


class Queue:
    """What is enqueued and waited for, in order: ("run", n), ("wait", n) for the nth run; the bytes that each
    run has read, and how many it writes."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.order: list[tuple[str, int]] = []
        self.read: list[list[int]] = []
        enqueue, wait = Device.enqueue, device._Enqueued.wait
        numbers: dict[int, int] = {}
        tickets = []

        def enqueued(own: Device, launches: Any, writes: Any = (), reads: Any = (), **given: bool) -> Any:
            reads = list(reads)
            ticket = enqueue(own, launches, writes, reads, **given)
            tickets.append(ticket)  # kept, so that none has the number of another
            numbers[id(ticket)] = len(self.read)
            self.order.append(("run", len(self.read)))
            self.read.append([out.size for _, out in reads])
            return ticket

        def waited(ticket: Any) -> None:
            self.order.append(("wait", numbers[id(ticket)]))
            wait(ticket)

        patch.setattr(executor, "_READ_ALONG", 8)  # the logits of a true vocabulary are larger than that
        patch.setattr(Device, "enqueue", enqueued)
        patch.setattr(Device, "read", None)
        patch.setattr(device._Enqueued, "wait", waited)


def test_the_device_chooses_the_best_token(monkeypatch: pytest.MonkeyPatch) -> None:
    decode = choosing().programs["decode"]
    assert [(spec.name, spec.lower, spec.upper) for spec in decode.output_specs] == [
        ("logits", None, None), ("token", 0, VOCABULARY - 1)]
    ids = prompt(7)
    wanted = choosing().greedy(ids, 20)
    with monkeypatch.context() as only:
        queue = Queue(only)
        assert tokens(choosing(), ids, max_tokens=20) == wanted
    assert queue.read == [[8]] * 20
    warm = Sampling(temperature=0.9, seed=5)
    assert tokens(choosing(), ids, max_tokens=9, sampling=warm) == tokens(
        built("LlamaForCausalLM"), ids, max_tokens=9, sampling=warm)


def test_a_step_is_enqueued_before_its_token_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as only:
        queue = Queue(only)
        stream = generate(choosing().prefill, choosing().decode, choosing().weights, prompt(7), max_tokens=9)
        made = [next(stream).token for _ in range(3)]
        # the prompt is run 0; the third token is run 2's, and run 3 is in the queue
        assert max(number for what, number in queue.order if what == "wait") == 2
        assert ("run", 3) in queue.order
        made += [piece.token for piece in stream]
    assert made == tokens(built("LlamaForCausalLM"), prompt(7), max_tokens=9)
    for number in range(1, 8):
        assert queue.order.index(("run", number + 1)) < queue.order.index(("wait", number))
    assert len(queue.read) == 9


@cache
def drawing(target: str) -> executor.Executor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a GPU's program on a processor
        return executor.Executor(token_sampler(VOCABULARY, target=target).program, Device())


@pytest.mark.parametrize("settings", [{}, {"top_k": 9}, {"top_p": 0.8}, {"top_k": 40, "min_p": 0.01}])
@pytest.mark.parametrize("target", ["cpu", "gpu"])
def test_the_device_draws_the_tokens_of_the_host(
    target: str, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    sampling = Sampling(temperature=1.2, seed=7, **settings)
    wanted = tokens(built("LlamaForCausalLM"), prompt(7), max_tokens=20, sampling=sampling)
    assert len(set(wanted)) > 5
    with monkeypatch.context() as only:
        queue = Queue(only)  # allows no logits to be read
        made = tokens(built("LlamaForCausalLM"), prompt(7), max_tokens=20, sampling=sampling,
                      sampler=drawing(target))
    assert made == wanted
    runs = queue.order.index
    for number in range(1, 19):  # run 2n is the nth step, run 2n + 1 draws its token (8 bytes, and a logit)
        assert runs(("run", 2 * number + 3)) < runs(("wait", 2 * number + 1))
    assert queue.read == [[], [8, 4]] * 20


def test_what_the_device_does_not_draw_is_drawn_here(llama: Decoder) -> None:
    for sampling in (Sampling(), Sampling(temperature=0.9, repetition_penalty=1.2, seed=1)):
        plain = tokens(llama, prompt(7), max_tokens=9, sampling=sampling)
        assert tokens(llama, prompt(7), max_tokens=9, sampling=sampling, sampler=drawing("cpu")) == plain
    with pytest.raises(InputError, match="program that takes logits, rules, chance"):
        generate(llama.prefill, llama.decode, llama.weights, [1], sampler=llama.decode)


@pytest.mark.parametrize(("ended", "wasted"), [("stop", 1), ("length", 0), ("cache", 0), ("closed", 1)])
def test_at_most_one_step_is_wasted(ended: str, wasted: int, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = prompt(CACHE - 5 if ended == "cache" else 7)
    whole = tokens(built("LlamaForCausalLM"), ids, max_tokens=20)
    settings: dict[str, Any] = {}
    if ended == "stop":
        settings["stop_tokens"] = [next(token for token in whole[3:] if whole.index(token) >= 3)]
    if ended == "length":
        settings["max_tokens"] = 4
    with monkeypatch.context() as only:
        queue = Queue(only)
        stream = generate(choosing().prefill, choosing().decode, choosing().weights, ids, **settings)
        made = [next(stream) for _ in range(5)] if ended == "closed" else list(stream)
        stream.close()  # type: ignore[attr-defined]
        assert {number for what, number in queue.order if what == "wait"} == set(range(len(queue.read)))
    assert [piece.token for piece in made] == whole[: len(made)]
    assert made[-1].finish == (None if ended == "closed" else ended)
    assert len(queue.read) == len(made) + wasted + max(0, len(ids) - LONGEST)
    assert tokens(choosing(), ids, max_tokens=6) == whole[:6]


def test_tokens_that_might_be_none_of_the_models_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without bounds on ``token`` nothing is enqueued ahead, and each is checked as any input."""
    decode = choosing().programs["decode"]
    specs = tuple(msgspec.structs.replace(spec, lower=None, upper=None) for spec in decode.output_specs)
    program = msgspec.structs.replace(decode, output_specs=specs)
    unbounded = executor.Executor(program, choosing().decode.device)
    with monkeypatch.context() as only:
        queue = Queue(only)
        made = generate(choosing().prefill, unbounded, choosing().weights, prompt(7), max_tokens=5)
        assert [piece.token for piece in made] == choosing().greedy(prompt(7), 5)
    for number in range(4):
        assert queue.order.index(("wait", number)) < queue.order.index(("run", number + 1))


def test_repetition_penalty_is_that_of_transformers(decoder: Decoder) -> None:
    ids = prompt(9)
    wanted = decoder.greedy(ids, 24, repetition_penalty=1.3)
    assert wanted != decoder.greedy(ids, 24)
    assert tokens(decoder, ids, max_tokens=24, sampling=Sampling(repetition_penalty=1.3)) == wanted


def test_a_prompt_that_prefill_cannot_take_at_once(llama: Decoder) -> None:
    ids = prompt(LONGEST + 5)
    assert tokens(llama, ids, max_tokens=12) == llama.greedy(ids, 12)


@pytest.mark.parametrize("length", [1, 50, CACHE - 1, CACHE])
def test_a_full_cache_ends_the_sequence(length: int, llama: Decoder) -> None:
    made = pieces(llama, prompt(length))
    assert len(made) == CACHE - length + 1
    assert [piece.finish for piece in made] == [None] * (len(made) - 1) + ["cache"]
    assert [piece.token for piece in made] == llama.greedy(prompt(length), len(made))


def test_stop_tokens_end_the_sequence(llama: Decoder) -> None:
    whole = tokens(llama, prompt(7), max_tokens=20)
    stop = next(token for token in whole[3:] if whole.index(token) >= 3)
    made = pieces(llama, prompt(7), max_tokens=20, stop_tokens=[VOCABULARY - 1, stop], bytes_of=letters)
    assert [piece.token for piece in made] == whole[: whole.index(stop) + 1]
    assert made[-1] == Piece(stop, "", "stop")
    assert made[-2] == Piece(made[-2].token, letters(made[-2].token).decode())


@pytest.mark.parametrize("cut", [(0, 2), (1, 3), (1, 2), (1, 6)])
def test_a_stop_string_is_cut_out_wherever_it_begins(cut: tuple[int, int], llama: Decoder) -> None:
    whole = tokens(llama, prompt(7), max_tokens=20)
    text = b"".join(map(letters, whole)).decode()
    stop = text[6 + cut[0] : 6 + cut[1]]
    end = text.index(stop)
    made = pieces(llama, prompt(7), max_tokens=20, stop_strings=["never", stop], bytes_of=letters)
    assert "".join(piece.text for piece in made) == text[:end]
    assert made[-1].finish == "stop"
    assert len(made) == (end + len(stop) + 1) // 2


def test_what_might_have_begun_a_stop_string_comes_at_the_end(llama: Decoder) -> None:
    parts = iter((b"ab", b"cd", b"ef", b"gh", b"ij"))
    made = pieces(llama, prompt(7), max_tokens=5, stop_strings=["hij?"], bytes_of=lambda token: next(parts))
    assert [piece.text for piece in made] == ["ab", "cd", "ef", "g", "hij"]
    assert made[-1].finish == "length"


def test_equal_seeds_give_equal_tokens(llama: Decoder) -> None:
    warm = Sampling(temperature=0.9, top_k=50, top_p=0.95, seed=5)
    first = tokens(llama, prompt(7), max_tokens=16, sampling=warm)
    assert first == tokens(llama, prompt(7), max_tokens=16, sampling=warm)
    others = [tokens(llama, prompt(7), max_tokens=16, sampling=replace(warm, seed=s)) for s in (6, 7, None)]
    assert first not in others
    assert first != tokens(llama, prompt(7), max_tokens=16)


@pytest.mark.parametrize("made", [partial(built, "LlamaForCausalLM"), choosing])
def test_pieces_come_one_by_one(made: Callable[[], Decoder]) -> None:
    llama = made()
    stream: Iterator[Piece] = generate(llama.prefill, llama.decode, llama.weights, prompt(7))
    first = [next(stream).token for _ in range(3)]
    other = generate(llama.prefill, llama.decode, llama.weights.new_state(), prompt(21))
    mixed = [piece.token for pair in zip(stream, other, strict=False) for piece in pair]
    assert first + mixed[::2] == tokens(llama, prompt(7))[: 3 + len(mixed[::2])]
    assert mixed[1::2] == tokens(llama, prompt(21))[: len(mixed[1::2])]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ids": []}, "the prompt is empty"),
        ({"ids": [1, 2, VOCABULARY]}, f"token 2 of the prompt is {VOCABULARY}: the model has 0 to 210"),
        ({"ids": [-1]}, "token 0 of the prompt is -1"),
        ({"ids": prompt(CACHE + 1)}, "the prompt has 97 tokens and the cache room for 96"),
        ({"ids": [1.5, 2.0]}, "the prompt is float64 of shape"),
        ({"ids": [[1], [2]]}, "one sequence"),
        ({"ids": "text"}, "the prompt is <?str"),
        ({"max_tokens": 0}, "max_tokens is 0: expected 1 or more"),
        ({"stop_strings": ["x"]}, "give bytes_of"),
        ({"stop_strings": [""], "bytes_of": letters}, "a stop string is empty"),
        ({"stop_strings": "end", "bytes_of": letters}, "expected a list of texts"),
    ],
)
def test_refused_before_anything_runs(settings: dict[str, Any], message: str, llama: Decoder) -> None:
    arguments = {"ids": [1, 2, 3], **settings}
    ids = arguments.pop("ids")
    llama.weights.reset()
    before = {state.name: llama.weights.read_state(state) for state in llama.programs["decode"].states}
    with pytest.raises(InputError, match=message):
        generate(llama.prefill, llama.decode, llama.weights, ids, **arguments)
    for state in llama.programs["decode"].states:
        assert np.array_equal(before[state.name], llama.weights.read_state(state))


def test_programs_that_are_not_a_decoders_are_refused(llama: Decoder) -> None:
    with pytest.raises(InputError, match=r"the prefill program takes .*cache_position.*confused"):
        generate(llama.decode, llama.prefill, llama.weights, [1])
    specs = llama.prefill.program.input_specs
    two = msgspec.structs.replace(
        llama.prefill.program,
        input_specs=tuple(msgspec.structs.replace(spec, shape=(2, *spec.shape[1:])) for spec in specs),
    )
    with pytest.raises(InputError, match="takes 2 sequences at once"):
        generate(SimpleNamespace(program=two, run=None), llama.decode, llama.weights, [1])


def test_logits_that_are_no_numbers_are_refused(llama: Decoder) -> None:
    state = {key: value.numpy().copy() for key, value in llama.state.items()}
    state["model.norm.weight"][3] = np.nan
    broken = load_weights(state, llama.programs["prefill"], llama.prefill.device)
    with pytest.raises(InputError, match="logits cannot be sampled from: their largest is nan"):
        next(generate(llama.prefill, llama.decode, broken, [1, 2, 3]))
    drawn = generate(llama.prefill, llama.decode, broken, [1, 2, 3], sampling=Sampling(temperature=1.0),
                     sampler=drawing("cpu"))
    with pytest.raises(InputError, match="logits cannot be sampled from: their largest is nan"):
        next(drawn)


def prompt_inputs(length: int, **changed: Any) -> dict[str, Any]:
    ids = np.array([prompt(length)], np.int64)
    return {"input_ids": ids, "attention_mask": np.ones_like(ids), "position_ids": np.arange(length)[None],
            **changed}


def step_inputs(**changed: Any) -> dict[str, Any]:
    return {"input_ids": np.array([[3]]), "cache_position": np.array([9]), "position_ids": np.array([[9]]),
            "attention_mask": (np.arange(CACHE) <= 9).astype(np.int64)[None], **changed}


@pytest.mark.parametrize(
    ("program", "inputs", "message"),
    [
        ("prefill", prompt_inputs(9, attention_mask=np.ones((1, 8), np.int64)), "mask' dim 1 is 8"),
        ("prefill", prompt_inputs(9, attention_mask=np.ones(9, np.int64)), r"int64\[9\]: expected int64\[1"),
        ("prefill", prompt_inputs(9, attention_mask=np.ones((1, 9))), "float64: expected int64"),
        ("prefill", prompt_inputs(9, input_ids=np.full((1, 9), VOCABULARY)), "ids' has values from 211"),
        ("prefill", prompt_inputs(LONGEST + 1), f"'input_ids' dim 1 is {LONGEST + 1}"),
        ("prefill", prompt_inputs(0), "'input_ids' dim 1 is 0"),
        ("decode", step_inputs(attention_mask=np.ones((1, CACHE - 1), np.int64)), "mask' is int64"),
        ("decode", step_inputs(input_ids=np.array([[-1]])), "'input_ids' has values from -1"),
        ("decode", step_inputs(cache_position=np.array([CACHE])), "'cache_position' has values from 96"),
        ("decode", step_inputs(cache_position=np.array([9, 10])), "'cache_position' is int64"),
    ],
)
def test_programs_refuse_what_does_not_fit_before_they_write(
    program: str, inputs: dict[str, Any], message: str, llama: Decoder
) -> None:
    llama.prefill.run(prompt_inputs(9), llama.weights)
    states = llama.programs["decode"].states
    before = [llama.weights.read_state(state) for state in states]
    with pytest.raises(InputError, match=message):
        getattr(llama, program).run(inputs, llama.weights)
    assert before[0].any()
    assert all(map(np.array_equal, before, map(llama.weights.read_state, states)))
