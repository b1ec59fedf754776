"""Blob stores: SQLite for one machine, PostgreSQL for production."""
