"""Many small images: what is asked for counts, and not what is moved.

TAGS: 10 repositories of 1,000 tags, each of an image of its own with the same config and layer.
SMALL: 200 repositories of one image with two layers of 4 KiB of their own.
"""

import random

import workload
from workload import CONFIG, LAYER, MANIFEST, descriptor, digest, document

TAG_REPOSITORIES, TAGS = 10, 1_000
SMALL, SMALL_LAYERS, SMALL_LAYER_BYTES = 200, 2, 4096


def tags_name(repository):
    return f"tags/app-{repository}"


def small_name(image):
    return f"small/app-{image:03}"


def put_image(put_blob, put_manifest, repository, tag, seed, annotations, layers):
    """An image for linux/amd64 whose layers are random bytes."""
    source = random.Random(seed)
    contents = [source.randbytes(SMALL_LAYER_BYTES) for _ in range(layers)]
    config = document(
        {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [digest(c) for c in contents]}}
    )
    manifest = document({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptor(CONFIG, config),
        "layers": [descriptor(LAYER, content) for content in contents],
        "annotations": annotations,
    })
    for content in [config, *contents] if put_blob else []:
        put_blob(repository, digest(content), content)
    put_manifest(repository, tag, MANIFEST, manifest)


def push_tags(put_blob, put_manifest):
    for repository in range(TAG_REPOSITORIES):
        name = tags_name(repository)
        for tag in range(TAGS):
            put_image(put_blob if tag == 0 else None, put_manifest, name, f"{tag}.0", name, {"tag": f"{repository} {tag}"}, 1)
    return TAG_REPOSITORIES * TAGS


def push_small(put_blob, put_manifest):
    for image in range(SMALL):
        name = small_name(image)
        put_image(put_blob, put_manifest, name, workload.TAG, name, {"image": name}, SMALL_LAYERS)
    return SMALL


def spec(stream, host, names, tags):
    """A mirror spec of these repositories. Signatures were never made, and are not asked for again."""
    entries = "".join(f"  - source: {host}/{name}\n    tags: {tags}\n" for name in names)
    return (
        f"apiVersion: sealift/v1\nkind: MirrorSpec\nname: {stream}\ndefaults:\n  platforms: [linux/amd64]\n"
        f"images:\n{entries}"
    )
