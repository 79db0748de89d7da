"""HEAD over the connections of a pool, past what urllib3 makes of every answer.

That is for bodies, and takes more than twice as long as all of the request, where sizes are asked for by the thousand.
"""

import http.client
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from urllib3 import HTTPHeaderDict
from urllib3._version import __version__ as version
from urllib3.connectionpool import HTTPConnectionPool
from urllib3.exceptions import ProtocolError, ReadTimeoutError

_AGENT = {"User-Agent": f"python-urllib3/{version}"}


@dataclass(frozen=True)
class Answer:
    """To a HEAD; names of headers in any case, several of one name as one."""

    status: int
    headers: Mapping[str, str]


class Heads(HTTPConnectionPool):
    """A pool whose connections give `plain_response`, within the limits of the pool as any other."""

    def head(self, path: str, headers: Mapping[str, str]) -> Answer:
        """What the server says, the connection kept for the next. Raises as `urlopen`; nothing is tried again."""
        connection = self._get_conn()
        try:
            answer = self._ask(connection, path, headers)
        except BaseException:
            connection.close()
            self._put_conn(None)
            raise
        self._put_conn(connection)
        return answer

    def _ask(self, connection: Any, path: str, headers: Mapping[str, str]) -> Answer:
        try:
            if connection.is_closed:
                connection.timeout = self.timeout.connect_timeout
                connection.connect()
            connection.timeout = self.timeout.read_timeout
            connection.sock.settimeout(connection.timeout)
            http.client.HTTPConnection.request(connection, "HEAD", path, headers={**_AGENT, **headers})
            response = connection.plain_response()
            response.read()  # there is no body, the connection is kept; bytes that come all the same end it
        except TimeoutError as error:
            raise ReadTimeoutError(self, path, "Read timed out.") from error
        except (http.client.HTTPException, OSError) as error:
            raise ProtocolError("Connection aborted.", error) from error
        return Answer(response.status, HTTPHeaderDict(response.headers.items()))
