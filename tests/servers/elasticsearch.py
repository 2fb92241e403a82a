"""Elasticsearch, one node in as little memory as it runs in.

It refuses to run as root. Root starts it as the user `nobody`, who must be able to read it.
"""

from __future__ import annotations

import json
import os
import shutil
import urllib.request
from pathlib import Path

from tests.servers.fetch_elasticsearch import elasticsearch_home
from tests.servers.process import NOBODY, Server, free_port

ANSWER_TIMEOUT_S = 5

# The templates and histories are of products that nobody here uses; making them is most of a first start.
CONFIGURATION = """
discovery.type: single-node
network.host: 127.0.0.1
http.port: {port}
transport.port: {transport_port}
path.data: {data}
path.logs: {logs}
xpack.security.enabled: false
ingest.geoip.downloader.enabled: false
cluster.routing.allocation.disk.threshold_enabled: false
stack.templates.enabled: false
indices.lifecycle.history_index_enabled: false
slm.history_index_enabled: false
"""

# One collector thread and the quick compiler alone: two cores are shared with everything that is tested.
JVM_OPTIONS = """
-Xms768m
-Xmx768m
-XX:+UseSerialGC
-XX:TieredStopAtLevel=1
-XX:+ExitOnOutOfMemoryError
-XX:-UsePerfData
-Djava.io.tmpdir=${ES_TMPDIR}
"""


def java_home() -> Path | None:
    """The machine's Java; None when there is none."""
    java = shutil.which("java")
    return Path(java).resolve().parents[1] if java else None


class ElasticsearchServer(Server):
    """One node, without security, with 768 MiB of heap."""

    name = "Elasticsearch"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.transport_port = free_port()

    @classmethod
    def is_installed(cls) -> bool:
        home = elasticsearch_home()
        return (home / "bin" / "elasticsearch").exists() and (java_home() is not None or (home / "jdk").exists())

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def prepare(self) -> None:
        configuration, logs, scratch = self.folder / "config", self.folder / "logs", self.folder / "tmp"
        shutil.copytree(elasticsearch_home() / "config", configuration)
        for folder in (self.data, logs, scratch):
            folder.mkdir()
        (configuration / "elasticsearch.yml").write_text(
            CONFIGURATION.format(port=self.port, transport_port=self.transport_port, data=self.data, logs=logs)
        )
        (configuration / "jvm.options").write_text(JVM_OPTIONS)
        if os.geteuid() == 0:
            for path in (self.folder, *self.folder.rglob("*")):
                os.chown(path, NOBODY, NOBODY)

    def command(self) -> list[str]:
        as_nobody = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
        return [*(as_nobody if os.geteuid() == 0 else []), str(elasticsearch_home() / "bin" / "elasticsearch")]

    def environment(self) -> dict[str, str]:
        own = {
            "ES_PATH_CONF": str(self.folder / "config"),
            "ES_TMPDIR": str(self.folder / "tmp"),
            "HOME": str(self.folder),
            # The launcher's, which waits beside the server.
            "CLI_JAVA_OPTS": "-Xmx64m -XX:+UseSerialGC -XX:TieredStopAtLevel=1",
        }
        if not (elasticsearch_home() / "jdk").exists():
            own["ES_JAVA_HOME"] = str(java_home())
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("ES_", "JAVA_"))}
        return inherited | own

    def version(self) -> str:
        """From its first page, once the node is the master of itself and so can make indices."""
        with urllib.request.urlopen(f"{self.url}/_cluster/health", timeout=ANSWER_TIMEOUT_S) as answer:
            if json.load(answer)["status"] == "red":
                raise ValueError("it has not found its shards yet")
        with urllib.request.urlopen(self.url, timeout=ANSWER_TIMEOUT_S) as answer:
            return str(json.load(answer)["version"]["number"])
