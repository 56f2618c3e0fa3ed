"""The pool: who gets which connection, made, kept and closed. Imported when it is first used."""
