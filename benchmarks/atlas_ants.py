"""ANTsPy's template of some images, in a process of its own: what ``atlas_brains.py`` calls.

    .venv-peers/bin/python benchmarks/atlas_ants.py IMAGES OUT.nii.gz ITERATIONS

On one thread. Writes one line of JSON to OUT.nii.gz.json: seconds of the processor and on the wall,
and the version.
Imports of this project are not needed; ANTsPy is a separate program (Apache-2.0).
"""

import json
import os
import sys
import time
from pathlib import Path

os.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = "1"

import ants  # type: ignore[import-not-found]


def main() -> None:
    folder, out, iterations = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    images = [ants.image_read(str(path)) for path in sorted(folder.glob("*.nii.gz"))]
    wall, processor = time.perf_counter(), time.process_time()
    template = ants.build_template(image_list=images, iterations=iterations)
    spent = {
        "cpu_s": time.process_time() - processor,
        "wall_s": time.perf_counter() - wall,
        "version": ants.__version__,
        "images": len(images),
    }
    ants.image_write(template, out)
    Path(f"{out}.json").write_text(json.dumps(spent) + "\n")


if __name__ == "__main__":
    main()
