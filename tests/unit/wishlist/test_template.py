import pytest

from ducc.image.reference import Reference
from ducc.wishlist.template import MalformedTemplate, check_template, fill_template

HEX = "a" * 64


@pytest.mark.parametrize(
    ("template", "image", "named"),
    [
        ("$(scheme)://thin.org/$(image)", "http://host:5/a/b:1", "http://thin.org/a/b:1"),
        ("thin.org/x/$(repository)_thin:$(tag)", "host.org/a/b:1", "https://thin.org/x/a/b_thin:1"),
        ("thin.org/$(repository)$(reference)", f"host.org/a:1@sha256:{HEX}", f"https://thin.org/a:1@sha256:{HEX}"),
        ("thin.org/a@$(digest)", f"host.org/a@sha256:{HEX}", f"https://thin.org/a@sha256:{HEX}"),
        ("$(registry)/thin/$(image)", "host:5000/a:1", "https://host:5000/thin/a:1"),
        ("thin.org/$(image)", "host.org/a:1.*", "https://thin.org/a:1.*"),
    ],
)
def test_a_template_names_the_thin_image(template, image, named):
    assert str(fill_template(template, Reference.parse(image))) == named


@pytest.mark.parametrize(
    "template",
    [
        "",
        "/$(image)",
        "../$(image)",
        "thin.org/../$(image)",
        ".flat/$(image)",
        "thin.org/.layers/$(image)",
        "thin.org/$(Image)",
        "thin.org/$(image)$(x)",
        "thin.org/$()",
        "thin.org/$(repository)",
        "user:pass@thin.org/$(image)",
        "thin.org/$(image",
    ],
)
def test_a_template_that_could_leave_its_place_is_refused(template):
    with pytest.raises(MalformedTemplate, match="output_format"):
        check_template(template)
