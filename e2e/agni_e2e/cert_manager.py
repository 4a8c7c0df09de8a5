"""cert-manager beside a cluster: its CRDs, and its controllers as one process."""

from __future__ import annotations

import re
from pathlib import Path

from agni_e2e.builder import Built, crds_of_cert_manager
from agni_e2e.processes import Processes
from agni_e2e.tools import Tools

NAMESPACE = "cert-manager"
NAMES = ("certificates", "certificaterequests", "issuers", "clusterissuers")


def plain(text: str) -> str:
    """A CRD of the chart's folder as the API server takes it: without the template's lines."""
    named = text.replace('{{ template "cert-manager.name" . }}', NAMESPACE)
    named = named.replace("{{ .Release.Name }}", NAMESPACE)
    return re.sub(r"^.*\{\{.*\n", "", named, flags=re.MULTILINE)


def start(processes: Processes, tools: Tools, built: Built, kubeconfig: Path) -> None:
    """Installs the CRDs and starts the controllers; returns when certificates can be asked for."""
    documents = "\n---\n".join(plain(path.read_text()) for path in crds_of_cert_manager(built))
    tools.kubectl("apply", "--server-side", "-f", "-", stdin=documents)
    tools.wait_for_crds(*(f"{name}.cert-manager.io" for name in NAMES))
    namespace = f'{{"apiVersion":"v1","kind":"Namespace","metadata":{{"name":"{NAMESPACE}"}}}}'
    tools.kubectl("apply", "-f", "-", stdin=namespace)
    processes.start("cert-manager", (built["cert-manager"], f"--kubeconfig={kubeconfig}"))
    processes.check("cert-manager")
