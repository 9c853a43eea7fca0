"""The report's first line: whether the claim holds, by a rule that is fixed beforehand."""

from __future__ import annotations

from typing import Any


def verdict(content: dict[str, Any]) -> tuple[str, str]:
    """The line, and how it stands: `holds`, `fails` or `open`.

    The claim holds when the 95% interval of the difference in IQM, ours less the rival's in its
    best mode, includes 0 or lies above it; it fails when all of the interval lies below 0.

    Args:
        content: as `report_content` gives it.
    """
    compared = content["comparison"]
    if compared is None:
        best = max(content["aggregates"], key=lambda row: row["iqm"]["value"], default=None)
        if best is None:
            return "Not decided: no task is finished by every agent." + _unfinished(content), "open"
        line = f"No claim to decide; the highest IQM is {best['contender']}'s, "
        return f"{line}{best['iqm']['value']:.1f}." + _unfinished(content), "open"
    [row] = [row for row in compared["against"] if row["rival"] == compared["best"]]
    difference = row["iqm_difference"]
    numbers = (
        f"IQM {compared['ours_iqm']:.1f} against {row['rival_iqm']:.1f}, "
        f"difference {difference['value']:+.1f}"
    )
    ours, rival = compared["ours"], f"{compared['best']}, its rival's best mode"
    if difference["low"] is None:
        line = f"Not decided: one seed has no interval. {ours} against {rival}: {numbers}."
        return line + _unfinished(content), "open"
    interval = f"95% interval {difference['low']:+.1f} to {difference['high']:+.1f}"
    if difference["high"] < 0:
        line = f"{ours} is NOT at least equal to {rival}: {numbers}, {interval}, all below 0."
        return line + _unfinished(content), "fails"
    better = difference["low"] > 0
    where = "all above 0: better" if better else "which includes 0: no difference seen"
    line = f"{ours} is at least equal to {rival}: {numbers}, {interval}, {where}."
    return line + _unfinished(content), "holds"


def _unfinished(content: dict[str, Any]) -> str:
    missing, asked = len(content["runs"]["missing"]), content["runs"]["asked"]
    return f" UNFINISHED: {missing} of {asked} runs are missing." if missing else ""
