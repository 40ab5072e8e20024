"""The registry as seen from a client: one protocol, two doors, and the transfer of blobs."""
