"""``matrix:``: one file, many models."""

from __future__ import annotations

from pathlib import Path

import pytest
import toy_project
from toy_project import make_toy

from pipelines.__main__ import main
from pipelines.config import ConfigError, families, find_config, load_config, load_configs, place_of
from pipelines.job import jobs_of

CONFIG = toy_project.CONFIG.removeprefix("extends: _base\n")
MATRIX = """\
matrix:
  precision: [float32, bfloat16]
  compile.options.winograd: [true, false]
"""
NAMES = ["toy+precision-float32+winograd-on", "toy+precision-float32+winograd-off",
         "toy+precision-bfloat16+winograd-on", "toy+precision-bfloat16+winograd-off"]


def write(root: Path, text: str, name: str = "toy") -> Path:
    path = root / "configs" / "models" / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_every_combination_is_a_model(tmp_path: Path) -> None:
    write(tmp_path, CONFIG + MATRIX)
    write(tmp_path, CONFIG, "toy+own")
    found = load_configs(tmp_path)
    assert list(found) == ["toy+own", *NAMES] or list(found) == [*NAMES, "toy+own"]
    assert [(found[name].precision, found[name].compile.options) for name in NAMES] == [
        ("float32", {"winograd": True}), ("float32", {"winograd": False}),
        ("bfloat16", {"winograd": True}), ("bfloat16", {"winograd": False})]
    assert {found[name].name for name in NAMES} == set(NAMES)
    assert all(found[name].default and found[name].bench.repeats == 3 for name in NAMES)
    assert find_config(tmp_path, NAMES[1]) == found[NAMES[1]]
    assert families(tmp_path, found) == {"toy": NAMES}
    assert [job.folder.name for job in jobs_of([NAMES[3]], tmp_path)] == [NAMES[3]]


@pytest.mark.parametrize(("matrix", "names"), [
    ("bench.repeats: [5, 10]", ["repeats-5", "repeats-10"]),
    ("verify.max_relative_error: [0.5, 1e-4]", ["max_relative_error-0.5", "max_relative_error-0.0001"]),
    ("factory_args.offset: [-1, 1]", ["offset--1", "offset-1"]),
    ("programs.main.inputs.x.shape: {small: [1, 3], large: [4, 3]}", ["shape-small", "shape-large"]),
    ("weights: {seeded: {random: {seed: 9}}, own: {file: {path: a.pth}}}", ["weights-seeded", "weights-own"]),
    ("bench.repeats: [5]\n  verify.samples: [1, 2]", ["repeats-5+samples-1", "repeats-5+samples-2"]),
    ("weights.random.seed: [1]\n  verify.seed: [1, 2]",
     ["weights.random.seed-1+verify.seed-1", "weights.random.seed-1+verify.seed-2"]),
])
def test_names(matrix: str, names: list[str], tmp_path: Path) -> None:
    write(tmp_path, f"{CONFIG}matrix:\n  {matrix}\n")
    assert list(load_configs(tmp_path)) == [f"toy+{name}" for name in names]


def test_a_value_is_laid_over_as_extends_does(tmp_path: Path) -> None:
    write(tmp_path, CONFIG + "matrix:\n  bench: {short: {repeats: 1}, long: {warmup: 50}}\n"
                             "  weights: {a: {file: {path: a.pth}}, b: {random: {seed: 2}}}\n")
    found = load_configs(tmp_path)
    assert (found["toy+bench-short+weights-a"].bench.repeats, found["toy+bench-long+weights-a"].bench) == (
        1, found["toy+bench-short+weights-a"].bench.model_copy(update={"repeats": 3, "warmup": 50}))
    assert found["toy+bench-long+weights-a"].weights.kind == "file"  # whole: no random beside it


def test_the_matrix_of_a_base_is_not_inherited(tmp_path: Path) -> None:
    write(tmp_path, CONFIG + MATRIX)
    write(tmp_path, "extends: toy\ndescription: mine\n", "mine")
    assert "mine" in load_configs(tmp_path)
    write(tmp_path, "extends: mine\nmatrix: {bench.repeats: [8, 9]}\n", "more")
    assert load_configs(tmp_path)["more+repeats-9"].bench.repeats == 9


LINE = len(CONFIG.splitlines()) + 2


