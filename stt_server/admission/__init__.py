"""Whether a request may come in: the gate, forecasts of service time and audio length, the upload budget."""
