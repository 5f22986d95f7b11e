"""One JSON line per measurement: the form bench/compare.sh reads."""

import json
import resource
import statistics


def report(what, peer, times, images, **details):
    """`times` in seconds of runs that each handled `images` images; throughput is that of the median run."""
    median = statistics.median(times)
    print(
        json.dumps(
            {
                "what": what,
                "peer": peer,
                **details,
                "images_per_s": round(images / median, 3),
                "best_images_per_s": round(images / min(times), 3),
                "median_ms": round(1e3 * median, 3),
                "runs": len(times),
                "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
            }
        ),
        flush=True,
    )
