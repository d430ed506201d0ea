"""One call as the services see it: authenticated, within its grammar, its query and body already read."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from tocsin.access.principals import Principal
from tocsin.api import models
from tocsin.api.ports import ApiRooms, Front, Page
from tocsin.kernel import cursor
from tocsin.kernel.errors import Detail, Refusal
from tocsin.kernel.http import Answer, Request
from tocsin.routes import DEFAULT_LIMIT, Route

_ETAG = re.compile(r'"([0-9]{1,15})"', re.ASCII)
Body = TypeVar("Body", bound=models.Body)


@dataclass(frozen=True, slots=True)
class Call:
    """One call. `id` is the path's id, `part` the second one ("" when the path has none). `query` holds parsed
    values, absent ones left out. `document` is the JSON body after its model accepted it, `body` the model itself.
    """

    route: Route
    request: Request
    principal: Principal
    id: str
    query: Mapping[str, Any]
    body: models.Body | None = None
    document: Any = None
    part: str = ""

    @property
    def project(self) -> str:
        return self.principal.project

    def taken(self, model: type[Body]) -> Body:
        """The body as the model its route names."""
        if not isinstance(self.body, model):
            raise TypeError(f"{self.route.operation_id} takes no {model.__name__}")
        return self.body

    def expected_version(self, sent: int | None) -> int | None:
        """The version the caller read: If-Match, or `version` of the body; both and different is refused."""
        tags = self.request.headers.get("if-match", ())
        if not tags or tags == ("*",):
            return sent
        match = _ETAG.fullmatch(tags[0].strip())
        if len(tags) > 1 or match is None or (sent is not None and sent != int(match[1])):
            fix = 'send the ETag that was read, such as "3", and the same version in the body or none'
            raise Refusal("ERR_SCHEMA", "If-Match is not a version.", [Detail("if-match", "etag", fix)])
        return int(match[1])

    def listing(self, rooms: Front, what: Any, read: Callable[[Any, int], Page[Any]]) -> Answer:
        """One page as an answer. `what` (JSON) is all that narrows the listing; a cursor fits no other."""
        items, meta = self.page(rooms, what, read)
        return Answer(data={"items": items}, meta=meta)

    def page(self, rooms: Front, what: Any, read: Callable[[Any, int], Page[Any]]) -> tuple[list[Any], dict[str, Any]]:
        """Items and meta of one page. The limit may change from page to page; what is listed may not."""
        limit: int = self.query.get("limit", DEFAULT_LIMIT)
        query = [self.route.operation_id, self.id, what]
        text = self.query.get("cursor")
        position = None if text is None else cursor.open_sealed(rooms.cursor_key, self.project, query, text)
        page = read(position, limit)
        following = page.next_position
        sealed = None if following is None else cursor.seal(rooms.cursor_key, self.project, query, following)
        return list(page.items), {"next_cursor": sealed, "scanned": page.scanned, "limit": limit}


Service = Callable[[Call, ApiRooms], Answer]


def etag(version: int) -> dict[str, str]:
    """ETag header of a versioned thing."""
    return {"ETag": f'"{version}"'}
