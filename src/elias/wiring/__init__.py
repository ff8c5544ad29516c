"""The one place that knows services and adapters both: a module a room, functions from Config to a service."""
