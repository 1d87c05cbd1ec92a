"""The servers of a test, as its scripts see them: where they are, and what can be asked of them."""

import json
import sys

AT = json.loads(sys.argv[1])


def ask(*words, readline=sys.stdin.readline):
    """Has the test do something to its servers, and waits until it is done."""
    print("@" + " ".join(words), flush=True)
    if readline() != "done\n":
        sys.exit("the servers did not " + " ".join(words))
