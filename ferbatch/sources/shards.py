"""The share of a listing that one of several runs labels: by the paths alone, so that a new file moves no other."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ferbatch.sources.aside import OTHER_SHARE, TAKEN, Reason
from ferbatch.sources.listing import Listing
from ferbatch.sources.walk import Tell


@dataclass(frozen=True, slots=True)
class Share:
    """Some images of a listing, and where they stand in it."""

    listing: Listing  # of these images alone
    at: NDArray[np.int64]  # (N,) each one's index in the whole listing
    total: int  # images of the whole listing
    digest: str  # of all its paths in order: where two are the same, the same images were listed


def share(listing: Listing, number: int, of: int) -> Share:
    """The `number`-th (from 1) of so many shares: an image belongs to the one that a hash of its path names."""
    whole, own = hashlib.blake2b(digest_size=16), []
    for index, file in enumerate(listing.files()):
        key = _key(file)
        whole.update(key)
        if int.from_bytes(key) % of == number - 1:
            own.append(index)
    at = np.array(own, np.int64)
    return Share(listing.where(at), at, len(listing), whole.hexdigest())


def telling(tell: Tell, number: int, of: int) -> Tell:
    """Tells the same, but of the images of other shares that they are that."""

    def told(path: bytes, reason: Reason) -> None:
        own = reason != TAKEN or int.from_bytes(_key(path)) % of == number - 1
        tell(path, reason if own else OTHER_SHARE)

    return told


def _key(file: bytes) -> bytes:
    return hashlib.blake2b(file, digest_size=8).digest()
