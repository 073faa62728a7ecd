"""Draws what a run wrote: each row as ratios to the best peer, and cost against size and count.

    python -m bench.plots [--out FOLDER]

It must not measure. It reads results.json and, if there, scaling.json; it writes SVG beside them.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.ticker

from bench.run import Results, best_peer
from bench.systems import Filesfs

mpl.use("svg")
from matplotlib import pyplot as plt  # after the choice of what draws

mpl.rcParams |= {"svg.hashsalt": "filesfs", "svg.fonttype": "none"}  # same figures, same file


def main() -> int:
    parser = argparse.ArgumentParser(description="Draw what a run wrote.")
    parser.add_argument("--out", type=Path, default=Path("bench/out"))
    out = parser.parse_args().out
    draw_ratios(json.loads((out / "results.json").read_text()), out / "ratios.svg")
    if (out / "scaling.json").exists():
        draw_scaling(json.loads((out / "scaling.json").read_text()), out / "scaling.svg")
    return 0


def draw_ratios(results: Results, path: Path) -> None:
    """A bar for each row: filesfs over its best peer, on a logarithmic scale around 1."""
    names, ratios = [], []
    for work, of_systems in reversed(results.items()):
        medians = {name: statistics.median(rates) for name, rates in of_systems.items()}
        best = best_peer(work, medians)
        if best and Filesfs.name in medians:
            names.append(f"{work}\n(best peer: {best})")
            ratios.append(medians[Filesfs.name] / medians[best])
    figure, axes = plt.subplots(figsize=(8, 0.5 * len(names) + 1), layout="constrained")
    colors = ["#2a7f62" if ratio >= 1 else "#b5533c" for ratio in ratios]
    bars = axes.barh(names, [ratio - 1 for ratio in ratios], left=1, color=colors)
    axes.bar_label(bars, [f"{ratio:.2f}" for ratio in ratios], padding=3, fontsize=8)
    axes.set_xscale("log")
    for ticks in (axes.xaxis.set_major_formatter, axes.xaxis.set_minor_formatter):
        ticks(mpl.ticker.FormatStrFormatter("%.1f"))
    axes.axvline(1, color="black", linewidth=0.8)
    axes.tick_params(axis="y", labelsize=8)
    axes.margins(x=0.15)
    axes.set_xlabel("filesfs : best peer, in the same run")
    _save(figure, path)


def draw_scaling(scaling: dict[str, list[dict[str, float]]], path: Path) -> None:
    figure, plots = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
    for axes, rows in zip(plots, scaling.values(), strict=True):
        over, *costs = rows[0]
        for cost in costs:
            axes.loglog([row[over] for row in rows], [row[cost] for row in rows], "o-", label=cost)
        axes.set_xlabel(over)
        axes.grid(visible=True, alpha=0.3)
        axes.legend(fontsize=8)
    _save(figure, path)


def _save(figure: Any, path: Path) -> None:
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


if __name__ == "__main__":
    sys.exit(main())
