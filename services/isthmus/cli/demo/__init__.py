"""The demo: two zones train one model, what must fail is tried, and the ledgers and the wire are checked."""
