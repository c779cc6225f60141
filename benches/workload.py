"""W1: 20 images of 3 platforms of 5 layers of about 8 MiB of random bytes, about 1.8 GB.

Two of the five layers of each platform are a base, which three images share. Layers are gzip streams of stored blocks
around a tar with one file of random bytes: true layers, which no tool can make smaller or take for something else. The
same seed makes the same bytes everywhere.
"""

import hashlib
import io
import json
import random
import tarfile
import zlib

IMAGES, LAYERS, BASE_LAYERS, SHARED_BY = 20, 5, 2, 3
PLATFORMS = [("amd64", None), ("arm64", "v8"), ("s390x", None)]
LAYER_BYTES = 8 * 1024 * 1024
SPREAD = 0.15  # layers are larger or smaller by up to this
TAG = "1.0"

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


def name(image):
    return f"w1/app-{image:02}"


def digest(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def descriptor(media_type, data, **more):
    return {"mediaType": media_type, "digest": digest(data), "size": len(data), **more}


def document(value):
    return json.dumps(value, separators=(",", ":"), sort_keys=True).encode()


def layer(key):
    """The layer of that key, and the digest of its tar."""
    source = random.Random(key)
    content = source.randbytes(int(LAYER_BYTES * source.uniform(1 - SPREAD, 1 + SPREAD)))
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        entry = tarfile.TarInfo("content")
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    stored = zlib.compressobj(level=0, wbits=31)
    return stored.compress(tar.getvalue()) + stored.flush(), digest(tar.getvalue())


def layer_keys(image, platform):
    base = [f"base-{image // SHARED_BY}-{platform}-{at}" for at in range(BASE_LAYERS)]
    return base + [f"own-{image}-{platform}-{at}" for at in range(LAYERS - BASE_LAYERS)]


def push(put_blob, put_manifest):
    """Makes all images and hands them over: `put_blob(repository, data)`, `put_manifest(repository, reference, type, data)`."""
    made = {}
    for image in range(IMAGES):
        repository, children = name(image), []
        for architecture, variant in PLATFORMS:
            layers, diffs = [], []
            for key in layer_keys(image, architecture):
                data = None
                if key not in made:
                    data, diff = layer(key)
                    made[key] = (descriptor(LAYER, data), diff)
                put_blob(repository, made[key][0]["digest"], data)
                layers.append(made[key][0])
                diffs.append(made[key][1])
            platform = {"architecture": architecture, "os": "linux", **({"variant": variant} if variant else {})}
            config = document({**platform, "config": {"Env": [f"IMAGE={image}"]}, "rootfs": {"type": "layers", "diff_ids": diffs}})
            put_blob(repository, digest(config), config)
            manifest = document(
                {"schemaVersion": 2, "mediaType": MANIFEST, "config": descriptor(CONFIG, config), "layers": layers}
            )
            put_manifest(repository, digest(manifest), MANIFEST, manifest)
            children.append(descriptor(MANIFEST, manifest, platform=platform))
        index = document({"schemaVersion": 2, "mediaType": INDEX, "manifests": children})
        put_manifest(repository, TAG, INDEX, index)
    return sum(found["size"] for found, _ in made.values())


def spec(host):
    """A mirror spec that takes all of it."""
    entries = "".join(f"  - source: {host}/{name(image)}\n    tags: {{exact: [\"{TAG}\"]}}\n" for image in range(IMAGES))
    platforms = ", ".join(f"linux/{a}" + (f"/{v}" if v else "") for a, v in PLATFORMS)
    return (
        f"apiVersion: sealift/v1\nkind: MirrorSpec\nname: w1\ndefaults:\n  platforms: [{platforms}]\nimages:\n{entries}"
    )
