"""Two commands for one folder, started at the same moment, repeatedly: ``python benchmarks/folder_races.py [50]``.

The commands are the real ones, each in its own process. In each pair one must take the folder and finish, and the
other must be refused in one sentence or find the finished run; the folder must hold one run's files and nothing else.
"""

import collections
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from vitscope.convex import load
from vitscope.runs.store import read_run

FEW = ("digits", "--images", "digits", "--limit", "60")
HEAD = ("head", "fit", *FEW, "--test-limit", "20", "--pool", "2", "--width", "4", "--kind", "linear", "--gates", "2")
PAIRS = {
    "two questions": (("measure", "accuracy", *FEW), ("measure", "calibration", *FEW)),
    "the same question": (("measure", "accuracy", *FEW), ("measure", "accuracy", *FEW)),
    "heads of two betas": ((*HEAD, "--beta", "0.1"), (*HEAD, "--beta", "0.2")),
    "a checkup and a head": (("checkup", *FEW, "--only", "accuracy"), (*HEAD, "--beta", "0.1")),
}
TOLD = re.compile(r"Error: .*(is in use by another vitscope|holds another run|already holds a run).*\n\Z")


def raced(pair: tuple[tuple[str, ...], tuple[str, ...]], folder: Path) -> str:
    """The outcome of two commands with the same ``--out``."""
    out, processes = folder / "out", []
    for number, command in enumerate(pair):
        features = ("--features", str(folder / f"features-{number}")) if command[0] == "head" else ()
        typed = [sys.executable, "-c", "from vitscope.cli import main; main()", *command, "--out", str(out), *features]
        processes.append(subprocess.Popen(typed, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
    said = [process.communicate() for process in processes]
    codes = [process.returncode for process in processes]
    files = sorted(path.name for path in out.iterdir())
    run = read_run(out)
    wanted = ["head.safetensors"] * (run.spec.verb == "head fit") + ["page.html", "run.nc"]
    assert files == wanted, files
    if run.spec.verb == "head fit":
        assert load(out).get_params()["beta"] == run.spec.settings["head"]["beta"]  # pyright: ignore
    for code, (_, errors) in zip(codes, said, strict=True):
        assert "Traceback" not in errors, errors
        assert code == 0 or TOLD.search(errors), errors
    assert 0 in codes
    return "one finished, one was refused" if any(codes) else "the second found the first's run"


def main() -> None:
    """Race, and print the outcomes."""
    races = int(sys.argv[1]) if len(sys.argv) > 1 else 50
    found: collections.Counter[tuple[str, str]] = collections.Counter()
    for race in range(races):
        name = list(PAIRS)[race % len(PAIRS)]
        with tempfile.TemporaryDirectory() as folder:
            found[name, raced(PAIRS[name], Path(folder))] += 1
    for (name, outcome), count in sorted(found.items()):
        print(f"{name}: {outcome}: {count}")


if __name__ == "__main__":
    main()
