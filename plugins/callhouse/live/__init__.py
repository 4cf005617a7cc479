"""The live lane: collectors that land what a source writes within seconds, and its state."""
