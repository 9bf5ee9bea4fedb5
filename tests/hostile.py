"""HDF5 files that want the library to read something else, or more than there is.

Each maker puts a dataset `name` into an open file; `secret` is the file that it leads to.
"""

import os

import h5py
import numpy as np


def external_storage(file, name, secret):
    file.create_dataset(name, (4,), "u1", external=[(str(secret), 0, 4)])


def external_link(file, name, secret):
    file[name] = h5py.ExternalLink(str(secret), "/x")


def soft_link(file, name, secret):
    file["elsewhere"] = np.arange(4)
    file[name] = h5py.SoftLink("/elsewhere")


def link_through_a_link(file, name, secret):
    file["elsewhere"] = h5py.ExternalLink(str(secret), "/x")
    file[name] = h5py.SoftLink("/elsewhere")


def virtual(file, name, secret):
    layout = h5py.VirtualLayout((4,), "i8")
    layout[:] = h5py.VirtualSource(str(secret), "x", (4,))
    file.create_virtual_dataset(name, layout)


def group(file, name, secret):
    file.create_group(name)


def variable_strings(file, name, secret):
    file[name] = ["a", "b"]


def references(file, name, secret):
    file["elsewhere"] = np.arange(4)
    file[name] = np.array([file["elsewhere"].ref], dtype=h5py.ref_dtype)


def compressed(file, name, secret):
    file.create_dataset(name, data=np.zeros(1000), compression="gzip")


def larger_than_the_file(file, name, secret):
    file.create_dataset(name, (10**12,), "f4")  # never written: no storage


MAKERS = (
    external_storage,
    external_link,
    soft_link,
    link_through_a_link,
    virtual,
    group,
    variable_strings,
    references,
    compressed,
    larger_than_the_file,
)
#: Those that make h5py alone open the secret.
REACHES_OUT = (external_storage, external_link, link_through_a_link, virtual)


class Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def put(path, name, make, secret):
    """Replace a dataset of an HDF5 file by what a maker makes; the secret exists afterwards."""
    with h5py.File(secret, "w") as file:
        file["x"] = np.arange(4)
    with h5py.File(path, "a") as file:
        if name in file:
            del file[name]
        make(file, name, secret)
