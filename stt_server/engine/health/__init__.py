"""Whether the model still works: watchdog, classification of failures, health by outcomes."""
