"""Where blobs are kept: one interface, a folder or an S3 bucket behind it."""
