"""A run's question, addressed by its content: the same question has the same address."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Spec:
    """A question: the verb, the model, the images and the settings that the answer can depend on."""

    verb: str
    model: Mapping[str, object]
    images: Mapping[str, object]
    settings: Mapping[str, object]

    @property
    def text(self) -> str:
        """Canonical JSON: sorted keys, no spaces."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True, separators=(",", ":"))

    @property
    def address(self) -> str:
        """The first 16 hexadecimal digits of a SHA-256 over the question's content.

        Where weights and images were found plays no part: their fingerprints identify them.
        """
        model = {key: value for key, value in self.model.items() if key != "weights"}
        images = {key: value for key, value in self.images.items() if key not in ("name", "labels")}
        content = json.dumps([self.verb, model, images, self.settings], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:16]
