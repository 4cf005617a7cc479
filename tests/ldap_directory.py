"""A directory with a few people on loopback: `python ldap_directory.py`, prints its port."""

# Twisted's own types do not fit its interfaces.
# mypy: ignore-errors

from __future__ import annotations

import io
import sys
from typing import Any

from ldaptor.inmemory import fromLDIFFile
from ldaptor.interfaces import IConnectedLDAPEntry
from ldaptor.protocols.ldap.ldapserver import LDAPServer
from twisted.internet import reactor
from twisted.internet.protocol import ServerFactory
from twisted.python.components import registerAdapter

BIND_DN, BIND_PASSWORD = "cn=reader,dc=example", "the reader's own"
BASE = "ou=people,dc=example"
PASSWORD = "kept in the directory"
LDIF = f"""\
dn: dc=example
objectClass: dcObject
dc: example

dn: {BIND_DN}
objectClass: person
cn: reader
userPassword: {BIND_PASSWORD}

dn: {BASE}
objectClass: organizationalUnit
ou: people

""" + "".join(
    f"""\
dn: uid={name},{BASE}
objectClass: person
uid: {person}
userPassword: {PASSWORD}

"""
    for name, person in (
        ("engineer", "engineer"), ("elsewhere", "nobody_known"),
        ("one", "auditor"), ("other", "auditor"), ("director", "director"),
    )
)  # fmt: skip


class Directory(ServerFactory):
    """One tree for all connections."""

    protocol = LDAPServer

    def __init__(self, root: Any) -> None:
        self.root = root

    def buildProtocol(self, addr: Any) -> Any:  # noqa: N802  # Twisted's name
        """A connection that knows the tree."""
        protocol = super().buildProtocol(addr)
        protocol.debug = False
        protocol.factory = self
        return protocol


def serve(root: Any) -> None:
    """Listen, and say where."""
    port = reactor.listenTCP(0, Directory(root), interface="127.0.0.1")
    sys.stdout.write(f"{port.getHost().port}\n")
    sys.stdout.flush()


def main() -> None:
    """Until it is ended."""
    registerAdapter(lambda factory: factory.root, Directory, IConnectedLDAPEntry)
    fromLDIFFile(io.BytesIO(LDIF.encode())).addCallback(serve)
    reactor.run()


if __name__ == "__main__":
    main()
