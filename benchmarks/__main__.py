import argparse

from benchmarks import crew, delivery, isolation, nodes, reviews, waiting

PARTS = {
    "delivery": delivery.report,
    "waiting": waiting.report,
    "isolation": isolation.report,
    "crew": crew.report,
    "reviews": reviews.report,
    "nodes": nodes.report,
}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Prints figures as ratios of one run."
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)} (default: all)")
    for part in parser.parse_args().parts or PARTS:
        PARTS[part]()
