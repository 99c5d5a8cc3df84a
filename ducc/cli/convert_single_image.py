"""`ducc convert-single-image IMAGE FQRN`: grant one wish that stands in no wishlist."""

import argparse

from ducc.cli.convert import add_conversion_options, convert
from ducc.errors import BadInput
from ducc.image.manifest import Platform
from ducc.image.platform import normalised
from ducc.image.reference import Reference
from ducc.layout import UnnameablePlatform, build_name
from ducc.wishlist.settings import ALL_PLATFORMS, PRODUCTS, WishSettings
from ducc.wishlist.template import check_template
from ducc.wishlist.wish import Wish, Wishlist

EVERY_PLATFORM = "all"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("image", metavar="IMAGE", help="[scheme://]registry/name:tag, or @sha256:digest")
    parser.add_argument("fqrn", metavar="FQRN", help="the repository that is to hold it")
    parser.add_argument(
        "--platform", metavar="OS/ARCH[/VARIANT]", action="append", dest="platforms",
        help="publish the build for it (linux/amd64); may be repeated; all: every build there is",
    )  # fmt: skip
    parser.add_argument(
        "--product", choices=PRODUCTS, action="append", dest="products",
        help="publish the layers alone, or the flat image, which takes them, too (default)",
    )  # fmt: skip
    parser.add_argument(
        "--thin-image-name", metavar="NAME",
        help="push a thin image of that name; it may have the variables of a wishlist's output_format",
    )  # fmt: skip
    parser.add_argument("--credentials", metavar="NAME", help="those of that name in the file --registries")
    add_conversion_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Exit status: 0 granted, 2 the image or a platform can't be named so, 3 failed."""
    reference = Reference.parse(arguments.image)
    settings = WishSettings(
        platforms=_platforms(arguments.platforms),
        products=frozenset(arguments.products or PRODUCTS),
        credentials=arguments.credentials,
    )
    source = "(command line)"
    thin = arguments.thin_image_name or None
    if thin is not None:
        check_template(thin)
    wish = Wish(reference, arguments.fqrn, None, thin, source, line=1, settings=settings)
    return convert([Wishlist(source, arguments.fqrn, (wish,), ())], arguments)


def _platforms(texts: list[str] | None) -> tuple[Platform, ...] | None:
    if texts is None:
        return WishSettings().platforms
    if EVERY_PLATFORM in texts:
        return ALL_PLATFORMS
    return tuple(dict.fromkeys(map(_platform, texts)))


def _platform(text: str) -> Platform:
    platform = normalised(Platform.parse(text))
    try:
        build_name(platform)
    except UnnameablePlatform as error:
        raise BadInput(f"--platform {text}: {error}") from error
    return platform
