"""LoRA files of other tools, read from their headers alone."""
