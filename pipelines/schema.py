"""What ``configs/models/<model>.yaml`` may hold. Unknown keys and implicit conversions are errors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, Field, model_validator

from pipelines.config_errors import problem
from pipelines.schema_base import DType, Name, Positive, Section, Sha256, Share, Version
from pipelines.schema_text import Continuations, GenerationBench
from pipelines.yaml_source import Key, quoted, suggest


class PackageFile(Section):
    """A file inside a pinned package of the package index. No code of the package is run."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
    version: Version
    file: str
    """The file's path inside the package, or its bare name where that is unique."""
    sha256: Sha256
    """Of the file."""


class LocalFile(Section):
    """A checkpoint on this machine."""

    path: str
    """Relative to the project's folder: .safetensors, .pth or .pt (loaded with ``weights_only``)."""
    sha256: Sha256 | None = None


class RandomWeights(Section):
    """Seeded random weights. Every report says that they are."""

    seed: Annotated[int, Field(ge=0, lt=1 << 32)] = 0


class Weights(Section):
    """Where the weights come from: exactly one source."""

    file: LocalFile | None = None
    package: PackageFile | None = None
    random: RandomWeights | None = None
    torchvision: str | None = None
    """A weights enum member, "ResNet18_Weights.IMAGENET1K_V1". Needs torchvision and a network."""
    huggingface: str | None = None
    """A folder with config.json and safetensors files (relative to the project, or absolute), or a repository
    of the hub ("Qwen/Qwen2.5-1.5B-Instruct"), which needs huggingface_hub and a network."""
    or_random: RandomWeights | None = None
    """With ``huggingface``: what to take where neither the folder nor the hub is there. The build says so,
    and every report labels the weights as random."""
    entry: str | None = None
    """In a checkpoint that wraps its state_dict: the key that holds it."""
    strip_prefix: str = ""
    """What is taken off the start of every key of the state_dict."""

    SOURCES: ClassVar[tuple[str, ...]] = ("file", "package", "random", "torchvision", "huggingface")

    @property
    def kind(self) -> str:
        """The name of the source that is set."""
        return next(name for name in self.SOURCES if getattr(self, name) is not None)

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        found = [name for name in self.SOURCES if getattr(self, name) is not None]
        if len(found) != 1:
            has = f"both {' and '.join(found)} are given" if found else "no source is given"
            raise problem(f"{has}; give exactly one of {', '.join(self.SOURCES)}")
        if self.or_random is not None and self.huggingface is None:
            raise problem("goes with huggingface alone: other sources are there, or are an error",
                          ("or_random",))
        return self


class Symbol(Section):
    """The inclusive bounds of a dynamic dimension."""

    min: Annotated[int, Field(ge=0)] = 1
    max: Positive

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min > self.max:
            raise problem(f"min {self.min} is above max {self.max}")
        return self


class Input(Section):
    """An input of a program."""

    shape: tuple[Annotated[int, Field(ge=0)] | Name, ...]
    """Sizes: whole numbers, or names of ``symbols``."""
    dtype: DType = "float32"
    range: tuple[float, float] | None = None
    """Smallest and largest value of made-up inputs. Default: normally distributed; 0 for whole numbers."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.range is not None and self.range[0] > self.range[1]:
            raise problem("the first number is above the second", ("range",))
        return self


class Program(Section):
    """One graph of the model."""

    inputs: Annotated[dict[Name, Input], Field(min_length=1)]
    """Argument name -> what it is, in the order of the method's parameters."""
    symbols: dict[Name, Symbol] = Field(default={})
    """Dynamic dimensions used in the inputs' shapes."""
    outputs: tuple[Name, ...] = ()
    """Names of the outputs, in order. Default: what extraction calls them."""
    method: Name = "forward"
    """The module's method that is extracted."""

    @model_validator(mode="after")
    def _symbols_match(self) -> Self:
        used = set()
        for name, item in self.inputs.items():
            for axis, size in enumerate(item.shape):
                if isinstance(size, str):
                    used.add(size)
                    if size not in self.symbols:
                        raise problem(f"{quoted(size)} is not declared in this program's symbols"
                                      + (suggest(size, self.symbols) if self.symbols else ""),
                                      ("inputs", name, "shape", axis))
        for name in self.symbols:
            if name not in used:
                raise problem("no input's shape uses this symbol; use it or remove it", ("symbols", name))
        for index, name in enumerate(self.outputs):
            if name in self.outputs[:index]:
                raise problem(f"{quoted(name)} names two outputs", ("outputs", index))
        return self


class CompileKnobs(Section):
    """Options of the compiler."""

    options: dict[Name, bool | int | float | str] = Field(default={})
    """Passed to ``compile_ir`` by name."""
    tuning: Literal["on", "off", "any-driver"] = "on"
    """Whether kernels' measured choices (configs/tuning) are used; "any-driver": also those that were
    measured with another version of the device's driver."""


