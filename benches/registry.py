"""A docker-registry (Debian's package, distribution 2.8) on a free loopback port, and how W1 gets into it."""

import http.client
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import workload


class Registry:
    """A running registry whose storage is `folder`, which stays."""

    def __init__(self, folder):
        if not shutil.which("docker-registry"):
            sys.exit("docker-registry is not installed (Debian: docker-registry)")
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.process = None

    def __enter__(self):
        config = self.folder / "config.yml"
        config.write_text(
            "version: 0.1\nlog: {level: info, accesslog: {disabled: true}}\n"
            f"storage:\n  filesystem: {{rootdirectory: \"{self.folder / 'storage'}\"}}\n"
            "  maintenance: {uploadpurging: {enabled: false}}\n"
            "http: {addr: 127.0.0.1:0, secret: of-no-importance}\n"
        )
        with open(self.folder / "log", "w") as log:
            self.process = subprocess.Popen(["docker-registry", "serve", config], stdout=log, stderr=log)
        for _ in range(500):
            found = re.search(r"listening on (127\.0\.0\.1:\d+)", (self.folder / "log").read_text())
            if found:
                self.host = found.group(1)
                return self
            if self.process.poll() is not None:
                break
            time.sleep(0.02)
        sys.exit(f"docker-registry did not start: see {self.folder / 'log'}")

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()

    def clear(self):
        """Removes everything that was pushed. The registry keeps nothing in memory."""
        shutil.rmtree(self.folder / "storage", ignore_errors=True)


class Pusher:
    """Puts blobs and manifests into a registry in plain HTTP."""

    def __init__(self, host):
        self.connection = http.client.HTTPConnection(host)
        self.repository_of = {}

    def ask(self, method, path, body=b"", headers=None, expected=201):
        self.connection.request(method, path, body=body, headers=headers or {})
        answer = self.connection.getresponse()
        text = answer.read()
        if answer.status != expected:
            sys.exit(f"{method} {path}: {answer.status} {text[:300]}")
        return answer

    def blob(self, repository, digest, data):
        if data is None:
            source = self.repository_of[digest]
            if source != repository:
                self.ask("POST", f"/v2/{repository}/blobs/uploads/?mount={digest}&from={source}")
            return
        begun = self.ask("POST", f"/v2/{repository}/blobs/uploads/", expected=202)
        place = re.sub(r"^https?://[^/]+", "", begun.getheader("Location"))
        self.ask("PUT", f"{place}&digest={digest}", data, {"Content-Type": "application/octet-stream"})
        self.repository_of[digest] = repository

    def manifest(self, repository, reference, media_type, data):
        self.ask("PUT", f"/v2/{repository}/manifests/{reference}", data, {"Content-Type": media_type})


def holding(folder, push):
    """A registry that holds what `push` puts into it, which is done the first time only."""
    folder = Path(folder)
    done = folder / "whole"
    if not done.exists():
        shutil.rmtree(folder, ignore_errors=True)
        with Registry(folder) as registry:
            pusher = Pusher(registry.host)
            pushed = push(pusher.blob, pusher.manifest)
        done.write_text(f"{pushed}\n")
        os.sync()
    return Registry(folder)


def with_w1(folder):
    """A registry that holds W1."""
    return holding(folder, workload.push)


class Far:
    """What is at `host`, over a line of that round trip."""

    def __init__(self, host, round_trip):
        self.command = [sys.executable, Path(__file__).with_name("latency.py"), host, str(round_trip)]

    def __enter__(self):
        self.process = subprocess.Popen(self.command, stdout=subprocess.PIPE, text=True)
        self.host = self.process.stdout.readline().strip()
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
