"""What a base answers with an adapter: whether it answers otherwise than alone, and as recorded."""
