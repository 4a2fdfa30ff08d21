"""A small stand-in of ROS 2's Python packages, after their documented interface: enough for a node with topics.

Messages check types and ranges as the generated ones do; topics keep the last messages by their quality of service.
Sources: the .msg files of sensor_msgs, vision_msgs and std_msgs, the documentation of rclpy and launch.
"""

from __future__ import annotations

import array
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import IntEnum
from itertools import pairwise
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar

import yaml

_INTEGERS = {"uint8": (0, 2**8), "uint16": (0, 2**16), "uint32": (0, 2**32), "int32": (-(2**31), 2**31)}


class Message:
    """A message whose fields are those of a .msg definition."""

    definition: ClassVar[str]

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...

    def __init__(self, **given: Any) -> None:
        assert given.keys() <= self.fields().keys(), f"Invalid arguments passed to constructor: {list(given)}"
        for name, kind in self.fields().items():
            setattr(self, name, given.get(name, _default(kind)))

    @classmethod
    def fields(cls) -> dict[str, str]:
        """The type of each field."""
        pairs = (line.split() for line in cls.definition.strip().splitlines())
        return {name: kind for kind, name in pairs}

    def __setattr__(self, name: str, value: Any) -> None:
        kind = self.fields().get(name)
        if kind is None:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        _check(kind, name, value)
        object.__setattr__(self, name, value)


class Time(Message):
    definition = "int32 sec\nuint32 nanosec"


class Header(Message):
    definition = "Time stamp\nstring frame_id"


class Image(Message):
    definition = """
        Header header
        uint32 height
        uint32 width
        string encoding
        uint8 is_bigendian
        uint32 step
        uint8[] data
    """


class VisionClass(Message):
    definition = "uint16 class_id\nstring class_name"


class LabelInfo(Message):
    definition = "Header header\nVisionClass[] class_map\nfloat32 threshold"


_NESTED: dict[str, type[Message]] = {"Time": Time, "Header": Header, "VisionClass": VisionClass}


def _default(kind: str) -> Any:
    if kind in _NESTED:
        return _NESTED[kind]()
    usual = {"string": "", "float32": 0.0, "uint8[]": array.array("B"), "VisionClass[]": []}
    return usual.get(kind, 0)


def _check(kind: str, name: str, value: Any) -> None:
    if kind in _INTEGERS:
        low, end = _INTEGERS[kind]
        assert isinstance(value, int), f"The '{name}' field must be of type 'int', not {type(value)}"
        assert low <= value < end, f"The '{name}' field must be an integer in [{low}, {end})"
    elif kind == "uint8[]":
        # Real messages take other sequences, too, and check each of their bytes in Python: seconds for an image.
        assert isinstance(value, array.array), f"The '{name}' field is set slowly, from {type(value)}"
        assert value.typecode == "B"
    elif kind.endswith("[]"):
        assert all(isinstance(each, _NESTED[kind[:-2]]) for each in value)
    else:
        wanted: Any = {"string": str, "float32": float}.get(kind) or _NESTED[kind]
        assert isinstance(value, wanted), f"The '{name}' field must be of type '{wanted}', not {type(value)}"


class HistoryPolicy(IntEnum):
    SYSTEM_DEFAULT, KEEP_LAST, KEEP_ALL = 0, 1, 2


class ReliabilityPolicy(IntEnum):
    SYSTEM_DEFAULT, RELIABLE, BEST_EFFORT = 0, 1, 2


class DurabilityPolicy(IntEnum):
    SYSTEM_DEFAULT, TRANSIENT_LOCAL, VOLATILE = 0, 1, 2


@dataclass(frozen=True, kw_only=True)
class QoSProfile:
    depth: int
    history: HistoryPolicy = HistoryPolicy.KEEP_LAST
    reliability: ReliabilityPolicy = ReliabilityPolicy.RELIABLE
    durability: DurabilityPolicy = DurabilityPolicy.VOLATILE


@dataclass(kw_only=True)
class Subscription:
    """Messages that wait for a subscriber; the oldest give way."""

    quality: QoSProfile
    callback: Callable[[Any], None] | None = None
    waiting: deque[Any] = field(init=False)

    def __post_init__(self) -> None:
        assert self.quality.history == HistoryPolicy.KEEP_LAST
        self.waiting = deque(maxlen=self.quality.depth)


@dataclass(kw_only=True)
class Topic:
    """A topic with its subscriptions, and the messages that late ones get."""

    subscriptions: list[Subscription] = field(default_factory=list)
    kept: deque[Any] = field(default_factory=deque)
    published: int = 0


class Publisher:
    def __init__(self, message_type: type[Message], topic: Topic, quality: QoSProfile) -> None:
        self._type, self._topic, self._quality = message_type, topic, quality

    def publish(self, message: Message) -> None:
        if not isinstance(message, self._type):
            raise TypeError(f"Expected {self._type}, got {type(message)}")
        if self._quality.durability == DurabilityPolicy.TRANSIENT_LOCAL:
            self._topic.kept = deque([*self._topic.kept, message], maxlen=self._quality.depth)
        self._topic.published += 1
        for each in self._topic.subscriptions:
            each.waiting.append(message)

    def get_subscription_count(self) -> int:
        return len(self._topic.subscriptions)


