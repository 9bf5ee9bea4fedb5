"""The cache on disk: shards, tables, and the only users of h5py. Imports no torch."""