class TuneKnobs(Section):
    """How long ``doit tune`` looks for the kernels' best parameters."""

    seconds: Annotated[float, Field(gt=0)] = 900.0
    """For the whole model; another ``doit tune`` goes on where one has stopped."""
    candidates: Positive = 48
    """Choices that are tried for one kernel."""
    repeats: Positive = 12
    """Runs of each choice; one that looks faster is run three times as often again."""
    patience: Annotated[float, Field(gt=0)] = 60.0
    """Seconds until a choice that does not come to an end is given up."""


class Preprocess(Section):
    """From an image file to an input: centre crop, resize, crop, ``(pixel * scale - mean) / std``, in this
    order.

    Pixels are RGB, 0 to 255; the result is float32 of shape (1, 3, height, width).
    """

    crop_fraction: Annotated[float, Field(gt=0, le=1)] | None = None
    """The share of the shorter side that a square centre crop keeps, before resizing."""
    resize: Positive | None = None
    """The new length of the shorter side, in pixels."""
    crop: Positive | None = None
    """The side of the square cut from the centre, in pixels, after resizing."""
    interpolation: Literal["nearest", "bilinear", "bicubic"] = "bilinear"
    scale: Annotated[float, Field(gt=0)] = 1 / 255
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)


class Dataset(Section):
    """Labelled images inside a pinned package of the package index."""

    package: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
    version: Version
    sha256: Sha256
    """Of the package file (the wheel, or the source archive where there is none)."""
    files: str
    """Which files of the package, as a pattern: "foolbox/data/imagenet_*"."""
    labels: str | None = None
    """Regular expression over a file's base name whose group ``label`` is the class number."""
    input: str | None = None
    """The input that takes an image. Default: the only one."""
    preprocess: Preprocess = Preprocess()

    @model_validator(mode="after")
    def _labels_are_a_pattern(self) -> Self:
        if self.labels is not None:
            try:
                groups = re.compile(self.labels).groupindex
            except re.error as error:
                raise problem(f"not a regular expression: {error}", ("labels",)) from None
            if "label" not in groups:
                raise problem("the expression has no group (?P<label>...)", ("labels",))
        return self


class SentencePair(Section):
    """Two sentences, and the cosine of their vectors as it is known from elsewhere."""

    first: str
    second: str
    cosine: Annotated[float, Field(ge=-1, le=1)]


class Sentences(Section):
    """Pairs of sentences for a program that makes a vector of each, tokenised by a pinned package's file."""

    package: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
    version: Version
    sha256: Sha256
    """Of the package file (the wheel)."""
    tokenizer: str
    """The path of tokenizer.json inside the package."""
    tokens: Name = "input_ids"
    """The input that takes the tokens, one row per sentence."""
    mask: Name = "attention_mask"
    """The input that is 1 where there is a token and 0 where there is padding."""
    pairs: Annotated[tuple[SentencePair, ...], Field(min_length=1)]
    tolerance: Annotated[float, Field(gt=0)] = 1e-3
    """Largest difference of a cosine from the known one."""


class VerifyKnobs(Section):
    """How the compiled programs are compared with PyTorch, and what fails the build."""

    max_relative_error: Annotated[float, Field(gt=0)] = 1e-4
    """Largest difference over the largest magnitude of the expected output."""
    max_eager_ratio: Annotated[float, Field(ge=1)] = 1.5
    """For a model in 16-bit floats: its largest error against float32 (with the same rounded weights) over
    that of PyTorch in the same 16 bits. Errors within ``max_relative_error`` are never too large."""
    min_snr_db: float | None = None
    min_top1: Share | None = None
    """Share of the labelled images whose best class must be right."""
    min_top5: Share | None = None
    min_agreement: Share | None = None
    """Share of the rows of class scores whose best class must be PyTorch's, on every output and input."""
    samples: Positive = 2
    """Made-up inputs to compare on, beside the data set."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Of the made-up inputs."""
    sizes: tuple[dict[Name, int], ...] = ()
    """Values of the symbols to compare at, each a mapping. Default: each symbol's bounds."""
    dataset: Dataset | None = None
    sentences: Sentences | None = None
    continuations: Continuations | None = None
    """Of a language model: prompts whose greedy continuations are compared token by token."""

    @model_validator(mode="after")
    def _one_kind_of_data(self) -> Self:
        if self.dataset is not None and self.sentences is not None:
            raise problem("a model is verified on images (dataset) or on sentences; keep one of the two")
        return self

    @model_validator(mode="after")
    def _labels_for_accuracy(self) -> Self:
        for name in ("min_top1", "min_top5"):
            if getattr(self, name) is not None and (self.dataset is None or self.dataset.labels is None):
                raise problem("needs a dataset with labels", (name,))
        return self


class BenchKnobs(Section):
    """How the programs are measured."""

    warmup: Annotated[int, Field(ge=0)] = 5
    """Runs that do not count."""
    repeats: Positive = 30
    """Runs that count."""
    threads: Positive | None = None
    """Threads of a CPU device. Default: all cores."""
    sizes: dict[Name, int] = Field(default={})
    """Values of the symbols. Default: their upper bounds."""
    profile: bool = True
    """Whether to time every kernel, in runs of their own."""
    generation: GenerationBench | None = None
    """Of a language model: how fast it reads a prompt and writes text."""


