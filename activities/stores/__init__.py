"""Blob stores: SQLite for one machine, PostgreSQL for production.

base: contract of a store
address: store of an address
sqlite: blobs in one SQLite file
postgres: blobs in PostgreSQL
"""
