"""The report's first line: how the claim stands, by a rule that is fixed beforehand.

The rule is non-inferiority with the margin of the spec's claim, see
`aaren_rl.evaluation.noninferiority`.
"""

from __future__ import annotations

from typing import Any


def verdict(content: dict[str, Any]) -> tuple[str, str]:
    """The line, and its status: `better`, `not worse`, `worse`, `not decided` or `no verdict`.

    Args:
        content: as `report_content` gives it.
    """
    compared = content["comparison"]
    if compared is None:
        return _without_comparison(content) + _unfinished(content), "no verdict"
    [row] = [row for row in compared["against"] if row["rival"] == compared["best"]]
    margin = f"margin {compared['margin']:g} points"
    ours = compared["ours"]
    rival = f"{compared['best']}, its rival's best mode (chosen by its result)"
    statement = {
        "better": f"{ours} is better than {rival}",
        "not worse": f"{ours} is not worse ({margin}) than {rival}",
        "worse": f"{ours} is WORSE than {rival}",
        "not decided": f"Not decided ({margin}) whether {ours} is worse than {rival}",
        "no verdict": f"No verdict on {ours} against {rival}",
    }[row["status"]]
    tasks = len(content["common_tasks"])
    line = (
        f"{statement}: IQM {row['ours_iqm']:.1f} against {row['rival_iqm']:.1f}, "
        f"difference {bounded(row['iqm_difference'])}, paired over {row['seeds']} "
        f"seed{'' if row['seeds'] == 1 else 's'} of {tasks} task{'' if tasks == 1 else 's'}; "
        f"{row['reason']}."
    )
    return line + _unfinished(content), row["status"]


def bounded(value: dict[str, Any], style: str = "+.1f") -> str:
    """An estimate in words: `+1.3, 95% interval -2.0 to +4.1`, or with `range`.

    Args:
        value: an `Estimate` as plain values.
        style: of its numbers.
    """
    text = format(value["value"], style)
    if value["bounds"] is None:
        return text
    low, high = format(value["low"], style), format(value["high"], style)
    return f"{text}, {value['bounds']} {low} to {high}"


def _without_comparison(content: dict[str, Any]) -> str:
    """Why there is no comparison, and the highest IQM when there is any."""
    if content["claimed"]:
        return (
            "No verdict: the claim's two sides have no task with normalised scores and no seed "
            "in common that is finished on all of them."
        )
    best = max(content["aggregates"], key=lambda row: row["iqm"]["value"], default=None)
    if best is None:
        return "No verdict: no task with normalised scores is finished by every agent."
    return (
        f"No claim to decide; the highest IQM is {best['contender']}'s, {best['iqm']['value']:.1f}."
    )


def _unfinished(content: dict[str, Any]) -> str:
    missing, asked = len(content["runs"]["missing"]), content["runs"]["asked"]
    return f" UNFINISHED: {missing} of {asked} runs are missing." if missing else ""
