"""rankloom: version, validate, combine and apply LoRA adapters; exact, or refused.

The library has one door::

    from rankloom import sdk

    composition = sdk.compose(["zh-lang", "qa-task"], weights=[1, 0.5])
    composition.apply_to("base_dir", "merged_dir")

Importing this package loads neither torch nor a server.
"""

__version__ = "0.1.0"
