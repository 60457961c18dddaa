"""Vehicle identification numbers: 17 characters, ISO 3779 and 49 CFR 565.15.

Rules: the alphabet has no I, O, Q; position 9 is the check digit (which GB 16735 asks for too); the maker codes are
made up, so no VIN here is a real car's.
"""

from __future__ import annotations

import hashlib

ALPHABET = "0123456789ABCDEFGHJKLMNPRSTUVWXYZ"
LENGTH = 17
CHECK = 8
_VALUES = {
    character: int(value)
    for character, value in zip("0123456789ABCDEFGHJKLMNPRSTUVWXYZ", "012345678912345678123457923456789", strict=True)
}
_WEIGHTS = (8, 7, 6, 5, 4, 3, 2, 10, 0, 9, 8, 7, 6, 5, 4, 3, 2)


def check_digit(vin: str) -> str:
    """Return the check digit that belongs at position 9 of `vin`, whatever stands there (49 CFR 565.15(c)).

    >>> check_digit("1M8GDM9AXKP042788")
    'X'
    """
    total = sum(_VALUES[character] * weight for character, weight in zip(vin, _WEIGHTS, strict=True))
    return "0123456789X"[total % 11]


def is_valid(vin: str) -> bool:
    """Return whether `vin` has the right length, alphabet and check digit."""
    return len(vin) == LENGTH and set(vin) <= set(ALPHABET) and vin[CHECK] == check_digit(vin)


def made_up_vin(wmi: str, model_years: str, serial: int) -> str:
    """Return the VIN of the fleet's vehicle number `serial`, below a million; the same number gives the same VIN."""
    drawn = hashlib.sha256(f"{wmi}|{serial}".encode()).digest()
    descriptor = "".join(ALPHABET[byte % len(ALPHABET)] for byte in drawn[:5])
    year, plant = model_years[drawn[5] % len(model_years)], ALPHABET[10 + drawn[6] % 23]
    bare = f"{wmi}{descriptor}0{year}{plant}{serial:06d}"
    return bare[:CHECK] + check_digit(bare) + bare[CHECK + 1 :]
