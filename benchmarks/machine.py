"""What results say of the machine that they were measured on."""

import re
from pathlib import Path


def cpu_name(threads: int = 1) -> str:
    """Model and family of the processor, and how many of its threads were used; Linux."""
    info = Path("/proc/cpuinfo").read_text()
    facts = dict(re.findall(r"^(model name|cpu family)\s*: (.*)$", info, re.MULTILINE))
    used = f"{threads} thread{'s' if threads > 1 else ''}"
    return f"{facts.get('model name')} family {facts.get('cpu family')}, {used}"
