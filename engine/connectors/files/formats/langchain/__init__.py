"""Prompts of LangChain as JSON: what they are (dialect.py), how they are read and written, and the format. May import
what the folder above may.
"""
