import hashlib
import logging
import re
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from ducc.client.attachments import Node
from ducc.client.cache import Cache
from ducc.client.magic import Magic
from ducc.client.opening import MountSettings, open_repository
from ducc.client.repository import Repository
from ducc.cvmfs.objectname import Suffix
from ducc.storage.memory import MemoryStore
from tests import signing
from tests.memory import symlink
from tests.unit.client.publisher import Publisher

MANY = [b"%d" % number for number in range(2000)]


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[tuple[Repository, Magic]]:
    yield from opened(tmp_path)


def opened(directory: Path, **settings: object) -> Iterator[tuple[Repository, Magic]]:
    publisher = Publisher(MemoryStore())
    bound = publisher.bind({b"/in": publisher.file(b"in", b"12345")}, b"image")
    publisher.publish(
        {
            b"/file": publisher.file(b"file", b"content"),
            b"/big": publisher.chunked(b"big", *MANY),
            b"/link": symlink(b"link", b"$(ARCH)/x"),
            b"/d/e/x": publisher.file(b"x"),
            b"/d/image": bound,
        },
        nested=[b"/d", b"/d/e"],
    )
    yield from opened_from(publisher, directory, **settings)


def opened_from(publisher: Publisher, directory: Path, **settings: object) -> Iterator[tuple[Repository, Magic]]:
    keys, _ = signing.keys(signing.FQRN, 0)
    given = MountSettings(signing.FQRN, Path("/m"), publisher.store, [keys.master_public_key], directory, **settings)  # type: ignore[arg-type]
    repository, head = open_repository(given, Cache(directory), lambda: signing.NOW)
    yield repository, Magic(given, repository, head)
    repository.close()


def node(repository: Repository, path: bytes) -> Node:
    found = repository._node(path)
    assert found is not None
    return found


def get(mount: tuple[Repository, Magic], path: bytes, name: bytes) -> bytes | None:
    repository, magic = mount
    found = node(repository, path)
    return repository._wait(magic.value, found, name)


def waited_for(mount: tuple[Repository, Magic], path: bytes, name: bytes) -> bytes | None:
    repository, magic = mount
    ask = magic.waited_for(node(repository, path), name)
    return ask() if ask else None


def test_the_mount_is_described_at_every_file_and_directory(mount: tuple[Repository, Magic]) -> None:
    for path in (b"", b"/d", b"/file", b"/d/image/in"):
        assert get(mount, path, b"user.fqrn") == signing.FQRN.encode()
        assert get(mount, path, b"user.revision") == b"1"
        assert get(mount, path, b"user.root_hash") == mount[0].manifest.root_hash.hex().encode()
        assert get(mount, path, b"user.expires") == b"3"
        assert (get(mount, path, b"user.pubkeys") or b"").startswith(b"-----BEGIN PUBLIC KEY-----")
        assert get(mount, path, b"user.nothing") is None
        assert get(mount, path, b"trusted.fqrn") is None


def test_files_tell_of_their_objects_and_links_of_what_was_published(mount: tuple[Repository, Magic]) -> None:
    entry = mount[0].entry(b"/file")
    assert entry is not None
    assert entry.content is not None
    name = entry.content.hex().encode()
    assert get(mount, b"/file", b"user.hash") == name
    assert get(mount, b"/file", b"user.chunk_list") == b"hash,offset,size\n" + name + b",0,7\n"
    assert get(mount, b"/file", b"user.compression") == b"zlib"
    assert get(mount, b"/big", b"user.chunks") == b"2000"
    assert get(mount, b"/big", b"user.hash") is None
    assert get(mount, b"/d", b"user.chunks") is None
    assert get(mount, b"/link", b"xfsroot.rawlink") == b"$(ARCH)/x"
    assert get(mount, b"/file", b"xfsroot.rawlink") is None


def test_counters_are_those_of_the_catalog_that_holds_the_entry(mount: tuple[Repository, Magic]) -> None:
    for path, place, files in (  # each nested catalog has a marker file
        (b"", b"", 5),
        (b"/file", b"", 5),
        (b"/d", b"/d", 3),
        (b"/d/e", b"/d/e", 2),
        (b"/d/e/x", b"/d/e", 2),
        (b"/d/image", b"/d/image", 1),
        (b"/d/image/in", b"/d/image", 1),
    ):
        text = (get(mount, path, b"user.catalog_counters") or b"").splitlines()
        assert text[1] == b"catalog_mountpoint: " + place, path
        assert dict(line.split(b",") for line in text[2:])[b"regular"] == b"%d" % files, path
    counted = (get(mount, b"/d/e/x", b"user.repo_counters") or b"").splitlines()
    assert b"chunks,2000" in counted


