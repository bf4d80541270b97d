"""Stage ``verify``: the compiled programs against eager PyTorch in float32, on made-up inputs and on a data
set."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from npu_runtime.device import Device
from npu_runtime.weight_loader import Weights, load_weights
from pipelines import continuations, factory
from pipelines.comparison import Comparison, Setting, is_as_good, is_scores, problem_of
from pipelines.datasets import DatasetError, load_samples, thumbnail
from pipelines.fingerprint import Observed
from pipelines.first_jump import first_jump
from pipelines.inputs import Array, checked_sizes, made_up_inputs, shape_of, upper_sizes
from pipelines.job import Job
from pipelines.metrics import accuracy, error_stats, guesses
from pipelines.programs import open_program
from pipelines.reference import Reference
from pipelines.results import (
    ContinuationCheck,
    ImageCheck,
    SentenceCheck,
    VerifyResult,
    environment_of,
    file_digest,
    write_result,
)
from pipelines.schema import Dataset, Sentences, VerifyKnobs
from pipelines.sentences import cosine, encode

MADE_UP, IMAGES, SENTENCES = "made-up inputs", "images", "sentences"


class VerifyError(ValueError):
    """The compiled programs are not PyTorch's model."""


class Compiled:
    """The compiled programs of a job on its device, with one set of weights."""

    def __init__(self, job: Job) -> None:
        self.device = Device(job.selector)
        self.executors = {name: open_program(job.program_file(name), self.device) for name in job.programs}
        self.programs = {name: executor.program for name, executor in self.executors.items()}
        self.weights = load_weights(job.prepared_weights, next(iter(self.programs.values())), self.device)

    def run(self, name: str, inputs: Mapping[str, Array], weights: Weights) -> dict[str, Array]:
        """The outputs as arrays, in their order."""
        return {
            output: buffer.to_numpy() for output, buffer in self.executors[name].run(inputs, weights).items()
        }

    def states(self, name: str, weights: Weights) -> Iterator[tuple[str, Array]]:
        """Every state of a program with its content now."""
        for spec in self.programs[name].states:
            yield spec.name, weights.read_state(spec)


def run(job: Job) -> Observed:
    """Makes ``verify_result``. Raises ``VerifyError`` past the tolerance, naming where the error first
    appears."""
    knobs = job.config.verify
    compiled, reference = Compiled(job), Reference(job.config, job.source_weights)
    comparisons: dict[tuple[Any, ...], Comparison] = {}
    settings = list(checked_sizes(job.config))
    for number, sizes in enumerate(settings):
        for sample in range(knobs.samples):
            job.progress("made-up inputs", number * knobs.samples + sample, len(settings) * knobs.samples)
            _compare_made_up(job, compiled, reference, sizes, sample, comparisons)
    images: list[ImageCheck] = []
    if knobs.dataset is not None:
        images = list(_compare_images(job, knobs.dataset, compiled, reference, comparisons))
    pairs: tuple[SentenceCheck, ...] = ()
    if knobs.sentences is not None:
        pairs = _compare_sentences(job, knobs.sentences, compiled, reference, comparisons)
    written: tuple[ContinuationCheck, ...] = ()
    if knobs.continuations is not None:
        written = tuple(continuations.compare(
            job, knobs.continuations, compiled.executors, compiled.weights, reference))
    checks = tuple(comparison.check() for comparison in comparisons.values())
    labelled = knobs.dataset is not None and knobs.dataset.labels is not None
    result = VerifyResult(
        model=job.config.name,
        target=job.target,
        passed=True,
        tolerance={
            name: getattr(knobs, name)
            for name in ("max_relative_error", "min_snr_db", "min_agreement", "min_top1", "min_top5")
        },
        checks=checks,
        environment=environment_of(compiled.device, ("torch", "numpy", "pillow")),
        programs={name: file_digest(job.program_file(name)) for name in job.programs},
        dataset=f"{len(images)} images of {knobs.dataset.package} {knobs.dataset.version}"
        if knobs.dataset
        else "",
        images=tuple(images),
        accuracy=accuracy(images) if images else None,
        sentences=pairs,
        continuations=written,
    )
    for comparison in comparisons.values():
        problem = problem_of(comparison.check(), knobs)
        if problem:
            raise VerifyError(f"{job.label}: {problem}{_place(job, compiled, reference, comparison)}")
    for wrong in filter(None, map(continuations.problem_of, written)):
        raise VerifyError(f"{job.label}: {wrong}")
    _require_accuracy(job.label, result, knobs)
    _require_cosines(job.label, result, knobs)
    write_result(job.verify_result, result)
    job.say(_summary(result, labelled))
    return factory.observed(job.root)