@pytest.mark.parametrize(("matrix", "line", "said"), [
    ("precison: [float32]", 0, 'precison: unknown key "precison"; did you mean "precision"?'),
    ("bench.repeat: [1, 2]", 0, 'unknown key "repeat"; did you mean "repeats"?'),
    ("nothing.at.all: [1]", 0, 'unknown key "nothing"'),
    ("precision: [float32, float23]", 0, 'unknown precision "float23"'),
    ("bench.repeats:\n    - 5\n    - 0", 2, "bench.repeats: 0 is too small"),
    ("bench.repeats: [1, many]", 0, "bench.repeats: expected a whole number"),
    ("target: [cpu, cpuu]", 0, 'unknown target "cpuu"; did you mean "cpu"?'),
    ("bench.repeats:\n    - 5\n    - 6\n    - 5", 3, '"5" is there twice'),
    ("bench.repeats: {a: 5, b: 5}", 0, '"b" is there twice'),
    ("bench.repeats: [5]\n  bench.repeats: [6]", 1, "appears twice"),
    ("bench: {a: {repeats: 1}}\n  bench.repeats: [6]", 1, "bench.repeats lies inside bench"),
    ("bench.repeats: []", 0, "expected a list of values, or names with values, found nothing"),
    ("bench.repeats: 5", 0, "found the number 5"),
    ("bench.sizes: [{a: 1}]", 0, "cannot be part of a model's name"),
    ("description: [two words]", 0, '"two words" cannot be part of a model\'s name'),
    ("description: {two words: x}", 0, '"two words" cannot be part of a model\'s name'),
    ("description: [a=b]", 0, "cannot be part of a model's name"),
    ("name: [a, b]", 0, "name cannot differ between variants"),
    ("extends: [a, b]", 0, "extends cannot differ"),
    ("matrix.precision: [float32]", 0, "matrix cannot differ"),
    ("bench..repeats: [1]", 0, "is no key"), ('"": [1]', 0, "is no key"),
    (f"bench.repeats: {list(range(1, 40))}\n  verify.samples: {list(range(1, 40))}", -1, "1521 variants"),
    (f"description: [{'a' * 250}]", -1, "longer than 200 characters"),
])
def test_errors_name_the_line(matrix: str, line: int, said: str, tmp_path: Path) -> None:
    write(tmp_path, f"{CONFIG}matrix:\n  {matrix}\n")
    with pytest.raises(ConfigError) as error:
        load_configs(tmp_path)
    (text,) = str(error.value).splitlines()
    assert text.startswith(f"configs/models/toy.yaml:{LINE + line}: ")
    assert said in text


@pytest.mark.parametrize("text", ["matrix:\n", "matrix: {}\n", "matrix: [precision]\n", "matrix: 5\n"])
def test_a_matrix_has_keys(text: str, tmp_path: Path) -> None:
    write(tmp_path, CONFIG + text)
    with pytest.raises(ConfigError, match=rf"toy.yaml:{LINE - 1}: matrix: expected keys of the "):
        load_configs(tmp_path)


def test_two_models_of_one_name_are_an_error(tmp_path: Path) -> None:
    write(tmp_path, CONFIG + MATRIX)
    write(tmp_path, CONFIG, NAMES[0])
    with pytest.raises(ConfigError, match="there is another model called"):
        load_configs(tmp_path)


@pytest.mark.parametrize(("name", "said"), [
    ("toy", "has a matrix; name one of its variants: toy.precision-float32"),
    ("toy+precision-float32+winograd-of", 'did you mean "toy.precision-float32.winograd-off"'),
    ("toyy", 'did you mean "toy"')])
def test_wrong_names_are_told_the_right_ones(name: str, said: str, tmp_path: Path) -> None:
    path = write(tmp_path, CONFIG + MATRIX)
    with pytest.raises(ConfigError, match=said):
        find_config(tmp_path, name)
    with pytest.raises(ConfigError, match="has a matrix"):
        load_config(path, tmp_path)


def test_the_place_of_a_variants_key_is_the_matrix(tmp_path: Path) -> None:
    write(tmp_path, CONFIG + MATRIX)
    assert place_of(tmp_path, NAMES[3], ("precision",)) == f"configs/models/toy.yaml:{LINE}"
    assert place_of(tmp_path, NAMES[3], ("compile", "options", "winograd")).endswith(f"toy.yaml:{LINE + 1}")


def test_variants_are_built_each_on_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                            capsys: pytest.CaptureFixture[str]) -> None:
    toy = make_toy(tmp_path, monkeypatch)
    toy.edit("configs/models/toy.yaml", "bench: {repeats: 3}", "matrix: {bench.repeats: [3, 4]}")
    variants = ["toy+repeats-3", "toy+repeats-4"]
    assert toy.build("bench:toy") == sorted(["bench", "compile", "extract", "fetch", "weights"] * 2)
    assert sorted(path.name for path in (tmp_path / "artifacts").glob("[!.]*")) == variants
    capsys.readouterr()
    assert toy.doit("list", "--all", "--quiet") == 0
    listed = capsys.readouterr().out.split()
    assert {"report:toy", *(f"report:{name}" for name in variants)} <= set(listed)
    toy.ran.clear()
    toy.edit("configs/models/toy.yaml", "[3, 4]", "[3, 5]")
    toy.build("bench:toy")
    assert sorted(tmp_path.glob("artifacts/toy+repeats-5/cpu/bench.*")) != []
    assert toy.build("bench:toy+repeats-3") == []
    monkeypatch.chdir(tmp_path)
    assert main(["validate"]) == 0
    assert "2 configurations are valid: toy+repeats-3, toy+repeats-5" in capsys.readouterr().out
