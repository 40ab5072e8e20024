"""The HTTP interface: each route reads its request and calls one method of the service."""
