"""What `benchmarks.gpu_check` measured, as Markdown and as a picture, beside the bars."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

COPIES = {"forward": 1, "forward+backward": 3}
"""Tensors of the values' size that a pass reads or writes, in copies (one read and one write):
values in, outputs out; for the backward pass gradient, outputs and values in, gradient out."""
BARS = {
    "share of the copy bandwidth, from 60,000 tokens": ("at least", 0.8),
    "times as fast as FlashAttention, 3,000 tokens, forward and backward": ("at least", 5.0),
    "times as fast as SDPA, 60 tokens": ("at least", 1.0),
    "Aaren's training step over the Transformer's": ("at most", 1.0),
}


def shares(row: dict[str, Any]) -> dict[str, float]:
    """Of one row of the operator: share of the copy bandwidth and times as fast as each rival.

    Of CUDA graphs where there are some: a short call takes longer in Python than on the card.
    """
    seconds = {name: timing["median"] for name, timing in row["seconds"].items()}

    def of(name: str) -> float | None:
        return seconds.get(f"{name}, graph", seconds.get(name))

    ours, copy = of("ours"), of("copy")
    found: dict[str, float] = {}
    if ours and copy:
        found["of_copy_bandwidth"] = COPIES[row["pass"]] * copy / ours
    for rival in ("sdpa", "flash"):
        theirs = of(rival)
        if ours and theirs:
            found[f"times_as_fast_as_{rival}"] = theirs / ours
    return found


def verdicts(results: dict[str, Any]) -> list[dict[str, Any]]:
    """The worst case of each bar and whether it is met; none in a dry run."""
    operator, training = results["operator"], results["training"]

    def worst(key: str, rows: list[dict[str, Any]], pick: Callable[..., float]) -> float | None:
        return pick((row[key] for row in rows if key in row), default=None)

    long = [row for row in operator if row["tokens"] >= 60_000]
    middle = [row for row in operator if row["tokens"] == 3_000 and row["pass"] != "forward"]
    short = [row for row in operator if row["tokens"] == 60]
    steps = [
        {"over": row["aaren_over_transformer"][0]}
        for row in training
        if "aaren_over_transformer" in row
    ]
    found = (
        worst("of_copy_bandwidth", long, min),
        worst("times_as_fast_as_flash", middle, min),
        worst("times_as_fast_as_sdpa", short, min),
        worst("over", steps, max),
    )
    rows = []
    for (name, (sense, bar)), value in zip(BARS.items(), found, strict=True):
        met = None if value is None else (value >= bar if sense == "at least" else value <= bar)
        rows.append({"bar": name, "wanted": f"{sense} {bar:g}", "worst": value, "met": met})
    return rows


def write(results: dict[str, Any], out: Path) -> list[Path]:
    """Write report.md and, where matplotlib is there, picture.png; returns what was written."""
    written = [out / "results.json", out / "report.md"]
    (out / "report.md").write_text(markdown(results))
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        print("no picture: matplotlib is not installed")
        return written
    if len(results["growth"]["tokens"]) > 1:
        picture(results, out / "picture.png")
        written.append(out / "picture.png")
    return written


def markdown(results: dict[str, Any]) -> str:
    """All tables."""
    machine, tests = results["machine"], results["tests"]
    lines = [
        "# The operator and the layers on a GPU",
        "",
        *(["**A dry run on a CPU: the figures mean nothing.**", ""] if results["dry_run"] else []),
        f"{machine.get('gpu', 'no GPU')}, {machine['processor']}, PyTorch {machine['torch']}, "
        f"Python {machine['python']}; {results['minutes']:.1f} minutes.",
        "",
        f"Tests: {tests.get('passed', 0)} passed, {tests.get('failed', 0)} failed, "
        f"{tests.get('error', 0)} errors, {tests.get('skipped', 0)} skipped.",
        "",
    ]
    if not results["dry_run"]:
        lines += table("Bars", verdicts(results))
    lines += table("Operator", [operator_row(row) for row in results["operator"]])
    growth = results["growth"]
    lines += table("Growth, forward and backward, one bf16 sequence", growth_rows(growth))
    if growth["time_exponent"] is not None:
        exponents = [f"time ~ tokens^{growth['time_exponent']:.2f}"]
        if growth["memory_exponent"] is not None:
            exponents.append(f"memory ~ tokens^{growth['memory_exponent']:.2f}")
        lines += [", ".join(exponents) + ".", ""]
    lines += table("Training step", [training_row(row) for row in results["training"]])
    lines += table("Acting, microseconds a step", [acting_row(row) for row in results["acting"]])
    if results["not_measured"]:
        lines += ["Not measured, out of time: " + "; ".join(results["not_measured"]) + ".", ""]
    return "\n".join(lines)


def table(title: str, rows: list[dict[str, Any]]) -> list[str]:
    """A Markdown table of rows that may have different columns."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    if not rows:
        return []
    cells = [[cell(row.get(column)) for column in columns] for row in rows]
    rule = ["---"] * len(columns)
    return [f"## {title}", "", *(f"| {' | '.join(line)} |" for line in [columns, rule, *cells]), ""]


