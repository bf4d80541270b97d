"""``python -m npu_compiler``: compile a graph by hand, or stop after a pass, read, edit and go on.

compile FILE [-o OUT.npubin] [--from PASS] [--to PASS], coverage FILE [--target T] [--json], passes

FILE is an IR file (``.json``) or a dump (``.txt``). With ``--to`` the graph is printed in its text form after
that pass; such a text, edited or not, is compiled on with ``--from`` naming the pass after which it was
taken. ``coverage`` says which nodes the target cannot run, and why; its exit code is 1 if there are any.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from npu_compiler.compiler import compile_with_report
from npu_compiler.coverage import coverage
from npu_compiler.pipeline import PASSES, run_passes
from npu_compiler.target import load_target
from torch_ir.ir import IR
from torch_ir.printer import from_text


def main(argv: list[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    parser = argparse.ArgumentParser("python -m npu_compiler", description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    compile_ = commands.add_parser("compile", help="compile an IR file or a dump")
    compile_.add_argument("file", type=Path)
    compile_.add_argument("-o", "--output", type=Path, help="default: the file's name with .npubin")
    compile_.add_argument("--target", default="cpu")
    compile_.add_argument("--from", dest="start", metavar="PASS", help="FILE is the text after this pass")
    compile_.add_argument("--to", metavar="PASS", help="print the graph after this pass and stop")
    coverage_ = commands.add_parser("coverage", help="which nodes the target can run, and why not the others")
    coverage_.add_argument("file", type=Path)
    coverage_.add_argument("--target", default="cpu")
    coverage_.add_argument("--json", action="store_true", help="print it as JSON")
    commands.add_parser("passes", help="list the passes in order")
    options = parser.parse_args(argv)
    try:
        if options.command == "passes":
            print("\n".join(step.__name__ for step in PASSES))
            return 0
        graph = read_graph(options.file)
        if options.command == "coverage":
            found = coverage(graph, options.target)
            print(json.dumps(found.to_dict(), indent=2) if options.json else found.table())
            return 0 if found.complete else 1
        if options.to:
            final, _ = run_passes(
                graph, load_target(options.target), start_after=options.start, stop_after=options.to
            )
            from torch_ir.printer import to_text

            print(to_text(final))
            return 0
        result = compile_with_report(graph, target=options.target, start_after=options.start)
        output = options.output or options.file.with_suffix(".npubin")
        result.program.save(output)
        print(f"{output}: {len(result.program.steps)} steps, {len(result.program.kernels)} kernels")
        return 0
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def read_graph(path: Path) -> IR:
    """A graph from an IR file, or from its text form."""
    return from_text(path.read_text(encoding="utf-8")) if path.suffix == ".txt" else IR.load(path).checked()


if __name__ == "__main__":
    sys.exit(main())
