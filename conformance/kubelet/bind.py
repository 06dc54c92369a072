"""bind.py: in the scheduler's place, binds each pod that has no node to the one node, until it is killed."""

import json
import ssl
import time
import urllib.request

SERVER = "https://10.96.0.1"
HEADERS = {"Authorization": "Bearer administrator", "Content-Type": "application/json"}
# The server signed its certificate itself, and is in this network namespace.
CONTEXT = ssl._create_unverified_context()


def ask(path, body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(SERVER + path, data=data, headers=HEADERS)
    with urllib.request.urlopen(request, context=CONTEXT) as answer:
        return json.load(answer)


while True:
    try:
        for pod in ask("/api/v1/pods?fieldSelector=spec.nodeName%3D")["items"]:
            meta = pod["metadata"]
            ask(f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}/binding", {
                "apiVersion": "v1", "kind": "Binding", "metadata": {"name": meta["name"]},
                "target": {"kind": "Node", "name": "node"},
            })
    except OSError as why:
        print(why, flush=True)
    time.sleep(0.5)
