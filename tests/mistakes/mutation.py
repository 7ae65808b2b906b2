"""A mistake: a change to one piece of one source file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Mutation:
    """One mistake: in `file`, `old` becomes `new`."""

    name: str
    file: str
    old: str
    new: str
    caught_by: tuple[str, ...]
    """Test files, or single tests such as `test_hub.py::test_fetches_once`;
    each must catch it by itself."""

    def apply(self, package: Path) -> None:
        """Make the mistake in this copy of the package.

        Raises:
            ValueError: The source does not contain `old` exactly once.
        """
        path = package / self.file
        source = path.read_text(encoding="utf-8")
        if source.count(self.old) != 1:
            raise ValueError(
                f"mutation {self.name!r}: expected once in {self.file}, found "
                f"{source.count(self.old)} times:\n{self.old}"
            )
        mutated = source.replace(self.old, self.new)
        if path.suffix == ".py":
            compile(mutated, path, "exec")
        path.write_text(mutated, encoding="utf-8")
