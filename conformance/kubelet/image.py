"""image.py ROOT NAME OUT ENTRYPOINT USER: an archive, as `docker save` writes it, of one layer."""

import hashlib
import io
import json
import os
import sys
import tarfile


def owned_by_root(member):
    member.uid = member.gid = 0
    return member


root, name, out, entrypoint, user = sys.argv[1:6]
layer = out + ".layer"
with tarfile.open(layer, "w") as archive:
    archive.add(root, arcname=".", filter=owned_by_root)
with open(layer, "rb") as file:
    digest = hashlib.file_digest(file, "sha256").hexdigest()
config = json.dumps({
    "architecture": "amd64", "os": "linux",
    "config": {"Entrypoint": [entrypoint], "User": user},
    "rootfs": {"type": "layers", "diff_ids": ["sha256:" + digest]},
}).encode()
of_config = hashlib.sha256(config).hexdigest() + ".json"
of_layer = digest + "/layer.tar"
manifest = json.dumps([{"Config": of_config, "RepoTags": [name], "Layers": [of_layer]}]).encode()
with tarfile.open(out, "w") as archive:
    for path, content in ((of_config, config), ("manifest.json", manifest)):
        member = tarfile.TarInfo(path)
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    archive.add(layer, arcname=of_layer)
os.remove(layer)
