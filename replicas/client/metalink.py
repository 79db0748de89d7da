"""An image's replicas as other programs read them: Metalink 4 (RFC 5854) and Link headers (RFC 6249). No I/O."""

import re
from collections.abc import Iterator
from urllib.parse import quote
from xml.etree import ElementTree

from .document import Document, Replica

MEDIA_TYPE = "application/metalink4+xml"
MOST_LINKS = 10  # headers have to fit what servers and proxies accept in all

_NAMESPACE = "urn:ietf:params:xml:ns:metalink"
_HASHES = {  # IANA, Hash Function Textual Names
    "md5": "md5",
    "sha1": "sha-1",
    "sha224": "sha-224",
    "sha256": "sha-256",
    "sha384": "sha-384",
    "sha512": "sha-512",
}
_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_URL = ":/?#[]@!$&'()*+,;=%"  # the reserved characters of RFC 3986; what a header or XML cannot hold is escaped


def dump(document: Document) -> bytes:
    """The document as XML in UTF-8. The file is named by the image id; its name, which users choose, is `identity`.

    Without the replicas that only a store's driver can read, and without a digest that Metalink has no name for.
    """
    root = ElementTree.Element("metalink", xmlns=_NAMESPACE)
    file = ElementTree.SubElement(root, "file", name=document.image_id)
    if document.name:
        ElementTree.SubElement(file, "identity").text = _NO_XML.sub("\ufffd", document.name)
    if document.size is not None:
        ElementTree.SubElement(file, "size").text = str(document.size)
    digest = document.digest
    if digest and digest.algorithm in _HASHES:
        ElementTree.SubElement(file, "hash", type=_HASHES[digest.algorithm]).text = digest.value
    for replica in document.readable:
        ElementTree.SubElement(file, "url", priority=str(replica.priority)).text = _clean(replica)
    return bytes(ElementTree.tostring(root, encoding="utf-8", xml_declaration=True))


def links(document: Document) -> Iterator[str]:
    """Values of Link headers: the best copies as duplicates, and where the Metalink document is."""
    for replica in document.readable[:MOST_LINKS]:
        yield f"<{_clean(replica)}>; rel=duplicate; pri={replica.priority}"
    yield f'</v2/images/{document.image_id}/replicas>; rel=describedby; type="{MEDIA_TYPE}"'


def _clean(replica: Replica) -> str:
    return quote(replica.url, safe=_URL)