def _compare_made_up(
    job: Job,
    compiled: Compiled,
    reference: Reference,
    sizes: Mapping[str, int],
    sample: int,
    comparisons: dict[tuple[Any, ...], Comparison],
) -> None:
    """All programs in their order, over one fresh state."""
    weights = compiled.weights.new_state()
    reference.reset()
    inputs: dict[str, Mapping[str, Array]] = {}
    for number, (name, program) in enumerate(job.config.programs.items()):
        inputs[name] = made_up_inputs(program, sizes, (job.config.verify.seed, sample, number))
        setting = Setting(MADE_UP, {size: sizes[size] for size in program.symbols}, dict(inputs))
        found = compiled.run(name, inputs[name], weights)
        _add_outputs(job, name, setting, found, reference, comparisons)
        for key, content in compiled.states(name, weights):
            eager = None if reference.narrow is None else reference.state(key, narrow=True)
            _add(name, key, "state", setting, content, reference.state(key), comparisons, eager)


def _compare_images(
    job: Job,
    dataset: Dataset,
    compiled: Compiled,
    reference: Reference,
    comparisons: dict[tuple[Any, ...], Comparison],
) -> Iterator[ImageCheck]:
    """The first program on every image, in batches as large as it takes."""
    name, program = next(iter(job.config.programs.items()))
    taking = dataset.input or next(iter(program.inputs))
    first = program.inputs[taking].shape[0]
    batch = first if isinstance(first, int) else program.symbols[first].max
    samples = list(load_samples(job.dataset_dir, dataset))
    sizes = {**upper_sizes(job.config, {}), **({first: batch} if isinstance(first, str) else {})}
    for start in range(0, len(samples), batch):
        job.progress("images", start, len(samples))
        group = samples[start : start + batch]
        pixels = np.concatenate([group[index % len(group)].pixels for index in range(batch)])
        shape = shape_of(program.inputs[taking], sizes)
        if pixels.shape != shape:
            raise DatasetError(
                f"{job.label}: an image becomes {list(pixels.shape)} and input {taking} takes "
                f"{list(shape)}; change verify.dataset.preprocess or the input's shape"
            )
        inputs = {**made_up_inputs(program, sizes, (job.config.verify.seed,)), taking: pixels}
        reference.reset()
        found = compiled.run(name, inputs, compiled.weights.new_state())
        setting = Setting(IMAGES, {size: sizes[size] for size in program.symbols}, {name: inputs})
        expected = _add_outputs(job, name, setting, found, reference, comparisons)
        scores = next(
            (output for output, values in zip(found, expected, strict=True) if is_scores(values)), None
        )
        if scores is None:
            continue
        theirs = dict(zip(found, expected, strict=True))[scores]
        for index, sample in enumerate(group):
            yield ImageCheck(
                sample.path.name,
                sample.label,
                guesses(theirs[index]),
                guesses(found[scores][index]),
                error_stats(found[scores][index], theirs[index]).max_abs,
                thumbnail(sample.path),
            )


def _compare_sentences(
    job: Job,
    sentences: Sentences,
    compiled: Compiled,
    reference: Reference,
    comparisons: dict[tuple[Any, ...], Comparison],
) -> tuple[SentenceCheck, ...]:
    """The first program on every pair, the shorter sentence padded; its first output holds the vectors."""
    name, program = next(iter(job.config.programs.items()))
    batch, length = program.inputs[sentences.tokens].shape[:2]
    bounds = program.symbols
    found = []
    for number, pair in enumerate(sentences.pairs):
        job.progress("sentences", number, len(sentences.pairs))
        tokens, mask = encode(
            job.dataset_dir, sentences, (pair.first, pair.second), length if isinstance(length, int) else None
        )
        sizes = upper_sizes(job.config, {})
        for symbol, size in zip((batch, length), tokens.shape, strict=True):
            if isinstance(symbol, str) and not bounds[symbol].min <= size <= bounds[symbol].max:
                raise DatasetError(f"{job.label}: two sentences need {symbol} = {size}; widen its bounds")
            sizes |= {symbol: size} if isinstance(symbol, str) else {}
        rows = np.arange(batch) % 2 if isinstance(batch, int) else np.arange(2)
        given = {sentences.tokens: tokens[rows], sentences.mask: mask[rows]}
        inputs = {**made_up_inputs(program, sizes, (job.config.verify.seed,)), **given}
        reference.reset()
        ours = compiled.run(name, inputs, compiled.weights.new_state())
        setting = Setting(SENTENCES, {}, {name: inputs})
        theirs = _add_outputs(job, name, setting, ours, reference, comparisons)
        vectors = next(iter(ours.values()))
        found.append(
            SentenceCheck(pair.first, pair.second, pair.cosine, cosine(*theirs[0][:2]), cosine(*vectors[:2]))
        )
    return tuple(found)


