"""Pulled versions on this machine; any process of this user may use them at the same time.

::

    blobs/sha256/ab/ab12…        bytes under their digest; .part-… beside them are not complete
    versions/sha256-ab12…/       the folder of a version: links to its blobs, and its manifest
    resolved/…                   what registries said that names mean, and when
    holders/…                    what each process that is alive uses, which nothing removes

Nothing here is trusted: what is handed out was hashed just before. All of it may be removed by
hand; then it is fetched again.
"""
