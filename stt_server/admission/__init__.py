"""Admission of requests: gate, forecasts of service time and audio length, upload budget."""