def _require_cosines(label: str, result: VerifyResult, knobs: VerifyKnobs) -> None:
    for pair in result.sentences:
        assert knobs.sentences is not None
        if not abs(pair.found - pair.known) <= knobs.sentences.tolerance:
            raise VerifyError(
                f"{label}: {pair.first!r} and {pair.second!r} have the cosine {pair.found:.4f} "
                f"(PyTorch: {pair.expected:.4f}); {pair.known} is expected, to {knobs.sentences.tolerance}"
            )


def _add_outputs(
    job: Job,
    program: str,
    setting: Setting,
    found: Mapping[str, Array],
    reference: Reference,
    comparisons: dict[tuple[Any, ...], Comparison],
) -> list[Array]:
    """Compares the outputs of a run with PyTorch's on the same inputs; returns those."""
    method, inputs = job.config.programs[program].method, setting.inputs[program]
    expected = reference.call(method, inputs)
    eager: Sequence[Array | None] = (
        [None] * len(expected) if reference.narrow is None else reference.call(method, inputs, narrow=True)
    )
    if len(found) != len(expected):
        raise VerifyError(
            f"{job.label}: program {program} has {len(found)} outputs ({', '.join(found)}), PyTorch's "
            f"{len(expected)}; extract it again"
        )
    scores = dict(zip(found, zip(expected, eager, strict=True), strict=True)).get("logits")
    for (output, ours), theirs, narrow in zip(found.items(), expected, eager, strict=True):
        if output == "token" and scores is not None and is_as_good(ours, *scores, job.config.verify):
            ours, narrow = theirs, None
        _add(program, output, "output", setting, ours, theirs, comparisons, narrow)
    return expected


def _add(
    program: str,
    name: str,
    kind: str,
    setting: Setting,
    found: Array,
    expected: Array,
    comparisons: dict[tuple[Any, ...], Comparison],
    eager: Array | None,
) -> None:
    if found.shape != expected.shape:
        raise VerifyError(
            f"{program}.{name} has shape {list(found.shape)}, PyTorch's {list(expected.shape)}; "
            "extract and compile it again"
        )
    key = (program, name, kind, setting.case, tuple(setting.sizes.items()))
    comparison = comparisons.setdefault(key, Comparison(program, name, kind, setting, found.shape))
    comparison.add(found, expected, setting, eager)


def _place(job: Job, compiled: Compiled, reference: Reference, comparison: Comparison) -> str:
    """Where the error of a comparison first appears, as the rest of a message."""
    try:
        jump = first_jump(job, compiled, reference, comparison.program, comparison.setting.inputs)
    except (ValueError, RuntimeError) as error:
        return f". Where it first appears could not be found: {error}"
    return f". {jump}" if jump else ". No single value stands out: the error grows step by step"


def _require_accuracy(label: str, result: VerifyResult, knobs: VerifyKnobs) -> None:
    found = result.accuracy
    if found is None:
        return
    for name, wanted, count, reference in (
        ("top1", knobs.min_top1, found.top1, found.reference_top1),
        ("top5", knobs.min_top5, found.top5, found.reference_top5),
    ):
        if wanted is not None and count < wanted * found.images - 1e-9:
            raise VerifyError(
                f"{label}: {count} of {found.images} images have the right class in the {name}; "
                f"verify.min_{name} asks for {wanted:.0%} (PyTorch gets {reference} right)"
            )


def _summary(result: VerifyResult, labelled: bool) -> str:
    worst = max(result.checks, key=lambda check: check.errors.max_relative)
    text = f"relative error {worst.errors.max_relative:.1e}"
    if worst.errors.snr_db is not None:
        text += f", SNR {worst.errors.snr_db:.0f} dB"
    if result.accuracy is not None:
        found = result.accuracy
        text += f", same top-1 as PyTorch on {found.agree_top1}/{found.images} images"
        if labelled:
            text += f", top-1 {found.top1}/{found.images}, top-5 {found.top5}/{found.images}"
    if result.continuations:
        equal = sum(check.equal == check.tokens for check in result.continuations)
        text += f", {equal} of {len(result.continuations)} continuations are PyTorch's to the last token"
    if result.sentences:
        text += f", cosines {', '.join(f'{pair.found:.3f}' for pair in result.sentences)}"
    return text
