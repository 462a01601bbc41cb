"""The kernel registry of the ONNX Runtime that is installed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["Kernels"]

_OPEN = 2**31 - 1
"""The end of a range that has none."""

_CPU = "CPUExecutionProvider"


@dataclass(frozen=True)
class Kernels:
    """The kernels of a provider.

    Attributes:
        ranges: First and last since-version, and the types of type parameters, by domain and name.
        versions: The since-versions that the runtime itself knows, by domain and name.
    """

    ranges: Mapping[tuple[str, str], list[tuple[int, int, Mapping[str, list[str]]]]]
    versions: Mapping[tuple[str, str], list[int]]

    @classmethod
    def installed(cls) -> Kernels:
        """Return those of the installed wheel's CPU.

        Raises:
            ImportError: There is none.
        """
        from onnxruntime.capi import (  # type: ignore[import-untyped,import-not-found,unused-ignore]
            onnxruntime_pybind11_state as native,
        )

        found: dict[tuple[str, str], list[tuple[int, int, Mapping[str, list[str]]]]]
        found, versions = defaultdict(list), defaultdict[tuple[str, str], list[int]](list)
        for each in native.get_all_opkernel_def():
            if each.provider == _CPU:
                first, last = each.version_range
                found[each.domain, each.op_name].append((first, last, each.type_constraints))
        for each in native.get_all_operator_schema():
            versions[each.domain, each.name].append(each.since_version)
        return cls(dict(found), {key: sorted(each) for key, each in versions.items()})

    def at(self, domain: str, name: str, opset: int) -> list[Mapping[str, list[str]]]:
        """Return the types of every kernel at an opset of the operator's domain.

        A range without an end is for its first since-version alone; the since-version is the
        runtime's own, which may not know a later one of onnx.

        Args:
            domain: Empty for the default one.
            name: The operator.
            opset: Version of the domain.
        """
        known = [each for each in self.versions.get((domain, name), []) if each <= opset]
        since = known[-1] if known else 1
        return [
            types
            for first, last, types in self.ranges.get((domain, name), [])
            if first <= since <= (first if last == _OPEN else last)
        ]
