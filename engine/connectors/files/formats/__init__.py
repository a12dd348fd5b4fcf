"""The formats of files that others read: a module or two for each, and their table in `table.py`. May import what the
folder above may.
"""
