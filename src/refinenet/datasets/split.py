"""`refinenet data split`: splits a folder's images into train, val and test, keeping related ones together.

Frames of one video, or shots of one scene, are nearly identical: splitting them individually would leak
training data into the test set. So images are grouped by their names, and groups are never split.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from refinenet.datasets.file_pairs import by_stem, pair_names
from refinenet.datasets.folder.layouts import find_layout, find_lists, find_pair
from refinenet.datasets.folder.split_files import SHARED, SPLIT_FOLDERS, Layout, SplitFiles, list_split
from refinenet.datasets.folder.tool_exports import say_other_splits
from refinenet.io.console import print_note
from refinenet.io.files import write_atomically

_NUMBER = re.compile(r"[\W_]*\d+(?=\D*$)")


def split_folder(
    root: Path,
    *,
    val: float = 0.2,
    test: float = 0.0,
    seed: int = 0,
    group: str | None = None,
    replace: bool = False,
) -> Mapping[str, tuple[str, ...]]:
    """Write the lists train.txt and val.txt, and test.txt, into a folder with images/ and masks/ without splits.

    The same names, shares and seed give the same lists on every machine, in whatever order files are found. If all
    images form one group, they are cut into consecutive stretches by name, the last for val, and a note on standard
    error says so.

    Args:
        root: The folder.
        val: The share of images for validation, approximated as well as whole groups allow.
        test: The share of images for testing.
        seed: The seed of the split.
        group: A regular expression whose first group, searched in the stem (including folders), is common to related
            images. By default the stem without its last number and the separator before it: 0016E5 of 0016E5_07959.
        replace: Whether existing lists may be replaced.

    Returns:
        The stems of each split, in alphabetical order.

    Raises:
        ValueError: The shares are invalid, there are too few images or groups, the folder already has splits, images
            and masks do not match, or the regular expression is invalid or finds nothing.
        FileNotFoundError: There are no images and masks.
        FileExistsError: Lists exist that must not be replaced.
        OSError: The folder cannot be read or written.
    """
    _check_shares(val, test)
    names = ("train", "val", "test") if test else ("train", "val")
    _check_lists(root, names, replace)
    splits = split_stems(_list_stems(root), val=val, test=test, seed=seed, group=group, place=str(root))
    write_lists(root, splits)
    return splits


def split_stems(
    stems: Sequence[str],
    *,
    val: float,
    test: float = 0.0,
    seed: int = 0,
    group: str | None = None,
    training: Collection[str] = (),
    place: str,
) -> Mapping[str, tuple[str, ...]]:
    """Split stems as `split_folder` does; nothing is written.

    Args:
        stems: The stems, in alphabetical order.
        val: As for `split_folder`.
        test: The same.
        seed: The same.
        group: The same.
        training: Stems that may only be in train; their groups are in train, too.
        place: What messages call the images' folder.

    Raises:
        ValueError: As for `split_folder`; or no image is left for val or test.
    """
    _check_shares(val, test)
    shares = {"test": test, "val": val} if test else {"val": val}
    if len(stems) < len(shares) + 1:
        raise ValueError(f"{place} has {len(stems)} images, too few for {', '.join(('train', *sorted(shares)[::-1]))}.")
    groups = group_stems(stems, group)
    if len(groups) == 1:
        print_note(
            f"Judging by their names, all {len(stems)} images of {place} belong to one group and may be frames of one "
            "video. They are split into consecutive parts in the order of their names; the last part is val. To form "
            "smaller groups, pass a regular expression with --group."
        )
        splits = _cut(stems, shares, training)
    else:
        splits = _deal(groups, shares, seed, training)
    if empty := [name for name, members in splits.items() if not members]:
        raise ValueError(
            f"{place} has no images left for {' and '.join(empty)}: too many may be used only for training."
        )
    return {name: splits[name] for name in ("train", "val", "test") if name in splits}


def write_lists(root: Path, splits: Mapping[str, Sequence[str]]) -> None:
    """Write the list of each split into a folder, train.txt last, so that an interruption never leaves half a split.

    Raises:
        OSError: A list cannot be written.
    """
    for name in sorted(splits, reverse=True, key=lambda split: (split != "train", split)):
        write_atomically(root / f"{name}.txt", "".join(f"{stem}\n" for stem in splits[name]).encode())


def _check_shares(val: float, test: float) -> None:
    if not (0 < val < 1 and 0 <= test < 1 and val + test < 1):
        raise ValueError(f"The shares must be above 0 and sum to less than 1, not val={val} and test={test}.")


def _check_lists(root: Path, names: Sequence[str], replace: bool) -> None:
    found = [f"{name}.txt" for name in SPLIT_FOLDERS if (root / f"{name}.txt").exists()]
    if found and not replace:
        raise FileExistsError(
            f"{root} already has the lists {', '.join(found)}: pass replace (--replace) to overwrite them."
        )
    others = [name for name in found if name.removesuffix(".txt") not in names]
    if others:
        raise ValueError(f"{root} has {', '.join(others)}, which would not match the new lists: move it away first.")


def _list_stems(root: Path) -> list[str]:
    """Return the stems of a folder's pairs, or of its images if it has no masks, in alphabetical order."""
    layout = (find_lists(root) if root.is_dir() else None) or find_layout(root)
    if layout.is_unlabelled and (layout.is_dealt or any((root / f"{name}.txt").is_file() for name in layout.splits)):
        folder = next(iter(layout.splits.values())).images
        files = list_split(folder, folder)
        _warn_unread(files)
        return sorted(by_stem(files.image_names, "", folder))
    pair = find_pair(layout.root)
    # Subfolders of images/ may be videos rather than splits, and existing lists are about to be replaced.
    is_split = not layout.is_dealt and not {"train", "val", "test"}.isdisjoint(layout.splits)
    if pair is None or layout.annotations or (is_split and find_lists(root) is None):
        raise ValueError(f"{root} cannot be split: {_say_why(layout)}")
    files = list_split(*pair)
    _warn_unread(files)
    return list(
        pair_names(
            files.image_names,
            files.mask_names,
            ending=files.mask_ending,
            image_ending=files.image_ending,
            folders=pair,
        )
    )


