"""The wire: generated messages, one package a version. Only `agniregistry.client` uses them."""
