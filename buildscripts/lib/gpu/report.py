"""The report of `buildscripts/gpu`, as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from buildscripts.lib.bench.report import Accuracy
from buildscripts.lib.gpu.batches import BatchCost, knee, request_mib
from buildscripts.lib.gpu.checks import ComputeType, Recovery


@dataclass
class ModelReport:
    """Everything about one model; what there was no time for is missing."""

    name: str
    compute_types: list[ComputeType] = field(default_factory=list)
    batches: list[BatchCost] = field(default_factory=list)
    adaptive: Accuracy | None = None
    full: Accuracy | None = None
    recovery: Recovery | None = None

    @property
    def failed(self) -> list[str]:
        """Checks that failed, one line each."""
        found = [f"{self.name}: compute type {one.name}: {one.error}" for one in self.compute_types if one.error]
        if self.recovery is not None and not self.recovery.passed:
            outcome = "recovered" if self.recovery.recovered else "did not recover"
            found.append(
                f"{self.name}: out of memory: failure {self.recovery.failure}, expected out_of_memory; {outcome}"
            )
        return found

    @property
    def skipped(self) -> list[str]:
        """Parts that there was no time for."""
        parts = {"batches": self.batches, "texts": self.full, "out of memory": self.recovery}
        return [f"{self.name}: {part}" for part, found in parts.items() if not found]


def report(head: Sequence[str], models: Sequence[ModelReport]) -> str:
    """The whole report.

    Args:
        head: lines about the command and the machine.
    """
    lines = ["```", *head, "```", ""]
    for model in models:
        lines += [f"#### {model.name}", "", *_compute_types(model), *_batches(model), *_texts(model), *_recovery(model)]
    failed = [line for model in models for line in model.failed]
    skipped = [line for model in models for line in model.skipped]
    lines += [f"- failed: {line}" for line in failed] + [f"- no time for: {line}" for line in skipped]
    if not failed and not skipped:
        lines.append("All checks passed.")
    return "\n".join(lines)


def _mib(value: float | None) -> str:
    return "not readable" if value is None else f"{value:.0f}"


def _percent(found: Accuracy | None) -> str:
    return "" if found is None or found.rate is None else f"{found.rate:.1%}"


def _compute_types(model: ModelReport) -> list[str]:
    lines = ["| compute type | loads in s | MiB | word error rate |", "|---|---|---|---|"]
    for one in model.compute_types:
        cells = (
            f"{one.load_s:.1f} | {_mib(one.mib)} | {_percent(one.accuracy)}"
            if not one.error
            else f"failed: {one.error} | |"
        )
        lines.append(f"| {one.name} | {cells} |")
    return [*lines, ""]


def _batches(model: ModelReport) -> list[str]:
    if not model.batches:
        return []
    kinds = {kind: [cost for cost in model.batches if cost.window == kind] for kind in ("adaptive", "full")}
    lines = [
        "| batch | " + " | ".join(f"{kind}: s | audio s / s | peak MiB" for kind in kinds) + " | adaptive / full |"
    ]
    lines.append("|" + "---|" * (2 + 3 * len(kinds)))
    for size in sorted({cost.size for cost in model.batches}):
        row = {kind: next((cost for cost in costs if cost.size == size), None) for kind, costs in kinds.items()}
        cells = [f"{c.seconds:.3f} | {c.throughput:.0f} | {_mib(c.peak_mib)}" if c else " | | " for c in row.values()]
        short, whole = row["adaptive"], row["full"]
        ratio = f"{short.throughput / whole.throughput:.2f}" if short and whole else ""
        lines.append(f"| {size} | " + " | ".join(cells) + f" | {ratio} |")
    lines.append("")
    for kind, costs in kinds.items():
        lines.append(f"- {kind}: knee at a batch of {knee(costs)}; each further request {_mib(request_mib(costs))} MiB")
    return [*lines, ""]


def _texts(model: ModelReport) -> list[str]:
    if model.full is None:
        return []
    return [f"- word error rate: adaptive {_percent(model.adaptive)}, full {_percent(model.full)}", ""]


def _recovery(model: ModelReport) -> list[str]:
    if model.recovery is None:
        return []
    after = "the next batch gave the same text" if model.recovery.recovered else "the next batch failed or differed"
    return [f"- without free memory: failure `{model.recovery.failure}`; afterwards {after}", ""]
