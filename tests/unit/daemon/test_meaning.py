"""Which images a wish may stand for."""

import pytest

from ducc.daemon.meaning import may_mean
from ducc.image.reference import Reference

DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("wish", "image", "expected"),
    [
        ("https://r.example/a:1", "https://r.example/a:1", True),
        ("https://r.example/a:1", "http://r.example/a:1", True),  # one public path
        ("https://r.example/a:*", "https://r.example/a:1", True),
        ("https://r.example/a:1.*", "https://r.example/a:1.2", True),
        ("https://r.example/a:1.*", "https://r.example/a:2", False),
        ("https://r.example/a:*", "https://r.example/b:1", False),
        ("https://r.example/a:*", "https://s.example/a:1", False),
        ("https://r.example/a:*", f"https://r.example/a@{DIGEST}", False),
        (f"https://r.example/a@{DIGEST}", f"https://r.example/a@{DIGEST}", True),
        (f"https://r.example/a@{DIGEST}", "https://r.example/a:1", False),
    ],
)
def test_table(wish, image, expected):
    assert may_mean(Reference.parse(wish), Reference.parse(image)) is expected
