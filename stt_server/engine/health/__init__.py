"""Health of the model: failure classification, watchdog, and the decision that the model is lost."""
