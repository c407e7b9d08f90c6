"""Files that are no volumes, or hardly: cut, bent, hostile, of other kinds, from a seed; and TIFFs made by hand."""

import io
import json
import os
import resource
import struct
import sys
import time
import warnings
import zlib
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image
from scenes import noise

from surface_kernel.volumes.header import VolumeError, read_header
from surface_kernel.volumes.image_files import write_lzw
from surface_kernel.volumes.mask_files import mask_bytes
from surface_kernel.volumes.volume import open_volume

WHOLE = noise((6, 30, 25)) // 9
WHOLE_NUMBERS = [f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)]
DTYPES = ["bool", *WHOLE_NUMBERS, "float16", "float32", "float64"]
CODES = {1: "B", 2: "s", 3: "H", 4: "I", 5: "Q", 8: "h", 12: "d", 16: "Q"}
SHORT, LONG, LONG8 = 3, 4, 16


def tiff_bytes(pages, data=b"", order="<", big=False, after=0):
    """Makes a TIFF from lists of (tag, type, values): `data`, at byte 8, of a BigTIFF 16, then a directory a page.

    after: where the last directory says that the next one lies.
    """
    width, place, count, head = (8, "Q", "Q", (43, 8, 0)) if big else (4, "I", "H", (42,))
    made = bytearray((b"II" if order == "<" else b"MM") + struct.pack(f"{order}{len(head)}H", *head))
    pointer = len(made)
    made += bytes(width) + data
    for page in pages:
        made += bytes(len(made) % 2)
        struct.pack_into(order + place, made, pointer, len(made))
        made += struct.pack(order + count, len(page))
        lists, behind = len(made) + len(page) * (4 + 2 * width) + width, b""
        for tag, kind, values in page:
            content = struct.pack(f"{order}{len(values)}{CODES[kind]}", *values)
            if len(content) > width:
                content, behind = struct.pack(order + place, lists + len(behind)), behind + content
            made += struct.pack(order + "HH" + place, tag, kind, len(values)) + content.ljust(width, b"\0")
        pointer = len(made)
        made += bytes(width) + behind
    struct.pack_into(order + place, made, pointer, after)
    return bytes(made)


