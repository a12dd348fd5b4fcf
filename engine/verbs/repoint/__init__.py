"""`repoint`: old ids, slugs and names of a migration are found in source code and configuration, and replaced.

table (old -> new), maps (a map in a file), text (bytes <-> text), search (whole tokens), tree (which files), rewriting
(all of it over a tree), sarif. May import what the verbs may; only `maps`, `tree` and `rewriting` touch files.
"""
