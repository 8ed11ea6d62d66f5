"""Writes the documents that are made from code: the bus as AsyncAPI, the public API as OpenAPI."""
