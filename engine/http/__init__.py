"""Requests to a registry: sent within a rate that is found, repeated where that is safe, their answers judged.

The one place for retries and aiohttp; it knows no prompt. May import errors, log, lossless JSON and the version.
"""
