"""A publisher that is killed at any moment, also twice in a row, costs nothing but time.

SIGKILL hits the command at a hundred random moments, spread over what it takes when nobody disturbs it. The repository
is whole all the time, the next run finishes, and what it publishes is what an undisturbed run publishes.
"""

import random
import shutil
import signal
import time
from itertools import count

import pytest

from tests.end_to_end.published import copied, repository
from tests.needs import need_root

SEED = 20240229
IN_A_ROW = 2
INITS = 16
PART_OF_DURATION = 1.02  # the last moments of a run, too


class Undisturbed:
    """A new repository as it was before, how long the conversion takes, and what it makes."""

    def __init__(self, directory, wishes):
        self.directory, self.wishes, self.numbers = directory, wishes, count()
        with repository(directory / "empty") as self.empty:
            pass
        self.seconds = min(self.convert() for _ in range(3))  # whatever else the machine did meanwhile

    def convert(self):
        with self.copy() as made:
            started = time.monotonic()
            made.convert(*self.wishes)
            seconds = time.monotonic() - started
            self.trees = made.trees()
        return seconds

    def copy(self):
        return copied(self.empty, self.directory / str(next(self.numbers)))


@pytest.mark.parametrize(
    ("names", "kills"),
    [(("small", "small-docker", "small-mixed", "small-index"), 92), (("small", "base"), 8)],
    ids=["small", "base"],
)
def test_a_killed_conversion_is_finished_by_the_next(names, kills, images, tmp_path):
    need_root()
    undisturbed = Undisturbed(tmp_path, [images(name).wish for name in names])
    dice = random.Random(SEED)
    print(f"seed {SEED}, {undisturbed.seconds:.2f} s undisturbed")
    killed = 0
    while killed < kills:
        with undisturbed.copy() as made:
            for _ in range(IN_A_ROW):
                moment = dice.uniform(0, PART_OF_DURATION * undisturbed.seconds)
                died = kill("convert", made.wishlist(*undisturbed.wishes), *made.publisher, made=made, after=moment)
                print(f"{moment:.3f} s: {'killed' if died else 'too late'}, revision {made.revision}")
                killed += died
            made.check()
            finish(made, undisturbed)


def test_a_killed_init_leaves_a_whole_repository_or_none(tmp_path):
    dice = random.Random(SEED)
    with repository(tmp_path / "undisturbed", init=False) as made:
        started = time.monotonic()
        made.init()
        seconds = time.monotonic() - started
    print(f"seed {SEED}, {seconds:.2f} s undisturbed")
    for number in range(INITS):
        with repository(tmp_path / str(number), init=False) as made:
            moment = dice.uniform(0, PART_OF_DURATION * seconds)
            kill("init", made.fqrn, *made.where, "--keys", made.keys, made=made, after=moment)
            complete = (made.root / ".cvmfspublished").exists()
            print(f"{moment:.3f} s: {'complete' if complete else 'incomplete'}")
            if not complete:
                begin_again(made)
            assert "no problems found" in made.check()
            made.convert()  # killed between its last commit and the end of its session, it leaves an empty one
            assert made.staged() == []


def begin_again(made):
    """What a killed attempt left is not overwritten: what is in the way is named, for its owner to remove."""
    again = made.ducc("init", made.fqrn, *made.where, "--keys", made.keys, status=None)
    if again.status != 0:
        assert (again.status, len(again.stderr.splitlines())) == (2, 1), again.stderr
        assert any(str(name) in again.stderr for name in made.keys.iterdir()) or ".cvmfs" in again.stderr
        shutil.rmtree(made.keys)
        shutil.rmtree(made.root)
        made.init()


def kill(*words, made, after):
    """Start a command and kill it *after* seconds; was it still at work?"""
    process = made.ducc.start(*words)
    time.sleep(after)
    process.kill()
    return process.wait() == -signal.SIGKILL


def finish(made, undisturbed):
    before = made.revision
    report = made.convert(*undisturbed.wishes)
    assert (before, report["revision"]) in {(1, 2), (2, None)}
    assert made.trees() == undisturbed.trees
    assert made.staged() == []
    assert "no problems found" in made.check()
