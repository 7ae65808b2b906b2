"""What the project's files say about each other, for whoever comes by them."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import alone
import pytest
import yaml
from address import pages_address
from book_rules import REPOSITORY, ROOT
from downloads import BRANCH
from packaging.requirements import Requirement

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))[
    "project"
]
OWN_NAME = re.compile(
    r"(?:github\.com|githubusercontent\.com|github/license)/"
    r"([\w.-]+/gpt2-from-scratch)\b"
)
OWN_SITE = re.compile(r"[\w-]+\.github\.io/[\w.-]*")
README = (ROOT / "README.md").read_text("utf-8")
PLAIN_LINES = [
    "--no-deps -c requirements.txt torch"
    " --index-url https://download.pytorch.org/whl/cpu",
    "-r requirements.txt -r requirements-tests.txt -e .",
]


def tracked() -> list[str]:
    """The files of the repository, without what is made from them."""
    command = ["git", "-C", str(ROOT), "ls-files", "-z"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip("this is no clone of the repository")
    names = done.stdout.split("\0")[:-1]
    return [name for name in names if (ROOT / name).is_file()]


def workflow(name: str) -> Any:
    path = ROOT / ".github" / "workflows" / f"{name}.yml"
    return yaml.safe_load(path.read_text("utf-8"))


def pins(name: str) -> dict[str, list[Requirement]]:
    """The requirements in a file, by name; some have a line per Python."""
    lines = (ROOT / name).read_text("utf-8").splitlines()
    texts = [line.partition("#")[0].strip() for line in lines]
    found: dict[str, list[Requirement]] = {}
    for requirement in map(Requirement, filter(None, texts)):
        found.setdefault(requirement.name.lower(), []).append(requirement)
    return found


def test_every_file_gives_the_same_address() -> None:
    own = REPOSITORY.removeprefix("https://github.com/")
    site = pages_address(REPOSITORY).removeprefix("https://").strip("/")
    wrong, right = [], set()
    for name in tracked():
        try:
            text = unquote((ROOT / name).read_text("utf-8"))
        except UnicodeDecodeError:
            continue
        for found in {*OWN_NAME.findall(text), *OWN_SITE.findall(text)}:
            if name.startswith("tests/"):
                continue
            if found.strip("/.") in (own, site):
                right.add(name)
            elif "gpt2-from-scratch" in found:
                wrong.append(f"{name} has {found}")
    assert wrong == []
    assert {"README.md", "pyproject.toml", "CITATION.cff"} <= right


def test_the_readme_begins_with_the_book() -> None:
    title, first, *_ = (line for line in README.splitlines() if line)
    assert title.startswith("# ")
    site = pages_address(REPOSITORY)
    assert first.startswith(f"**[Read the book]({site})**")


def test_the_readme_can_be_read_on_pypi() -> None:
    """There, links need a host; files that they name must exist here."""
    targets = re.findall(r"\]\(([^)\s]+)\)", README)
    assert [t for t in targets if not t.startswith("https://")] == []
    files = re.findall(rf"{REPOSITORY}/(?:blob|raw)/main/([^)\s]+)", README)
    assert len(files) > 4
    assert [name for name in files if not (ROOT / name).is_file()] == []


def test_one_version_everywhere() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    changes = (ROOT / "CHANGELOG.md").read_text("utf-8")
    newest = re.findall(r"^## (\S+)", changes, re.MULTILINE)[0]
    assert PROJECT["version"] == citation["version"] == newest
    assert citation["repository-code"] == PROJECT["urls"]["Repository"]
    assert citation["url"] == PROJECT["urls"]["Book"]
    assert citation["license"] == PROJECT["license"]
    assert citation["authors"] == PROJECT["authors"]


def test_the_same_pythons_everywhere() -> None:
    classifiers = [
        text.rpartition(" :: ")[2]
        for text in PROJECT["classifiers"]
        if re.search(r":: 3\.\d+$", text)
    ]
    minors = [int(text.partition(".")[2]) for text in classifiers]
    assert all(b == a + 1 for a, b in pairwise(minors))
    lowest, highest = classifiers[0], classifiers[-1]
    assert PROJECT["requires-python"] == f">={lowest}"

    matrix = workflow("test")["jobs"]["package"]["strategy"]["matrix"]
    assert matrix["python"] == classifiers

    makefile = (ROOT / "Makefile").read_text("utf-8")
    low, high = f"(3, {minors[0]})", minors[-1]
    assert f"not {low} <= sys.version_info[:2] <= (3, {high})" in makefile
    assert f"Python {lowest} to {highest} is required" in makefile
    assert f"You need Python {lowest} to {highest}" in makefile
    assert f"You need Python {lowest} to {highest}" in README


def test_the_plain_lines_are_those_of_the_workflow() -> None:
    steps = workflow("test")["jobs"]["package"]["steps"]
    script = "\n".join(step.get("run", "") for step in steps)
    for line in PLAIN_LINES:
        assert f"pip install {line}\n" in script
        assert f".venv/bin/pip install {line}\n" in README


def test_the_workflow_leaves_out_what_needs_a_browser() -> None:
    left_out = workflow("test")["env"]["WITHOUT_A_BROWSER"].split()
    needing = [
        f"--ignore=tests/{path.name}"
        for path in sorted((ROOT / "tests").glob("test_*.py"))
        if re.search(
            r"^(import|from) (playwright|test_site)\b",
            path.read_text("utf-8"),
            re.MULTILINE,
        )
    ]
    assert left_out == needing


def test_the_workflow_names_tests_that_exist() -> None:
    (run,) = (
        step["run"]
        for step in workflow("test")["jobs"]["oldest"]["steps"]
        if "pytest -rs" in step.get("run", "")
    )
    groups = re.findall(r"tests/test_\{([\w,]+)\}\.py", run)
    names = [name for group in groups for name in group.split(",")]
    assert len(names) > 20
    for name in names:
        assert (ROOT / "tests" / f"test_{name}.py").is_file(), name


def test_the_workflows_pin_actions_and_ask_for_little() -> None:
    for path in sorted((ROOT / ".github" / "workflows").glob("*.yml")):
        what = workflow(path.stem)
        assert what["permissions"] == {"contents": "read"}
        assert what["concurrency"]["group"]
        for name, job in what["jobs"].items():
            assert job["timeout-minutes"], name
            for step in job["steps"]:
                if "uses" in step:
                    assert re.fullmatch(r"[\w./-]+@v\d+", step["uses"])


def test_the_pins_are_versions_that_the_package_allows() -> None:
    pinned = pins("requirements.txt")
    for text in PROJECT["dependencies"]:
        allowed = Requirement(text)
        for pin in pinned[allowed.name.lower()]:
            (exact,) = pin.specifier
            assert exact.operator == "=="
            assert allowed.specifier.contains(exact.version), text
        (lowest,) = allowed.specifier
        assert lowest.operator == ">=", "the oldest version is tested"


def test_the_build_for_cpus_is_the_pinned_version() -> None:
    """So pip keeps it when the other requirements are installed."""
    for torch in pins("requirements.txt")["torch"]:
        (exact,) = torch.specifier
        assert torch.specifier.contains(f"{exact.version}+cpu")


@pytest.mark.parametrize("file", ["requirements", "requirements-tests"])
def test_every_python_has_one_pin(file: str) -> None:
    matrix = workflow("test")["jobs"]["package"]["strategy"]["matrix"]
    for name, lines in pins(f"{file}.txt").items():
        for python in matrix["python"]:
            here = [
                line
                for line in lines
                if line.marker is None
                or line.marker.evaluate({"python_version": python})
            ]
            assert len(here) == 1, f"{name} for Python {python}"


@pytest.mark.parametrize(
    ("system", "driver", "build"),
    [
        ("Linux", False, "cpu"),
        ("Linux", True, "pypi"),
        ("Darwin", False, "pypi"),
    ],
)
def test_make_takes_the_small_torch_where_it_can(
    system: str, driver: bool, build: str, tmp_path: Path
) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    scripts = {"uname": f"echo {system}"}
    if driver:
        scripts["nvidia-smi"] = "true"
    for name, text in scripts.items():
        (tools / name).write_text(f"#!/bin/sh\n{text}\n")
        (tools / name).chmod(0o755)
    make = shutil.which("make") or pytest.skip("there is no make")
    rule = "print-torch: ; @echo $(TORCH);"  # the ";" makes it ask a shell

    def made(*more: str) -> str:
        command = [make, "-s", "-f", "Makefile", f"--eval={rule}"]
        done = subprocess.run(
            [*command, "print-torch", *more],
            cwd=ROOT,
            env={"PATH": str(tools)},
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.strip()

    assert made() == build
    assert made("TORCH=cu130") == "cu130"


def test_the_source_distribution_holds_the_repository(tmp_path: Path) -> None:
    pytest.importorskip("setuptools")
    copy = tmp_path / "copy"
    left_out = (".github/", ".devcontainer/", "binder/", ".gitignore")
    names = [name for name in tracked() if not name.startswith(left_out)]
    for name in names:
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).symlink_to(ROOT / name)
    script = "from setuptools import build_meta as b; b.build_sdist('d')"
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=copy,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr.lower(), done.stderr
    (archive,) = (copy / "d").iterdir()
    with tarfile.open(archive) as tar:
        inside = {name.partition("/")[2] for name in tar.getnames()}
    assert set(names) <= inside


def test_the_wheel_holds_the_packages() -> None:
    """What a notebook or a command reads must come with them."""
    folder = alone.unpacked_wheel()
    inside = {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and ".dist-info/" not in path.as_posix()
    }
    names = [name for name in tracked() if name.startswith("gpt2")]
    assert len(names) > 100
    assert set(names) == inside


def test_binder_has_the_pins_of_the_book() -> None:
    lines = (ROOT / "binder" / "requirements.txt").read_text("utf-8")
    options = [line for line in lines.splitlines() if line.startswith("--")]
    assert "--constraint ../requirements.txt" in options
    named = re.findall(r"^\w+$", lines, re.MULTILINE)
    assert "nbformat" in named
    assert {*named} <= {*pins("requirements.txt")}
    script = ROOT / "binder" / "postBuild"
    assert script.stat().st_mode & 0o100
    assert "python book/editions.py\n" in script.read_text("utf-8")


def test_a_workflow_publishes_the_notebooks() -> None:
    """The branch is the one that the buttons of the pages lead to."""
    *_, last = workflow("pages")["jobs"]["notebooks"]["steps"]
    assert f"git push --force origin {BRANCH}\n" in last["run"]
