"""Tables of records: what may stand side by side, and how it is printed."""
