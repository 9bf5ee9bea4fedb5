"""The commands, one file each: parse, one call, print."""
