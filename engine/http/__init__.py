"""Requests to a registry: sent within a rate that is found, repeated where that is safe, their answers judged.

The one place for retries, waiting and aiohttp. May import errors, log, lossless JSON and the version; it knows no prompt.
"""