def cell(value: Any) -> str:
    """One cell: three digits of a number, a dash for nothing."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "**no**"
    return f"{value:,.3g}" if isinstance(value, float) else str(value)


def milliseconds(row: dict[str, Any]) -> dict[str, float]:
    """Median of each candidate."""
    return {f"{n}, ms": 1e3 * timing["median"] for n, timing in row["seconds"].items()}


def mebibytes(row: dict[str, Any]) -> dict[str, float]:
    """Peak of each candidate."""
    peaks = row["peak_bytes"].items()
    return {f"{name}, MiB": n / 2**20 for name, n in peaks if n is not None and name != "copy"}


def operator_row(row: dict[str, Any]) -> dict[str, Any]:
    """A line of the operator's table."""
    shown = {"shape": f"{row['batch']} x {row['tokens']:,}", "": f"{row['dtype']}, {row['pass']}"}
    ratios = {
        "of copy bandwidth": row.get("of_copy_bandwidth"),
        "times as fast as SDPA": row.get("times_as_fast_as_sdpa"),
        "as FlashAttention": row.get("times_as_fast_as_flash"),
    }
    return shown | ratios | milliseconds(row) | mebibytes(row)


def growth_rows(growth: dict[str, Any]) -> list[dict[str, Any]]:
    """Lines of the growth table."""
    columns = zip(growth["tokens"], growth["seconds"], growth["peak_bytes"], strict=True)
    return [{"tokens": n, "ms": 1e3 * s, "MiB": b / 2**20} for n, s, b in columns]


def training_row(row: dict[str, Any]) -> dict[str, Any]:
    """A line of the training table."""
    shown = {"batch x steps": f"{row['batch']} x {row['steps']:,}", "dtype": row["dtype"]}
    over = row.get("aaren_over_transformer")
    shown["Aaren / Transformer"] = None if over is None else over[0]
    return shown | milliseconds(row) | mebibytes(row)


def acting_row(row: dict[str, Any]) -> dict[str, Any]:
    """A line of the acting table."""
    seconds = row["seconds"].items()
    return {"environments": row["environments"]} | {n: 1e6 * t["median"] for n, t in seconds}


def picture(results: dict[str, Any], path: Path) -> None:
    """Time and memory over the length, both axes logarithmic."""
    from matplotlib.figure import Figure

    growth = results["growth"]
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    panels = (
        ("forward and backward, ms", [1e3 * s for s in growth["seconds"]]),
        ("peak memory, MiB", [b / 2**20 for b in growth["peak_bytes"]]),
    )
    for axes, (label, values) in zip(figure.subplots(1, 2), panels, strict=True):
        axes.plot(growth["tokens"], values, "o-", label="prefix attention, bf16")
        axes.set(xscale="log", xlabel="tokens of one sequence", ylabel=label)
        if min(values) > 0:
            axes.set_yscale("log")
        axes.grid(alpha=0.3)
        axes.legend()
    figure.suptitle(results["machine"].get("gpu", "dry run on a CPU: the figures mean nothing"))
    figure.savefig(path, dpi=120)
