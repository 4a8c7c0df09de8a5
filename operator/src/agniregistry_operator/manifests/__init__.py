"""The objects of a registry, as pure functions of what is wanted. No Kubernetes client here."""
