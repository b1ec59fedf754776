"""Blob stores: SQLite for one machine, PostgreSQL for production.

base: contract of a store
address: store of an address
inspection: state of a store, without a change
postgres_inspection: the same of one in PostgreSQL
budgets: accounts of budgets beyond one run
streams: texts of models as they come
sqlite: blobs in one SQLite file
sqlite_budgets: accounts in SQLite
sqlite_results: kept results in it
sqlite_streams: texts as they come, in it
postgres: blobs in PostgreSQL
postgres_budgets: accounts in PostgreSQL
postgres_results: kept results in it
postgres_streams: texts as they come, in it
"""
