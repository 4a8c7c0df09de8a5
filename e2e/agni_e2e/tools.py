"""kubectl and helm against one cluster, with their answers as text or objects."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from agni_e2e.errors import PlatformError
from agni_e2e.waiting import until

TIMEOUT_S = 300.0
CRDS_TIMEOUT_S = 60.0
REPLACED_TIMEOUT_S = 60.0


class Tools:
    """The two command lines, bound to a kubeconfig.

    Args:
        kubeconfig: Whose cluster, and as whom.
        kubectl: The program.
        helm: The program.
        home: A folder for their caches, so that nothing is left in the user's.
    """

    def __init__(self, kubeconfig: Path, *, kubectl: str, helm: str, home: Path) -> None:
        self.kubeconfig = kubeconfig
        self._kubectl = kubectl
        self._helm = helm
        self._home = home

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """What kubectl prints.

        Raises:
            PlatformError: It failed; the text is what it said.
        """
        return self._run((self._kubectl, *arguments), stdin)

    def get(self, *arguments: str) -> dict[str, Any]:
        """`kubectl get ... -o json`, parsed."""
        answer: dict[str, Any] = json.loads(self.kubectl("get", *arguments, "-o", "json"))
        return answer

    def helm(self, *arguments: str, stdin: str | None = None) -> str:
        """What helm prints; `PlatformError` as with kubectl."""
        return self._run((self._helm, *arguments), stdin)

    def wait_for_crds(self, *names: str) -> None:
        """Returns when the API server serves these kinds.

        `kubectl wait` fails where there are no conditions yet at all.
        """

        def are_served() -> bool:
            for name in names:
                status = self.get("crd", name).get("status") or {}
                found = {c["type"]: c["status"] for c in status.get("conditions") or ()}
                if found.get("Established") != "True":
                    return False
            return True

        until(f"{', '.join(names)} are served", are_served, timeout_s=CRDS_TIMEOUT_S)

    def replace(self, kind: str, name: str, namespace: str) -> None:
        """Deletes what somebody makes anew under its name, and returns when that is there.

        kubectl's own wait goes by the name: it doesn't end if the successor is there when it
        begins.
        """
        space = ("-n", namespace, "--ignore-not-found")

        def uid() -> str:
            return self.kubectl("get", kind, name, *space, "-o", "jsonpath={.metadata.uid}")

        old = uid()
        self.kubectl("delete", kind, name, "-n", namespace, "--wait=false")
        until(
            f"{kind} {name} is made anew",
            lambda: uid() not in ("", old),
            timeout_s=REPLACED_TIMEOUT_S,
        )

    def environment(self) -> dict[str, str]:
        """For programs that find a cluster by KUBECONFIG."""
        folders = {
            f"HELM_{name}_HOME": str(self._home / "helm" / name.lower())
            for name in ("CACHE", "CONFIG", "DATA")
        }
        return os.environ | folders | {"KUBECONFIG": str(self.kubeconfig), "HOME": str(self._home)}

    def _run(self, command: tuple[str, ...], stdin: str | None) -> str:
        done = subprocess.run(
            command,
            env=self.environment(),
            input=stdin if stdin is not None else "",
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        if done.returncode != 0:
            words = " ".join((Path(command[0]).name, *command[1:]))
            raise PlatformError(f"{words}: exit {done.returncode}: {done.stderr.strip()}")
        return done.stdout
