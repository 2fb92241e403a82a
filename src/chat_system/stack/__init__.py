"""The stack house: many processes on MySQL, Redis and Elasticsearch."""
