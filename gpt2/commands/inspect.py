"""`gpt2 inspect`: show what a checkpoint holds, without reading its data."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict

from gpt2.commands.common import MODEL_HELP, print_json, print_table
from gpt2.progress import task
from gpt2.weights.inspecting import Inspection, inspect
from gpt2.weights.layout import TensorInfo

HELP = "show the config and the tensors of a checkpoint"
DESCRIPTION = (
    "Show the config and the tensors of a checkpoint, without reading or "
    "fetching its data."
)
EXAMPLES = (
    "gpt2 inspect story",
    "gpt2 inspect path/to/model.safetensors --json",
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    parser.add_argument("model", metavar="MODEL", help=MODEL_HELP)
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(options: argparse.Namespace) -> None:
    """Show what a checkpoint holds, without reading its data."""
    with task(f"Inspecting {options.model}"):
        found = inspect(options.model)
    # In the model's order; tensors that the model does not need come last.
    ours = {theirs: name for name, theirs in found.names.items()}
    infos = {name: found.infos[name] for name in [*ours, *found.infos]}
    if options.json:
        _print_json(found, ours, infos)
    else:
        _print_tables(found, ours, infos)


def _print_json(
    found: Inspection, ours: Mapping[str, str], infos: Mapping[str, TensorInfo]
) -> None:
    print_json(
        {
            "file": found.file,
            "format": found.format,
            "config": asdict(found.config),
            "parameters": sum(infos[name].n_numbers for name in ours),
            "notes": list(found.notes),
            "tensors": {
                name: {**asdict(info), "name_in_model": ours.get(name)}
                for name, info in infos.items()
            },
        }
    )


def _print_tables(
    found: Inspection, ours: Mapping[str, str], infos: Mapping[str, TensorInfo]
) -> None:
    parameters = [infos[name] for name in ours]
    count = sum(info.n_numbers for info in parameters)
    dtypes = Counter(info.dtype for info in parameters)
    n_bytes = sum(info.n_bytes for info in parameters)
    summary = {
        "file": f"{found.file} ({found.format})",
        **asdict(found.config),
        "parameters": f"{count:,} in {len(parameters)} tensors, "
        f"{'/'.join(dtypes)}, {n_bytes:,} bytes",
    }
    print_table([item for item in summary.items() if item[1] is not None])
    print()
    for note in found.notes:
        print(f"{note[0].upper()}{note[1:]}.")
    if found.notes:
        print()
    print_table(
        [("in the file", "shape", "dtype", "bytes", "in the model")]
        + [
            (
                name,
                list(info.shape),
                info.dtype,
                f"{info.n_bytes:,}",
                ours.get(name, "(not needed)"),
            )
            for name, info in infos.items()
        ],
        right={3},
    )
