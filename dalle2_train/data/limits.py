"""How large the parts of a sample may be. What is larger is damage or an attack, and is not read."""

TEXT_BYTES = 1 << 20
"""A caption, or a json record."""
MEMBER_BYTES = 1 << 26
"""Any other member."""
SAMPLE_BYTES = 1 << 27
"""All members of a sample with their headers."""
NAME_CHARACTERS = 1024
"""A member's name, its folders included."""
HEADER_BYTES = 1 << 20
"""What a tar says of one member."""
MAX_PIXELS = 50_000_000
"""A 17 kB PNG can claim 400 MB of pixels; a progressive CMYK JPEG takes 12 bytes for each."""


def of_member(extension: str) -> int:
    """Bytes that a member with this extension may have."""
    return TEXT_BYTES if extension in ("txt", "json") else MEMBER_BYTES
