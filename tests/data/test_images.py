import struct
import zlib

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_kd.data.images import decode_image, load_images

SHAPE = (8, 8, 3)


def write(path, image, **options):
    """Write a real file in the format that its name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    keras.utils.save_img(path, image, scale=False, **options)
    return path


def plain(value, size=(8, 8), channels=3):
    return np.full((*size, channels), value, "uint8")


@pytest.mark.parametrize("suffix", ["png", "jpg", "jpeg", "bmp", "gif", "PNG"])
def test_every_format(tmp_path, suffix):
    gradient = np.tile(np.arange(0, 256, 16, dtype="uint8")[:, None, None], (1, 16, 3))
    write(tmp_path / f"image.{suffix}", gradient)
    [image] = load_images(tmp_path, (16, 16, 3))
    assert image.dtype == np.float32
    np.testing.assert_allclose(image, gradient, atol=3 if "j" in suffix else 0.01)


def test_files_are_in_the_order_of_their_paths(tmp_path):
    for value, name in ((3, "b/0.png"), (1, "a/10.png"), (2, "a/9.png"), (0, "0.png")):
        write(tmp_path / name, plain(value))
    np.testing.assert_array_equal(load_images(tmp_path, SHAPE)[:, 0, 0, 0], [0, 1, 2, 3])


def test_as_many_of_each_directory_evenly_spaced(tmp_path):
    for index in range(20):
        write(tmp_path / f"many/{index:02}.png", plain(index))
    for index in range(2):
        write(tmp_path / f"few/{index}.png", plain(100 + index))
    for index in range(10):
        write(tmp_path / f"some/deep/{index}.png", plain(200 + index))
    chosen = load_images(tmp_path, SHAPE, most=12)[:, 0, 0, 0]
    np.testing.assert_array_equal(chosen, [100, 101, 0, 5, 10, 14, 19, 200, 202, 204, 207, 209])
    assert len(load_images(tmp_path, SHAPE, most=1)) == 1
    assert len(load_images(tmp_path, SHAPE, most=100)) == 32


def test_what_is_hidden_and_what_is_no_image_is_left_out(tmp_path):
    write(tmp_path / "image.png", plain(7))
    write(tmp_path / ".thumbnails/image.png", plain(1))
    (tmp_path / "._image.png").write_bytes(b"resource fork")
    (tmp_path / "labels.txt").write_text("seven")
    (tmp_path / "directory.png").mkdir()
    assert load_images(tmp_path, SHAPE).shape == (1, *SHAPE)


def test_shrinking_averages_instead_of_skipping(tmp_path):
    stripes = np.zeros((64, 64, 3), "uint8")
    stripes[::2] = 255
    write(tmp_path / "stripes.png", stripes)
    [image] = load_images(tmp_path, SHAPE)
    np.testing.assert_allclose(image[1:-1], 127.5, atol=3)


def test_channels_become_those_of_the_model(tmp_path):
    color = np.broadcast_to(np.array([255, 0, 0], "uint8"), (8, 8, 3))
    write(tmp_path / "color.png", color)
    write(tmp_path / "grey.png", plain(100, channels=1))
    alpha = np.concatenate([color, plain(128, channels=1)], axis=-1)
    write(tmp_path / "transparent.png", alpha)
    write(tmp_path / "color.jpg", color, quality=100)
    # In the order of the paths: color.jpg, color.png, grey.png, transparent.png
    grey = load_images(tmp_path, (8, 8, 1))[:, 0, 0]
    np.testing.assert_allclose(grey[:, 0], [76, 76.2, 100, 76.2], atol=1.5)
    rgb = load_images(tmp_path, (8, 8, 3))[:, 0, 0]
    reds = [[255, 0, 0], [255, 0, 0], [100, 100, 100], [255, 0, 0]]
    np.testing.assert_allclose(rgb, reds, atol=3)
    rgba = load_images(tmp_path, (8, 8, 4))[:, 0, 0]
    np.testing.assert_allclose(rgba[:, 3], [255, 255, 255, 128])
    with_alpha = np.concatenate([plain(9, channels=1), plain(1, channels=1)], axis=-1)
    import tensorflow as tf

    content = tf.io.encode_png(with_alpha).numpy()
    np.testing.assert_allclose(decode_image(content, SHAPE)[0, 0], [9, 9, 9])


def test_of_an_animation_the_first_frame(tmp_path):
    image = pytest.importorskip("PIL.Image")
    frames = [image.fromarray(plain(value)) for value in (50, 200)]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    np.testing.assert_allclose(load_images(tmp_path, SHAPE), 50, atol=1)


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp"])
@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b"x" * 99])
def test_damaged_images_are_named(tmp_path, suffix, damage):
    rng = np.random.default_rng(0)
    file = write(tmp_path / f"a/damaged.{suffix}", rng.integers(0, 255, (32, 32, 3), "uint8"))
    write(tmp_path / "a/whole.png", plain(1))
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(ValueError, match=rf"cannot be read: .*damaged\.{suffix}") as error:
        load_images(tmp_path, SHAPE)
    assert "whole" not in str(error.value)
    assert "\n" not in str(error.value)


def test_of_many_damaged_images_some_are_named(tmp_path):
    for index in range(9):
        (tmp_path / f"{index}.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"0\.png.*4\.png.* and 4 more"):
        load_images(tmp_path, SHAPE)


def test_directories_and_shapes_without_images(tmp_path):
    with pytest.raises(ValueError, match=r"without an image.*\.png"):
        load_images(tmp_path, SHAPE)
    with pytest.raises(FileNotFoundError, match="a directory of images"):
        load_images(tmp_path / "nowhere", SHAPE)
    with pytest.raises(ValueError, match=r"shape \(8, 8\).*height, width, channels"):
        load_images(tmp_path, (8, 8))
    with pytest.raises(ValueError, match=r"shape \(None, 8, 3\)"):
        load_images(tmp_path, (None, 8, 3))


def png_of_zeros(width, height):
    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    compressor = zlib.compressobj()
    rows = [compressor.compress(bytes(width + 1)) for _ in range(height)]
    data = b"".join([*rows, compressor.flush()])
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


def gif(screen, *frames):
    """Extensions before the frames, as animations have."""
    extension = b"!\xff\x0bNETSCAPE2.0\x03\x01\x00\x00\x00"
    table = struct.pack("<HHBBB", *screen, 0x80, 0, 0) + bytes(6)
    # A frame: its place, its size, and a block of nothing.
    parts = (b"," + struct.pack("<HHHHB", 0, 0, *size, 0) + b"\x02\x01x\x00" for size in frames)
    return b"GIF89a" + table + extension + b"".join(parts)


def jpeg(width, height):
    content = bytearray(tf.io.encode_jpeg(tf.zeros((8, 8, 3), "uint8")).numpy())
    place = content.index(b"\xff\xc0") + 5
    content[place : place + 4] = struct.pack(">HH", height, width)
    return bytes(content)


@pytest.mark.parametrize(
    "content",
    [
        png_of_zeros(5000, 4000),
        gif((5000, 4000), (1, 1)),
        gif((1, 1), (5000, 4000)),
        gif((1, 1), *[(2000, 1000)] * 10),
        jpeg(5000, 4000),
    ],
)
def test_images_of_far_more_pixels_than_bytes(content):
    with pytest.raises(
        ValueError, match=f"the image declares 80000000 bytes, of which {len(content)}"
    ):
        decode_image(content, (2, 2, 3))


def test_an_image_of_one_colour_is_read():
    assert decode_image(png_of_zeros(4000, 3000), (2, 2, 1)).max() == 0
