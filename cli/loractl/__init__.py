"""The command ``loractl``: the SDK for people and scripts at a terminal."""
