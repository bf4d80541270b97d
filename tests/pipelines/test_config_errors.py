"""What a user reads when a configuration is wrong: the exact words, file and line."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.config import ConfigError, find_config, load_config, load_configs
from pipelines.schema import schema

REPOSITORY = Path(__file__).resolve().parents[2]

VALID = """\
factory: zoo.net:make
programs:
  main:
    inputs:
      x: {shape: [1, 3, 8, 8], dtype: float32}
"""

#: What is added to VALID, the line at fault (VALID has 5), and the words after it.
APPENDED = [
    ("benchh: {}", 6, 'benchh: unknown key "benchh"; did you mean "bench"?'),
    ("bench:\n  repeat: 3", 7, 'bench.repeat: unknown key "repeat"; did you mean "repeats"?'),
    ("bench:\n  qqq: 3", 7,
     'bench.qqq: unknown key "qqq"; choose from warmup, repeats, threads, sizes, profile, generation'),
    ("verify:\n  dataset:\n    preprocess:\n      interpolation: bicubik", 9,
     'verify.dataset.preprocess.interpolation: unknown interpolation "bicubik"; did you mean "bicubic"?'),
    ("bench: {repeats: '3'}", 6, 'bench.repeats: expected a whole number, found the text "3"'),
    ("bench: {repeats: 2.5}", 6, "bench.repeats: expected a whole number, found the number 2.5"),
    ("bench: {repeats: 0}", 6, "bench.repeats: 0 is too small; at least 1"),
    ("bench: {repeats: true}", 6, "bench.repeats: expected a whole number, found true"),
    ("bench:", 6, "bench: expected keys and values, found nothing"),
    ("bench: [3]", 6, "bench: expected keys and values, found a list"),
    ("default: yes", 6, 'default: expected true or false, found the text "yes"'),
    ("precision: float23", 6, 'precision: unknown precision "float23"; did you mean "float32"?'),
    ("target: cpuu", 6, 'target: unknown target "cpuu"; did you mean "cpu"?'),
    ("fallback: maybe", 6, 'fallback: unknown fallback "maybe"; choose from allow, deny'),
    ("verify: {max_relative_error: 0}", 6, "verify.max_relative_error: 0 is too small; it must be above 0"),
    ("verify: {max_relative_error: .inf}", 6,
     "verify.max_relative_error: expected a finite number, found the number inf"),
    ("verify: {min_top1: 90}", 6, "verify.min_top1: 90 is too large; at most 1"),
    ("verify: {min_top1: 0.9}", 6, "verify.min_top1: needs a dataset with labels"),
    ("bench: {sizes: {batch: 2}}", 6, 'bench.sizes.batch: no program has a symbol "batch"'),
    ("weights: {random: {}, file: {path: a.pth}}", 6,
     "weights: both file and random are given; give exactly one of file, package, random, torchvision, "
     "huggingface"),
    ("weights: {entry: model}", 6,
     "weights: no source is given; give exactly one of file, package, random, torchvision, huggingface"),
    ("weights:\n  package:\n    name: w\n    version: 1.0.0\n    file: w.pth", 7,
     "weights.package.sha256: this key is required"),
    ("weights:\n  package:\n    name: w\n    version: 1.0\n    file: w.pth\n    sha256: 00ff", 9,
     "weights.package.version: expected text, found the number 1.0; write it in quotes"),
    ("weights: {file: {path: a.pth, sha256: 00ff}}", 6,
     'weights.file.sha256: "00ff" is not 64 lower-case hexadecimal digits'),
    ("name: other", 6, 'name: "other" is not the file\'s name; remove the key or write "model"'),
    ("target: cpu\ntarget: cpu", 7, 'the key "target" appears twice; it is already on line 6'),
    ("bench: {warmup: 1, warmup: 2}", 6, 'the key "bench.warmup" appears twice; it is already on line 6'),
    ("bench:\n\trepeats: 3", 7, "not valid YAML: the line begins with a tab; YAML wants spaces"),
    ("\tbench: {}", 6, "not valid YAML: the line begins with a tab; YAML wants spaces"),
    ("3: x", 6, "the key 3 is not text; write it in quotes"),
    ("bench: {warmup: *gone}", 6, "not valid YAML: found undefined alias"),
    ("description: &a [*a]", 6, "description[0]: an anchor contains itself"),
    ("description: !!binary aGk=", 6, "description: the YAML tag tag:yaml.org,2002:binary is not used here"),
    ("extends: bass", 6, 'extends: there is no bass.yaml beside this file; did you mean "_bass"?'),
    ("extends: model", 6, "extends: model -> model is a cycle; one of them must stand alone"),
]

#: Whole files, the line at fault, and the words after it.
WHOLE = [
    (VALID.replace("float32", "float23"), 5,
     'programs.main.inputs.x.dtype: unknown dtype "float23"; did you mean "float32"?'),
    (VALID.replace("[1, 3", "[-1, 3"), 5, "programs.main.inputs.x.shape[0]: -1 is too small; at least 0"),
    (VALID.replace("[1, 3", "[1, 3.5"), 5,
     "programs.main.inputs.x.shape[1]: expected a whole number or the name of a symbol, "
     "found the number 3.5"),
    (VALID.replace("[1, 3", "[batch, 3"), 5,
     "programs.main.inputs.x.shape[0]: \"batch\" is not declared in this program's symbols"),
    (VALID.replace("[1, 3", "[batsh, 3") + "    symbols: {batch: {max: 8}}\n", 5,
     'programs.main.inputs.x.shape[0]: "batsh" is not declared in this program\'s symbols; '
     'did you mean "batch"?'),
    (VALID + "    symbols: {batch: {max: 8}}\n", 6,
     "programs.main.symbols.batch: no input's shape uses this symbol; use it or remove it"),
    (VALID.replace("[1, 3", "[batch, 3") + "    symbols: {batch: {min: 9, max: 8}}\n", 6,
     "programs.main.symbols.batch: min 9 is above max 8"),
    (VALID.replace("[1, 3", "[batch, 3") + "    symbols: {batch: {max: 8}}\nbench:\n  sizes: {batch: 9}\n", 8,
     "bench.sizes.batch: 9 is outside the bounds 1 to 8"),
    (VALID.replace("dtype: float32", "range: [2, 1]"), 5,
     "programs.main.inputs.x.range: the first number is above the second"),
    (VALID + "    outputs: [a, b, a]\n", 6, 'programs.main.outputs[2]: "a" names two outputs'),
    (VALID + "    inputss: 3\n", 6,
     'programs.main.inputss: unknown key "inputss"; did you mean "inputs"?'),
    (VALID.replace("zoo.net:make", "zoo.net.make"), 1,
     'factory: "zoo.net.make" is not "module:callable", as in "pipelines.zoo.resnet:resnet18"'),
    ("programs: {}\n", 1, "factory: this key is required"),
    ("factory: a:b\nprograms: {}\n", 2, "programs: at least 1 is needed"),
    ("factory: [a\n", 2, "not valid YAML: did not find expected ',' or ']' (while parsing a flow sequence)"),
    ("a: 1\nplain", 2, "not valid YAML: could not find expected ':' (while scanning a simple key)"),
    ("a: b: c\n", 1, "not valid YAML: mapping values are not allowed in this context"),
    ("- factory\n", 1, "expected keys and values (`factory: ...`), found a list"),
    ("# nothing\n", 1, "the file is empty; a model needs at least `factory` and `programs`"),
]


def write(root: Path, **files: str) -> Path:
    folder = root / "configs" / "models"
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text)
    return folder / "model.yaml"


@pytest.mark.parametrize(("text", "line", "words"),
                         [(f"{VALID}{text}\n", line, words) for text, line, words in APPENDED] + WHOLE)
def test_the_message_names_line_fault_and_remedy(tmp_path: Path, text: str, line: int, words: str) -> None:
    path = write(tmp_path, model=text, _bass=VALID)
    with pytest.raises(ConfigError) as error:
        load_config(path, tmp_path)
    assert f"configs/models/model.yaml:{line}: {words}" in str(error.value).splitlines()


def test_all_problems_of_all_files_are_told_at_once(tmp_path: Path) -> None:
    write(tmp_path, model=VALID + "bench: {repeats: 0, warmup: -1}\n", second=VALID + "targett: cpu\n")
    with pytest.raises(ConfigError) as error:
        load_configs(tmp_path)
    assert str(error.value).splitlines() == [
        "configs/models/model.yaml:6: bench.warmup: -1 is too small; at least 0",
        "configs/models/model.yaml:6: bench.repeats: 0 is too small; at least 1",
        'configs/models/second.yaml:6: targett: unknown key "targett"; did you mean "target"?']


def test_a_file_of_another_ending_is_not_passed_over(tmp_path: Path) -> None:
    write(tmp_path, good=VALID)
    (tmp_path / "configs/models/other.yml").write_text(VALID)
    with pytest.raises(ConfigError, match=r"^configs/models/other\.yml:1: .*; rename it to other\.yaml$"):
        load_configs(tmp_path)


def test_an_error_in_a_base_names_the_base(tmp_path: Path) -> None:
    path = write(tmp_path, model="extends: _base\nbench: {repeats: 3}\n",
                 _base=VALID + "bench: {warmup: -1}\n")
    with pytest.raises(ConfigError, match=r"^configs/models/_base\.yaml:6: bench\.warmup: -1 is too small"):
        load_config(path, tmp_path)


def test_a_cycle_through_three_files_is_shown(tmp_path: Path) -> None:
    path = write(tmp_path, model="extends: a\n", a="extends: b\n", b="extends: a\n")
    with pytest.raises(ConfigError, match=r"^configs/models/b\.yaml:1: extends: model -> a -> b -> a is a c"):
        load_config(path, tmp_path)


def test_extends_merges_and_replaces(tmp_path: Path) -> None:
    base = VALID + ("bench: {repeats: 7, warmup: 2}\nweights: {random: {seed: 4}}\ndefault: true\n"
                    "verify: {sizes: [{}, {}]}\n")
    path = write(tmp_path, _base=base, model="extends: _base\nbench: {repeats: 9}\n"
                 "weights: {file: {path: a.pth}}\nverify: {sizes: [{}]}\n")
    config = load_config(path, tmp_path)
    assert (config.bench.repeats, config.bench.warmup) == (9, 2)
    assert config.weights.kind == "file"
    assert len(config.verify.sizes) == 1
    assert config.default is False
    assert list(load_configs(tmp_path)) == ["model"]


def test_numbers_are_read_as_yaml_1_2(tmp_path: Path) -> None:
    path = write(tmp_path, model=f"{VALID}verify: {{max_relative_error: 1e-3}}\n"
                 "factory_args: {on: no, n: 0x10, top: .inf}\n")
    config = load_config(path, tmp_path)
    assert config.verify.max_relative_error == 1e-3
    assert config.factory_args == {"on": "no", "n": 16, "top": math.inf}
    assert type(config).model_validate_json(config.model_dump_json(by_alias=True)) == config


def test_an_unknown_model_suggests_the_nearest(tmp_path: Path) -> None:
    write(tmp_path, resnet18=VALID)
    words = r'^configs/models has no resnet81\.yaml; did you mean "resnet18"\?$'
    with pytest.raises(ConfigError, match=words):
        find_config(tmp_path, "resnet81")


def test_the_committed_schema_is_current() -> None:
    committed = json.loads((REPOSITORY / "configs" / "schema.json").read_text())
    assert committed == schema(), "run `python -m pipelines schema`"


OUR_MODELS = sorted((REPOSITORY / "configs" / "models").glob("*.yaml"))


@pytest.mark.parametrize("path", OUR_MODELS, ids=lambda path: path.name)
def test_our_files_tell_editors_their_schema(path: Path) -> None:
    lines = path.read_text().splitlines()
    marks = [line for line in lines if line.startswith("# yaml-language-server: $schema=")]
    assert len(marks) == 1
    named = path.parent / marks[0].partition("$schema=")[2]
    assert named.resolve() == REPOSITORY / "configs" / "schema.json"


def test_validation_needs_no_torch() -> None:
    code = ("import sys; from pipelines.__main__ import main; status = main(['validate']); "
            "assert not {'torch', 'pyopencl', 'jinja2'} & set(sys.modules); sys.exit(status)")
    environment = {"PYTHONPATH": f"{REPOSITORY / 'npu'}:{REPOSITORY}", "PATH": ""}
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True,
                          check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert "configurations are valid" in done.stdout


def _chain(length: int) -> str:
    """Mappings of which each holds the one before, by aliases alone."""
    return "a0: &a0 {x: 1}\n" + "".join(f"a{i}: &a{i} {{x: *a{i - 1}}}\n" for i in range(1, length))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("x: " + "[" * 51, "more than 50 lists and mappings"),
        ("x: " + "[" * 100_000, "more than 50 lists and mappings"),
        ("x: " + "{a: " * 30_000, "more than 50 lists and mappings"),
        ("x: " + "- " * 30_000 + "a", "not valid YAML|more than 50"),
        (_chain(2000), "more than 50 lists and mappings"),
        ("extends: ../../x", 'extends: "../../x" is no file beside this one'),
        ('extends: "\\0"', "a NUL character"),
        ("extends: ''", 'extends: "" is no file beside this one'),
        (f"bench: {{repeats: {'9' * 5000}}}", "too many digits"),
        ('weights: {file: {path: "a\\0b"}}', "a NUL character"),
    ],
    ids=["51", "lists", "mappings", "blocks", "aliases", "folder", "nul", "empty", "digits", "text"],
)
def test_files_that_would_exhaust_the_reader_are_refused(text: str, says: str, tmp_path: Path) -> None:
    path = write(tmp_path, model=VALID + text + "\n")
    with pytest.raises(ConfigError, match=rf"^configs/models/model\.yaml:\d+: .*({says})"):
        load_config(path, tmp_path)