class ModelConfig(Section):
    """A model of the build."""

    name: str
    """The file's name without .yaml; need not be given."""
    extends: str | None = None
    """The configuration that this one starts from, by name."""
    description: str = ""
    """For people: what it is, where it comes from, its licence."""
    factory: Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_][\w.]*$")]
    """"module:callable" that returns the torch.nn.Module."""
    factory_args: dict[Name, Any] = Field(default={})
    """Keyword arguments of the factory."""
    weights: Weights = Weights(random=RandomWeights())
    tokenizer: str | None = None
    """A folder with tokenizer.json, relative to the project's. Default: a language model's comes from where
    its weights come from: a GGUF file, or the folder that a checkpoint lies in."""
    programs: Annotated[dict[Name, Program], Field(min_length=1)]
    """The model's graphs; one alone is called ``main``."""
    target: str = "cpu"
    """What it is compiled for unless a task says otherwise (``compile:resnet18@nvidia``)."""
    precision: Literal["float32", "float16", "bfloat16"] | None = None
    """The dtype that the model must compute in; it is the factory's choice, and this is checked. Default:
    whatever the factory makes."""
    fallback: Literal["allow", "deny"] = "deny"
    """Whether parts that the target cannot run may run with PyTorch."""
    compile: CompileKnobs = CompileKnobs()
    verify: VerifyKnobs = VerifyKnobs()
    bench: BenchKnobs = BenchKnobs()
    tune: TuneKnobs = TuneKnobs()
    matrix: dict[str, list[Any] | dict[str, Any]] = Field(default={})
    """Variants: dotted key -> values, or names with values. The file then stands for a model per combination,
    "resnet18+precision-bfloat16+winograd-off", and for none of its own name."""
    default: bool = False
    """Whether ``doit`` and its bare groups (``doit compile``) include this model."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        programs = self.programs.values()
        if self.tokenizer is not None and not self.is_language_model:
            raise problem("goes with the programs prefill and decode alone", ("tokenizer",))
        for section, key in ((self.verify, "continuations"), (self.bench, "generation")):
            if getattr(section, key) is not None and not self.is_language_model:
                name = "verify" if section is self.verify else "bench"
                raise problem("goes with the programs prefill and decode alone", (name, key))
        symbols = {name: bounds for program in programs for name, bounds in program.symbols.items()}
        _check_sizes(self.bench.sizes, symbols, ("bench", "sizes"))
        for index, sizes in enumerate(self.verify.sizes):
            _check_sizes(sizes, symbols, ("verify", "sizes", index))
        dataset = self.verify.dataset
        if dataset is not None:
            inputs = list(next(iter(self.programs.values())).inputs)
            if dataset.input is None and len(inputs) > 1:
                raise problem(f"say which input takes the images: {', '.join(inputs)}",
                              ("verify", "dataset", "input"))
            if dataset.input is not None and dataset.input not in inputs:
                raise problem(f"no input is called {quoted(dataset.input)}{suggest(dataset.input, inputs)}",
                              ("verify", "dataset", "input"))
        sentences = self.verify.sentences
        if sentences is not None:
            inputs = list(next(iter(self.programs.values())).inputs)
            for key, name in (("tokens", sentences.tokens), ("mask", sentences.mask)):
                if name not in inputs:
                    raise problem(f"no input is called {quoted(name)}{suggest(name, inputs)}",
                                  ("verify", "sentences", key))
        return self

    @property
    def is_language_model(self) -> bool:
        """Whether it generates text: a prompt by ``prefill``, then token by token by ``decode``."""
        return {"prefill", "decode"} <= self.programs.keys()

    def knob(self, path: str) -> object:
        """The plain value of a dotted key ("bench.repeats"), as JSON would hold it; None below nothing."""
        value: Any = self
        for part in path.split("."):
            value = getattr(value, part) if value is not None else None
        return _plain(value)


def _plain(value: Any) -> Any:
    match value:
        case BaseModel():
            return value.model_dump(mode="json")
        case tuple() | list():
            return [_plain(item) for item in value]
        case dict():
            return {key: _plain(item) for key, item in value.items()}
    return value


def _check_sizes(sizes: Mapping[str, int], symbols: Mapping[str, Symbol], key: Key) -> None:
    for name, size in sizes.items():
        if name not in symbols:
            raise problem(f"no program has a symbol {quoted(name)}{suggest(name, symbols)}", (*key, name))
        if not symbols[name].min <= size <= symbols[name].max:
            raise problem(f"{size} is outside the bounds {symbols[name].min} to {symbols[name].max}",
                          (*key, name))


def schema() -> dict[str, Any]:
    """The JSON schema of a file, for editors. What ``extends`` may supply is not required."""
    document = ModelConfig.model_json_schema()
    document.pop("required", None)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **document}
