"""Questions about a zone's tables: read from SQL at headquarters (`gate`), counted in the zone (`partials`).

Nothing is loaded with the package: sqlglot comes with the gate, duckdb and pyarrow with the counting.
"""
