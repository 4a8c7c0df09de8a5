"""What Prometheus sees of the operator."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest


class Metrics:
    """All metrics, in a registry of their own."""

    def __init__(self) -> None:
        self.collected = CollectorRegistry()
        registry = ("namespace", "name")
        of = {"registry": self.collected}
        self.leads = Gauge("agni_operator_leads", "1 while this operator acts.", **of)
        self.reconciles = Counter(
            "agni_operator_reconciles", "Looks at registries, by how they ended.", ("result",), **of
        )
        self.seconds = Histogram(
            "agni_operator_reconcile_seconds", "Time of one look with its actions.",
            buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30), **of,
        )  # fmt: skip
        self.actions = Counter(
            "agni_operator_actions", "Actions, by kind and how they ended.", ("kind", "result"), **of
        )
        self.writes = Gauge("agni_operator_api_writes", "Writes to the API server so far.", **of)
        self.age = Gauge(
            "agni_operator_oldest_reconcile_seconds",
            "Time since the registry that waits longest was last looked at to the end.", **of,
        )  # fmt: skip
        self.nodes = Gauge("agni_operator_nodes", "Nodes that are wanted.", registry, **of)
        self.ready = Gauge("agni_operator_nodes_ready", "Nodes that are ready.", registry, **of)
        self.condition = Gauge(
            "agni_operator_condition", "1 where a condition of a registry holds, 0 where it "
            "doesn't, -1 where it is unknown.", (*registry, "type"), **of,
        )  # fmt: skip
        self.certificate = Gauge(
            "agni_operator_certificate_expiry_seconds",
            "When the first of a registry's certificates ends, since 1970.", registry, **of,
        )  # fmt: skip

    def forget(self, namespace: str, name: str) -> None:
        """A registry is gone."""
        for gauge in (self.nodes, self.ready, self.certificate):
            gauge.remove_by_labels({"namespace": namespace, "name": name})
        self.condition.remove_by_labels({"namespace": namespace, "name": name})

    def text(self) -> bytes:
        """Everything, as Prometheus reads it."""
        return generate_latest(self.collected)
