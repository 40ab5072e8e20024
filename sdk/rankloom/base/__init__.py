"""A base model as a value: its config, its headers, its identity, and where its tensors lie."""
