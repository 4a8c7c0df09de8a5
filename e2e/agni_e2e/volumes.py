"""Volumes on demand: what a CSI driver's provisioner and resizer do, for folders or for nothing.

The scheduler chooses a machine for a claim and writes its name on it; then this makes a volume
there (in the full tier a real folder of that machine). It grows volumes where the class allows it,
and removes those that nobody keeps.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from agni_e2e.api import Api, Object
from agni_e2e.errors import ApiError, PlatformError

PROVISIONER = "e2e.agnistack.online/local"
STORAGE_CLASS = "local"
SELECTED_NODE = "volume.kubernetes.io/selected-node"
PROVISIONED_BY = "pv.kubernetes.io/provisioned-by"
CLAIMS = "/api/v1/persistentvolumeclaims"
VOLUMES = "/api/v1/persistentvolumes"
RETRY_S = 0.5
CLOSE_TIMEOUT_S = 10.0


def storage_class(name: str, *, is_default: bool, can_grow: bool) -> Object:
    """A class whose volumes are made here, once a pod has been given a machine."""
    default = {"storageclass.kubernetes.io/is-default-class": "true"} if is_default else {}
    return {
        "metadata": {"name": name, "annotations": default},
        "provisioner": PROVISIONER,
        "volumeBindingMode": "WaitForFirstConsumer",
        "allowVolumeExpansion": can_grow,
        "reclaimPolicy": "Delete",
    }


def volume_for(claim: Object, folder: Path) -> Object:
    """A volume for a claim, tied to the claim's machine."""
    meta = claim["metadata"]
    hostname = {
        "key": "kubernetes.io/hostname",
        "operator": "In",
        "values": [meta["annotations"][SELECTED_NODE]],
    }
    return {
        "metadata": {
            "name": f"pvc-{meta['uid']}",
            "annotations": {PROVISIONED_BY: PROVISIONER},
        },
        "spec": {
            "capacity": {"storage": claim["spec"]["resources"]["requests"]["storage"]},
            "accessModes": claim["spec"]["accessModes"],
            "storageClassName": claim["spec"]["storageClassName"],
            "persistentVolumeReclaimPolicy": "Delete",
            "local": {"path": str(folder)},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [hostname]}]}},
            "claimRef": {
                "kind": "PersistentVolumeClaim",
                "apiVersion": "v1",
                **{key: meta[key] for key in ("name", "namespace", "uid")},
            },
        },
    }


class Volumes:
    """Makes, grows and removes volumes until it is closed.

    Args:
        api: The API server, as an administrator.
        folders: Each machine's folder for volumes, by its name; empty where machines are fake.
    """

    def __init__(self, api: Api, folders: Mapping[str, Path]) -> None:
        self.errors: list[str] = []
        self._api = api
        self._folders = folders
        self._closed = threading.Event()
        self._threads = [
            threading.Thread(target=self._guard, args=body, name="volumes", daemon=True)
            for body in ((CLAIMS, self._serve_claim), (VOLUMES, self._serve_volume))
        ]

    def start(self) -> None:
        """Makes the storage classes (`local`, the default one, and `fixed`, which can't grow)."""
        path = "/apis/storage.k8s.io/v1/storageclasses"
        self._api.create(path, storage_class(STORAGE_CLASS, is_default=True, can_grow=True))
        self._api.create(path, storage_class("fixed", is_default=False, can_grow=False))
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Ends the threads, and with them the use of the API client."""
        self._closed.set()
        self._api.interrupt()
        for thread in self._threads:
            if thread.is_alive():
                thread.join(CLOSE_TIMEOUT_S)
        self._api.close()

    def folder(self, machine: str, uid: str) -> Path:
        """Where a claim's data is."""
        return self._folders.get(machine, Path("/var/lib/e2e-nowhere")) / uid

    def _guard(self, path: str, serve: Callable[[Object], None]) -> None:
        """Lists and watches a kind; a refused write is tried again from the list."""
        while not self._closed.is_set():
            try:
                listed = self._api.get(path)
                for item in listed["items"]:
                    serve(item)
                for event in self._api.watch(path, listed["metadata"]["resourceVersion"]):
                    if event["type"] != "DELETED":
                        serve(event["object"])
            except PlatformError as error:
                if not self._closed.wait(RETRY_S):
                    self.errors.append(str(error))

    def _serve_claim(self, claim: Object) -> None:
        """Makes or grows a claim's volume, if that is ours to do."""
        meta, spec, status = claim["metadata"], claim["spec"], claim.get("status", {})
        machine = meta.get("annotations", {}).get(SELECTED_NODE)
        name = spec.get("volumeName")
        if not name:
            if machine and status.get("phase") == "Pending" and self._is_ours(spec):
                self._provision(claim, machine)
            return
        asked = spec["resources"]["requests"]["storage"]
        if status.get("phase") == "Bound" and asked != status["capacity"]["storage"]:
            self._grow(claim, asked)

    def _is_ours(self, spec: Object) -> bool:
        name = spec.get("storageClassName")
        found = self._api.find(f"/apis/storage.k8s.io/v1/storageclasses/{name}")
        return found is not None and found["provisioner"] == PROVISIONER

    def _provision(self, claim: Object, machine: str) -> None:
        folder = self.folder(machine, claim["metadata"]["uid"])
        if machine in self._folders:
            folder.mkdir(parents=True, exist_ok=True)
        try:
            self._api.create(VOLUMES, volume_for(claim, folder))
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise

    def _grow(self, claim: Object, asked: str) -> None:
        """As an external resizer does: first the volume, then what the claim says of it."""
        volume = self._api.find(f"{VOLUMES}/{claim['spec']['volumeName']}")
        if volume is None or not is_ours(volume):
            return
        size = {"capacity": {"storage": asked}}
        self._api.patch(f"{VOLUMES}/{volume['metadata']['name']}", {"spec": size})
        meta = claim["metadata"]
        path = f"/api/v1/namespaces/{meta['namespace']}/persistentvolumeclaims/{meta['name']}"
        self._api.patch(f"{path}/status", {"status": {**size, "conditions": None}})

    def _serve_volume(self, volume: Object) -> None:
        """Removes a released volume that nobody keeps, and its data."""
        is_free = volume.get("status", {}).get("phase") == "Released"
        is_kept = volume["spec"]["persistentVolumeReclaimPolicy"] != "Delete"
        if not is_free or is_kept or not is_ours(volume):
            return
        folder = Path(volume["spec"]["local"]["path"])
        if any(folder.is_relative_to(root) for root in self._folders.values()):
            shutil.rmtree(folder, ignore_errors=True)
        try:
            self._api.delete(f"{VOLUMES}/{volume['metadata']['name']}")
        except ApiError as error:
            if error.reason != "NotFound":
                raise


def is_ours(volume: Object) -> bool:
    """Whether this made the volume."""
    annotations = volume["metadata"].get("annotations", {})
    return bool(annotations.get(PROVISIONED_BY) == PROVISIONER)
