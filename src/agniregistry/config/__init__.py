"""Value objects that say how patient and how stubborn a client is."""

from agniregistry.config._policy import DEFAULT_TARGET, RetryPolicy, Timeout

__all__ = ["DEFAULT_TARGET", "RetryPolicy", "Timeout"]
