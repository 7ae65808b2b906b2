"""`gpt2 inspect`: what a checkpoint holds, without reading its data."""

from __future__ import annotations

import argparse
from collections import Counter
from dataclasses import asdict

from gpt2.commands.common import MODEL_HELP, print_json
from gpt2.weights import loading

HELP = "look into a checkpoint"
DESCRIPTION = (
    "Show config and tensors of a checkpoint without reading or fetching its "
    "data."
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    parser.add_argument("model", metavar="MODEL", help=MODEL_HELP)
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(options: argparse.Namespace) -> None:
    """Show what a checkpoint holds, without reading its data."""
    found = loading.look(options.model)
    ours = {theirs: name for name, theirs in found.names.items()}
    parameters = [found.infos[name] for name in ours]
    count = sum(info.n_numbers for info in parameters)
    if options.json:
        print_json(
            {
                "file": found.file,
                "format": found.format,
                "config": asdict(found.config),
                "parameters": count,
                "tensors": {
                    name: {**asdict(info), "name_in_model": ours.get(name)}
                    for name, info in found.infos.items()
                },
            }
        )
        return
    dtypes = Counter(info.dtype for info in parameters)
    n_bytes = sum(info.n_bytes for info in parameters)
    print(f"file        {found.file} ({found.format})")
    for name, value in asdict(found.config).items():
        if value is not None:
            print(f"{name:<11} {value}")
    print(
        f"parameters  {count:,} in {len(ours)} tensors, "
        f"{'/'.join(dtypes)}, {n_bytes / 1e6:,.1f} MB"
    )
    print()
    rows = [
        (
            name,
            str(list(info.shape)),
            info.dtype,
            f"{info.n_bytes:,}",
            ours.get(name, "(not needed)"),
        )
        for name, info in found.infos.items()
    ]
    heads = ("in the file", "shape", "dtype", "bytes", "in the model")
    widths = [
        max(len(row[i]) for row in (heads, *rows)) for i in range(len(heads))
    ]
    for row in (heads, *rows):
        cells = [
            cell.rjust(width) if i == 3 else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        print("  ".join(cells).rstrip())
