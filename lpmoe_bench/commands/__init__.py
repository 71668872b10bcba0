"""The commands by topic: parse, call one function, print."""
