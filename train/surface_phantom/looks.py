"""What distinguishes one scroll from another: how it is wound and how its scan looks."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Look:
    """One scroll's winding and scan. Lengths are in voxels, grey values in uint8 levels, shares in 0..1.

    Raises:
        ValueError: If sheets would not fit into their pitch, or a grey value lies outside 0..255.
    """

    scroll_id: int
    """As in the competition's train.csv."""
    pitch: float
    """Mean distance from one recto face to the next."""
    pitch_std: float
    """Standard deviation of the pitch, as a share of it: 0 is an even stack."""
    thickness: float
    """Of both layers together."""
    split: float
    """How wide the two layers of a sheet come apart."""
    flakes: float
    """Share of a sheet that has loose flakes beside its verso."""
    bias: float
    """How far inside the papyrus the annotators put its face."""
    air: float
    """Grey value of a gap."""
    contrast: float
    """Grey values from a gap to dense papyrus."""
    blur: float
    """Sigma of the point-spread function."""
    halo: float
    """Overshoot at edges, as in phase-contrast scans."""
    halo_width: float
    """Sigma of the overshoot."""
    noise: float
    """Standard deviation, in grey values."""
    noise_grain: float
    """Sigma of the noise's correlation."""
    rings: float
    """Standard deviation of the ring artefacts, in grey values."""
    specks: float
    """Bright specks per million voxels."""

    def __post_init__(self) -> None:
        if not 0 < self.thickness < self.pitch:
            raise ValueError(
                f"scroll {self.scroll_id}: expected 0 < thickness < pitch, got a thickness of {self.thickness} at a "
                f"pitch of {self.pitch}"
            )
        if not 0 <= self.air <= self.air + self.contrast <= 255:
            raise ValueError(
                f"scroll {self.scroll_id}: expected grey values in 0..255, air below papyrus, got {self.air} to "
                f"{self.air + self.contrast}"
            )


LOOKS = (
    Look(  # dark noisy background
        scroll_id=34117,
        pitch=27.0,
        pitch_std=0.42,
        thickness=9.5,
        split=6.0,
        flakes=0.16,
        bias=-0.2,
        air=42.0,
        contrast=78.0,
        blur=0.75,
        halo=0.9,
        halo_width=2.2,
        noise=15.0,
        noise_grain=1.05,
        rings=1.5,
        specks=20.0,
    ),
    Look(  # blurry, densely packed
        scroll_id=35360,
        pitch=26.0,
        pitch_std=0.38,
        thickness=13.0,
        split=3.5,
        flakes=0.05,
        bias=0.0,
        air=84.0,
        contrast=78.0,
        blur=1.6,
        halo=1.0,
        halo_width=3.2,
        noise=8.0,
        noise_grain=1.3,
        rings=1.5,
        specks=8.0,
    ),
    Look(  # low contrast, fine noise, wide gaps
        scroll_id=26002,
        pitch=42.0,
        pitch_std=0.3,
        thickness=11.5,
        split=6.0,
        flakes=0.2,
        bias=-0.15,
        air=80.0,
        contrast=52.0,
        blur=0.85,
        halo=0.9,
        halo_width=2.2,
        noise=4.5,
        noise_grain=1.0,
        rings=1.2,
        specks=30.0,
    ),
)

OTHER_LOOKS = (
    Look(  # thick sheets, as sharp as a drawing
        scroll_id=10,
        pitch=32.0,
        pitch_std=0.35,
        thickness=11.0,
        split=5.0,
        flakes=0.1,
        bias=0.0,
        air=30.0,
        contrast=150.0,
        blur=0.5,
        halo=0.0,
        halo_width=2.0,
        noise=2.0,
        noise_grain=1.0,
        rings=0.0,
        specks=0.0,
    ),
    Look(  # thin sheets in a tight winding, as sharp
        scroll_id=20,
        pitch=24.0,
        pitch_std=0.3,
        thickness=9.0,
        split=4.0,
        flakes=0.1,
        bias=0.0,
        air=60.0,
        contrast=100.0,
        blur=0.7,
        halo=0.2,
        halo_width=2.0,
        noise=2.0,
        noise_grain=1.0,
        rings=0.0,
        specks=0.0,
    ),
)
"""Scrolls that look like none of LOOKS, without the faults of a scan: a network that learned on them has begun."""
