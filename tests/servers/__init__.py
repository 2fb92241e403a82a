"""Real MariaDB, Redis, Redis Cluster and Elasticsearch for the tests: processes of our own on free ports of 127.0.0.1.

process         what all servers share: start, kill, stop, freeze, thaw, restart; none outlives who started it
mariadb redis elasticsearch
                one module per server
shared          one set for the whole run (or the servers that CHAT_TEST_*_URL name), and what is missing for it
keeper          the process that runs that set
storage         a database, a key prefix and an index of one's own on a set of servers
fetch_elasticsearch
                gets Elasticsearch, which Debian has no package of: python3 -m tests.servers.fetch_elasticsearch

Servers that run on the machine already are never touched, but for those that CHAT_TEST_*_URL name.
"""
