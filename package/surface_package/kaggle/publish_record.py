"""What has been done for a bundle on its way to Kaggle, so that each step is done once."""

import json
from dataclasses import asdict, dataclass, replace

from surface_kernel import disk
from surface_package.kaggle.delivery import Delivery
from surface_package.kaggle.upload import SentDataset
from surface_package.target import Target


@dataclass(frozen=True, kw_only=True)
class PublishRecord:
    """What has been done for one bundle, kept as BUNDLE.published.json."""

    manifest_sha256: str
    """Of the bundle."""
    sent: SentDataset
    """The bundle's dataset."""
    kernel_sha256: str = ""
    """Of the script and the metadata that were pushed."""
    kernel_version: int | None = None
    """Kaggle's number of the push; None before it."""
    output_sha256: str = ""
    """Of the submission.zip that was checked; empty before it."""
    submitted: bool = False
    """Whether that version was submitted."""
    public_score: str = ""
    """As Kaggle writes it; empty before it is known."""
    private_score: str = ""
    """The same."""

    @classmethod
    def read(cls, delivery: Delivery, target: Target) -> "PublishRecord":
        """Return the bundle's record; a fresh one where there is none, or it is of another manifest or dataset."""
        fresh = cls(manifest_sha256=delivery.digest(), sent=SentDataset(dataset=target.dataset))
        try:
            kept = json.loads(delivery.beside(".published.json").read_bytes())
            record = cls(**kept | {"sent": SentDataset(**kept["sent"])})
        except (OSError, ValueError, TypeError, KeyError):
            return fresh
        same = (record.manifest_sha256, record.sent.dataset) == (fresh.manifest_sha256, fresh.sent.dataset)
        return record if same else fresh

    def uploaded(self, sent: SentDataset) -> "PublishRecord":
        """Return this record after a step of the upload: what was done with an earlier dataset version is forgotten."""
        if sent.version is not None:
            return replace(self, sent=sent)
        return PublishRecord(manifest_sha256=self.manifest_sha256, sent=sent)

    def pushed(self, kernel_sha256: str, version: int) -> "PublishRecord":
        """Return this record after a push: what was done with an earlier kernel version is forgotten."""
        return PublishRecord(
            manifest_sha256=self.manifest_sha256, sent=self.sent, kernel_sha256=kernel_sha256, kernel_version=version
        )

    def write(self, delivery: Delivery) -> "PublishRecord":
        """Keep the record beside the bundle, complete or not at all."""
        disk.put(delivery.beside(".published.json"), (json.dumps(asdict(self), indent=2) + "\n").encode())
        return self
