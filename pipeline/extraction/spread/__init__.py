"""One extraction on many processes and hosts: plans on disk, shares, processes, Dask."""