def _say_why(layout: Layout) -> str:
    """Say why lists cannot split a folder, and how it can be split otherwise."""
    wanted = "it must contain images/ and masks/ (or depth/, normals/ or values/)"
    if not layout.is_dealt:
        return (
            f"{wanted} without splits, but its layout is {layout.description}, with {', '.join(sorted(layout.splits))}."
        )
    kind = layout.description.removesuffix(SHARED).rstrip(", ")
    return f"{wanted}, but its layout is {kind}, for which lists are not read. {say_other_splits(layout)}"


def _warn_unread(files: SplitFiles) -> None:
    print_note(files.describe_unread(), enabled=bool(files.unread))


def group_stems(stems: Sequence[str], expression: str | None = None) -> dict[str, list[str]]:
    """Group the stems of related images, by a key for each group.

    Args:
        stems: Stems of images, with folders.
        expression: As `group` for `split_folder`.

    Raises:
        ValueError: The regular expression is invalid, or finds nothing in a stem.
    """
    try:
        pattern = None if expression is None else re.compile(expression)
    except re.error as error:
        raise ValueError(f"group={expression!r} is not a valid regular expression: {error}.") from error
    if pattern is not None and pattern.groups < 1:
        raise ValueError(f"group={expression!r} has no group in brackets, such as in '(.*)_[0-9]+'.")
    groups: dict[str, list[str]] = {}
    for stem in stems:
        groups.setdefault(_find_key(stem, pattern), []).append(stem)
    return groups


