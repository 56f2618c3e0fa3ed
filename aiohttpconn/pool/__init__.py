"""The pool: makes, assigns, keeps and closes connections. Imported on first use."""
