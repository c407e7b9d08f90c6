"""What tells one scroll from another: how it is wound and how its scan looks."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Look:
    """One scroll's winding and scan. Lengths are voxels, grey values are of uint8, shares lie in 0..1.

    Raises ValueError when sheets would not fit into their pitch or a grey value lies outside 0..255.
    """

    scroll_id: int
    pitch: float  # from one recto face to the next, on average
    pitch_spread: float  # its spread, as a share of the pitch: 0 is an even stack
    thickness: float  # both layers together
    split: float  # how wide the two layers of a sheet come apart
    flakes: float  # share of a sheet that has loose flakes beside its verso
    bias: float  # how far inside the papyrus the annotators put its face
    air: float  # grey value of a gap
    contrast: float  # grey values from a gap to dense papyrus
    blur: float  # sigma of the point-spread function
    halo: float  # overshoot at edges, as phase-contrast scans have it
    halo_width: float  # its sigma
    noise: float  # standard deviation, grey values
    noise_grain: float  # sigma of the noise's correlation
    rings: float  # standard deviation of the ring artefacts, grey values
    specks: float  # bright specks in a million voxels

    def __post_init__(self) -> None:
        if not 0 < self.thickness < self.pitch:
            raise ValueError(
                f"scroll {self.scroll_id}: found sheets {self.thickness} thick at a pitch of {self.pitch}, "
                "wanted 0 < thickness < pitch"
            )
        if not 0 <= self.air <= self.air + self.contrast <= 255:
            raise ValueError(
                f"scroll {self.scroll_id}: found grey values from {self.air} to {self.air + self.contrast}, "
                "wanted 0 to 255, air below papyrus"
            )


LOOKS = (
    Look(  # dark noisy background
        scroll_id=34117,
        pitch=27.0,
        pitch_spread=0.42,
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
        pitch_spread=0.38,
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
        pitch_spread=0.3,
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
