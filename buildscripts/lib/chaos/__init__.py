"""Random faults under load, with a ledger of every request."""
