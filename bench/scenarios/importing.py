"""`chat-system import` of a file into a new database, from the start of the process to its end.

Beside sqlite3 inserting the same rows in large transactions, with no process to start and no file to read.
"""

from __future__ import annotations

import shutil
from contextlib import ExitStack

from bench.measure import Contestant, Row, Sample, Stage
from bench.raw_sqlite import ROWS_PER_IMPORT_TRANSACTION, Import, run_import
from bench.workbench import APPLICATION, Workbench

CHATS = 5


def set_up(bench: Workbench, _stack: ExitStack) -> Stage:
    """The import and its limit, over the same file."""
    messages = bench.sizes.imported
    file = bench.import_file([(f"imported {number}", messages // CHATS) for number in range(CHATS)])

    def measure_ours(_seconds: float) -> Sample:
        storage = bench.new_storage()
        imported = bench.house.fill(storage, file, APPLICATION)
        shutil.rmtree(storage)
        return {"messages_per_s": messages / imported.seconds, "peak_mib": imported.peak_mib}

    def measure_raw(_seconds: float) -> Sample:
        return bench.in_client(run_import, Import(bench.folder, file))

    raw = f"sqlite3, {ROWS_PER_IMPORT_TRANSACTION:,} rows a commit"
    return Stage(
        contestants=[
            Contestant("import", measure_ours, warm_up=False),
            Contestant(raw, measure_raw, warm_up=False),
        ],
        rows=[Row(f"import of {messages:,} messages", "import", "messages_per_s", "msg/s", raw, raw)],
    )
