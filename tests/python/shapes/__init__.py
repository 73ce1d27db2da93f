"""The shapes of providers' APIs, one module each, for shape_server.py.

Each says whether a request is authentic and what it asks, and how an answer, a stream and an error
look. Where a provider publishes the types of its requests, requests are checked against those.
"""