def grey_page(width, height, places, counts, compression=1, **other):
    """Returns the entries of a grey page: `places` and `counts` of its strips, other tags as t317=2."""
    entries = {256: width, 257: height, 258: 8, 259: compression, 262: 1, 277: 1, 278: -(-height // len(places))}
    entries |= {int(tag[1:]): value for tag, value in other.items()}
    listed = [(tag, LONG, [value]) for tag, value in entries.items()]
    return sorted([*listed, (273, LONG, places), (279, LONG, counts)])


def whole_files():
    """Returns the bytes of WHOLE, or of its lowest bit, in all kinds of files that are read in ways of their own."""
    grey, made = WHOLE, {}
    for name, options in {
        "raw": {},
        "big": {"bigtiff": True, "metadata": None},
        "zlib": {"compression": "zlib", "rowsperstrip": 8},
        "motorola": {"compression": "zlib", "byteorder": ">", "metadata": None},
        "bigger": {"compression": "zlib", "byteorder": ">", "bigtiff": True, "metadata": None},
        "tiles": {"compression": "zlib", "tile": (16, 16), "metadata": None},
    }.items():
        file = io.BytesIO()
        tifffile.imwrite(file, grey, photometric="minisblack", **options)
        made[name] = file.getvalue()
    first, *rest = map(Image.fromarray, grey)
    file = io.BytesIO()
    first.save(file, format="TIFF", compression="tiff_lzw", save_all=True, append_images=rest)
    return made | {"lzw": file.getvalue(), "mask": mask_bytes(grey % 2)}


def corpus(folder, seed):
    """Puts some 550 files of all kinds into a folder that is there and empty; returns their paths, whole_*.tif first.

    Only whole_*.tif are good volumes for certain. Some are links, pipes, folders, or .npy files.
    """
    rng, whole = np.random.default_rng(seed), whole_files()
    contents = {f"whole_{name}.tif": content for name, content in whole.items()}
    for name in ("lzw", "big", "zlib"):
        contents |= {f"cut_{name}_{k}.tif": whole[name][: len(whole[name]) * k // 64] for k in range(64)}
    for name in ("lzw", "raw", "motorola", "bigger", "mask"):
        contents |= {f"flipped_{name}_{k}.tif": _flipped(rng, whole[name], 1 + k % 3) for k in range(40)}
    contents |= {f"garbage_{k}.tif": b"II*\0" * (k % 2) + rng.bytes(rng.integers(1, 3000)) for k in range(20)}
    contents |= _bombs(rng) | _npy_files(rng)
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    paths = [folder / name for name in contents]
    return [*paths, *_other_kinds(folder), *_no_files(folder)]


def judge(folder, seed):
    """Opens all of a corpus and prints, as JSON, what came of every file, and the memory that all of it took."""
    paths = corpus(folder, seed)
    open_volume(paths[6])  # what is loaded once
    before_mb, found = _peak_mb(), []
    for path in paths:
        begun_s = time.monotonic()
        try:
            volume = open_volume(path)
            volume.sum()
            as_declared = volume.shape == read_header(path).shape_zyx == _shape_as_pillow_sees_it(path, volume.shape)
            verdict = str(volume.dtype) if as_declared else f"a volume of {volume.shape}, and not as declared"
        except VolumeError as error:
            verdict = str(error)
        except Exception as error:
            verdict = f"raised {error!r}"
        found.append((str(path), time.monotonic() - begun_s, verdict))
    children_mb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    json.dump({"files": found, "grown_mb": _peak_mb() - before_mb, "children_mb": children_mb}, sys.stdout)


def _peak_mb():
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def _shape_as_pillow_sees_it(path, otherwise):
    """Returns the shape that the scorer sees; what is not Pillow's, or what it cannot read at all, is `otherwise`."""
    try:
        # It stops at a tag that it cannot read, be it of no importance, warns, and takes the pages before for all.
        with warnings.catch_warnings(action="error"), Image.open(path, formats=["TIFF"]) as image:
            return image.n_frames, image.height, image.width
    except Exception:
        return otherwise


def _flipped(rng, content, bits):
    """Flips bits: half of the time anywhere, half of the time in what is not the pixels of a good file."""
    bent = bytearray(content)
    for _ in range(bits):
        place = rng.integers(len(bent)) if rng.random() < 0.5 else len(bent) - 1 - rng.integers(min(1500, len(bent)))
        bent[rng.integers(16) if rng.random() < 0.2 else place] ^= 1 << rng.integers(8)
    return bytes(bent)


def _bombs(rng):
    """Makes small files that declare much."""
    zeros = zlib.compress(bytes(1 << 26), 9)
    row = zlib.compress(bytes(320 * 320))
    wide = grey_page(65535, 65535, [8], [4], 5)
    shared = grey_page(320, 320, [8], [len(row)], 8)
    huge = [(256, LONG8, [2**60]), *grey_page(9, 9, [16], [4])[1:]]
    full = grey_page(8192, 8192, [8], [len(zeros)], 8)
    far = grey_page(320, 320, [2**32 - 9], [2**32 - 1], 5)
    strips = grey_page(1, 65535, [8], [60000], 5, t278=1)
    many = struct.pack("<2sHI", b"II", 42, 8) + b"\xff\xff" + bytes(200)
    entries = struct.pack("<2sHHHQQ", b"II", 43, 8, 0, 16, 2**60) + bytes(200)
    values = struct.pack("<2sHHHQQ", b"II", 43, 8, 0, 16, 1) + struct.pack("<HHQQQ", 273, 16, 2**60, 16, 0)
    clear_codes = bytes([0x80, 0x40, 0x20, 0x10, 0x08, 0x04, 0x02, 0x01, 0x00]) * 200_000
    empty_blocks = b"\x78\x01" + b"\0\0\0\xff\xff" * 400_000 + row[2:]
    circle = tiff_bytes([grey_page(4, 4, [8], [16])] * 3, bytes(16), after=24)
    made = {
        "wide": tiff_bytes([wide] * 1000, b"\x80\1\1\1"),
        "shared": tiff_bytes([shared] * 10_000, row),
        "huge": tiff_bytes([huge] * 3, bytes(4), big=True),
        "inflating": tiff_bytes([full] * 400, zeros),
        "twice": tiff_bytes([full] * 2, zeros),
        "spread": tiff_bytes([[(277, LONG, [3]) if tag == 277 else (tag, *rest) for tag, *rest in full]] * 3, zeros),
        "more than declared": tiff_bytes([grey_page(32, 32, [8], [len(zeros)], 8)] * 3, zeros),
        "odd and more": tiff_bytes([grey_page(32, 32, [8], [len(zeros)], 8, t317=2)] * 3, zeros),
        "less than declared": tiff_bytes([grey_page(900, 900, [8], [len(row)], 8)] * 2, row),
        "far": tiff_bytes([far] * 3, bytes(9)),
        "rows": tiff_bytes([strips] * 200, rng.bytes(60_000)),
        "clear codes": tiff_bytes([grey_page(1, 1, [8], [1_800_003], 5)] * 5000, clear_codes + b"\x80\x01\x40"),
        "empty blocks": tiff_bytes([grey_page(320, 9, [8], [len(empty_blocks)], 8)] * 5000, empty_blocks),
        "entries": many,
        "big entries": entries,
        "values": values,
        "circle": circle,
        "itself": tiff_bytes([grey_page(4, 4, [8], [16])], bytes(16), after=24),
        "packed": tiff_bytes([grey_page(300, 300, [8], [2], 32773)] * 3, b"\x81\0"),
    }
    for compression in (2, 3, 4, 6, 7, 34712, 34925, 50000, 50001, 65535):
        made[f"codec {compression}"] = tiff_bytes([grey_page(16, 16, [8], [2000], compression)] * 3, rng.bytes(2000))
    return {f"bomb_{name}.tif": content for name, content in made.items()}


def _npy_files(rng):
    """Makes arrays that are no volumes, and good ones that are cut and bent."""
    arrays = {f"npy_{dtype}": np.ones((3, 4, 5), dtype) for dtype in DTYPES}
    arrays |= {f"npy_rank_{rank}": np.ones((2,) * rank, np.uint8) for rank in range(6)}
    arrays |= {f"npy_zero_{axis}": np.ones([3 * (axis != k) for k in range(3)], np.uint8) for axis in range(3)}
    arrays |= {"npy_nan": np.full((3, 4, 5), np.nan), "npy_fortran": np.zeros((3, 4, 5), np.uint8, "F")}
    arrays |= {"npy_object": np.array([[[None]]]), "npy_text": np.array([[["a"]]])}
    made = {}
    for name, array in arrays.items():
        file = io.BytesIO()
        np.save(file, array)
        made[f"{name}.npy"] = file.getvalue()
    archive = io.BytesIO()
    np.savez(archive, a=np.ones((3, 4, 5), np.uint8))
    good = made["npy_uint8.npy"]
    claimed = good.replace(b"(3, 4, 5)", b"(4294967296, 4294967296, 4)").replace(b" " * 18 + b"\n", b"\n")
    made |= {"npy_archive.npy": archive.getvalue(), "npy_claimed.npy": claimed}
    made |= {f"npy_cut_{k}.npy": good[: len(good) * k // 16] for k in range(16)}
    return made | {f"npy_flipped_{k}.npy": _flipped(rng, good, 1 + k % 3) for k in range(24)}


def _other_kinds(folder):
    """Writes TIFFs that are in order, of kinds that the competition has not."""
    grey = noise((5, 20, 24))
    arrays = {f"dtype_{dtype}": ((grey[:, :, ::2] > 99).astype(dtype), {}) for dtype in DTYPES}
    arrays |= {f"rank_{rank}": (noise((2,) * (rank - 2) + (20, 24)), {}) for rank in range(2, 6)}
    arrays["rgb"] = noise((5, 20, 24, 3)), {"photometric": "rgb"}
    arrays["rgba"] = noise((5, 20, 24, 4)), {"photometric": "rgb", "extrasamples": ["unassalpha"]}
    arrays["planar"] = noise((5, 3, 20, 24)), {"photometric": "rgb", "planarconfig": "separate"}
    arrays["inverted"] = grey, {"photometric": "miniswhite"}
    arrays["deep"] = noise((16, 16, 16)), {"volumetric": True, "tile": (16, 16, 16)}
    arrays["nan"] = np.full((5, 20, 24), np.nan, np.float32), {}
    arrays["inf"] = np.full((5, 20, 24), np.inf, np.float32), {}
    arrays["predictor"] = grey, {"compression": "zlib", "predictor": True}
    for name, (array, options) in arrays.items():
        tifffile.imwrite(folder / f"{name}.tif", array, **({"photometric": "minisblack"} | options))
    write_lzw(folder / "single.tif", grey[:1])
    Image.fromarray(grey[0]).save(folder / "png.tif", format="png")
    pages = [grey_page(24, 20, [8], [480]), grey_page(20, 24, [8], [480])]
    (folder / "unequal.tif").write_bytes(tiff_bytes(pages, grey[0].tobytes()))
    (folder / "no_pages.tif").write_bytes(tiff_bytes([]))
    (folder / "no_size.tif").write_bytes(tiff_bytes([grey_page(0, 20, [8], [480])] * 3, grey[0].tobytes()))
    (folder / "empty.tif").write_bytes(b"")
    (folder / "text.tif").write_text("id,scroll_id\n1407735,26002\n" * 99)
    names = [*arrays, "single", "png", "unequal", "no_pages", "no_size", "empty", "text"]
    return [folder / f"{name}.tif" for name in names]


def _no_files(folder):
    """Makes what has a volume's name and is no file."""
    for suffix in (".tif", ".npy"):
        (folder / f"a_folder{suffix}").mkdir()
        os.mkfifo(folder / f"a_pipe{suffix}")
        for name, target in {
            "to_itself": f"link_to_itself{suffix}",
            "dangling": "nowhere",
            "to_a_folder": f"a_folder{suffix}",
            "to_zeros": "/dev/zero",
            "to_nothing": "/dev/null",
        }.items():
            (folder / f"link_{name}{suffix}").symlink_to(target)
    return sorted([*folder.glob("a_*.???"), *folder.glob("link_*.???")])
