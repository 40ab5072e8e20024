"""A live model: changed in place while others run it, and given back with the bits it had."""
