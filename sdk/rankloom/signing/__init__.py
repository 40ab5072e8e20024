"""Signatures of versions in the format of OpenSSF model signing (OMS).

``bundle`` reads what a signature claims, ``signers`` are those who are trusted, and ``openssf``
signs and verifies by the format's own library, which is imported nowhere else.
"""
