"""Findings in SARIF 2.1.0, which code hosts and editors show at the file."""

from __future__ import annotations

from collections.abc import Sequence

from vlmpass.ir_tools.targets import Support
from vlmpass.ir_tools.targets.findings import Finding
from vlmpass.ir_tools.targets.lint import Remark
from vlmpass.suits import Suits

__all__ = ["sarif"]

_LEVELS = {Support.UNSUPPORTED: "error", Support.WRONG: "error", Support.UNKNOWN: "note"}


def sarif(
    path: str, finding: str | None, found: Sequence[Suits], remarks: Sequence[Remark]
) -> object:
    """Return a log with one run.

    Args:
        path: Of the model.
        finding: Why the model is not valid, if it is not.
        found: What targets make of it.
        remarks: What is odd about it.
    """
    results = [] if finding is None else [_result("invalid-model", "error", finding, path, ())]
    for each in found:
        target = each.assessment.target
        results += [_of_target(target, one, path) for one in each.assessment.findings]
        if not each.ok and not each.assessment.findings:
            text = f"{target}: {each.reason}; {each.remedy}"
            results.append(_result(f"{target}/load", "error", text, path, ()))
    for one in remarks:
        text = "; ".join(filter(None, (one.reason, one.remedy)))
        results.append(_result(f"lint/{one.kind}", "warning", text, path, one.nodes))
    rules = sorted({str(each["ruleId"]) for each in results})
    driver = {"name": "vlmpass", "rules": [{"id": each} for each in rules]}
    run = {"tool": {"driver": driver}, "results": results}
    schema = "https://json.schemastore.org/sarif-2.1.0.json"
    return {"$schema": schema, "version": "2.1.0", "runs": [run]}


def _of_target(target: str, found: Finding, path: str) -> dict[str, object]:
    operator = found.operator if found.since is None else f"{found.operator}-{found.since}"
    text = f"{target}: {operator or 'the model'}: {found.reason}; remedy: {found.remedy}"
    rule = f"{target}/{found.operator or 'model'}"
    places = [": ".join(filter(None, (scope, name))) for name, scope in found.nodes]
    return _result(rule, _LEVELS[found.support], text, path, places)


def _result(rule: str, level: str, text: str, path: str, nodes: Sequence[str]) -> dict[str, object]:
    location: dict[str, object] = {"physicalLocation": {"artifactLocation": {"uri": path}}}
    if nodes:
        location["logicalLocations"] = [{"fullyQualifiedName": each} for each in nodes]
    return {"ruleId": rule, "level": level, "message": {"text": text}, "locations": [location]}
