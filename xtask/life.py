"""A VM's life, by the client that openapi-python-client makes of docs/openapi.json.

    life.py URL CERTIFICATE, with TRINE_TOKEN; `cargo xtask contract` runs it.
"""

import io
import json
import os
import ssl
import sys
import threading

from trine_client import AuthenticatedClient
from trine_client.api.disks import disks_get, disks_resize
from trine_client.api.images import images_delete, images_upload
from trine_client.api.operations import operations_get
from trine_client.api.snapshots import snapshots_create, snapshots_delete, snapshots_get, snapshots_revert
from trine_client.api.vms import vms_create, vms_delete, vms_get, vms_list, vms_patch, vms_stop
from trine_client.models.new_snapshot import NewSnapshot
from trine_client.models.new_vm_body import NewVmBody
from trine_client.models.problem import Problem
from trine_client.models.resize import Resize
from trine_client.models.vms_patch_body import VmsPatchBody
from trine_client.types import File

MIB = 1 << 20


def good(answer):
    """An answer that is no problem."""
    assert answer is not None and not isinstance(answer, Problem), answer
    return answer


def done(client, operation):
    """Waits until an operation is over, and well."""
    while operation.state.value == "running":
        operation = good(operations_get.sync(operation.id, client=client, wait_s=20))
    assert operation.state.value == "done", operation
    return operation


def watch(client, since, phases, is_gone):
    """Notes the phases of the VM as they are told, until it is gone."""
    http = client.get_httpx_client()
    with http.stream("GET", f"/v1/watch?from={since}", timeout=None) as answer:
        for line in answer.iter_lines():
            if not line.startswith("data: "):
                continue
            change = json.loads(line.removeprefix("data: "))
            if change["kind"] != "vm":
                continue
            if change["object"] is None:
                is_gone.set()
                return
            phases.append(change["object"]["status"]["phase"])


def main(url, certificate):
    context = ssl.create_default_context(cafile=certificate)
    client = AuthenticatedClient(base_url=url, token=os.environ["TRINE_TOKEN"], verify_ssl=context, timeout=90)
    image = File(payload=io.BytesIO(bytes(MIB)), file_name="disk")
    good(images_upload.sync(client=client, body=image, name="life"))
    since = good(vms_list.sync(client=client)).revision + 1
    phases, is_gone = [], threading.Event()
    threading.Thread(target=watch, args=(client, since, phases, is_gone), daemon=True).start()

    spec = {"image": "life", "memory_bytes": 64 * MIB, "network": "none", "display": "none"}
    created = good(vms_create.sync(client=client, body=NewVmBody.from_dict({"name": "life", "spec": spec})))
    done(client, created.operation)
    assert good(vms_get.sync("life", client=client)).status.phase.value == "running"

    larger = VmsPatchBody.from_dict({"spec": {"cpus": 2, "memory_bytes": 96 * MIB}})
    assert good(vms_patch.sync("life", client=client, body=larger)).spec.cpus == 2
    done(client, good(disks_resize.sync("life", client=client, body=Resize(size_bytes=2 * MIB))))
    assert good(disks_get.sync("life", client=client)).status.size_bytes == 2 * MIB

    snapshot = NewSnapshot.from_dict({"name": "before", "vm": "life"})
    done(client, good(snapshots_create.sync(client=client, body=snapshot)).operation)
    assert good(snapshots_get.sync("before", client=client)).status.phase.value == "ready"
    done(client, good(vms_stop.sync("life", client=client, force=True)))
    done(client, good(snapshots_revert.sync("before", client=client)))
    done(client, good(snapshots_delete.sync("before", client=client)))

    done(client, good(vms_delete.sync("life", client=client)))
    assert isinstance(vms_get.sync("life", client=client), Problem)
    assert is_gone.wait(30) and "running" in phases and "stopped" in phases, phases
    refused = images_delete.sync_detailed("life", client=client)
    assert refused.status_code == 204, refused
    print("created from an image, watched, resized, snapshotted, reverted and deleted")


main(sys.argv[1], sys.argv[2])
