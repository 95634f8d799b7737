"""What lies in a folder."""

from pathlib import Path


def contents(folder: Path) -> dict[str, bytes]:
    """Path in the folder → bytes, of every file; also of what a killed process might have left behind."""
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
