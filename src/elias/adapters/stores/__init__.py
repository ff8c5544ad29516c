"""Where nouns are kept: SQLite on one machine, PostgreSQL for several, the same code over both."""