def _find_key(stem: str, pattern: re.Pattern[str] | None) -> str:
    if pattern is None:
        return _NUMBER.sub("", stem)
    found = pattern.search(stem)
    if found is None or found[1] is None:
        raise ValueError(f"group={pattern.pattern!r} does not match {stem!r}: every image must belong to a group.")
    return found[1]


def _deal(
    groups: Mapping[str, list[str]], shares: Mapping[str, float], seed: int, training: Collection[str]
) -> dict[str, tuple[str, ...]]:
    if len(groups) <= len(shares):
        raise ValueError(
            f"The names of the images form {len(groups)} groups ({', '.join(map(repr, sorted(groups)))}), too few for "
            f"train, {' and '.join(shares)}. Pass a regular expression as --group to form smaller ones."
        )
    total, bound = sum(map(len, groups.values())), set(training)
    # A cryptographic hash gives the same order on every machine and Python version, unlike a random generator.
    order = sorted(groups, key=lambda key: hashlib.sha256(f"{seed}:{key}".encode()).digest())
    free = [key for key in order if bound.isdisjoint(groups[key])]
    needed_by_train = 1 if len(free) == len(groups) else 0
    splits: dict[str, tuple[str, ...]] = {}
    for number, (name, share) in enumerate(shares.items(), start=1):
        reserved = len(shares) - number + needed_by_train  # groups needed by the following splits and by train
        most = max(0, len(free) - reserved)
        chosen = _choose([len(groups[key]) for key in free], max(1, round(share * total)), most) if most else set()
        splits[name] = tuple(sorted(stem for index in chosen for stem in groups[free[index]]))
        free = [key for index, key in enumerate(free) if index not in chosen]
    return splits | {"train": _rest(groups, splits)}


def _rest(groups: Mapping[str, Sequence[str]], splits: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Return the stems that are in no split yet, in alphabetical order."""
    taken = {stem for members in splits.values() for stem in members}
    return tuple(sorted(stem for members in groups.values() for stem in members if stem not in taken))


def _choose(sizes: Sequence[int], target: int, most: int) -> set[int]:
    """Choose 1 to `most` groups whose sizes add up as closely as possible to `target`, preferring early groups."""
    # Subset sum: bit s of `reached` says that some groups add up to s. Shifting by a size adds that group to all sums;
    # the group that first reached a sum leads back to its parts.
    reached = 1
    first: dict[int, int] = {}
    within = (1 << 2 * max(target, max(sizes)) + 1) - 1
    for index, size in enumerate(sizes):
        new = (reached << size & within) & ~reached
        reached |= new
        while new:
            lowest = new & -new
            first[lowest.bit_length() - 1] = index
            new ^= lowest
    for reached_sum in sorted(first, key=lambda value: (abs(value - target), value)):
        chosen: set[int] = set()
        rest = reached_sum
        while rest:
            chosen.add(first[rest])
            rest -= sizes[first[rest]]
        if len(chosen) <= most:
            return chosen
    raise AssertionError("a single group is always allowed")


def _cut(stems: Sequence[str], shares: Mapping[str, float], training: Collection[str]) -> dict[str, tuple[str, ...]]:
    """Cut into consecutive stretches in natural order (frame 10 after frame 9): train, then test, then val."""
    bound = set(training)
    free = [stem for stem in sorted(stems, key=_natural) if stem not in bound]
    needed_by_train = 1 if len(free) == len(stems) else 0
    splits: dict[str, tuple[str, ...]] = {}
    end = len(free)
    for number, name in enumerate(sorted(shares, reverse=True), start=1):
        others = len(shares) - number + needed_by_train  # the following splits and train need an image each
        start = min(end, max(end - max(1, round(shares[name] * len(stems))), others))
        splits[name] = tuple(sorted(free[start:end]))
        end = start
    return splits | {"train": _rest({"": stems}, splits)}


def _natural(stem: str) -> list[str]:
    return [part.zfill(20) for part in re.split(r"(\d+)", stem)]
