"""The registry's service: versions, aliases and bases over a database and a blob store.

The same functions have two doors: :mod:`rankloom_server.service` in this process, and
:mod:`rankloom_server.app` over HTTP.
"""
