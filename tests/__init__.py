"""The test suites. tests/conftest.py tells how they get a server to talk to."""
