"""Peak memory of a process."""

from pathlib import Path


def peak_kib(pid: int) -> int:
    """The kernel's high-water mark of a process's resident memory; 0 where it has just ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")), 0)
