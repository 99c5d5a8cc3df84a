"""`ducc convert-single-image IMAGE FQRN`: grant one wish that stands in no wishlist."""

import argparse

from ducc.cli.convert import add_conversion_options, convert
from ducc.image.reference import Reference
from ducc.wishlist.parse import Wish, Wishlist


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("image", metavar="IMAGE", help="[scheme://]registry/name:tag, or @sha256:digest")
    parser.add_argument("fqrn", metavar="FQRN", help="the repository that is to hold it")
    add_conversion_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Exit status: 0 granted, 2 the image can't be named so, 3 failed."""
    reference = Reference.parse(arguments.image)
    wish = Wish(reference, arguments.fqrn, user=None, output_format=None, file="(command line)", line=1)
    return convert([Wishlist("(command line)", arguments.fqrn, (wish,), ())], arguments)
