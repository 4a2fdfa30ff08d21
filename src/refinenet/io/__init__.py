"""Files, images, masks, rasters, legends, downloads, locks and the terminal; nothing here imports PyTorch.

Start reading at `images.decode` (any image source to pixels; `image_files` alone opens picture files, with Pillow),
`mask_files.read_mask` (label maps), `raster.RasterReader` (large files by parts) and `files.write_atomically` (files
complete or not at all).
"""

from typing import TYPE_CHECKING

from refinenet._lazy import attach

if TYPE_CHECKING:
    from refinenet.io.arrays import pack_arrays
    from refinenet.io.band_images import BAND_SUFFIXES, as_picture
    from refinenet.io.colour_bar import draw_colour_bar, find_limits, paint
    from refinenet.io.console import (
        check_output,
        describe_error,
        print_note,
        print_table,
        progress_bar,
        say,
        secure_streams,
        write_command,
    )
    from refinenet.io.download.archives import forget, is_interrupted, is_unpacked, unpack, was_empty
    from refinenet.io.download.download import PATIENCE, Patience, fetch
    from refinenet.io.files import (
        flush_folder,
        is_same_file,
        make_folders,
        quote_controls,
        refuse_address,
        refuse_blocked,
        refuse_same_file,
        refuse_to_replace,
        refuse_unwritable,
        replacing,
        stream_atomically,
        sweep_leftovers,
        sweep_leftovers_of,
        write_atomically,
    )
    from refinenet.io.hdf5 import clear_errors, open_hdf5
    from refinenet.io.image_files import (
        DEEP_MODES,
        DOWNLOAD,
        FOREIGN_SUFFIXES,
        IMAGE_SUFFIXES,
        MAX_PIXELS,
        RGB,
        Picture,
        TooLargeError,
        has_suffix,
        list_files,
        open_picture,
        open_verified,
        read_picture,
        to_sixteen_bits,
        walk_names,
    )
    from refinenet.io.images import (
        ChannelOrder,
        ImageSource,
        check_channel_order,
        decode,
        encode,
        knows_its_order,
        read_image,
        write,
    )
    from refinenet.io.legend import (
        FONT_SIZE,
        MARGIN,
        LegendEntry,
        add_legend,
        draw_legend,
        fit_text,
        format_share,
        hatch,
    )
    from refinenet.io.locks import only_one, sole_owner
    from refinenet.io.mask_files import read_colour_mask, read_colours, read_ids, read_mask
    from refinenet.io.parallel import map_parallel, map_safely
    from refinenet.io.raster.band_reader import BandReader, open_bands
    from refinenet.io.raster.reader import RasterReader, is_installed, needs_windows, open_upright
    from refinenet.io.raster.writer import TIFF_SUFFIXES, TILE, RasterWriter, check_suffix, open_target
    from refinenet.io.sample_values import (
        AS_DECLARED,
        Decoded,
        ImageWarning,
        Mask,
        Note,
        Pixels,
        Reading,
        ValueRange,
        check_value_range,
        first_of_each_kind,
    )
    from refinenet.io.sealed_folder import check_names, damage_described, read_checksummed, read_step, write_checksummed
    from refinenet.io.signals import StopRequest
    from refinenet.io.stored_values import STORED_SUFFIXES, read_stored
    from refinenet.io.threads import TRACING, ThreadLock, survive_fork
else:
    __getattr__, __dir__ = attach(__name__)

__all__ = [
    "AS_DECLARED",
    "BAND_SUFFIXES",
    "DEEP_MODES",
    "DOWNLOAD",
    "FONT_SIZE",
    "FOREIGN_SUFFIXES",
    "IMAGE_SUFFIXES",
    "MARGIN",
    "MAX_PIXELS",
    "PATIENCE",
    "RGB",
    "STORED_SUFFIXES",
    "TIFF_SUFFIXES",
    "TILE",
    "TRACING",
    "BandReader",
    "ChannelOrder",
    "Decoded",
    "ImageSource",
    "ImageWarning",
    "LegendEntry",
    "Mask",
    "Note",
    "Patience",
    "Picture",
    "Pixels",
    "RasterReader",
    "RasterWriter",
    "Reading",
    "StopRequest",
    "ThreadLock",
    "TooLargeError",
    "ValueRange",
    "add_legend",
    "as_picture",
    "check_channel_order",
    "check_names",
    "check_output",
    "check_suffix",
    "check_value_range",
    "clear_errors",
    "damage_described",
    "decode",
    "describe_error",
    "draw_colour_bar",
    "draw_legend",
    "encode",
    "fetch",
    "find_limits",
    "first_of_each_kind",
    "fit_text",
    "flush_folder",
    "forget",
    "format_share",
    "has_suffix",
    "hatch",
    "is_installed",
    "is_interrupted",
    "is_same_file",
    "is_unpacked",
    "knows_its_order",
    "list_files",
    "make_folders",
    "map_parallel",
    "map_safely",
    "needs_windows",
    "only_one",
    "open_bands",
    "open_hdf5",
    "open_picture",
    "open_target",
    "open_upright",
    "open_verified",
    "pack_arrays",
    "paint",
    "print_note",
    "print_table",
    "progress_bar",
    "quote_controls",
    "read_checksummed",
    "read_colour_mask",
    "read_colours",
    "read_ids",
    "read_image",
    "read_mask",
    "read_picture",
    "read_step",
    "read_stored",
    "refuse_address",
    "refuse_blocked",
    "refuse_same_file",
    "refuse_to_replace",
    "refuse_unwritable",
    "replacing",
    "say",
    "secure_streams",
    "sole_owner",
    "stream_atomically",
    "survive_fork",
    "sweep_leftovers",
    "sweep_leftovers_of",
    "to_sixteen_bits",
    "unpack",
    "walk_names",
    "was_empty",
    "write",
    "write_atomically",
    "write_checksummed",
    "write_command",
]
