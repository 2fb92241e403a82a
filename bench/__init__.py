"""The benchmark: every scenario beside its limit, measured in the same run.

A figure alone says as much about the machine as about the server. So each scenario runs in turn with a
limit, the least that the same machine can do for the same bytes (a bare ASGI app, raw sqlite3, raw
sockets), round after round, and the ratio is what counts. `python -m bench` prints one table and appends
the run to history.ndjson.

    measure.py       the words: sample, contestant, row, goal; the rounds and their statistics
    workbench.py     what scenarios share: sizes, folder, corpus, filled databases, the client's process
    houses.py        how a server of ours is started and filled
    stack.py         the stack house taken apart: its servers, places on them, API processes and workers
    processes.py     child processes and what the kernel says about them
    api.py           the few API calls that prepare a scenario and verify it afterwards
    corpus.py        the messages that are posted and imported
    load.py          the load client: closed loop over keep-alive connections
    live_load.py     the live client: one poster, many readers of one stream
    sustained_load.py  as many messages as a whole system takes without its backlog growing
    lag_load.py      probes: post a message, search until it is found
    projections.py   the stack house's projections alone; limits: raw inserts and raw bulk requests
    bare.py          limit: an ASGI app that does nothing but answer
    raw_sqlite.py    limit: executemany and commit
    raw_sockets.py   limit: the same bytes written to every socket
    scenarios/       one module for each subject; the list is in scenarios/__init__.py
    report.py        the table
    history.py       the record: machine, commit, figures

Not promised: absolute figures that hold on another machine, or on this one while it does something else.
"""
