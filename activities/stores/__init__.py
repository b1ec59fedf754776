"""Blob stores: SQLite for one machine, PostgreSQL for production.

base: contract of a store
address: store of an address
sqlite: blobs in one SQLite file
sqlite_results: kept results in it
postgres: blobs in PostgreSQL
postgres_results: kept results in it
"""