class World:
    """All topics, the parameters of the command line, and what nodes log."""

    def __init__(self) -> None:
        self.topics: dict[str, Topic] = {}
        self.overrides: dict[str, Any] = {}
        self.errors: list[str] = []
        self.is_running = False

    def topic(self, name: str, node: str = "") -> Topic:
        """Return a topic by its name, as a node resolves it."""
        full = f"/{node}/{name[2:]}" if name.startswith("~/") else name if name.startswith("/") else f"/{name}"
        return self.topics.setdefault(full, Topic())

    def listen(self, name: str, *, depth: int = 100, latched: bool = False) -> deque[Any]:
        """Subscribe to a topic as another node would; return what arrives there."""
        topic = self.topic(name)
        durability = DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE
        subscription = Subscription(quality=QoSProfile(depth=depth, durability=durability))
        topic.subscriptions.append(subscription)
        subscription.waiting.extend(topic.kept if latched else ())
        return subscription.waiting

    def send(self, name: str, *messages: Message) -> None:
        """Publish messages as a camera would."""
        publisher = Publisher(type(messages[0]), self.topic(name), QoSProfile(depth=len(messages)))
        for message in messages:
            publisher.publish(message)

    def work(self) -> int:
        """Call the callbacks for all messages that wait; return their number."""
        count = 0
        for topic in list(self.topics.values()):
            for each in topic.subscriptions:
                while each.callback and each.waiting:
                    each.callback(each.waiting.popleft())
                    count += 1
        return count


class _Clock:
    def now(self) -> _Clock:
        return self

    def to_msg(self) -> Time:
        return Time(sec=1_700_000_000, nanosec=5)


@dataclass(frozen=True)
class _Parameter:
    value: Any


def _node_class(world: World) -> type:
    class Node:
        def __init__(self, name: str) -> None:
            assert world.is_running, "rclpy.init() has not been called"
            self._name = name

        def declare_parameter(self, name: str, value: Any) -> _Parameter:
            given = world.overrides.get(name, value)
            assert type(given) is type(value), f"Trying to set parameter '{name}' to '{given}' of another type"
            return _Parameter(given)

        def create_publisher(self, message_type: type[Message], name: str, quality: QoSProfile | int) -> Publisher:
            profile = QoSProfile(depth=quality) if isinstance(quality, int) else quality
            return Publisher(message_type, world.topic(name, self._name), profile)

        def create_subscription(
            self, message_type: type[Message], name: str, callback: Callable[[Any], None], quality: QoSProfile
        ) -> Subscription:
            assert issubclass(message_type, Message)
            subscription = Subscription(quality=quality, callback=callback)
            world.topic(name, self._name).subscriptions.append(subscription)
            return subscription

        def get_clock(self) -> _Clock:
            return _Clock()

        def get_logger(self) -> Any:
            return self

        def error(self, text: str, *, throttle_duration_sec: float) -> None:
            assert throttle_duration_sec > 0
            world.errors.append(text)

    return Node


def _read_arguments(arguments: list[str]) -> dict[str, Any]:
    """Parameters after `--ros-args`: `-p NAME:=VALUE`, the value in YAML."""
    pairs = [word.split(":=", 1) for before, word in pairwise(arguments) if before == "-p"]
    return {name: yaml.safe_load(value) for name, value in pairs}


def _modules(world: World) -> Iterator[ModuleType]:
    def module(name: str, **content: Any) -> ModuleType:
        made = ModuleType(name)
        vars(made).update(content)
        return made

    def init(args: list[str] | None = None) -> None:
        world.is_running, world.overrides = True, _read_arguments(args or [])

    def spin(node: Any) -> None:
        world.work()
        raise KeyboardInterrupt

    def try_shutdown() -> None:
        world.is_running = False

    class ExternalShutdownException(Exception):  # noqa: N818 - as rclpy names it
        pass

    qualities = {each.__name__: each for each in (QoSProfile, HistoryPolicy, ReliabilityPolicy, DurabilityPolicy)}
    yield module("rclpy", init=init, spin=spin, try_shutdown=try_shutdown)
    yield module("rclpy.node", Node=_node_class(world))
    yield module("rclpy.qos", **qualities)
    yield module("rclpy.executors", ExternalShutdownException=ExternalShutdownException)
    yield module("sensor_msgs")
    yield module("sensor_msgs.msg", Image=Image)
    yield module("vision_msgs")
    yield module("vision_msgs.msg", LabelInfo=LabelInfo, VisionClass=VisionClass)


@contextmanager
def ros_world() -> Iterator[World]:
    """Give a world whose packages can be imported inside the context."""
    world, before = World(), dict(sys.modules)
    for module in _modules(world):
        sys.modules[module.__name__] = module
    try:
        yield world
    finally:
        for name in set(sys.modules) - set(before):
            if name.partition(".")[0] in ("rclpy", "sensor_msgs", "vision_msgs", "refinenet_ros"):
                del sys.modules[name]
