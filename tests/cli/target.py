"""An application to import into and export from, without a process in between."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from chat_system.model import ApplicationId
from chat_system.system import ChatSystem
from chat_system.transfer.exporting import export
from chat_system.transfer.importing import Importer, Tally, application_named
from chat_system.transfer.source import open_source
from chat_system.wiring import House
from tests.cli.lines import Fields, read, written


class Target:
    """An application to import into."""

    def __init__(self, system: ChatSystem, application: ApplicationId, folder: Path) -> None:
        self.system = system
        self.application = application
        self.complaints: list[str] = []
        self._file = folder / "import.ndjson"

    @classmethod
    async def of(cls, house: House, folder: Path, name: str = "target") -> Target:
        """The one of that name."""
        application = await application_named(house.system, name)
        return cls(house.system, await house.system.open(application.token), folder)

    async def take(self, lines: list[Fields] | bytes, system: Any = None) -> Tally:
        """Import a file of these lines or bytes, through the system given."""
        self._file.write_bytes(lines if isinstance(lines, bytes) else written(lines))
        importer = Importer(system or self.system, self.application, self.complaints.append)
        with open_source(str(self._file)) as source:
            await importer.run(source)
        return importer.tally

    async def holds(self) -> list[Fields]:
        """All its messages, as an export has them."""
        path = self._file.with_name("export.ndjson")
        with path.open("wb") as file:
            await export(self.system, self.application, file)
        return read(path.read_bytes())