def test_what_is_cached_is_hashed_as_the_stock_tools_would_compress_it(mount: tuple[Repository, Magic]) -> None:
    assert waited_for(mount, b"/file", b"user.lhash") == b"Not in cache"
    mount[0].read(b"/file")
    compressed = zlib.compress(b"content")
    assert waited_for(mount, b"/file", b"user.lhash") == hashlib.sha1(compressed).hexdigest().encode()
    assert waited_for(mount, b"/file", b"user.lhash~?") == b"num_pages, 1"
    for path in (b"", b"/big", b"/link"):
        assert waited_for(mount, path, b"user.lhash") is None


def test_the_description_of_the_repository_is_fetched_when_somebody_wants_it(tmp_path: Path) -> None:
    store = MemoryStore()
    publisher = Publisher(store)
    text = b'{"description": "images"}\n' * 3000
    for described, expected in ((False, b"no metainfo"), (True, text)):
        metainfo = publisher.put(text, Suffix.METAINFO) if described else None
        publisher.publish({b"/file": publisher.file(b"file", b"x")}, metainfo=metainfo)
        for mount in opened_from(publisher, tmp_path):
            pages = int((waited_for(mount, b"/file", b"user.repo_metainfo~?") or b"").split()[1])
            shown = [waited_for(mount, b"", b"user.repo_metainfo~%d" % page) or b"" for page in range(pages)]
            assert b"".join(shown) == expected
            assert waited_for(mount, b"", b"user.repo_metainfo") == shown[0]


def test_the_last_lines_of_the_log_are_told(mount: tuple[Repository, Magic]) -> None:
    log = logging.getLogger("a.log.of.its.own")
    log.propagate = False
    log.addHandler(mount[1].log)
    for number in range(200):
        log.warning("event %d", number)
    lines = (get(mount, b"", b"user.logbuffer") or b"").splitlines()
    assert len(lines) == 100
    assert re.fullmatch(rb"\[\d\d \w{3} \d{4} \d\d:\d\d:\d\d UTC\] event 199", lines[-1])


def test_input_output_errors_are_counted(mount: tuple[Repository, Magic]) -> None:
    assert (get(mount, b"", b"user.nioerr"), get(mount, b"", b"user.timestamp_last_ioerr")) == (b"0", b"0")
    mount[1].io_errors.add()
    assert get(mount, b"", b"user.nioerr") == b"1"
    assert abs(int(get(mount, b"", b"user.timestamp_last_ioerr") or 0) - time.time()) < 3600


def test_long_values_are_read_page_by_page(mount: tuple[Repository, Magic]) -> None:
    said = get(mount, b"/big", b"user.chunk_list~?") or b""
    label, number = said.split(b", ")
    assert (label, int(number) > 2) == (b"num_pages", True)
    pages = [get(mount, b"/big", b"user.chunk_list~%d" % page) or b"" for page in range(int(number))]
    assert all(0 < len(page) <= 65536 and page.endswith(b"\n") for page in pages)
    assert len(b"".join(pages).splitlines()) == 1 + len(MANY)
    assert get(mount, b"/big", b"user.chunk_list") == pages[0]
    comment, _, rest = (get(mount, b"/big", b"user.chunk_list@1") or b"").partition(b"\n")
    assert comment.startswith(b"#")
    assert rest == pages[1]
    for none in (b"~%d" % len(pages), b"@%d" % len(pages), b"~x", b"~-1", b"~", b"@?", b"~1~1", b"~" + b"9" * 30):
        assert get(mount, b"/big", b"user.chunk_list" + none) is None, none


@pytest.mark.parametrize(
    ("listed", "root", "file", "link"),
    [("rootonly", True, False, False), ("always", True, True, True), ("never", False, False, False)],
)
def test_they_are_listed_where_it_is_wanted(listed: str, root: bool, file: bool, link: bool, tmp_path: Path) -> None:
    for repository, magic in opened(tmp_path, attributes_listed=listed):
        names = [magic.names(node(repository, path)) for path in (b"", b"/file", b"/link")]
        assert [b"user.fqrn" in one for one in names] == [root, file, False]
        assert (b"user.hash" in names[1]) == file
        assert (b"xfsroot.rawlink" in names[2]) == link
        for one, path in zip(names, (b"", b"/file", b"/link"), strict=True):
            assert len(set(one)) == len(one)
            for name in one:
                found = get((repository, magic), path, name)
                assert (waited_for((repository, magic), path, name) if found is None else found) is not None, name
