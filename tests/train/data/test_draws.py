import enum

import numpy as np
import pytest

from surface_train.data.draws import Draws, Stream

# The first two raw numbers of every stream of seed 3, patch 17, as commit c58b484 drew them.
DRAWN = {
    "PLACE": (1714217363952821826, 740690994810149745),
    "SCALE": (15763544643180813025, 18157038550241225615),
    "FLIPS": (12222544927042052479, 7313904121050907357),
    "TURNS": (1250433972655827904, 14158621488678024079),
    "BLUR": (7113700323548088376, 15284490616371347757),
    "LOW_RESOLUTION": (6440753275438026057, 1743523204100090535),
    "GREY": (2001261592076612440, 4498367535275678522),
    "GAMMA": (4405765901419521690, 1038972595221793562),
    "NOISE": (17053440016356496677, 7003912681471662372),
    "CUT_OUTS": (9063619721002981785, 12253470459953256794),
}


def raw(draws: Draws, stream: Stream) -> tuple[int, ...]:
    return tuple(int(number) for number in draws.of(stream).bit_generator.random_raw(2))


@pytest.mark.parametrize("name", DRAWN)
def test_every_stream_draws_what_it_always_drew(name: str) -> None:
    assert raw(Draws(3, 17), Stream[name]) == DRAWN[name]


def test_a_stream_begins_anew_at_every_call() -> None:
    draws = Draws(3, 17)
    draws.of(Stream.BLUR).random(5)
    assert raw(draws, Stream.BLUR) == DRAWN["BLUR"]


def test_every_purpose_has_numbers_of_its_own() -> None:
    """Also where zeros could be mistaken for one another: seed 0, patch 0, and what the order of cases draws."""
    keys = [(seed, patch, stream) for seed in (0, 1, 2**40) for patch in (0, 1, 7) for stream in Stream]
    first = {Draws(seed, patch).of(stream).random() for seed, patch, stream in keys}
    order = {np.random.default_rng(np.random.SeedSequence(0, spawn_key=(0, n))).random() for n in range(9)}
    assert len(first | order) == len(keys) + 9


def test_a_new_stream_moves_no_other_wherever_it_stands_in_the_table() -> None:
    ids = {name: stream.value for name, stream in Stream.__members__.items()}
    more = enum.IntEnum("more", {"TWISTS": len(ids), **dict(reversed(ids.items()))})  # type: ignore[misc]
    for name, drawn in DRAWN.items():
        assert raw(Draws(3, 17), more[name]) == drawn
    assert raw(Draws(3, 17), more["TWISTS"]) not in DRAWN.values()


def test_two_streams_cannot_share_an_id() -> None:
    ids = {name: stream.value for name, stream in Stream.__members__.items()}
    assert len(set(ids.values())) == len(ids)
    with pytest.raises(ValueError, match="duplicate values"):
        enum.unique(enum.IntEnum("clash", {**ids, "TWISTS": 0}))  # type: ignore[misc]
