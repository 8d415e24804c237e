"""Count lines of code, without docstrings, comments and blank lines, by package.

Without arguments of the working tree: ``python tools/count_lines.py``. With commits as arguments one column for each,
and the difference of the first and the last: ``python tools/count_lines.py 0ad4836 HEAD``.
"""

from __future__ import annotations

import ast
import io
import subprocess
import sys
import tarfile
import tokenize
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).parent.parent
COUNTED = ("ptycho", "shims")
_NO_CODE = {
    tokenize.COMMENT,
    tokenize.DEDENT,
    tokenize.ENCODING,
    tokenize.ENDMARKER,
    tokenize.INDENT,
    tokenize.NEWLINE,
    tokenize.NL,
}


def count(source: str) -> int:
    """Lines of a module that hold code."""
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in _NO_CODE:
            lines |= set(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        # A string that stands alone documents what it follows, a module, class, function or constant.
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            lines -= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return len(lines)


def package_of(path: PurePosixPath) -> str:
    """The package that a file is counted under: the first two folders, or the first for files at its top."""
    return "/".join(path.parts[:2]) if len(path.parts) > 2 else path.parts[0]


def working_tree() -> Iterator[tuple[PurePosixPath, str]]:
    """Paths and sources as they are now."""
    for top in COUNTED:
        for path in sorted((ROOT / top).rglob("*.py")):
            yield PurePosixPath(path.relative_to(ROOT).as_posix()), path.read_text(encoding="utf-8")


def committed(revision: str) -> Iterator[tuple[PurePosixPath, str]]:
    """Paths and sources as a commit has them."""
    command = ["git", "archive", "--format=tar", revision, *COUNTED]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    if done.returncode:
        raise SystemExit(f"count_lines: {done.stderr.decode().strip()}")
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        for member in archive:
            file = archive.extractfile(member) if member.name.endswith(".py") else None
            if file is not None:
                yield PurePosixPath(member.name), file.read().decode()


def counted(revision: str | None) -> Counter[str]:
    """Lines by package; of the working tree for None."""
    found: Counter[str] = Counter()
    for path, source in working_tree() if revision is None else committed(revision):
        lines = count(source)
        found[package_of(path)] += lines
        found[f"{path.parts[0]} in all"] += lines
    return found


def main(revisions: list[str]) -> None:
    """Print one column for each revision, and the difference of the first and the last of several."""
    columns = [counted(revision) for revision in revisions] if revisions else [counted(None)]
    names = sorted(set().union(*columns), key=lambda name: (name.split("/")[0].split()[0], " " in name, name))
    width = max(map(len, names))
    print(" " * width, *(f"{revision[:9]:>9}" for revision in revisions or ["now"]), *["change"] * (len(columns) > 1))
    for name in names:
        change = [f"{columns[-1][name] - columns[0][name]:+6}"] if len(columns) > 1 else []
        print(f"{name:<{width}}", *(f"{column[name]:9}" for column in columns), *change)


if __name__ == "__main__":
    main(sys.argv[1:])
