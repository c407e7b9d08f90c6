"""What has been done for a bundle on its way to Kaggle, so that each step is done once."""

import json
from dataclasses import asdict, dataclass, replace

from surface_kernel import disk
from surface_package.kaggle.delivery import Delivery
from surface_package.kaggle.upload import Sent
from surface_package.target import Target


@dataclass(frozen=True)
class Record:
    """What has been done for one bundle, kept as BUNDLE.published.json; versions are Kaggle's numbers, None not yet."""

    manifest_sha256: str
    sent: Sent
    kernel_sha256: str = ""
    kernel_version: int | None = None
    output_sha256: str = ""
    submitted: bool = False
    public_score: str = ""
    private_score: str = ""

    @classmethod
    def read(cls, delivery: Delivery, target: Target) -> "Record":
        """The bundle's record; a fresh one where there is none or it tells of another manifest or dataset."""
        fresh = cls(delivery.digest(), Sent(target.dataset))
        try:
            kept = json.loads(delivery.beside(".published.json").read_bytes())
            record = cls(**kept | {"sent": Sent(**kept["sent"])})
        except (OSError, ValueError, TypeError, KeyError):
            return fresh
        same = (record.manifest_sha256, record.sent.dataset) == (fresh.manifest_sha256, fresh.sent.dataset)
        return record if same else fresh

    def uploaded(self, sent: Sent) -> "Record":
        """This record after a step of the upload: what was done with an earlier dataset version is forgotten."""
        return replace(self, sent=sent) if sent.version is not None else Record(self.manifest_sha256, sent)

    def pushed(self, kernel_sha256: str, version: int) -> "Record":
        """This record after a push: what was done with an earlier kernel version is forgotten."""
        return Record(self.manifest_sha256, self.sent, kernel_sha256, version)

    def write(self, delivery: Delivery) -> "Record":
        """Keep the record beside the bundle, whole or not at all."""
        disk.put(delivery.beside(".published.json"), (json.dumps(asdict(self), indent=2) + "\n").encode())
        return self
