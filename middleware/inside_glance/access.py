"""Who may have the bytes of an image: Glance's own code decides, on every path of ours (promise 6)."""

from typing import Any

import webob.exc
from glance.api import policy
from glance.api.v2 import policy as api_policy
from glance.common import exception
from glance.db import ImageProxy, ImageRepo, get_api

from glance_replicas.model import IMAGE_DEACTIVATED

from ..client_words import Refusal
from ..single_flight import SingleFlight


class Access:
    """Answers as `glance.api.v2.image_data.ImageDataController.download` of Glance 33 does before it reads a byte."""

    def __init__(self) -> None:
        self.enforcer = policy.Enforcer()
        self._db = get_api()
        self._together: SingleFlight[Any] = SingleFlight()

    def find(self, context: Any, image_id: str) -> Any:
        """The image as the caller may see it (a `glance.domain.Image` behind its proxy); raises HTTPNotFound.

        Not to be changed: requests of one caller that come at the same time share it.
        """
        repository = ImageRepo(context, _Untagged(self._db))
        caller = (context.user_id, context.project_id, context.is_admin, context.show_deleted, tuple(context.roles))
        try:
            found = self._together.ask((image_id, caller), lambda: repository.get(image_id))
        except exception.NotFound as error:
            raise webob.exc.HTTPNotFound(explanation=error.msg) from error
        return _Tagged(found.image, context, self._db)

    def image(self, context: Any, image_id: str) -> Any:
        """The image, for a caller who may download it. Raises HTTPNotFound or HTTPForbidden as Glance answers."""
        image = self.find(context, image_id)
        if self._is_closed(context, image):
            raise webob.exc.HTTPForbidden(explanation=Refusal.DEACTIVATED)
        self.rules(context, image).download_image()
        return image

    def may_download(self, context: Any, image: Any) -> bool:
        """The same as a question, for an image already found."""
        return not self._is_closed(context, image) and bool(self.rules(context, image).check("download_image"))

    @staticmethod
    def _is_closed(context: Any, image: Any) -> bool:
        return image.status == IMAGE_DEACTIVATED and not context.is_admin

    def rules(self, context: Any, image: Any) -> Any:
        """Glance's policy for this caller and image (`ImageAPIPolicy`)."""
        return api_policy.ImageAPIPolicy(context, image, self.enforcer)


class _Untagged:
    """Glance's database, except that it does not look for tags: a query of its own, a third of the time of them all."""

    def __init__(self, db: Any) -> None:
        self._db = db

    def __getattr__(self, name: str) -> Any:
        return getattr(self._db, name)

    @staticmethod
    def image_tag_get_all(_context: Any, _image_id: str) -> tuple[()]:
        return ()


class _Tagged(ImageProxy):  # type: ignore[misc, unused-ignore]
    """An image whose tags are read when a policy asks for them."""

    @property
    def tags(self) -> set[str]:
        """As `glance.domain.Image.tags`."""
        return set(self.db_api.image_tag_get_all(self.context, self.image.image_id))
