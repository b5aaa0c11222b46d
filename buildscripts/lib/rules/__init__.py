"""Generator of the recording rules, alerts and analyses in deploy/: objectives and canary guardrails."""
