"""What Prometheus sees of the operator."""

from __future__ import annotations

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)

disable_created_metrics()  # type: ignore[no-untyped-call]


class Metrics:
    """All metrics, in a registry of their own."""

    def __init__(self) -> None:
        self.collected = CollectorRegistry()
        self.leads = self._gauge("leads", "1 while this operator acts.")
        self.reconciles = self._counter(
            "reconciles", "Looks at registries, by how they ended.", "result"
        )
        self.seconds = Histogram(
            "agni_operator_reconcile_seconds",
            "Time of one look with its actions.",
            buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
            registry=self.collected,
        )
        self.actions = self._counter(
            "actions", "Actions, by kind and how they ended.", "kind", "result"
        )
        self.writes = self._gauge(
            "api_writes", "Writes to the API server so far, but for the lease's."
        )
        self.age = self._gauge(
            "oldest_reconcile_seconds",
            "Time since the registry that waits longest was last looked at to the end.",
        )
        registry = ("namespace", "name")
        self.nodes = self._gauge(
            "nodes", "Nodes that are wanted; 0 while the registry hibernates.", *registry
        )
        self.ready = self._gauge("nodes_ready", "Nodes that are ready.", *registry)
        self.condition = self._gauge(
            "condition",
            "1 where a condition of a registry holds, 0 where it doesn't, -1 where it is unknown.",
            *registry,
            "type",
        )
        self.certificate = self._gauge(
            "certificate_expiry_seconds",
            "When the first of a registry's certificates ends, nodes' and clients', since 1970.",
            *registry,
        )

        self.due = self._gauge(
            "certificate_due_seconds",
            "When the first of a registry's certificates should have been renewed, since 1970.",
            *registry,
        )

    def _gauge(self, name: str, said: str, *labels: str) -> Gauge:
        return Gauge(f"agni_operator_{name}", said, labels, registry=self.collected)

    def _counter(self, name: str, said: str, *labels: str) -> Counter:
        return Counter(f"agni_operator_{name}", said, labels, registry=self.collected)

    def forget(self, namespace: str, name: str) -> None:
        """A registry is gone."""
        for gauge in (self.nodes, self.ready, self.certificate, self.due):
            gauge.remove_by_labels({"namespace": namespace, "name": name})
        self.condition.remove_by_labels({"namespace": namespace, "name": name})

    def text(self) -> bytes:
        """Everything, as Prometheus reads it."""
        return generate_latest(self.collected)
