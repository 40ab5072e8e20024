"""Trusted publishing: a job of CI shows who it is, and gets a token for a quarter of an hour.

``issuer`` says who may vouch for jobs and reads what their tokens say; ``keys`` fetches their
public keys; ``exchange`` makes one token out of another. Whom a namespace trusts is in
``rankloom_server.publishers``. The protocol is that of PyPI: ask for the audience, then exchange.
"""
