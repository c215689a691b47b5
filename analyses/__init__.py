"""One file a figure: ``cell(cfg)`` computes a record, ``render(table, store, cfg)`` draws it."""
