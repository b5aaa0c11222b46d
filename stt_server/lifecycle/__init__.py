"""The life of a service process: start, ready, reload, drain, exit."""
