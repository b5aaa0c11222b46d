"""The canary's guardrails as Prometheus rules and as an Argo Rollouts AnalysisTemplate."""

from __future__ import annotations

from typing import Any

from buildscripts.lib.rules.guardrails import GUARDRAILS, Timing, judged

BASELINE, CANARY = 'track="baseline"', 'track="canary"'
"""The label by which the rules tell them apart; docs/rollout.md has the scrape configuration that sets it."""
EXCESS = "stt:canary_excess:ratio"


def groups() -> list[dict[str, Any]]:
    """Rule groups of deploy/prometheus/canary.yml."""
    timing = Timing()
    recorded = [
        {
            "record": EXCESS,
            "labels": {"guardrail": guardrail.name},
            "expr": judged(guardrail, BASELINE, CANARY, timing),
        }
        for guardrail in GUARDRAILS
    ]
    alert = {
        "alert": "SttCanaryExceedsGuardrail",
        "expr": f"{EXCESS} > 1",
        "labels": {"severity": "critical"},
        "annotations": {
            "summary": "The canary exceeds the limit of its {{ $labels.guardrail }} "
            "by a factor of {{ $value | humanize }}",
            "action": "Stop the rollout and put the weight back to the baseline. docs/rollout.md",
        },
    }
    return [{"name": "stt-canary", "interval": "30s", "rules": [*recorded, alert]}]


def analysis_template() -> dict[str, Any]:
    """AnalysisTemplate of deploy/argo/analysis-template.yaml: fails as soon as one guardrail is exceeded."""
    baseline, canary = "{{args.baseline}}", "{{args.canary}}"
    metrics = [
        {
            "name": guardrail.name.replace(" ", "-"),
            "interval": "1m",
            "count": 20,
            "failureLimit": 0,
            # No value: too few requests so far.
            "successCondition": "len(result) == 0 || result[0] <= 1",
            "provider": {
                "prometheus": {
                    "address": "{{args.prometheus}}",
                    "query": judged(guardrail, baseline, canary, Timing()),
                }
            },
        }
        for guardrail in GUARDRAILS
    ]
    arguments = [
        {"name": "prometheus", "value": "http://prometheus.monitoring:9090"},
        {"name": "baseline", "value": BASELINE},
        {"name": "canary", "value": CANARY},
    ]
    return {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "AnalysisTemplate",
        "metadata": {"name": "stt-canary"},
        "spec": {"args": arguments, "metrics": metrics},
    }
