"""Templates of thin image names: `output_format`, filled in from the image a wish names."""

import re

from ducc.errors import BadInput
from ducc.image.reference import MalformedReference, Reference

_VARIABLE = re.compile(r"\$\((?P<name>[^()]*)\)")
_SAMPLE = Reference.parse("https://registry.example.org/sample/image:tag")
VARIABLES = ("scheme", "registry", "repository", "digest", "tag", "reference", "image")


class MalformedTemplate(BadInput):
    """An `output_format` that does not make image names."""


def check_template(template: str) -> None:
    """Refuse what could not name an image: unknown variables, no registry, paths such as `..` or `.flat`."""
    for match in _VARIABLE.finditer(template):
        if match["name"] not in VARIABLES:
            known = ", ".join(f"$({name})" for name in VARIABLES)
            raise MalformedTemplate(f"output_format: {ascii(match[0])[1:-1]} is none of {known}")
    fill_template(template, _SAMPLE)


def fill_template(template: str, reference: Reference) -> Reference:
    """The name that *reference* is given by *template*."""
    values = {
        "scheme": reference.scheme,
        "registry": reference.registry,
        "repository": reference.repository,
        "digest": str(reference.digest or ""),
        "tag": reference.tag or "",
        "reference": reference.suffix,
        "image": reference.repository + reference.suffix,
    }
    text = _VARIABLE.sub(lambda match: values.get(match["name"], match[0]), template)
    if not {":", "@"}.intersection(text.rpartition("/")[2]):
        raise MalformedTemplate("output_format names no tag, so all tags would get one name: add $(reference)")
    try:
        return Reference.parse(text)
    except MalformedReference as error:
        raise MalformedTemplate(f"output_format does not make an image name of {reference}: {error}") from error
